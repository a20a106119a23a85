"""How often straight lines between two ends cross: what a coupling does to the velocity that has to be learned."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import ShapeError
from lecture_lib.metrics._clouds import two_clouds


@torch.no_grad()
def crossings(x0: Float[Tensor, " n d"], x1: Float[Tensor, " n d"]) -> float:
    """The share of pairs of lines ``x0_i -> x1_i`` that cross, in one dimension or two.

    On the line (d = 1), against time: i is below j at one end and above at the other. In the plane (d = 2), the two
    segments meet, at whatever times. Optimal transport has no crossings on the line; in the plane its segments may
    meet, but never at the same time.

    Args:
        x0, x1: row by row the two ends of each line; n^2 numbers are compared.

    Raises:
        ShapeError: ends of different shapes, or in more than two dimensions, where lines hardly ever meet.
        NonFiniteError: NaN or infinity among them.
    """
    x0, x1 = two_clouds(x0, x1)
    if x0.shape != x1.shape or x0.shape[1] > 2:
        raise ShapeError(f"x0, x1: got {tuple(x0.shape)} and {tuple(x1.shape)}, expected the same (n, 1) or (n, 2)")
    meet = _overtake(x0[:, 0], x1[:, 0]) if x0.shape[1] == 1 else _intersect(x0, x1)
    n = len(x0)
    return float(meet.sum()) / (n * (n - 1))  # of ordered pairs; the diagonal never counts


def _overtake(x0: Float[Tensor, " n"], x1: Float[Tensor, " n"]) -> Tensor:
    return (x0[:, None] - x0) * (x1[:, None] - x1) < 0


def _intersect(x0: Float[Tensor, " n 2"], x1: Float[Tensor, " n 2"]) -> Tensor:
    """Segments i and j meet if the ends of j lie on either side of line i, and those of i on either side of line j."""
    along = (x1 - x0)[:, None]  # of segment i
    side0, side1 = (_cross(along, end[None] - x0[:, None]) for end in (x0, x1))
    apart = side0 * side1 < 0  # [i, j]: the ends of j, seen from i
    return apart & apart.T


def _cross(a: Float[Tensor, " *n 2"], b: Float[Tensor, " *n 2"]) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
