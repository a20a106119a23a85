"""Points that follow a field, and the divergence that they pass: how a density is carried along.

    dx/dt = u(x, t),   dl/dt = div u(x, t),   log p_t(x_t) = log p_s(x_s) + int_t^s div u

A ``slope`` gives both right sides, ``(x, t) -> (u (b, ...), div u (b,))``; a solver carries x and l from one time to
another, up or down. Source: Chen et al. 2018 (1806.07366), theorem 1; Grathwohl et al. 2019 (1810.01367), eq. 2 to 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import CourseError
from lecture_lib.tensors import check_count

Slope = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(x (b, ...), t ()) -> (u (b, ...), divergence (b,))``."""


class OdeSolver(Protocol):
    """Carries x from time t to time s: ``(slope, x, t, s) -> (x_s, int_t^s div u (b,))``, the integral in float64."""

    def __call__(self, slope: Slope, x: Tensor, t: float, s: float) -> tuple[Tensor, Tensor]: ...


def runge_kutta(
    slope: Slope, x: Float[Tensor, " b *d"], grid: Float[Tensor, " n+1"]
) -> tuple[Float[Tensor, " b *d"], Float[Tensor, " b"]]:
    """The classical fourth-order method along ``grid``, in its order; four slopes for each step, with their graph."""
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for t, s in pairwise(grid):
        h = float(s - t)
        k1, d1 = slope(x, t)
        k2, d2 = slope(x + h / 2 * k1, (t + s) / 2)
        k3, d3 = slope(x + h / 2 * k2, (t + s) / 2)
        k4, d4 = slope(x + h * k3, s)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        total = total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    return x, total


@dataclass(frozen=True)
class RungeKutta4:
    """``steps`` equal steps of the classical method: cheap, differentiable, and as exact as the field is smooth."""

    steps: int = 8

    def __post_init__(self) -> None:
        check_count("steps", self.steps)

    def __call__(self, slope: Slope, x: Tensor, t: float, s: float) -> tuple[Tensor, Tensor]:
        return runge_kutta(slope, x, torch.linspace(t, s, self.steps + 1, dtype=torch.float64, device=x.device))


@dataclass(frozen=True)
class AdaptiveRungeKutta:
    """Steps as long as the errors allow, by scipy's Dormand-Prince pair, in float64; without gradients.

    Errors are those of x and of the integral together, of the whole batch: how long a step is depends on all of them.

    Raises (when called):
        CourseError: the solver gave up.
    """

    rtol: float = 1e-6
    atol: float = 1e-8

    def __call__(self, slope: Slope, x: Tensor, t: float, s: float) -> tuple[Tensor, Tensor]:
        from scipy.integrate import solve_ivp

        def flat(time: float, state: np.ndarray) -> np.ndarray:
            y = torch.from_numpy(state[: x.numel()]).reshape(x.shape).to(x)
            u, divergence = slope(y, torch.tensor(time, dtype=torch.float64, device=x.device))
            return torch.cat([u.detach().flatten(), divergence.detach()]).double().cpu().numpy()

        start = torch.cat([x.detach().flatten().double(), x.new_zeros(len(x), dtype=torch.float64)]).cpu().numpy()
        out = solve_ivp(flat, (t, s), start, method="RK45", rtol=self.rtol, atol=self.atol)
        if not out.success:
            raise CourseError(f"AdaptiveRungeKutta: the ODE solver gave up: {out.message}")
        end = torch.from_numpy(out.y[:, -1]).to(x.device)
        return end[: x.numel()].reshape(x.shape).to(x.dtype), end[x.numel() :]
