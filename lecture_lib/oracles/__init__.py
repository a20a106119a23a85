"""Oracles: Gaussian worlds in which every learned quantity has an exact counterpart."""

from lecture_lib.oracles.best_critic import BestCritic
from lecture_lib.oracles.bridge import GaussianBridge
from lecture_lib.oracles.dirac import (
    NON_SATURATING,
    WASSERSTEIN,
    DiracGame,
    dirac_gradient_penalty,
    dirac_r1,
    dirac_r1_r2,
)
from lecture_lib.oracles.divergences import (
    F_DIVERGENCES,
    HELLINGER,
    JENSEN_SHANNON,
    KL,
    NEYMAN,
    PEARSON,
    REVERSE_KL,
    TOTAL_VARIATION,
    FDivergence,
    divergence,
    wasserstein,
)
from lecture_lib.oracles.flow import flow_map
from lecture_lib.oracles.guided import Gaussian, Tilted, guided_moments, guided_ode_variance, tilted_gaussian
from lecture_lib.oracles.limits import (
    RateDistortion,
    binary_entropy,
    gaussian_information,
    one_evaluation,
    steps_demanded,
    water_filling,
)
from lecture_lib.oracles.mixture import GaussianMixture
from lecture_lib.oracles.worlds import ring_of_modes

__all__ = [
    "F_DIVERGENCES",
    "HELLINGER",
    "JENSEN_SHANNON",
    "KL",
    "NEYMAN",
    "NON_SATURATING",
    "PEARSON",
    "REVERSE_KL",
    "TOTAL_VARIATION",
    "WASSERSTEIN",
    "BestCritic",
    "DiracGame",
    "FDivergence",
    "Gaussian",
    "GaussianBridge",
    "GaussianMixture",
    "RateDistortion",
    "Tilted",
    "binary_entropy",
    "dirac_gradient_penalty",
    "dirac_r1",
    "dirac_r1_r2",
    "divergence",
    "flow_map",
    "gaussian_information",
    "guided_moments",
    "guided_ode_variance",
    "one_evaluation",
    "ring_of_modes",
    "steps_demanded",
    "tilted_gaussian",
    "wasserstein",
    "water_filling",
]
