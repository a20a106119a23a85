"""Distribution function and quantiles of a mixture on the line, noised along a path or not."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.paths import Path
from lecture_lib.errors import ShapeError
from lecture_lib.oracles.mixture import GaussianMixture


def distribution(
    world: GaussianMixture, x: Float[Tensor, " n"], path: Path | None = None, t: Float[Tensor, " n"] | None = None
) -> Float[Tensor, " n"]:
    """``P(x_t <= x)``; of the data itself without a path.

    Raises:
        ShapeError: a mixture of other than single numbers.
    """
    means, stds = _components(world, path, t)
    return torch.special.ndtr((x[:, None] - means) / stds) @ world.weights.detach().double()


def quantile(
    world: GaussianMixture, u: Float[Tensor, " n"], path: Path | None = None, t: Float[Tensor, " n"] | None = None
) -> Float[Tensor, " n"]:
    """The x with ``P(x_t <= x) = u``, by bisection on the distribution function, to the last bit.

    Raises:
        ShapeError: a mixture of other than single numbers.
    """
    means, stds = _components(world, path, t)
    low, high = (
        torch.full_like(u, float((means - 40 * stds).min())),
        torch.full_like(u, float((means + 40 * stds).max())),
    )
    weights = world.weights.detach().double()
    for _ in range(80):
        middle = (low + high) / 2
        below = torch.special.ndtr((middle[:, None] - means) / stds) @ weights < u
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def _components(world: GaussianMixture, path: Path | None, t: Tensor | None) -> tuple[Tensor, Tensor]:
    """Means and standard deviations, ``(k,)``, or ``(n, k)`` along a path."""
    if world.event != (1,):
        raise ShapeError(f"world: got events of shape {world.event}, expected (1,), numbers on the line")
    means, variances = world.means[:, 0].detach().double(), world.variances[:, 0].detach().double()
    if path is None:
        return means, variances.sqrt()
    alpha, sigma = path.alpha(t.double())[:, None], path.sigma(t.double())[:, None]
    return alpha * means, (alpha**2 * variances + sigma**2).sqrt()
