"""Grids: which noise levels a sampler visits. n steps are n + 1 strictly falling times, float64, on the CPU.

Two kinds. *By time*: ``uniform_grid``, ``quadratic_grid`` and ``logsnr_grid`` run from a time ``start`` to ``end``.
*By noise level*: ``karras_grid``, ``exponential_grid`` and the timesteps of a table list the n levels at which the
network is asked, and then 0, clean data.

No flag says where a grid ends, two operations do. ``then_clean(grid)`` walks one step further, to t = 0: n + 1 steps.
``grid[:-1]`` leaves the last step out, so that ``karras_grid(path, n + 1)[:-1]`` are n steps that stop at sigma_min.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.paths import Path
from lecture_lib.core.tables import Discrete
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.tensors import check_count, check_number


def check_grid(grid: Tensor) -> Float[Tensor, " n+1"]:
    """``grid`` in float64, if it is 1-D, finite, >= 0 and strictly falling; otherwise a named error."""
    if not isinstance(grid, Tensor) or grid.ndim != 1 or len(grid) < 2 or not grid.is_floating_point():
        got = tuple(grid.shape) if isinstance(grid, Tensor) else type(grid).__name__
        raise ShapeError(
            f"grid: got {got}, expected a floating 1-D tensor of at least 2 times (n steps are n + 1 times)"
        )
    times = grid.tolist()
    if not (times[0] < math.inf and times[-1] >= 0 and all(t > s for t, s in pairwise(times))):  # false for NaN too
        raise RangeError(
            f"grid: got times from {times[0]:g} to {times[-1]:g}, expected finite, strictly falling times >= 0 "
            "(t = 0 is data: sampling runs from large t to small t)"
        )
    return grid.double()


def _ends(path: Path, start: float | None, end: float) -> tuple[float, float]:
    start = path.t_max if start is None else start
    check_number("start", start, 0, path.t_max)
    check_number("end", end, 0, start)
    return start, end


def uniform_grid(path: Path, steps: int, *, start: float | None = None, end: float = 0.0) -> Float[Tensor, " n+1"]:
    """Equal steps on the path's own clock, from ``start`` (default ``t_max``) to ``end``."""
    start, end = _ends(path, start, end)
    return check_grid(torch.linspace(start, end, check_count("steps", steps) + 1, dtype=torch.float64))


def quadratic_grid(path: Path, steps: int, *, start: float | None = None, end: float = 0.0) -> Float[Tensor, " n+1"]:
    """Equal steps in sqrt(t): finer near the data (Song et al. 2020, DDIM, App. D.2)."""
    start, end = _ends(path, start, end)
    root = torch.linspace(start**0.5, end**0.5, check_count("steps", steps) + 1, dtype=torch.float64)
    return check_grid((root**2).clamp(end, start))  # sqrt(80)^2 is a little more than 80


def logsnr_grid(path: Path, steps: int, *, start: float, end: float) -> Float[Tensor, " n+1"]:
    """Equal steps in half log-SNR (Lu et al. 2022); both ends need alpha > 0 and sigma > 0."""
    ends = path.lam(torch.tensor(_ends(path, start, end), dtype=torch.float64))
    if not torch.isfinite(ends).all():
        raise RangeError(
            f"start, end: got {start}, {end} with infinite log-SNR, expected 0 < end < start with alpha > 0"
        )
    lam = torch.linspace(float(ends[0]), float(ends[1]), check_count("steps", steps) + 1, dtype=torch.float64)
    return check_grid(path.time_of(lam))


def then_clean(grid: Float[Tensor, " n+1"]) -> Float[Tensor, " n+2"]:
    """``grid`` and one step more, to t = 0. What ends at 0 already is refused: a step of no length is a wasted call."""
    return _then_zero(check_grid(grid))


def _noise_levels(path: Path, steps: int, sigma_max: float, sigma_min: float) -> tuple[int, float, float]:
    """The arguments of a grid by noise level, checked: both levels must be on the path."""
    steps = check_count("steps", steps)
    highest = float(torch.exp(-path.lam(torch.tensor([path.t_max], dtype=torch.float64))))
    if not check_number("sigma_max", sigma_max) <= highest * (1 + 1e-9):
        raise RangeError(f"sigma_max: got {sigma_max:g}, but this path ends at sigma/alpha = {highest:g}")
    return steps, sigma_max, check_number("sigma_min", sigma_min, 1e-12, sigma_max)


