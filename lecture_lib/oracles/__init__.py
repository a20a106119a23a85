"""Oracles: Gaussian worlds in which every learned quantity has an exact counterpart."""

from lecture_lib.oracles.bridge import GaussianBridge
from lecture_lib.oracles.flow import flow_map
from lecture_lib.oracles.guided import Gaussian, Tilted, guided_moments, guided_ode_variance, tilted_gaussian
from lecture_lib.oracles.mixture import GaussianMixture
from lecture_lib.oracles.worlds import ring_of_modes

__all__ = [
    "Gaussian",
    "GaussianBridge",
    "GaussianMixture",
    "Tilted",
    "flow_map",
    "guided_moments",
    "guided_ode_variance",
    "ring_of_modes",
    "tilted_gaussian",
]
