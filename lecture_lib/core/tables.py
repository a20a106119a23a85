"""Discrete schedules: tables of alpha_bar, the famous ones by name, and the path that runs through a table."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.paths import Path
from lecture_lib.errors import RangeError
from lecture_lib.tensors import check_count, check_finite, check_number


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


class Discrete(Path):
    """A table of ``alpha_bar`` (DDPM, Stable Diffusion) made continuous.

    Entry ``i`` of the table (0-based) sits at ``t = (i + 1)/T``; ``t = 0`` is clean data. Between entries the *angle*
    ``atan2(sigma, alpha)`` is linear, so alpha^2 + sigma^2 = 1 holds everywhere and both ends stay finite, a table
    with zero terminal SNR included.

    Args:
        alphas_cumprod: ``(T,)``, strictly falling, in [0, 1).
    """

    formula = r"\alpha_i=\sqrt{\bar\alpha_i},\;t_i=\tfrac{i+1}{T}"
    source = "Ho et al. 2020 (2006.11239), Eq. 4"

    def __init__(self, alphas_cumprod: Float[Tensor, " T"]):
        table = check_finite("alphas_cumprod", torch.as_tensor(alphas_cumprod, dtype=torch.float64))
        if table.ndim != 1 or len(table) < 2 or not ((table >= 0) & (table < 1)).all() or not (table.diff() < 0).all():
            raise RangeError("alphas_cumprod: expected a strictly falling 1-D table of at least two values in [0, 1)")
        angle = torch.atan2((1 - table).sqrt(), table.sqrt())
        self.angles = torch.cat([angle.new_zeros(1), angle])
        # The right end of each cell. Behind the table the last cell goes on, so that t = 1 needs no case of its own.
        self._right = torch.cat([angle, 2 * angle[-1:] - self.angles[-2:-1]])

    def _cell(self, t):
        """The table's angles to the left and to the right of ``t``, and which share of the way t has come."""
        position = (t * (len(self.angles) - 1)).clamp(0, len(self.angles) - 1)
        left = position.long()
        return self.angles.to(t.device).take(left), self._right.to(t.device).take(left), position.frac()

    def _angle(self, t):
        return torch.lerp(*self._cell(t))

    def __eq__(self, other):
        return isinstance(other, Discrete) and torch.equal(self.angles, other.angles)

    def __hash__(self):
        return hash(tuple(self.angles.tolist()))

    def __repr__(self):
        alpha = self.alpha(torch.ones(1, dtype=torch.float64)).item()
        return f"Discrete({len(self.angles) - 1} steps, alpha_T={alpha:.4g})"

    def alpha(self, t):
        return torch.sin(math.pi / 2 - self._angle(t))  # the cosine, but exactly 0 at zero terminal SNR

    def sigma(self, t):
        return torch.sin(self._angle(t))

    def slopes(self, t):
        left, right, share = self._cell(t.double())  # by hand, since autodiff's set-up costs fifty times as much
        angle, rise = torch.lerp(left, right, share), (right - left) * (len(self.angles) - 1)
        return -torch.sin(angle) * rise, torch.sin(math.pi / 2 - angle) * rise

    def time_of(self, lam):
        angles = self.angles.to(lam.device)
        angle = torch.atan(torch.exp(-lam.double())).clamp(max=angles[-1])
        low = (torch.searchsorted(angles, angle) - 1).clamp(0, len(angles) - 2)
        return (low + (angle - angles[low]) / (angles[low + 1] - angles[low])) / (len(angles) - 1)
