"""All families, in the order of the lecture."""

from __future__ import annotations

from lecture_lib.families.autoregressive import AutoregressiveTransformer
from lecture_lib.families.base import GenerativeModel
from lecture_lib.families.cnf import CNF
from lecture_lib.families.denoising import FlowMatching, OTFlowMatching
from lecture_lib.families.pixelcnn import PixelCNN
from lecture_lib.families.realnvp import RealNVP

CATALOGUE: tuple[type[GenerativeModel], ...] = (
    # exact likelihood
    RealNVP,
    CNF,
    PixelCNN,
    AutoregressiveTransformer,
    # flows
    FlowMatching,
    OTFlowMatching,
)
