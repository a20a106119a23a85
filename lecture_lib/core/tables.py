"""The famous discrete schedules, as tables of alpha_bar for ``Discrete``."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import RangeError
from lecture_lib.tensors import check_count, check_number


def ddpm_linear(T: int = 1000) -> Float[Tensor, " T"]:
    """``beta`` linear from 1e-4 to 0.02 (Ho et al. 2020, Sec. 4); alpha_bar_1000 = 4.0358e-5."""
    return (1 - torch.linspace(1e-4, 0.02, check_count("T", T, 2), dtype=torch.float64)).cumprod(0)


def stable_diffusion(T: int = 1000) -> Float[Tensor, " T"]:
    """``sqrt(beta)`` linear from sqrt(0.00085) to sqrt(0.012) (Rombach et al. 2022); alpha_bar_1000 = 4.6601e-3."""
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, check_count("T", T, 2), dtype=torch.float64) ** 2
    return (1 - beta).cumprod(0)


def cosine_table(T: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Float[Tensor, " T"]:
    """``alpha_bar = cos^2(pi/2 (t + s)/(1 + s))``, no ``beta`` above ``max_beta``; alpha_bar_1000 = 2.4288e-9.

    The bound belongs to the schedule (Nichol & Dhariwal 2021, Sec. 3.2): without it the last alpha_bar is 4e-33.
    ``VPCosine`` is the continuous one, which ends at exactly 0.
    """
    check_number("max_beta", max_beta, 1e-9, 1 - 1e-9)
    t = torch.linspace(0, 1, check_count("T", T, 2) + 1, dtype=torch.float64)
    alpha_bar = torch.cos(math.pi / 2 * (t + check_number("s", s, 0, 1)) / (1 + s)) ** 2
    return (alpha_bar[1:] / alpha_bar[:-1]).clamp(min=1 - max_beta).cumprod(0)


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
