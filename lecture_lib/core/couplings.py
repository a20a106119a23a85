"""Couplings: which noise is paired with which data point."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.errors import ShapeError
from lecture_lib.tensors import check_number, randn_like

Coupling = Callable[[Tensor, torch.Generator | None], Tensor]
"""``(x0 (b, ...), generator) -> eps (b, ...)``."""


def independent(x0: Float[Tensor, " b *d"], generator: torch.Generator | None = None) -> Float[Tensor, " b *d"]:
    """Fresh noise for every data point: plain diffusion and flow matching."""
    return randn_like(x0, generator)


def minibatch_ot(x0: Float[Tensor, " b *d"], generator: torch.Generator | None = None) -> Float[Tensor, " b *d"]:
    """Fresh noise, permuted to minimise ``sum |x0 - eps|^2`` within the batch (Tong et al. 2023, OT-CFM).

    Exact for the batch, biased for the distribution: the optimal pairing of a small batch is not the optimal plan.
    """
    from scipy.optimize import linear_sum_assignment

    eps = randn_like(x0, generator)
    cost = torch.cdist(x0.flatten(1).double(), eps.flatten(1).double()) ** 2
    _, columns = linear_sum_assignment(cost.cpu().numpy())
    return eps[torch.as_tensor(columns, device=eps.device)]


def within_class(labels: Int[Tensor, " b"]) -> Coupling:
    """``minibatch_ot`` among the samples of each class: noise that is sorted by position must not tell the label.

    Sorted across classes, the noise of one class is no longer N(0, I), from which a conditional model samples.
    """

    def coupling(x0: Float[Tensor, " b *d"], generator: torch.Generator | None = None) -> Float[Tensor, " b *d"]:
        if labels.shape != x0.shape[:1]:
            raise ShapeError(f"labels: got shape {tuple(labels.shape)}, expected ({len(x0)},), one per sample")
        eps = torch.empty_like(x0)
        for label in labels.unique():
            eps[labels == label] = minibatch_ot(x0[labels == label], generator)
        return eps

    return coupling


def given_noise(eps: Float[Tensor, " b *d"]) -> Coupling:
    """The noise that already belongs to each data point of the batch: pairs, as reflow trains on.

    Raises:
        ShapeError: (when called) x0 is of another shape than eps.
    """

    def coupling(x0: Float[Tensor, " b *d"], generator: torch.Generator | None = None) -> Float[Tensor, " b *d"]:
        if x0.shape != eps.shape:
            raise ShapeError(f"x0: got shape {tuple(x0.shape)}, expected that of its noise, {tuple(eps.shape)}")
        return eps

    return coupling


def offset_noise(scale: float = 0.1) -> Coupling:
    """``eps = z + scale z_c``: white noise plus one more draw per image and channel, the same at all of its pixels.

    The mean of a channel of n pixels then has variance ``1/n + scale^2`` instead of 1/n: the network meets noise that
    changes the brightness of a picture. The noise has mean zero, but it is not white any more, and the variance of a
    pixel is ``1 + scale^2``; eps, this sum, is also the target. With scale = 0 it is ``independent``.

    Args:
        scale: at least 0; 0.05 to 0.1 in practice.

    Raises:
        RangeError: scale is negative or not finite.
        ShapeError: (when called) x0 has no pixels: expected ``(b, c, ...)`` with at least one axis after c.

    Source: Guttenberg 2023 (Diffusion with offset noise); discussed by Lin et al. 2023, section 1.
    """
    scale = check_number("scale", scale, low=0)

    def coupling(x0: Float[Tensor, " b c *d"], generator: torch.Generator | None = None) -> Float[Tensor, " b c *d"]:
        if x0.ndim < 3:
            raise ShapeError(f"x0: got shape {tuple(x0.shape)}, expected (b, c, ...) with pixels after the channels")
        z = randn_like(x0, generator)
        z_c = randn_like(x0.flatten(2)[:, :, 0], generator)  # (b, c)
        return z + scale * z_c.reshape(*z_c.shape, *(1,) * (x0.ndim - 2))

    return coupling
