"""Loss weights, as functions of the parameterization and the noise level.

Every weight multiplies the plain loss ``|y_hat - y|^2`` of the network's own target. Because a parameterization
knows which x0-weight its plain loss amounts to, a weight defined on x0 (min-SNR) is converted, not re-derived.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.parameterization import Parameterization
from lecture_lib.core.paths import Coeffs
from lecture_lib.tensors import check_number

Weight = Callable[[Parameterization, Coeffs], Tensor]
"""``(parameterization, coeffs) -> (b,)`` float64 weights on ``|y_hat - y|^2``."""


def plain(parameterization: Parameterization, c: Coeffs) -> Float[Tensor, " b"]:
    """Weight 1: the simple loss of whatever the network predicts."""
    return torch.ones_like(c.alpha)


def min_snr(gamma: float = 5.0) -> Weight:
    """``min(SNR, gamma)`` on the x0 loss (Hang et al. 2023, Eq. 4), converted to the network's own target.

    This gives min(S, g)/S on eps and min(S, g)/(S + 1) on v; often misquoted as min(S, g) on eps.
    """
    gamma = check_number("gamma", gamma, low=1e-6)

    def weight(parameterization: Parameterization, c: Coeffs) -> Tensor:
        snr = (c.alpha / c.sigma) ** 2
        return snr.clamp(max=gamma) / parameterization.x0_weight(c)

    return weight


def truncated_snr(parameterization: Parameterization, c: Coeffs) -> Float[Tensor, " b"]:
    """``max(SNR, 1)`` on the x0 loss (Salimans & Ho 2022, section 4), converted to the network's own target.

    This is max(1, 1/S) on eps: the eps loss, whose x0-weight S vanishes on pure noise, kept from going below the x0
    loss. Infinite where the parameterization does not determine x0, such as eps at zero SNR.
    """
    snr = (c.alpha / c.sigma) ** 2
    return snr.clamp(min=1) / parameterization.x0_weight(c)
