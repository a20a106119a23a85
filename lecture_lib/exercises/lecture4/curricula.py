"""4.5: which rungs, and how often, while training goes on."""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from lecture_lib.exercises.drawing import count, number
from lecture_lib.exercises.task import question


@question("4.5", 9, "the curriculum of iCT")
def ict_curriculum(k, total, first, last, low, high, mean, std):
    grid = _grid(_points(k, total, first, last), low, high)
    return grid, _odds(grid, mean, std)


def _points(k, total, first, last):
    return min(first * 2 ** (k // _stage(total, first, last)), last) + 1


def _stage(total, first, last):
    """Updates from one doubling to the next."""
    return total // (int(math.log2(last // first)) + 1)


def _grid(points, low, high, rho=7.0):
    return torch.linspace(low ** (1 / rho), high ** (1 / rho), points) ** rho


def _odds(grid, mean, std):
    return _normalised(torch.erf((grid.log() - mean) / (math.sqrt(2) * std)).diff())


def _normalised(p):
    return p / p.sum()


@ict_curriculum.inputs
def _(g):
    first, doublings = count(g, 3, 5), count(g, 3, 4)
    stages = 10 * count(g, 3, 9) + count(g, 1, 9)
    k = int(stages * number(g, 1.05, 1.2))
    size = {"k": k, "total": stages * (doublings + 1), "first": first, "last": first * 2**doublings}
    ends = {"low": number(g, 0.01, 0.03), "high": number(g, 4.0, 8.0)}
    return {**size, **ends, "mean": number(g, -0.9, -0.4), "std": number(g, 1.4, 2.2)}


def _expected(roots, mean, std):
    """The grid from its seventh roots, and the odds from the distribution function of a normal law."""
    below = [0.5 + 0.5 * math.erf((7 * math.log(r) - mean) / (std * 2**0.5)) for r in roots]
    return [
        torch.tensor([r**7 for r in roots]),
        torch.tensor([(b - a) / (below[-1] - below[0]) for a, b in pairwise(below)]),
    ]


_ENDS = {"low": 0.6**7, "high": 1.4**7, "mean": -0.5, "std": 1.6}
ict_curriculum.edge("the first update", _expected([0.6, 1.0, 1.4], -0.5, 1.6), k=0, total=30, first=2, last=8, **_ENDS)
ict_curriculum.edge(
    "the last update of a stage",
    _expected([0.6, 0.8, 1.0, 1.2, 1.4], -0.5, 1.6),
    k=59,
    total=92,
    first=2,
    last=8,
    **_ENDS,
)
ict_curriculum.edge(
    "the first update of a stage",
    _expected([0.6, 0.8, 1.0, 1.2, 1.4], -0.5, 1.6),
    k=30,
    total=92,
    first=2,
    last=8,
    **_ENDS,
)
ict_curriculum.edge(
    "after the last update the grid is as fine as it may be",
    _expected([0.6, 0.8, 1.0, 1.2, 1.4], -0.5, 1.6), k=31, total=31, first=2, last=4, **_ENDS,
)  # fmt: skip


def _with(points, low, high, mean, std):
    grid = _grid(points, low, high)
    return grid, _odds(grid, mean, std)


@ict_curriculum.mistake
def intervals(k, total, first, last, **law):
    """One point too few: the curriculum counts steps, and a ladder has one rung more than steps."""
    return _with(_points(k, total, first, last) - 1, **law)


@ict_curriculum.mistake
def no_limit(k, total, first, last, **law):
    """It goes on doubling at the end of training, past `last`."""
    return _with(first * 2 ** (k // _stage(total, first, last)) + 1, **law)


@ict_curriculum.mistake
def one_stage_less(k, total, first, last, **law):
    """As many stages as doublings: the stage before the first doubling is one, too."""
    return _with(min(first * 2 ** (k // (total // int(math.log2(last // first)))), last) + 1, **law)


@ict_curriculum.mistake
def no_stages(k, total, first, last, **law):
    """It grows at every update: it is to stay for a whole stage, and then to double."""
    return _with(min(int(first * 2 ** (k / _stage(total, first, last))), last) + 1, **law)


@ict_curriculum.mistake
def stages_not_whole(k, total, first, last, **law):
    """K' is not rounded down: each doubling comes a little late."""
    stage = total / (math.log2(last // first) + 1)
    return _with(min(first * 2 ** int(k / stage), last) + 1, **law)


@ict_curriculum.mistake
def one_early(k, total, first, last, **law):
    """Each doubling comes one update early: k updates *have been* made, so the first stage is k = 0, ..., K' - 1."""
    return ict_curriculum(k + 1, total, first, last, **law)


@ict_curriculum.mistake
def falling(k, total, first, last, **law):
    """The grid falls. That is how a sampler uses it; here t_1 is the end near the data."""
    grid, odds = ict_curriculum(k, total, first, last, **law)
    return grid.flip(0), odds.flip(0)


@ict_curriculum.mistake
def equal_steps(k, total, first, last, low, high, mean, std):
    """Equal steps in t: equal are the steps of the seventh root, so that rungs lie dense near the data."""
    grid = torch.linspace(low, high, _points(k, total, first, last))
    return grid, _odds(grid, mean, std)


@ict_curriculum.mistake
def never_arrives(k, total, first, last, low, high, mean, std):
    """An off-by-one: the last rung is not at `high`. From i = 1 to N there are N - 1 steps."""
    n = _points(k, total, first, last)
    grid = _grid(n + 1, low, high)[:-1]
    return grid, _odds(grid, mean, std)


@ict_curriculum.mistake
def exponents_exchanged(k, total, first, last, low, high, mean, std):
    """The exponents 7 and 1/7 are exchanged: first the root is taken, then the power."""
    grid = _grid(_points(k, total, first, last), low, high, 1 / 7)
    return grid, _odds(grid, mean, std)


@ict_curriculum.mistake
def not_normalised(k, total, first, last, low, high, mean, std):
    """The odds do not add up to 1."""
    grid = _grid(_points(k, total, first, last), low, high)
    return grid, torch.erf((grid.log() - mean) / (math.sqrt(2) * std)).diff()


@ict_curriculum.mistake
def variance_for_deviation(std, **k):
    """std is squared in the odds: the error function takes numbers in units of a standard deviation."""
    return ict_curriculum(std=std**2, **k)


@ict_curriculum.mistake
def root_of_two(std, **k):
    """The root of 2 is missing in the error function."""
    return ict_curriculum(std=std / math.sqrt(2), **k)


@ict_curriculum.mistake
def without_logarithm(k, total, first, last, low, high, mean, std):
    """The odds are those of a normal t: it is the *logarithm* of t that is normal."""
    grid = _grid(_points(k, total, first, last), low, high)
    return grid, _normalised(torch.erf((grid - mean) / (math.sqrt(2) * std)).diff())


@ict_curriculum.mistake
def density_at_rung(k, total, first, last, low, high, mean, std):
    """The odds are the density at a rung; between two rungs lies a *mass*, and the gaps are not equally wide."""
    grid = _grid(_points(k, total, first, last), low, high)
    return grid, _normalised(torch.exp(-0.5 * ((grid[:-1].log() - mean) / std) ** 2))


@ict_curriculum.mistake
def all_alike(k, total, first, last, low, high, mean, std):
    """All rungs are equally likely: that is CT, before iCT."""
    grid = _grid(_points(k, total, first, last), low, high)
    return grid, torch.full((len(grid) - 1,), 1 / (len(grid) - 1))


@ict_curriculum.mistake
def geometric(k, total, first, last, low, high, mean, std):
    """Equal steps in the logarithm of t: equal are the steps of the seventh root."""
    grid = torch.logspace(math.log10(low), math.log10(high), _points(k, total, first, last))
    return grid, _odds(grid, mean, std)


@ict_curriculum.mistake
def counted_from_zero(k, total, first, last, low, high, mean, std):
    """The first rung is not at `low`: i begins at 1, so that the first share is 0."""
    n = _points(k, total, first, last)
    step = (high ** (1 / 7) - low ** (1 / 7)) / (n - 1)
    grid = (low ** (1 / 7) + step * torch.arange(1, n + 1)) ** 7
    return grid, _odds(grid, mean, std)


@ict_curriculum.mistake
def root_of_both(std, **k):
    """The root stands over std as well: it is over the 2 alone."""
    return ict_curriculum(std=math.sqrt(std), **k)
