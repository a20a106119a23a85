"""What the widgets of sampling offer by name: worlds, paths, time grids, and every sampler of the library.

Names live here, at the edge; inside the library these things are objects. Notebooks may use the same tables:
``for name in SAMPLERS: sampler = build(name, law, steps)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import (
    EDM,
    Denoise,
    Path,
    RectifiedFlow,
    VPCosine,
    VPLinear,
    karras_grid,
    logsnr_grid,
    quadratic_grid,
    uniform_grid,
)
from lecture_lib.errors import UnknownNameError
from lecture_lib.oracles import GaussianMixture, ring_of_modes
from lecture_lib.samplers import (
    B1,
    DDIM,
    DDPM,
    FPNDM,
    LMS,
    NOISE,
    PLMS,
    RK45,
    ConsistencyMultistep,
    DPMSolver1,
    DPMSolver2,
    DPMSolver3,
    DPMSolverFast,
    DPMSolverPP2M,
    DPMSolverPP2S,
    DPMSolverPP3M,
    DPMSolverPP3S,
    DPMSolverV3,
    EDMChurn,
    Euler,
    EulerAncestral,
    EulerMaruyama,
    ExponentialAdams,
    Heun,
    PredictorCorrector,
    Sampler,
    SDEDPMSolverPP1,
    SDEDPMSolverPP2M,
    SDEDPMSolverPP3M,
    Statistics,
    UniPC,
    bump_diffusion,
    consistency,
    forward_variance,
    last,
    measure_statistics,
    sample,
    sigma_diffusion,
)
from lecture_lib.widgets.plane import three_classes

# Where trajectories start, as noise level sigma/alpha: EDM's own end, and a hair below that of the other paths. Every
# path still has some signal there, so no sampler is singular, and equal noise has the same exact trajectory on each.
START = 80.0
FLOOR = 0.01  # the last noise level above zero of the Karras grid, and the end of the log-SNR grid
_STRIDE = 0.4  # steps in half log-SNR of the flow map that plays the consistency model


ring = cache(ring_of_modes)
WORLDS: dict[str, Callable[[], GaussianMixture]] = {"ring of eight": ring, "three classes": three_classes}

PATHS: dict[str, Path] = {
    "VP linear": VPLinear(),
    "VP cosine": VPCosine(),
    "rectified flow": RectifiedFlow(),
    "EDM (exploding)": EDM(START),
}


def time_at(path: Path, level: float) -> float:
    """The time at which ``sigma/alpha`` equals ``level``."""
    return float(path.time_of(torch.tensor([-math.log(level)], dtype=torch.float64)))


def _quadratic(path: Path, steps: int, level: float) -> Float[Tensor, " n+1"]:
    return quadratic_grid(path, steps, start=time_at(path, level))


def _logsnr(path: Path, steps: int, level: float) -> Float[Tensor, " n+1"]:
    return logsnr_grid(path, steps, start=time_at(path, level), end=time_at(path, FLOOR))


# (path, steps, noise level to start from) -> times; all but the last grid end on clean data.
GRIDS: dict[str, Callable[[Path, int, float], Float[Tensor, " n+1"]]] = {
    "uniform in t": lambda path, steps, level: uniform_grid(path, steps, start=time_at(path, level)),
    "quadratic in t": _quadratic,
    "Karras (rho = 7)": lambda path, steps, level: karras_grid(path, steps, sigma_max=level, sigma_min=FLOOR),
    "uniform in log-SNR": _logsnr,
}


def fast(law: GaussianMixture, steps: int) -> Sampler:
    """DPM-Solver-fast with the budget that fills ``steps`` steps, the last one of order 1."""
    return DPMSolverFast(3 * steps - 2)


@lru_cache
def statistics(law: GaussianMixture) -> Statistics:
    """What DPM-Solver-v3 wants to know of a world; the same on every path, so measured on the simplest."""
    generator, lam = torch.Generator().manual_seed(0), torch.linspace(-math.log(START), -math.log(FLOOR), 40)
    data, path = law.sample(256, generator=generator), RectifiedFlow()
    return measure_statistics(law.denoise(path), path, data, lam.double(), generator=generator)


def v3(law: GaussianMixture, steps: int) -> Sampler:
    """DPM-Solver-v3 with the statistics of this world."""
    return DPMSolverV3(statistics(law))


# A few samplers depend on the world or on the number of steps: those entries are functions of both.
SAMPLERS: dict[str, Sampler | Callable[[GaussianMixture, int], Sampler]] = {
    "Euler": Euler(),
    "Heun": Heun(),
    "LMS, order 4": LMS(),
    "RK45 (adaptive)": RK45(),
    "DDIM": DDIM(),
    "PLMS": PLMS(),
    "F-PNDM": FPNDM(),
    "DPM-Solver-1": DPMSolver1(),
    "DPM-Solver-2": DPMSolver2(),
    "DPM-Solver-3": DPMSolver3(),
    "DPM-Solver-fast": fast,
    "DPM-Solver++(2S)": DPMSolverPP2S(),
    "DPM-Solver++(3S)": DPMSolverPP3S(),
    "DPM-Solver++(2M)": DPMSolverPP2M(),
    "DPM-Solver++(3M)": DPMSolverPP3M(),
    "UniPC-1": UniPC(1),
    "UniPC-2": UniPC(2),
    "UniPC-3": UniPC(3),
    "UniPC-3 (eps, B1)": UniPC(3, B1, NOISE),
    "DPM-Solver-v3": v3,
    "exponential Adams-4 (x0)": ExponentialAdams(4),
    "exponential Adams-4 (eps)": ExponentialAdams(4, NOISE),
    "DDIM, eta = 0.5": DDIM(0.5),
    "DDPM, posterior variance": DDPM(),
    "DDPM, forward variance": DDPM(forward_variance),
    "Euler ancestral": EulerAncestral(),
    "reverse SDE (Euler-Maruyama)": EulerMaruyama(),
    "SiT SDE, w = sigma": EulerMaruyama(sigma_diffusion),
    "SiT SDE, w = sin^2": EulerMaruyama(bump_diffusion),
    "predictor-corrector": PredictorCorrector(DDPM()),
    "EDM churn": EDMChurn(0.2),
    "SDE-DPM-Solver++(1)": SDEDPMSolverPP1(),
    "SDE-DPM-Solver++(2M)": SDEDPMSolverPP2M(),
    "SDE-DPM-Solver++(3M)": SDEDPMSolverPP3M(),
    "consistency multistep": ConsistencyMultistep(),
}


def build(name: str, law: GaussianMixture, steps: int) -> Sampler:
    """The sampler of this name, ready for a world and a number of steps.

    Raises:
        UnknownNameError: no such sampler.
    """
    if name not in SAMPLERS:
        raise UnknownNameError(f"sampler: got {name!r}, expected one of {', '.join(SAMPLERS)}")
    entry = SAMPLERS[name]
    return entry if isinstance(entry, Sampler) else entry(law, steps)


def denoiser(sampler: Sampler, law: GaussianMixture, path: Path) -> Denoise:
    """What the sampler asks: the exact denoiser; a consistency sampler gets the flow map to clean data instead."""
    if isinstance(sampler, ConsistencyMultistep):
        return consistency(lambda x, t: flow_end(law, path, x, float(t[0])), path)
    return law.denoise(path)


def flow_end(law: GaussianMixture, path: Path, x: Float[Tensor, " b 2"], t: float) -> Float[Tensor, " b 2"]:
    """Where the probability-flow ODE takes ``x_t``, to about 0.005 data units, in a few milliseconds.

    ``oracles.flow_map`` gives eleven digits for a hundred times the price.
    """
    level = path.at(t).level
    if level <= 1.01 * FLOOR:  # the grids' last level is there to a rounding
        return law.denoise(path)(x, torch.full((len(x),), t, dtype=torch.float64)).x0
    grid = _logsnr(path, math.ceil(math.log(level / FLOOR) / _STRIDE), level)
    return last(sample(law.denoise(path), path, UniPC(3), torch.cat([grid, grid.new_zeros(1)]), x))
