"""Learning-rate schedules: pure functions of the step; there is nothing to save and nothing to go wrong on resume."""

from __future__ import annotations

import math
from collections.abc import Callable

from lecture_lib.errors import RangeError
from lecture_lib.tensors import check_count, check_number

Schedule = Callable[[int], float]
"""From the number of updates already made (0, 1, 2, ...) to a factor on the base learning rate."""


def constant(step: int) -> float:
    """Factor 1 throughout."""
    return 1.0


def warmup_cosine(steps: int, *, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Linear rise over ``warmup`` updates, then half a cosine down to ``floor`` at update ``steps``.

    The first update already moves: its factor is 1 / (warmup + 1), not 0.

    Raises:
        RangeError: not 0 <= warmup < steps, or floor outside [0, 1].

    Source: Loshchilov & Hutter 2017 (cosine), Goyal et al. 2017 (warm-up).
    """
    check_count("steps", steps)
    check_number("floor", floor, 0.0, 1.0)
    if not 0 <= warmup < steps:
        raise RangeError(f"warmup: got {warmup}, expected 0 <= warmup < steps = {steps}")

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / (steps - warmup))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor
