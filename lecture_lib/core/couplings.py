"""Couplings: which noise, or which point of another data set, is paired with which data point.

A ``Coupling`` draws the noise itself; a ``Pairing`` is given both ends of a batch and re-pairs them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.errors import ShapeError
from lecture_lib.tensors import check_count, check_number, randn_like

Coupling = Callable[[Tensor, torch.Generator | None], Tensor]
"""``(x0 (b, ...), generator) -> eps (b, ...)``."""
Pairing = Callable[[Tensor, Tensor, torch.Generator | None], Tensor]
"""``(x0 (b, ...), x1 (b, ...), generator) -> x1 (b, ...)``, rows of x1 in the order that x0 asks for."""


def independent(x0: Float[Tensor, " b *d"], generator: torch.Generator | None = None) -> Float[Tensor, " b *d"]:
    """Fresh noise for every data point: plain diffusion and flow matching."""
    return randn_like(x0, generator)


def minibatch_ot(x0: Float[Tensor, " b *d"], generator: torch.Generator | None = None) -> Float[Tensor, " b *d"]:
    """Fresh noise, permuted to minimise ``sum |x0 - eps|^2`` within the batch (Tong et al. 2023, OT-CFM).

    Exact for the batch, biased for the distribution: the optimal pairing of a small batch is not the optimal plan.
    """
    return optimal_pairing(x0, randn_like(x0, generator), generator)


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


# Both ends given -----------------------------------------------------------------------------------------------------


def squared_cost(x0: Float[Tensor, " n *d"], x1: Float[Tensor, " m *d"]) -> Float[Tensor, " n m"]:
    """``|x0 - x1|^2`` of every pair, summed over dimensions, in float64.

    Raises:
        ShapeError: the two ends hold events of different shapes.
    """
    if x0.shape[1:] != x1.shape[1:]:
        raise ShapeError(f"x1: got events of shape {tuple(x1.shape[1:])}, expected those of x0, {tuple(x0.shape[1:])}")
    return torch.cdist(x0.flatten(1).double(), x1.flatten(1).double(), compute_mode="donot_use_mm_for_euclid_dist") ** 2


def as_drawn(
    x0: Float[Tensor, " b *d"], x1: Float[Tensor, " b *d"], generator: torch.Generator | None = None
) -> Float[Tensor, " b *d"]:
    """x1 as it comes: the independent coupling."""
    return x1


def optimal_pairing(
    x0: Float[Tensor, " b *d"], x1: Float[Tensor, " b *d"], generator: torch.Generator | None = None
) -> Float[Tensor, " b *d"]:
    """x1 permuted to minimise ``sum |x0 - x1|^2``: optimal transport of the batch (Tong et al. 2023)."""
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(squared_cost(x0, x1).cpu().numpy())
    return x1[torch.as_tensor(columns, device=x1.device)]


def within(labels: Int[Tensor, " b"], pairing: Pairing) -> Pairing:
    """``pairing`` within each label: what a conditional model needs.

    Paired across labels, the other end of a class is no fair draw any more: noise near the zeros goes to the zeros.
    A sampler that starts class 0 from all of N(0, I) then meets points that training never showed it.

    Raises:
        ShapeError: (when called) not as many labels as points.

    Source: Cheng & Schwing 2025 (2503.10636), who keep the pairing fair by a softer rule.
    """

    def paired(
        x0: Float[Tensor, " b *d"], x1: Float[Tensor, " b *d"], generator: torch.Generator | None = None
    ) -> Float[Tensor, " b *d"]:
        if labels.shape != (len(x0),):
            raise ShapeError(f"labels: got shape {tuple(labels.shape)}, expected ({len(x0)},), one per point")
        paired = x1.clone()
        for label in labels.unique():
            mine = labels == label
            paired[mine] = pairing(x0[mine], x1[mine], generator)
        return paired

    return paired


@torch.no_grad()
def sinkhorn(
    cost: Float[Tensor, " n m"], regularization: float, *, iterations: int = 1000, tolerance: float = 1e-6
) -> Float[Tensor, " n m"]:
    """The plan P that minimises ``<P, cost> - regularization H(P)`` between uniform weights 1/n and 1/m.

    Rows and columns of ``exp((f + g - cost)/regularization)`` are scaled in turn to their sums, as logarithms, so that
    no regularization underflows; columns come last and are exact.

    Args:
        cost: finite; its dtype is that of the plan.
        regularization: > 0; the smaller, the nearer to optimal transport and the more iterations.
        iterations: at most so many.
        tolerance: stop when the rows' sums are right to this share of 1/n.

    Source: Cuturi 2013 (1306.0895), algorithm 1.
    """
    scaled = -cost / check_number("regularization", regularization, 1e-300)
    n, m = cost.shape
    f, g = scaled.new_full((n,), math.inf), scaled.new_zeros(m)
    for _ in range(check_count("iterations", iterations)):
        last, f = f, -math.log(n) - torch.logsumexp(scaled + g, dim=1)
        if ((last - f).expm1().abs() <= tolerance).all():  # the rows' sums were exp(last - f)/n
            f = last
            break
        g = -math.log(m) - torch.logsumexp(scaled + f[:, None], dim=0)
    return torch.exp(scaled + f[:, None] + g)


@dataclass(frozen=True)
class EntropicPairing:
    """x1 drawn for each x0 from the batch's entropic plan: that of a Brownian motion with ``Var = sigma^2`` at t = 1.

    Minimises ``E |x0 - x1|^2/2 - sigma^2 H``, so the regularization of the squared cost is ``2 sigma^2``. A large sigma
    is ``as_drawn`` with replacement, a small one ``optimal_pairing``; a point of x1 may be taken twice or not at all.

    Args:
        sigma: > 0.
        iterations: of Sinkhorn, at most; it stops when the rows are right to 1 %, which small sigma may not reach.

    Source: Tong et al. 2024 (2307.03672), [SF]^2M, section 3 and algorithm 1.
    """

    sigma: float = 1.0
    iterations: int = 50

    def __post_init__(self):
        check_number("sigma", self.sigma, 1e-6)

    def __call__(
        self, x0: Float[Tensor, " b *d"], x1: Float[Tensor, " b *d"], generator: torch.Generator | None = None
    ) -> Float[Tensor, " b *d"]:
        cost = squared_cost(x0, x1)
        plan = sinkhorn(cost, 2 * self.sigma**2, iterations=self.iterations, tolerance=1e-2)
        source = plan.device if generator is None else generator.device
        chosen = torch.multinomial(plan.to(source), 1, generator=generator)[:, 0]
        return x1[chosen.to(x1.device)]
