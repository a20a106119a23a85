"""Sampling a consistency model in more than one step: which noise levels to go back to."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import Path, check_grid, karras_grid
from lecture_lib.errors import RangeError
from lecture_lib.tensors import check_count, check_number


def multistep_grid(path: Path, steps: int, *, sigma_max: float = 80.0, end: float = 0.002) -> Float[Tensor, " steps+1"]:
    """Times for ``ConsistencyMultistep``: Karras's grid in ``steps`` steps from sigma_max to 0.002, which is the end.

    One step: 80 -> end. Two: 80, 2.51 -> end. Four: 80, 17.5, 2.51, 0.17 -> end.

    Args:
        path: whose clock the times are on.
        steps: evaluations of the network.
        sigma_max: noise level of the start.
        end: the *time* that the consistency function maps to: 0.002 for Song et al.'s models, 0 for ECT's.
    """
    inner = karras_grid(path, check_count("steps", steps) + 1, sigma_max=sigma_max)[:-2]
    return check_grid(torch.cat([inner, inner.new_tensor([end])]))


def greedy_grid(
    score: Callable[[Tensor], float],
    path: Path,
    steps: int,
    *,
    sigma_max: float = 80.0,
    sigma_min: float = 0.02,
    end: float = 0.002,
    rounds: int = 8,
) -> Float[Tensor, " steps+1"]:
    """The same by search: one more level at a time, where the score of the whole grid is lowest, the others fixed.

    Each level is found by ternary search over log sigma between the level before it and ``sigma_min``, as if the score
    had one minimum there. Draw with the same seeds in every call, or the search follows the noise.

    Args:
        score: grid -> how bad samples drawn with it are (a distance; lower is better).
        path, steps, sigma_max, end: as in ``multistep_grid``.
        sigma_min: no level below this is tried.
        rounds: of the ternary search; each keeps 2/3 of the interval and costs two scores.

    Raises:
        RangeError: ``sigma_min`` is not below ``sigma_max``.

    Source: Song et al. 2023, section 3 (after Alg. 1): greedy, ternary search.
    """
    low = math.log(check_number("sigma_min", sigma_min, 1e-9))
    if not low < math.log(check_number("sigma_max", sigma_max, 1e-9)):
        raise RangeError(f"sigma_min: got {sigma_min:g}, expected less than sigma_max = {sigma_max:g}")

    def grid(log_levels: list[float]) -> Tensor:
        times = path.time_of(-torch.tensor(log_levels, dtype=torch.float64))
        return check_grid(torch.cat([times, times.new_tensor([end])]))

    found = [math.log(sigma_max)]
    for _ in range(check_count("steps", steps) - 1):
        a, b = low, found[-1]
        for _ in range(check_count("rounds", rounds)):
            left, right = a + (b - a) / 3, b - (b - a) / 3
            if score(grid([*found, left])) < score(grid([*found, right])):
                b = right
            else:
                a = left
        found.append((a + b) / 2)
    return grid(found)
