"""The famous discrete schedules, as tables of alpha_bar for ``Discrete``."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import RangeError
from lecture_lib.tensors import check_count


def ddpm_linear(T: int = 1000) -> Float[Tensor, " T"]:
    """``beta`` linear from 1e-4 to 0.02 (Ho et al. 2020, Sec. 4); alpha_bar_1000 = 4.0358e-5."""
    return (1 - torch.linspace(1e-4, 0.02, check_count("T", T, 2), dtype=torch.float64)).cumprod(0)


def stable_diffusion(T: int = 1000) -> Float[Tensor, " T"]:
    """``sqrt(beta)`` linear from sqrt(0.00085) to sqrt(0.012) (Rombach et al. 2022); alpha_bar_1000 = 4.6601e-3."""
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, check_count("T", T, 2), dtype=torch.float64) ** 2
    return (1 - beta).cumprod(0)


def zero_terminal_snr(alphas_cumprod: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
    """``sqrt(alpha_bar)`` shifted and stretched: the last entry is 0, the first one stays (Lin et al. 2023, Alg. 1).

    It acts on the *root*: rescaling alpha_bar itself, as often printed, gives a different schedule.
    """
    root = alphas_cumprod.double().sqrt()
    if not root[0] > root[-1]:
        raise RangeError(
            f"alphas_cumprod: got first {root[0] ** 2:g} and last {root[-1] ** 2:g}, expected a falling table"
        )
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
