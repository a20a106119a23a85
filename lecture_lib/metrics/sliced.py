"""Sliced Wasserstein distance: sort the projections on random directions (Rabin et al. 2011)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.metrics._clouds import two_clouds
from lecture_lib.tensors import check_count


@torch.no_grad()
def sliced_wasserstein(
    x: Float[Tensor, " n *d"],
    y: Float[Tensor, " m *d"],
    *,
    directions: int = 256,
    generator: torch.Generator | None = None,
) -> float:
    """Squared sliced 2-Wasserstein distance: W2^2 of the one-dimensional projections, averaged over directions.

    A shift by m costs |m|^2 / d. The clouds may have different sizes.

    Raises:
        ShapeError, NonFiniteError: clouds that cannot be compared.
        RangeError: no directions.
    """
    x, y = two_clouds(x, y, least=1)
    device = "cpu" if generator is None else generator.device
    axes = torch.randn(
        x.shape[1], check_count("directions", directions), generator=generator, dtype=x.dtype, device=device
    ).to(x.device)
    axes = axes / axes.norm(dim=0)  # (d, k), uniform on the sphere
    return float(wasserstein_1d(x @ axes, y @ axes).mean())


def wasserstein_1d(x: Float[Tensor, " n k"], y: Float[Tensor, " m k"]) -> Float[Tensor, " k"]:
    """Squared 2-Wasserstein distance on the line, one per column: the squared gap between quantile functions.

    Both quantile functions are step functions; the integral runs over the union of their steps, so it is exact for
    n and m of any size.
    """
    n, m = len(x), len(y)
    steps = torch.cat([torch.arange(n) * m, torch.arange(m) * n, torch.tensor([n * m])]).unique()  # in units 1/(nm)
    widths = steps.diff().to(x.device, x.dtype) / (n * m)
    left = steps[:-1].to(x.device)
    gap = x.sort(dim=0).values[left // m] - y.sort(dim=0).values[left // n]
    return widths @ gap.square()
