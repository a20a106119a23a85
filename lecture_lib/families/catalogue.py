"""All families, in the order of the lecture."""

from __future__ import annotations

from lecture_lib.families.base import GenerativeModel
from lecture_lib.families.denoising import FlowMatching, OTFlowMatching
from lecture_lib.families.jepa import JEPA, VJEPA

CATALOGUE: tuple[type[GenerativeModel], ...] = (
    # flows
    FlowMatching,
    OTFlowMatching,
    # representations: no generative models
    JEPA,
    VJEPA,
)
