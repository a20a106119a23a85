"""All families, in the order of the lecture."""

from __future__ import annotations

from lecture_lib.families.autoregressive import AutoregressiveTransformer
from lecture_lib.families.base import GenerativeModel
from lecture_lib.families.denoising import FlowMatching, OTFlowMatching
from lecture_lib.families.jepa import JEPA, VJEPA
from lecture_lib.families.mar import MAR
from lecture_lib.families.pixelcnn import PixelCNN
from lecture_lib.families.realnvp import RealNVP
from lecture_lib.families.transfusion import Transfusion
from lecture_lib.families.var import VAR

CATALOGUE: tuple[type[GenerativeModel], ...] = (
    # exact likelihood
    RealNVP,
    PixelCNN,
    AutoregressiveTransformer,
    # flows
    FlowMatching,
    OTFlowMatching,
    # autoregression over scales, and over masked patches
    VAR,
    MAR,
    # words and pictures
    Transfusion,
    # representations: no generative models
    JEPA,
    VJEPA,
)
