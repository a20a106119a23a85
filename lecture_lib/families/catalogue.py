"""All families, in the order of the lecture."""

from __future__ import annotations

from lecture_lib.families.base import GenerativeModel
from lecture_lib.families.denoising import FlowMatching, OTFlowMatching
from lecture_lib.families.diffusion import DDPM, VESDE, VPSDE, SubVPSDE
from lecture_lib.families.energy import EnergyBased
from lecture_lib.families.energy_matching import EnergyMatching

CATALOGUE: tuple[type[GenerativeModel], ...] = (
    # diffusion
    DDPM,
    VPSDE,
    VESDE,
    SubVPSDE,
    # energies
    EnergyBased,
    EnergyMatching,
    # flows
    FlowMatching,
    OTFlowMatching,
)
