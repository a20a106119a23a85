"""Resolution shift: the same picture with more pixels needs more noise to look as noisy.

A picture of m instead of n pixels averages noise away better: seen at the old size, it is less noisy by
``kappa = sqrt(m/n)``. So every noise level sigma/alpha is multiplied by kappa, on any path:
``lam -> lam - log(kappa)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.grids import check_grid
from lecture_lib.core.paths import Path
from lecture_lib.core.times import Times
from lecture_lib.errors import RangeError
from lecture_lib.tensors import check_number


def shift_times(path: Path, t: Float[Tensor, " b"], kappa: float) -> Float[Tensor, " b"]:
    """The times whose sigma/alpha is ``kappa`` times that of ``t`` (Esser et al. 2024, Eq. 23, on any path).

    On rectified flow this is ``kappa t/(1 + (kappa - 1) t)``. Clean data (t = 0) and pure noise (alpha = 0) stay where
    they are; a noise level that the path does not have becomes that of its nearer end.
    """
    t, shift = t.double(), math.log(check_number("kappa", kappa, 1e-6, 1e6))
    lam = path.lam(t)
    return torch.where((t == 0) | torch.isinf(lam), t, path.time_of(lam - shift))


def shifted_grid(path: Path, grid: Float[Tensor, " n+1"], kappa: float) -> Float[Tensor, " n+1"]:
    """``grid`` with every noise level multiplied by ``kappa``, and as many steps.

    Where that passes the end of the path (EDM, a table), those times would all be ``t_max``: they are spread evenly
    between ``t_max`` and the first time inside, so that no step is lost.

    Raises:
        RangeError: the grid starts past the end of the path, or all of it would have to.
    """
    grid = check_grid(grid)
    if grid[0] > path.t_max * (1 + 1e-6):
        raise RangeError(f"grid: starts at t = {grid[0]:g}, expected at most t_max = {path.t_max:g}")
    grid = shift_times(path, grid, kappa)
    past = int((grid >= path.t_max * (1 - 1e-12)).sum())
    if past == len(grid):
        raise RangeError(f"kappa: got {kappa:g}, which shifts all of this grid past the end, t_max = {path.t_max:g}")
    spread = torch.linspace(path.t_max, float(grid[past]), past + 1, dtype=torch.float64)[:past]
    return check_grid(torch.cat([spread, grid[past:]]))


@dataclass(frozen=True)
class ShiftedTimes:
    """Training times drawn from ``times`` and shifted by ``kappa``; a model should train where it will be used.

    Where the shift passes the end of the path (EDM, a table), the times pile up at ``t_max``.
    """

    path: Path
    times: Times
    kappa: float

    def __post_init__(self):
        check_number("kappa", self.kappa, 1e-6, 1e6)

    def sample(self, n, *, generator=None, device=None):
        return shift_times(self.path, self.times.sample(n, generator=generator, device=device), self.kappa)
