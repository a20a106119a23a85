"""Sampling with a flow map: jump down a grid, with as much fresh noise between the jumps as one likes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import Path, check_grid
from lecture_lib.distill.maps import FlowMap
from lecture_lib.errors import RangeError
from lecture_lib.samplers import Frame
from lecture_lib.tensors import blend, check_batch, check_number, randn_like


def jump_along(
    flow_map: FlowMap,
    path: Path,
    grid: Float[Tensor, " n+1"],
    x_T: Float[Tensor, " b *d"],
    *,
    gamma: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[Frame]:
    """CTM's gamma-sampling: overshoot, then noise back up; n + 1 frames, one evaluation each after the first.

        x <- (alpha_s/alpha_r) Phi(x, t, r) + gamma sigma_s z       sigma_r/alpha_r = sqrt(1 - gamma^2) sigma_s/alpha_s

    gamma = 0 follows the trajectory (r = s); gamma = 1 jumps to the data every time and noises afresh (r = 0), which
    is multistep sampling of consistency models. Noise forgets the errors of earlier jumps, and what they got right.

    Args:
        flow_map: with its condition bound.
        grid: falling times, from that of x_T.
        gamma: in [0, 1].

    Raises (at the call):
        ShapeError, RangeError, NonFiniteError: as ``samplers.sample``; gamma outside [0, 1].

    Source: Kim et al. 2023 (2310.02279), section 4.3 and algorithm 3.
    """
    grid = check_grid(grid)
    if grid[0] > path.t_max * (1 + 1e-6):
        raise RangeError(f"grid: starts at t = {grid[0]:g}, but {type(path).__name__} ends at t_max = {path.t_max:g}")
    gamma = check_number("gamma", gamma, 0, 1)
    return _frames(flow_map, path, grid.to(x_T.device), check_batch("x_T", x_T), gamma, generator)


def _frames(flow_map, path, grid, x, gamma, generator) -> Iterator[Frame]:
    overshoot = 0.5 * torch.tensor(1 - gamma**2, dtype=torch.float64, device=x.device).log()
    yield Frame(0, float(grid[0]), x, None, 0)
    for i, (t, s) in enumerate(pairwise(grid[:, None].expand(-1, len(x))), start=1):
        r = path.time_of(path.lam(s) - overshoot) if gamma else s
        with torch.no_grad():
            x = blend((path.alpha(s) / path.alpha(r), flow_map(x, t, r)))
            if gamma and s[0] > 0:  # clean data carries no noise
                x = blend((1.0, x), (gamma * path.sigma(s), randn_like(x, generator)))
        yield Frame(i, float(s[0]), x, None, i)
