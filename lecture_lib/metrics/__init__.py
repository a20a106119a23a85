"""How far apart two clouds of samples are, seen from several sides. Everything takes features (n, d), never a model."""

from lecture_lib.metrics.bits import bits_per_dim
from lecture_lib.metrics.crossings import crossings
from lecture_lib.metrics.frechet import frechet_distance, frechet_gaussians, frechet_infinity
from lecture_lib.metrics.front import Price, pareto, read_prices
from lecture_lib.metrics.inception import inception_score
from lecture_lib.metrics.judge import Judge
from lecture_lib.metrics.mmd import (
    EnergyKernel,
    GaussianKernel,
    Kernel,
    PolynomialKernel,
    TwoSampleTest,
    median_bandwidth,
    mmd2,
    two_sample_test,
)
from lecture_lib.metrics.modes import ModeCount, count_modes
from lecture_lib.metrics.precision_recall import FidelityDiversity, fidelity_diversity
from lecture_lib.metrics.probing import effective_rank, feature_std, linear_probe
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
    "TwoSampleTest",
    "bits_per_dim",
    "count_modes",
    "crossings",
    "effective_rank",
    "feature_std",
    "fidelity_diversity",
    "frechet_distance",
    "frechet_gaussians",
    "frechet_infinity",
    "inception_score",
    "linear_probe",
    "median_bandwidth",
    "mmd2",
    "pareto",
    "read_prices",
    "sliced_wasserstein",
    "straightness",
    "two_sample_test",
    "wasserstein_1d",
]
