"""How straight the trajectories of a flow are (Liu et al. 2022, section 2.2)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import RangeError
from lecture_lib.tensors import check_batch, check_count, check_number, per_sample

Velocity = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def straightness(
    velocity: Velocity, x: Float[Tensor, " b *d"], *, steps: int = 64, start: float = 1.0, end: float = 0.0
) -> Float[Tensor, " b"]:
    """S = int |(Z_1 - Z_0) - v(Z_t, t)|^2 dt along the trajectory of each sample; 0 if it is straight and uniform.

    The norm stands inside the integral: outside, the quantity is zero for every ODE. Take the mean over samples
    of the base distribution for the S of the paper.

    On a clock of another length, Z_1 - Z_0 is per unit of that clock and the integral is the mean over it.

    Args:
        velocity: dx/dt as a function of x (b, ...) and t (b,).
        x: samples at time ``start``.
        steps: fourth-order Runge-Kutta steps; also the number of trapezia of the integral.
        start, end: from noise to data by default.

    Raises:
        ShapeError, NonFiniteError, RangeError: arguments out of range.
    """
    check_batch("x", x)
    check_count("steps", steps)
    if check_number("end", end) == check_number("start", start):
        raise RangeError(f"end: got {end}, expected another time than start = {start}")
    times = torch.linspace(start, end, steps + 1, dtype=torch.float64).to(x.device)
    first, speeds = x, [velocity(x, times[:1].expand(len(x)))]
    for t, s in itertools.pairwise(times):
        x = _runge_kutta(velocity, x, t.expand(len(x)), s.expand(len(x)), speeds[-1])
        speeds.append(velocity(x, s.expand(len(x))))
    chord = (x - first) / (end - start)
    bends = torch.stack([(chord - v).flatten(1).square().sum(dim=1) for v in speeds])  # (steps + 1, b)
    return torch.trapezoid(bends, dx=1.0 / steps, dim=0)


def _runge_kutta(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, k1: Tensor) -> Tensor:
    """One classical step from t to s; ``k1`` is the velocity at (x, t)."""
    h, middle = per_sample(s - t, x), (t + s) / 2
    k2 = velocity(x + h / 2 * k1, middle)
    k3 = velocity(x + h / 2 * k2, middle)
    k4 = velocity(x + h * k3, s)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