def karras_grid(
    path: Path, steps: int, *, sigma_max: float = 80.0, sigma_min: float = 0.002, rho: float = 7.0
) -> Float[Tensor, " n+1"]:
    """``sigma/alpha`` with equal steps in its rho-th root, then exactly 0 (Karras et al. 2022, Eq. 5)."""
    steps, high, low = _noise_levels(path, steps, sigma_max, sigma_min)
    rho = check_number("rho", rho, 1e-3)
    ramp = torch.linspace(high ** (1 / rho), low ** (1 / rho), steps, dtype=torch.float64)
    return _then_zero(path.time_of(-rho * ramp.log()))


def exponential_grid(
    path: Path, steps: int, *, sigma_max: float = 80.0, sigma_min: float = 0.002
) -> Float[Tensor, " n+1"]:
    """``sigma/alpha`` falling by the same factor each step, then exactly 0; the Karras grid as rho goes to infinity.

    ``log(sigma/alpha) = -lam``: so this is also the 'lu' grid, uniform in half log-SNR (Lu et al. 2022), and without
    its last step it is ``logsnr_grid`` between the times of sigma_max and sigma_min.
    """
    steps, high, low = _noise_levels(path, steps, sigma_max, sigma_min)
    return _then_zero(path.time_of(-torch.linspace(math.log(high), math.log(low), steps, dtype=torch.float64)))


def _then_zero(times: Tensor) -> Tensor:
    return check_grid(torch.cat([times, times.new_zeros(1)]))


def timestep_grid(path: Discrete, timesteps: Iterable[int]) -> Float[Tensor, " n+1"]:
    """Falling integer timesteps of a table (999, 979, ...) as times ``t = (i + 1)/T``, then 0, clean data."""
    T = _table_length(path)
    try:
        steps = [operator.index(i) for i in timesteps]
    except TypeError:
        raise RangeError(f"timesteps: got {timesteps!r}, expected whole numbers") from None
    if not steps or not all(0 <= i < T for i in steps):
        raise RangeError(f"timesteps: got {steps[:5]}..., expected at least one integer in [0, {T - 1}]")
    return check_grid(torch.tensor([(i + 1) / T for i in steps] + [0.0], dtype=torch.float64))


def _table_length(path: Discrete, steps: int = 1) -> int:
    if not isinstance(path, Discrete):
        raise ShapeError(
            f"path: got {type(path).__name__}, expected a Discrete path, the only one with integer timesteps"
        )
    T = len(path.angles) - 1
    if check_count("steps", steps) > T:
        raise RangeError(f"steps: got {steps}, expected at most {T}, the length of the table")
    return T


def trailing_grid(path: Discrete, steps: int) -> Float[Tensor, " n+1"]:
    """Timesteps ``round(T - i T/n) - 1``: from the noisiest entry down (Lin et al. 2023, Table 2), then clean data."""
    T = _table_length(path, steps)
    # np.arange, so that ties (937.5) round as in diffusers; a length off by one, as for 61 steps there, is cut.
    return timestep_grid(path, np.arange(T, 0, -T / steps)[:steps].round().astype(int) - 1)


def leading_grid(path: Discrete, steps: int, offset: int = 0) -> Float[Tensor, " n+1"]:
    """The first n multiples of ``T // n``, plus ``offset`` (1 for Stable Diffusion), falling; then clean data.

    The noisiest entry is left out, although sampling starts from pure noise there: the mean of the picture suffers
    (Lin et al. 2023, Sec. 3.3). With few steps it gets absurd: one step starts at timestep 0, nearly clean.
    """
    T = _table_length(path, steps)
    offset = check_count("offset", offset, 0)
    return timestep_grid(path, [i * (T // steps) + offset for i in reversed(range(steps))])


def linspace_grid(path: Discrete, steps: int) -> Float[Tensor, " n+1"]:
    """Timesteps from T - 1 to 0 in equal steps, rounded; then clean data. A single step starts at T - 1."""
    T = _table_length(path, steps)
    return timestep_grid(path, np.linspace(0, T - 1, steps).round()[::-1].astype(int) if steps > 1 else [T - 1])
