"""Which two times a pair has, and how that changes while training goes on.

    method   t and u                                              over K updates
    CD       neighbours on Karras's grid of N points, uniform n   N fixed (18 for CIFAR-10, 40 for ImageNet-64)
    CT       the same                                             N(k) grows as a square root; mu(k) of the target too
    iCT      the same, n lognormal                                N(k) doubles: 11, 21, 41, ..., 1281
    ECT      t lognormal, u = max(0, t (1 - q^-a n(t)))           a = 1, 2, 3, ...: u/t -> 1 in stages

t stands for the noise level sigma/alpha, which is EDM's own clock; on other paths pairs are drawn by level too.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import LogNormalNoise, Path, karras_grid
from lecture_lib.errors import RangeError
from lecture_lib.tensors import check_count, check_number


class Pair(NamedTuple):
    """Two times per sample, ``(b,)`` float64 on the path's clock: ``u <= t``, t the noisier."""

    t: Tensor
    u: Tensor


class Pairs(Protocol):
    """A distribution of pairs of times."""

    def sample(self, n: int, *, generator: torch.Generator | None = None, device=None) -> Pair: ...


def rising_grid(path: Path, points: int, sigma_max: float = 80.0, sigma_min: float = 0.002) -> Float[Tensor, " points"]:
    """``t_1 < ... < t_N`` of the consistency papers: Karras's grid (rho = 7) from its other end, without 0.

    ``t_i = (eps^(1/7) + (i - 1)/(N - 1) (T^(1/7) - eps^(1/7)))^7`` with eps = sigma_min, T = sigma_max.

    Source: Song et al. 2023, section 2; Karras et al. 2022, eq. 5.
    """
    if isinstance(path, nn.Module):  # a path that learns has other times tomorrow
        return _grid(path, points, sigma_max, sigma_min)
    return _kept_grid(path, points, sigma_max, sigma_min).clone()


def _grid(path: Path, points: int, sigma_max: float, sigma_min: float) -> Float[Tensor, " points"]:
    if check_count("points", points) < 2:
        raise RangeError(f"points: got {points}, expected at least 2: a pair has two times")
    return karras_grid(path, points, sigma_max=sigma_max, sigma_min=sigma_min)[:-1].flip(0)


_kept_grid = functools.lru_cache(maxsize=64)(_grid)


@dataclass(frozen=True)
class NeighbourPairs:
    """``(t_{n+1}, t_n)`` on the grid of N points, n uniform on 1..N-1: CT and CD (Song et al. 2023, Alg. 2, 3).

    Attributes:
        path: whose clock the times are on.
        points: N, at least 2.
        sigma_max, sigma_min: noise levels of the two ends, T and eps.
    """

    path: Path
    points: int
    sigma_max: float = 80.0
    sigma_min: float = 0.002

    def __post_init__(self):
        rising_grid(self.path, self.points, self.sigma_max, self.sigma_min)

    @property
    def grid(self) -> Float[Tensor, " points"]:
        """The N times, rising."""
        return rising_grid(self.path, self.points, self.sigma_max, self.sigma_min)

    def odds(self) -> Float[Tensor, " points-1"]:
        """p(n), n = 1..N-1; sums to 1."""
        return torch.full((self.points - 1,), 1 / (self.points - 1), dtype=torch.float64)

    def sample(self, n: int, *, generator: torch.Generator | None = None, device=None) -> Pair:
        """``n`` pairs, independent."""
        source = torch.device("cpu") if generator is None else generator.device
        lower = torch.multinomial(self.odds().to(source), check_count("n", n), replacement=True, generator=generator)
        lower, grid = lower.to(device or source), self.grid.to(device or source)
        return Pair(grid[lower + 1], grid[lower])


@dataclass(frozen=True)
class EqualPairs:
    """``(k/n, (k - 1)/n) t_max``, k uniform on 1..n: neighbours on the uniform grid of n steps, both its ends included.

    For paths that end in pure noise and trajectories that end at 0, such as a rectified flow's.

    Attributes:
        path: whose clock is divided.
        steps: n, at least 1.
    """

    path: Path
    steps: int

    def __post_init__(self):
        check_count("steps", self.steps)

    def sample(self, n: int, *, generator: torch.Generator | None = None, device=None) -> Pair:
        """``n`` pairs, independent."""
        source = torch.device("cpu") if generator is None else generator.device
        k = torch.randint(self.steps, (check_count("n", n),), generator=generator, device=source).to(device or source)
        k = k.double()
        return Pair((k + 1) / self.steps * self.path.t_max, k / self.steps * self.path.t_max)


