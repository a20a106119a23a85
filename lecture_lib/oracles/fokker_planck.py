"""The Fokker-Planck equation on a line: how the density of an ODE or an SDE moves, without drawing a single sample.

    dx = (b - epsilon s) dt + sqrt(2 epsilon) dW, t falling          sampling, and with t rising b + epsilon s
    dp/dt = -(b p)' for all of them: the score's push and the noise cancel

Solved in conservative form, so that mass is kept to rounding, by central differences and Crank and Nicolson's steps:
second order in both, stable for any step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.tensors import check_number


def fokker_planck(
    denoise: Callable[[Tensor, Tensor], object],
    x: Float[Tensor, " n"],
    density: Float[Tensor, " n"],
    times: Float[Tensor, " k"],
    *,
    epsilon: float = 0.0,
) -> Float[Tensor, " k n"]:
    """Densities at ``times`` of the process with velocity and score of ``denoise``, started from ``density``.

    Args:
        denoise: what has a ``.velocity`` and a ``.score`` on ``(n, 1)`` points: an oracle or a network, one- or
            two-sided.
        x: equal steps; nothing flows through its ends, so let them lie where there is no mass.
        density: at ``times[0]``.
        times: strictly falling (sampling) or strictly rising (from data to noise), not where the score is singular.
        epsilon: 0 is the ODE; the SDE's noise is ``sqrt(2 epsilon)``.

    Raises:
        ShapeError, RangeError: points that are not equally spaced, times that turn back.
    """
    _check_line(x, density, times)
    epsilon = check_number("epsilon", epsilon, 0)
    x, p = x.double(), density.double().numpy()
    h, out = float(x[1] - x[0]), [p]
    middle = ((x[1:] + x[:-1]) / 2)[:, None]
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        now = torch.full((len(middle),), (t + s) / 2, dtype=torch.float64)
        with torch.no_grad():
            said = denoise(middle, now)
            drift = said.velocity[:, 0] * (1.0 if s > t else -1.0)
            drift = drift + epsilon * said.score[:, 0] if epsilon else drift
        p = _crank_nicolson(p, drift.double().numpy(), epsilon, h, abs(s - t))
        out.append(p)
    return torch.from_numpy(np.stack(out))


def _crank_nicolson(p: np.ndarray, drift: np.ndarray, epsilon: float, h: float, dt: float) -> np.ndarray:
    """``(1 - dt/2 L) p_new = (1 + dt/2 L) p`` with L from the fluxes ``drift p - epsilon p'`` between cells."""
    from scipy.linalg import solve_banded

    right, left = drift / 2 - epsilon / h, drift / 2 + epsilon / h  # flux_i = left_i p_i + right_i p_{i+1}
    upper, lower, diagonal = -right / h, left / h, np.zeros_like(p)
    diagonal[:-1] -= left / h
    diagonal[1:] += right / h
    change = diagonal * p
    change[:-1] += upper * p[1:]
    change[1:] += lower * p[:-1]
    bands = -dt / 2 * np.stack([np.append(0, upper), diagonal, np.append(lower, 0)])
    bands[1] += 1
    return solve_banded((1, 1), bands, p + dt / 2 * change)


def _check_line(x: Tensor, density: Tensor, times: Tensor) -> None:
    if x.ndim != 1 or len(x) < 3 or density.shape != x.shape or times.ndim != 1 or len(times) < 2:
        got = f"{tuple(x.shape)}, {tuple(density.shape)}, {tuple(times.shape)}"
        raise ShapeError(f"x, density, times: got {got}, expected (n,), (n,) with n >= 3, and (k,) with k >= 2")
    steps = x.double().diff()
    if not (steps > 0).all() or not torch.allclose(steps, steps[:1], rtol=1e-6):
        raise RangeError("x: expected equal rising steps")
    if not ((times.diff() > 0).all() or (times.diff() < 0).all()):
        raise RangeError("times: expected strictly falling or strictly rising times")
