"""What discrete consistency losses converge to, with nothing left to chance: on Gaussian data, f(x, t_n) = a_n x.

On N(0, s^2) everything is linear, so each method is one factor per step of its grid ``t_1 < ... < t_N``:

    a_1 = 1,     a_{n+1} = a_n r_n,     r_n = E[x_n x_{n+1}] / E[x_{n+1}^2]    the best multiple of x_{n+1} for x_n

    the flow itself         r = sd(x_n) / sd(x_{n+1})                              no error
    CT, shared noise        r = (alpha alpha' s^2 + sigma sigma') / var(x_{n+1})   first order in 1/N
    CD                      r = one step of its sampler                            of the sampler's order; Euler is CT
    CT, independent noise   r = alpha alpha' s^2 / var(x_{n+1})                    short by a factor each step: a_N -> 0

Other data: the limit of CD needs no recursion, it is its sampler run down the whole grid (``cd_limit``). That of CT is
a conditional mean at every step, here on a lattice in one dimension (``ct_curve``): the mean end of *random* chains,
whose spread falls only with the root of N. Where trajectories part, between modes, that blur is what is left of CT's
error, and CT falls behind CD with Euler's steps; on a Gaussian nothing parts, and the two are equal.

Source: worked out from Song et al. 2023, Alg. 2 and 3; the orders are what their theorem 1 promises for CD.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from numpy.polynomial.hermite import hermgauss
from torch import Tensor

from lecture_lib.core import Coeffs, Denoise, Path
from lecture_lib.distill.maps import Jump
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.oracles import GaussianMixture
from lecture_lib.samplers import Sampler, last, one_step, sample
from lecture_lib.tensors import check_number

_WIDEST = 8.0  # standard deviations that the lattice reaches

Slopes = Float[Tensor, " points"]
"""``a_n`` of f(x, t_n) = a_n x, n = 1..N; the first is 1."""


def flow_slopes(path: Path, grid: Float[Tensor, " points"], std: float) -> Slopes:
    """Those of the true consistency function: ``sd(x_1) / sd(x_n)``."""
    spread = variance(path, grid, std).sqrt()
    return spread[0] / spread


def ct_slopes(path: Path, grid: Float[Tensor, " points"], std: float) -> Slopes:
    """Where consistency training ends: the conditional mean of f(x_n) given x_{n+1}, step after step."""
    alpha, sigma = path.alpha(grid), path.sigma(grid)
    together = alpha[1:] * alpha[:-1] * std**2 + sigma[1:] * sigma[:-1]
    return _product(together / variance(path, grid, std)[1:])


def fresh_noise_slopes(path: Path, grid: Float[Tensor, " points"], std: float) -> Slopes:
    """The popular mistake of drawing new noise for x_n: x_{n+1} then tells nothing but the data behind it."""
    alpha = path.alpha(grid)
    return _product(alpha[1:] * alpha[:-1] * std**2 / variance(path, grid, std)[1:])


def cd_slopes(path: Path, grid: Float[Tensor, " points"], std: float, sampler: Sampler) -> Slopes:
    """Where consistency distillation of the exact teacher ends: at the sampler itself, run down the whole grid.

    Args:
        sampler: one that is ``per_sample``: Euler, Heun, DDIM. It is asked, not rewritten: a step from x = 1.
    """
    teacher = GaussianMixture([1.0], [[0.0]], [check_number("std", std, 1e-9) ** 2]).denoise(path)
    ones = torch.ones(len(grid) - 1, 1, dtype=torch.float64)
    return _product(one_step(sampler, teacher, path, ones, grid[1:], grid[:-1])[0][:, 0])


def denoiser_slopes(path: Path, grid: Float[Tensor, " points"], std: float) -> Slopes:
    """The popular mistake of regressing on the teacher's x0: ``E[x0 | x_n]``, which is the teacher."""
    return path.alpha(grid) * std**2 / variance(path, grid, std)


def two_way_slopes(path: Path, grid: Float[Tensor, " points"], std: float) -> Slopes:
    """The popular mistake of no stop-gradient: the minimiser of ``sum_n E|f(x_{n+1}) - f(x_n)|^2 / (t_{n+1} - t_n)``.

    Both ends move, so this is a compromise between neighbours, a tridiagonal system with a_1 = 1; as N grows it does
    *not* go to the flow. The weight 1/(t_{n+1} - t_n) is the one that gives it a limit at all.
    """
    var, gap = variance(path, grid, std), grid.diff()
    alpha, sigma = path.alpha(grid), path.sigma(grid)
    together = (alpha[1:] * alpha[:-1] * std**2 + sigma[1:] * sigma[:-1]) / gap
    system = torch.diag(var * (torch.cat([1 / gap, gap.new_zeros(1)]) + torch.cat([gap.new_zeros(1), 1 / gap])))
    system = system - torch.diag(together, 1) - torch.diag(together, -1)
    rest = torch.linalg.solve(system[1:, 1:], -system[1:, 0])
    return torch.cat([grid.new_ones(1), rest])


