"""Couplings: which noise is paired with which data point."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.tensors import randn_like

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
