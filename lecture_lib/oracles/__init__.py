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
from lecture_lib.oracles.fokker_planck import fokker_planck
from lecture_lib.oracles.gradient_flows import jko_path, jko_step, ornstein_uhlenbeck
from lecture_lib.oracles.guided import Gaussian, Tilted, guided_moments, guided_ode_variance, tilted_gaussian
from lecture_lib.oracles.hexagon import CORNERS, Corner, Edge, hexagon
from lecture_lib.oracles.limits import (
    RateDistortion,
    binary_entropy,
    gaussian_information,
    one_evaluation,
    steps_demanded,
    water_filling,
)
from lecture_lib.oracles.mixture import GaussianMixture
from lecture_lib.oracles.quantiles import distribution, quantile
from lecture_lib.oracles.schrodinger import GaussianSchrodinger
from lecture_lib.oracles.unbalanced import unbalanced_plan
from lecture_lib.oracles.worlds import moons_mixture, ring_of_modes

__all__ = [
    "CORNERS",
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
    "Corner",
    "DiracGame",
    "Edge",
    "FDivergence",
    "Gaussian",
    "GaussianBridge",
    "GaussianMixture",
    "GaussianSchrodinger",
    "RateDistortion",
    "Tilted",
    "binary_entropy",
    "dirac_gradient_penalty",
    "dirac_r1",
    "dirac_r1_r2",
    "distribution",
    "divergence",
    "flow_map",
    "fokker_planck",
    "gaussian_information",
    "guided_moments",
    "guided_ode_variance",
    "hexagon",
    "jko_path",
    "jko_step",
    "moons_mixture",
    "one_evaluation",
    "ornstein_uhlenbeck",
    "quantile",
    "ring_of_modes",
    "steps_demanded",
    "tilted_gaussian",
    "unbalanced_plan",
    "wasserstein",
    "water_filling",
]
