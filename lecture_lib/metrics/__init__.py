"""How far apart two clouds of samples are, seen from several sides. Everything takes features (n, d), never a model."""

from lecture_lib.metrics.frechet import frechet_distance, frechet_gaussians
from lecture_lib.metrics.front import Price, pareto, read_prices
from lecture_lib.metrics.judge import Judge
from lecture_lib.metrics.mmd import EnergyKernel, GaussianKernel, Kernel, PolynomialKernel, median_bandwidth, mmd2
from lecture_lib.metrics.modes import ModeCount, count_modes
from lecture_lib.metrics.precision_recall import FidelityDiversity, fidelity_diversity
from lecture_lib.metrics.sliced import sliced_wasserstein, wasserstein_1d
from lecture_lib.metrics.straightness import straightness

__all__ = [
    "EnergyKernel",
    "FidelityDiversity",
    "GaussianKernel",
    "Judge",
    "Kernel",
    "ModeCount",
    "PolynomialKernel",
    "Price",
    "count_modes",
    "fidelity_diversity",
    "frechet_distance",
    "frechet_gaussians",
    "median_bandwidth",
    "mmd2",
    "pareto",
    "read_prices",
    "sliced_wasserstein",
    "straightness",
    "wasserstein_1d",
]