@dataclass(frozen=True)
class LogNormalPairs(NeighbourPairs):
    """The same neighbours, but ``log sigma`` roughly N(mean, std^2): what lies between t_n and t_{n+1} of its mass.

        p(n) ~ erf((log t_{n+1} - mean) / (sqrt(2) std)) - erf((log t_n - mean) / (sqrt(2) std))

    Source: Song & Dhariwal 2023 (iCT), section 3.5, eq. 10.
    """

    mean: float = -1.1
    std: float = 2.0

    def odds(self) -> Float[Tensor, " points-1"]:
        log_level = -self.path.lam(self.grid)
        mass = torch.erf((log_level - self.mean) / (math.sqrt(2) * self.std)).diff()
        return mass / mass.sum()


@dataclass(frozen=True)
class RatioPairs:
    """ECT's: t lognormal, and u a fraction of it that is nearer to t from stage to stage.

        u = max(0, t (1 - q^-a n(t))),     n(t) = 1 + k sigmoid(-b t)

    At small t, n(t) is about ``1 + k/2 = 5``: as long as that is more than q^a (stages 1 and 2 for q = 2), u = 0 there
    and the target is the data itself, as for a denoiser. Later u > 0 for every t, and u/t goes to 1.

    Attributes:
        path: whose clock the times are on; t and u are noise levels in the formula.
        stage: a, at least 0; 1, 2, 3, ... in the paper's code. A fraction is a stage in between.
        q, k, b: 2, 8, 1 for CIFAR-10.
        mean, std: of log t. A draw above the path's end or ``sigma_max`` counts as that.

    Source: Geng et al. 2024 (ECT, 2406.14548), section 3 and its code, training/loss.py.
    """

    path: Path
    stage: float
    q: float = 2.0
    k: float = 8.0
    b: float = 1.0
    mean: float = -1.1
    std: float = 2.0
    sigma_max: float = 80.0

    def __post_init__(self):
        check_number("stage", self.stage, 0)
        check_number("q", self.q, 1 + 1e-9)
        check_number("k", self.k, 0)

    def lower(self, level: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The noise level u of each t."""
        gap = self.q**-self.stage * (1 + self.k * torch.sigmoid(-self.b * level))
        return (level * (1 - gap)).clamp(min=0)

    def sample(self, n: int, *, generator: torch.Generator | None = None, device=None) -> Pair:
        """``n`` pairs, independent."""
        t = LogNormalNoise(self.path, self.mean, self.std).sample(n, generator=generator, device=device)
        t_level = torch.exp(-self.path.lam(t)).clamp(max=self.sigma_max)
        u_level = self.lower(t_level)
        u = torch.where(u_level > 0, self.path.time_of(-u_level.log()), 0.0)
        return Pair(self.path.time_of(-t_level.log()), u)


# What grows with the updates already made ----------------------------------------------------------------------------


def ct_points(done: int, total: int, *, first: int = 2, last: int = 150) -> int:
    """``N(k) = ceil(sqrt(k/K ((s_1 + 1)^2 - s_0^2) + s_0^2) - 1) + 1``: from s_0 = 2 to s_1 + 1 = 151.

    Source: Song et al. 2023, appendix C (s_1 = 150 for CIFAR-10, 200 for the larger sets).
    """
    k, first, last = _progress(done, total), check_count("first", first, 2), check_count("last", last, 2)
    return math.ceil(math.sqrt(k * ((last + 1) ** 2 - first**2) + first**2) - 1) + 1


def ct_decay(points: int, *, first: int = 2, mu: float = 0.9) -> float:
    """``mu(k) = exp(s_0 log mu_0 / N(k))``: of the moving average that is CT's target; 1 as the grid gets fine.

    It is *not* the 0.9999 of the second average, the one that is evaluated (Song et al. 2023, appendix C).
    """
    return math.exp(first * math.log(check_number("mu", mu, 1e-9, 1.0)) / check_count("points", points, 2))


def ict_points(done: int, total: int, *, first: int = 10, last: int = 1280) -> int:
    """``N(k) = min(s_0 2^floor(k/K'), s_1) + 1`` with ``K' = floor(K / (log2 floor(s_1/s_0) + 1))``: 11, 21, ..., 1281.

    Source: Song & Dhariwal 2023 (iCT), section 3.4, eq. 9.
    """
    _progress(done, total)
    doublings = math.log2(check_count("last", last, first) // check_count("first", first, 2))
    stage = done // max(1, math.floor(total / (doublings + 1)))
    return min(first * 2**stage, last) + 1


def ect_stage(done: int, total: int, *, stages: int = 8) -> int:
    """``a = 1, 2, ..., stages``, each for the same number of updates: q^-a halves (q = 2) from stage to stage."""
    return min(int(_progress(done, total) * check_count("stages", stages)) + 1, stages)


def _progress(done: int, total: int) -> float:
    """``k/K`` in [0, 1]."""
    done, total = check_count("done", done, 0), check_count("total", total)
    if done > total:
        raise RangeError(f"done: got {done} updates of total = {total}, expected done <= total")
    return done / total
