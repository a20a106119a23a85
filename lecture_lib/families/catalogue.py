"""All families, in the order of the lecture."""

from __future__ import annotations

from lecture_lib.families.base import GenerativeModel
from lecture_lib.families.denoising import FlowMatching, OTFlowMatching
from lecture_lib.families.diffflow import DiffFlow
from lecture_lib.families.jko import JKOFlow
from lecture_lib.families.particles import MMDFlow
from lecture_lib.families.unbalanced import UnbalancedTransport

CATALOGUE: tuple[type[GenerativeModel], ...] = (
    # flows
    FlowMatching,
    OTFlowMatching,
    # unifying views
    DiffFlow,
    JKOFlow,
    MMDFlow,
    UnbalancedTransport,
)
