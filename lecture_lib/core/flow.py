"""The probability-flow ODE of any denoiser, solved by scipy: for when accuracy matters and speed does not."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.paths import Path, Trigonometric
from lecture_lib.core.prediction import Denoise
from lecture_lib.core.rebase import rebase
from lecture_lib.errors import CourseError
from lecture_lib.tensors import check_batch, check_times, per_sample


def integrate(
    denoise: Denoise,
    path: Path,
    x: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    s: Float[Tensor, " b"],
    *,
    method: str,
    rtol: float,
    atol: float,
) -> Float[Tensor, " b *d"]:
    """``x_s`` on the ODE trajectory through ``x_t``; s may lie on either side of t, clean data and pure noise included.

    Solved in float64 *on the quarter circle*, whatever the path: there velocity and time stay finite at both ends, and
    all paths share one trajectory up to scaling. Per-sample times run on one clock u from 0 to 1. ``method``, ``rtol``
    and ``atol`` are those of ``scipy.integrate.solve_ivp``.
    """
    from scipy.integrate import solve_ivp

    b = check_batch("x", x).shape[0]
    t, s = check_times("t", t, b, path.t_max).double(), check_times("s", s, b, path.t_max).double()
    on_circle = rebase(denoise, path, Trigonometric())
    (angle_t, radius_t), (angle_s, radius_s) = _angle_radius(path, t), _angle_radius(path, s)
    y0 = x.double() / per_sample(radius_t, x.double())

    def slope(u: float, flat: np.ndarray) -> np.ndarray:
        y = torch.from_numpy(flat).reshape(x.shape).to(x.device)
        angle = angle_t + u * (angle_s - angle_t)
        with torch.no_grad():
            dy = per_sample(angle_s - angle_t, y) * on_circle(y, angle).velocity
        return dy.cpu().numpy().ravel()

    out = solve_ivp(slope, (0.0, 1.0), y0.cpu().numpy().ravel(), method=method, rtol=rtol, atol=atol)
    if not out.success:
        raise CourseError(f"integrate: the ODE solver gave up: {out.message}")
    y1 = torch.from_numpy(out.y[:, -1]).reshape(x.shape).to(x.device)
    return (per_sample(radius_s, y1) * y1).to(x.dtype)


def _angle_radius(path: Path, time: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma = path.alpha(time), path.sigma(time)
    return torch.atan2(sigma, alpha), (alpha**2 + sigma**2).sqrt()