def cd_limit(teacher: Denoise, path: Path, grid: Float[Tensor, " points"], sampler: Sampler) -> Jump:
    """Where consistency distillation ends, on any data: ``f(x, t_N)`` is all N - 1 steps of the sampler, in one.

    f(x, t_{n+1}) = f(step(x), t_n) and f(., t_1) is the identity. So distillation does not beat its solver on its grid;
    it remembers it. The jump that is returned starts at the last time of the grid, whatever t it is given.
    """
    return lambda x, t: last(sample(teacher, path, sampler, grid.flip(0), x))


def ct_curve(
    world: GaussianMixture,
    path: Path,
    grid: Float[Tensor, " points"],
    z: Float[Tensor, " m"],
    *,
    lattice: int = 800,
    nodes: int = 12,
) -> Float[Tensor, " m"]:
    """Where consistency training ends on a mixture in one dimension: ``f(x, t_N)`` at ``x = z sd(x_N)``.

    ``f(x, t_{n+1}) = E[f(x_n, t_n) | x_{n+1} = x]``: a conditional mean at every step, by Gauss-Hermite quadrature over
    the exact posterior of x0, and monotone cubic interpolation between the points of a lattice in z.

    Args:
        world: in one dimension.
        path, grid: as above; N - 1 passes over the lattice.
        z: where to look, in standard deviations of x_N around its mean, within [-8, 8].
        lattice: points on [-8, 8].
        nodes: of the quadrature, for each component.

    Raises:
        ShapeError: a world of more dimensions.
        RangeError: some z outside [-8, 8].
    """
    if world.event != (1,):
        raise ShapeError(f"world: got events of shape {world.event}, expected (1,): the lattice is a line")
    if (z.abs() > _WIDEST).any():
        raise RangeError(f"z: got up to {z.abs().max():g}, expected at most {_WIDEST:g} standard deviations")
    from scipy.interpolate import PchipInterpolator

    places = torch.linspace(-_WIDEST, _WIDEST, lattice, dtype=torch.float64)
    moments = [_frame(world, c) for c in path.along(grid)]
    f = moments[0].place(places)  # the identity at t_1
    for low, high in pairwise(moments):
        x_n, mass = _behind(world, low.at, high.at, high.place(places), nodes)
        inside = ((x_n - low.mean) / low.std).clamp(-_WIDEST, _WIDEST)
        f = (mass * torch.from_numpy(PchipInterpolator(places, f)(inside))).sum((1, 2))
    return torch.from_numpy(PchipInterpolator(places, f)(z))


def _behind(world, low: Coeffs, high: Coeffs, x: Float[Tensor, " l"], nodes: int) -> tuple[Tensor, Tensor]:
    """What x_n may be, given x_{n+1} = x and one z for both: places and their masses, ``(l, components, nodes)``."""
    m, var = world.means[:, 0], world.variances[:, 0]
    of_x = high.alpha**2 * var + high.sigma**2
    gap = x[:, None] - high.alpha * m
    share = (world.log_weights - 0.5 * gap**2 / of_x - 0.5 * of_x.log()).softmax(1)
    mean, std = m + high.alpha * var / of_x * gap, (var * high.sigma**2 / of_x).sqrt()
    node, weight = (torch.from_numpy(v) for v in hermgauss(nodes))
    x0 = mean[:, :, None] + std[:, None] * 2**0.5 * node
    ratio = low.sigma / high.sigma
    x_n = ratio * x[:, None, None] + (low.alpha - ratio * high.alpha) * x0
    return x_n, share[:, :, None] * weight / weight.sum()


class _Frame(NamedTuple):
    """A moment of the path with mean and standard deviation of x_n there: the lattice is fixed in these units."""

    at: Coeffs
    mean: float
    std: float

    def place(self, z: Tensor) -> Tensor:
        return self.mean + self.std * z


def _frame(world: GaussianMixture, c: Coeffs) -> _Frame:
    m, var, weight = world.means[:, 0], world.variances[:, 0], world.weights
    mean = float(weight @ m)
    spread = float(weight @ (var + (m - mean) ** 2))
    return _Frame(c, c.alpha * mean, (c.alpha**2 * spread + c.sigma**2) ** 0.5)


def variance(path: Path, grid: Float[Tensor, " points"], std: float) -> Float[Tensor, " points"]:
    """``alpha^2 s^2 + sigma^2`` of x_n."""
    check_number("std", std, 1e-9)
    return (path.alpha(grid) * std) ** 2 + path.sigma(grid) ** 2


def _product(steps: Float[Tensor, " points-1"]) -> Slopes:
    return torch.cat([steps.new_ones(1), steps.cumprod(0)])
