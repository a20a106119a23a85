"""All families, in the order of the lecture."""

from __future__ import annotations

from lecture_lib.families.base import GenerativeModel
from lecture_lib.families.denoising import FlowMatching, OTFlowMatching

CATALOGUE: tuple[type[GenerativeModel], ...] = (
    # flows
    FlowMatching,
    OTFlowMatching,
)
