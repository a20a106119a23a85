"""All families, in the order of the lecture."""

from __future__ import annotations

from lecture_lib.families.base import GenerativeModel
from lecture_lib.families.bridges import SchrodingerBridge
from lecture_lib.families.denoising import FlowMatching, OTFlowMatching
from lecture_lib.families.interpolants import OneSidedInterpolant, StochasticInterpolant
from lecture_lib.families.iterated_bridges import BridgeMatching, DiffusionSchrodingerBridge
from lecture_lib.families.rectified import Reflow

CATALOGUE: tuple[type[GenerativeModel], ...] = (
    # flows
    FlowMatching,
    OTFlowMatching,
    Reflow,
    OneSidedInterpolant,
    StochasticInterpolant,
    SchrodingerBridge,
    DiffusionSchrodingerBridge,
    BridgeMatching,
)
