"""Interpolants on the line by name, what is exact about them, and particles of every process with their marginals.

Densities, velocities and scores are tables over times (rows) and places (columns): on the line they fit into memory,
and a step of an SDE is a look into a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import (
    BrownianNoise,
    Interpolant,
    SubVP,
    VPLinear,
    encoding_decoding,
    linear_interpolant,
    no_noise,
    one_sided,
    parabolic_noise,
    sine_noise,
    trigonometric_interpolant,
)
from lecture_lib.core.schedules import TimeFunction
from lecture_lib.errors import RangeError
from lecture_lib.oracles import GaussianBridge, GaussianMixture

EDGE = 0.002  # this near an end is taken for the end: the slope of sqrt(t (1 - t)) is infinite there
ROWS, SUBSTEPS = 201, 2  # times of the tables, and steps of a process from one to the next
PARTICLES = 1500
PLACES = np.linspace(-4.5, 4.5, 145)

DATA_LAW = GaussianMixture([0.35, 0.65], [[-1.3], [1.1]], [0.06, 0.06])
OTHER_ENDS = {
    "noise N(0, 1)": GaussianMixture([1.0], [[0.0]], [1.0]),
    "two other modes": GaussianMixture([0.5, 0.5], [[-0.4], [1.9]], [0.09, 0.09]),
}
PROCESSES: dict[str, float | None] = {
    "between given ends": None,
    "ODE (epsilon = 0)": 0.0,
    "SDE, epsilon = 0.5": 0.5,
    "SDE, epsilon = 2": 2.0,
}


# What there is to choose ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scaled:
    """``scale`` times a function of time."""

    function: TimeFunction
    scale: float

    def __call__(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        return self.scale * self.function(t)


def _fast_slow(t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """The straight line at another pace: slow at both ends."""
    return t * t * (3 - 2 * t)


def _slow_fast(t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    return _fast_slow(1 - t)


WAYS: dict[str, Interpolant] = {
    "straight": linear_interpolant(no_noise),
    "straight, slow at its ends": Interpolant(_slow_fast, _fast_slow, no_noise),
    "trigonometric": trigonometric_interpolant(no_noise),
    "VP linear (DDPM)": one_sided(VPLinear()),
    "sub-VP": one_sided(SubVP()),
    "encoding-decoding": encoding_decoding(),
}
NOISES = {
    "none": lambda a: no_noise,
    "a t (1 - t)": lambda a: Scaled(parabolic_noise, a),
    "a sqrt(t (1 - t))": lambda a: BrownianNoise(a**2),
    "a sin^2(pi t)": lambda a: Scaled(sine_noise, a),
}
NAMES = {  # the rows of the lecture's table that can be told apart here
    ("straight", "none", "noise N(0, 1)"): "flow matching and rectified flow",
    ("trigonometric", "none", "noise N(0, 1)"): "the trigonometric (cosine) path",
    ("VP linear (DDPM)", "none", "noise N(0, 1)"): "DDPM and the VP SDE",
    ("sub-VP", "none", "noise N(0, 1)"): "the sub-VP SDE",
    ("straight", "a sqrt(t (1 - t))", "two other modes"): "a bridge with independent ends (no Schroedinger bridge)",
    ("encoding-decoding", "a sin^2(pi t)", "two other modes"): "encoding, then decoding",
}


def path_of(way: str, noise: str, a: float) -> Interpolant:
    """The interpolant with this gamma.

    Raises:
        RangeError: nothing would be left of x_t half way.
    """
    if way == "encoding-decoding" and noise == "none":
        raise RangeError("gamma: got none; encoding-decoding loses both ends at t = 1/2, so expected some noise there")
    found = WAYS[way]
    return Interpolant(found.alpha, found.beta, NOISES[noise](a))


# What is exact -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tables:
    """Of one interpolant between two laws, over times (rows) and places (columns).

    Attributes:
        times: (n,). density, velocity: (n, m). score: (n, m), or None where no noise is left to read it from.
    """

    path: Interpolant
    times: np.ndarray
    density: np.ndarray
    velocity: np.ndarray
    score: np.ndarray | None

    def cdf(self, row: int) -> np.ndarray:
        """``P(x_t <= x)`` at the places of the columns."""
        p = self.density[row]
        mass = np.concatenate([[0.0], np.cumsum((p[1:] + p[:-1]) / 2)])
        return mass / mass[-1]


@lru_cache(maxsize=48)
def tables(way: str, noise: str, a: float, end: str) -> Tables:
    """Everything of ``oracles.GaussianBridge`` on the lattice."""
    path, bridge = path_of(way, noise, a), GaussianBridge(DATA_LAW, OTHER_ENDS[end])
    times = torch.linspace(EDGE, 1 - EDGE, ROWS, dtype=torch.float64)
    t, x = times.repeat_interleave(len(PLACES)), torch.from_numpy(PLACES).repeat(ROWS)[:, None]
    said, score = bridge.denoise(path)(x, t), None
    if noise != "none":
        score = said.score
    elif end == "noise N(0, 1)":  # x1 is white noise itself, and in x_t with weight beta
        score = -said.x1 / path.beta(t)[:, None]
    grids = (bridge.log_prob(x, path, t).exp(), said.velocity, score)
    return Tables(path, times.numpy(), *(g if g is None else g.reshape(ROWS, -1).numpy() for g in grids))


# The processes -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=48)
def particles(way: str, noise: str, a: float, end: str, process: str, seed: int) -> Float[np.ndarray, " rows n"]:
    """``PARTICLES`` of a process at all times of the tables.

    Raises:
        RangeError: an SDE, and no noise from which the score could be read.
    """
    found, generator = tables(way, noise, a, end), torch.Generator().manual_seed(seed)
    x1, x0 = (law.sample(PARTICLES, generator=generator) for law in (OTHER_ENDS[end], DATA_LAW))
    if PROCESSES[process] is None:
        z = torch.randn(PARTICLES, 1, generator=generator, dtype=torch.float64)
        times = torch.from_numpy(found.times)
        rows = [found.path.interpolate(x0, x1, z, t.expand(PARTICLES)) for t in times]
        return torch.stack(rows)[..., 0].numpy()
    return _sampled(found, x1[:, 0].numpy(), PROCESSES[process], np.random.default_rng(seed))


def _sampled(found: Tables, x: np.ndarray, epsilon: float, random: np.random.Generator) -> np.ndarray:
    """``dx = (b - epsilon s) dt + sqrt(2 epsilon) dW`` with t falling from 1 to 0, by Euler and Maruyama."""
    if epsilon > 0 and found.score is None:
        raise RangeError(
            "process: got an SDE with gamma = 0 between two data sets; its score would have to be read from noise in "
            "x_t, so expected some gamma, or noise at the other end"
        )
    drift = found.velocity if epsilon == 0 else found.velocity - epsilon * found.score
    h, rows = (found.times[1] - found.times[0]) / SUBSTEPS, [x]
    for row in range(ROWS - 1, 0, -1):
        for part in range(SUBSTEPS):
            share = part / SUBSTEPS
            x = x - h * np.interp(x, PLACES, (1 - share) * drift[row] + share * drift[row - 1])
            if epsilon > 0:
                x = x + (2 * epsilon * h) ** 0.5 * random.standard_normal(len(x))
        rows.append(x)
    return np.stack(rows[::-1])


def apart(found: Tables, row: int, x: np.ndarray) -> float:
    """Kolmogorov and Smirnov's distance between particles and p_t: the largest gap of their distribution functions."""
    exact, n = np.interp(np.sort(x), PLACES, found.cdf(row)), len(x)
    steps = np.arange(n + 1) / n
    return float(max((steps[1:] - exact).max(), (exact - steps[:-1]).max()))
