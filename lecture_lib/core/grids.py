"""Grids: which noise levels a sampler visits. n steps are n + 1 strictly falling times, float64, on the CPU."""

from __future__ import annotations

import operator
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.paths import Discrete, Path
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.tensors import check_count, check_number


def check_grid(grid: Tensor) -> Float[Tensor, " n+1"]:
    """``grid`` in float64, if it is 1-D, finite, >= 0 and strictly falling; otherwise a named error."""
    if not isinstance(grid, Tensor) or grid.ndim != 1 or len(grid) < 2 or not grid.is_floating_point():
        got = tuple(grid.shape) if isinstance(grid, Tensor) else type(grid).__name__
        raise ShapeError(
            f"grid: got {got}, expected a floating 1-D tensor of at least 2 times (n steps are n + 1 times)"
        )
    grid = grid.double()
    if not torch.isfinite(grid).all() or not (grid >= 0).all() or not (grid.diff() < 0).all():
        raise RangeError(
            f"grid: got times from {grid[0]:g} to {grid[-1]:g}, expected finite, strictly falling times >= 0 "
            "(t = 0 is data: sampling runs from large t to small t)"
        )
    return grid


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
    return check_grid(torch.linspace(start**0.5, end**0.5, check_count("steps", steps) + 1, dtype=torch.float64) ** 2)


def logsnr_grid(path: Path, steps: int, *, start: float, end: float) -> Float[Tensor, " n+1"]:
    """Equal steps in half log-SNR (Lu et al. 2022); both ends need alpha > 0 and sigma > 0."""
    ends = path.lam(torch.tensor(_ends(path, start, end), dtype=torch.float64))
    if not torch.isfinite(ends).all():
        raise RangeError(
            f"start, end: got {start}, {end} with infinite log-SNR, expected 0 < end < start with alpha > 0"
        )
    lam = torch.linspace(float(ends[0]), float(ends[1]), check_count("steps", steps) + 1, dtype=torch.float64)
    return check_grid(path.time_of(lam))


def karras_grid(
    path: Path, steps: int, *, sigma_max: float = 80.0, sigma_min: float = 0.002, rho: float = 7.0
) -> Float[Tensor, " n+1"]:
    """``sigma/alpha`` with equal steps in its rho-th root, then exactly 0 (Karras et al. 2022, Eq. 5)."""
    steps = check_count("steps", steps)
    highest = float(torch.exp(-path.lam(torch.tensor([path.t_max], dtype=torch.float64))))
    if not check_number("sigma_max", sigma_max) <= highest * (1 + 1e-9):
        raise RangeError(f"sigma_max: got {sigma_max:g}, but this path ends at sigma/alpha = {highest:g}")
    check_number("sigma_min", sigma_min, 1e-12, sigma_max)
    check_number("rho", rho, 1e-3)
    ramp = torch.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps, dtype=torch.float64)
    return check_grid(torch.cat([path.time_of(-rho * ramp.log()), torch.zeros(1, dtype=torch.float64)]))


def timestep_grid(path: Discrete, timesteps: Iterable[int]) -> Float[Tensor, " n+1"]:
    """Falling integer timesteps of a table (999, 979, ...) as times ``t = (i + 1)/T``, then 0, clean data."""
    if not isinstance(path, Discrete):
        raise ShapeError(
            f"path: got {type(path).__name__}, expected a Discrete path, the only one with integer timesteps"
        )
    T = len(path.angles) - 1
    try:
        steps = [operator.index(i) for i in timesteps]
    except TypeError:
        raise RangeError(f"timesteps: got {timesteps!r}, expected whole numbers") from None
    if not steps or not all(0 <= i < T for i in steps):
        raise RangeError(f"timesteps: got {steps[:5]}..., expected at least one integer in [0, {T - 1}]")
    return check_grid(torch.tensor([(i + 1) / T for i in steps] + [0.0], dtype=torch.float64))
