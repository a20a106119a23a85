"""Exact log-likelihood by the probability-flow ODE: follow a data point to noise and add up the divergence."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.grids import check_grid
from lecture_lib.core.paths import Path
from lecture_lib.core.prediction import Denoise
from lecture_lib.core.transport import runge_kutta
from lecture_lib.errors import SingularError
from lecture_lib.tensors import check_batch, check_times

Divergence = Callable[[Callable[[Tensor], Tensor], Tensor], tuple[Tensor, Tensor]]
"""``(field, x) -> (field(x) (b, ...), divergence (b,))``."""


def exact_divergence(
    field: Callable[[Tensor], Tensor], x: Float[Tensor, " b *d"], *, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """The trace of the Jacobian, one gradient per dimension: for small d.

    ``create_graph`` as in ``torch.autograd.grad``: the results then carry gradients, for training through a solver.
    """
    with torch.enable_grad():
        x = x if create_graph and x.requires_grad else x.detach().requires_grad_()
        u = field(x)
        flat = u.flatten(1)
        rows = [
            torch.autograd.grad(flat[:, i].sum(), x, retain_graph=True, create_graph=create_graph)[0].flatten(1)[:, i]
            for i in range(flat.shape[1])
        ]
        total = torch.stack(rows, 1).sum(1)
    return (u, total) if create_graph else (u.detach(), total.detach())


def hutchinson(probe: Float[Tensor, " b *d"], *, create_graph: bool = False) -> Divergence:
    """``z^T J z`` with a fixed probe z of independent signs: unbiased, one gradient (Grathwohl et al. 2019).

    Its variance is ``2 (|S|_F^2 - sum S_ii^2)``, S = (J + J^T)/2: what is off the diagonal; for a normal probe it is
    ``2 |S|_F^2``. One probe serves a whole solve, else the field would change from one evaluation to the next.

    Args:
        probe: signs of the shape of x.
        create_graph: as in ``exact_divergence``.
    """

    def divergence(field, x):
        with torch.enable_grad():
            x = x if create_graph and x.requires_grad else x.detach().requires_grad_()
            u = field(x)
            (vjp,) = torch.autograd.grad((u * probe).sum(), x, create_graph=create_graph)
            total = (vjp * probe).flatten(1).sum(1)
        return (u, total) if create_graph else (u.detach(), total.detach())

    return divergence


def standard_normal_log_prob(z: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """``log N(z; 0, I) = -|z|^2/2 - d/2 log 2 pi`` of each sample, in nats, float64; with both of its terms."""
    z = z.flatten(1).double()
    return -0.5 * (z**2).sum(1) - z.shape[1] / 2 * math.log(2 * math.pi)


def log_likelihood(
    denoise: Denoise,
    path: Path,
    x: Float[Tensor, " b *d"],
    grid: Float[Tensor, " n+1"],
    *,
    divergence: Divergence = exact_divergence,
) -> Float[Tensor, " b"]:
    """``log p`` of ``x`` at time ``grid[-1]``, in nats (Song et al. 2021, Eq. 39).

    ``log p_s(x_s) = log p_T(x_T) + int_s^T div u dt``, integrated with RK4 upwards along ``grid`` (given, as always,
    falling), with ``p_T = N(0, sigma_T^2 I)``: exact up to the steps and to the remainder alpha_T x0 of the data.
    """
    x, total = transported(denoise, path, x, grid, divergence=divergence)
    sigma = path.sigma(check_grid(grid)[:1].to(x.device))
    return standard_normal_log_prob(x.double() / sigma) - x[0].numel() * sigma.log() + total


def transported(
    denoise: Denoise,
    path: Path,
    x: Float[Tensor, " b *d"],
    grid: Float[Tensor, " n+1"],
    *,
    divergence: Divergence = exact_divergence,
) -> tuple[Float[Tensor, " b *d"], Float[Tensor, " b"]]:
    """``(x_T, int_s^T div u dt)``: where ``x`` at time ``grid[-1]`` comes from at ``grid[0]``, and what that gains.

    The density of the other end is the caller's: ``log p_s(x) = log p_T(x_T) + gain``. RK4 upwards along ``grid``.
    """
    grid = check_grid(grid).flip(0).to(x.device)
    check_times("grid", grid, len(grid), path.t_max)
    if path.sigma(grid[:1]) == 0 and not torch.isfinite(path.coeffs(grid[:1]).dsigma).all():
        raise SingularError("grid: this path's velocity is infinite at t = 0; end the grid at a small t > 0")
    b = check_batch("x", x).shape[0]

    def slope(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return divergence(lambda y: denoise(y, t.expand(b)).on(path).velocity, x)

    return runge_kutta(slope, x, grid)
