"""Habits of families: which labels are heard, how many steps are taken, and the one jump of an encoder by time t."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.core.conditions import drop_condition
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.families.base import Batch


def heard(
    batch: Batch, null: int | None, p_uncond: float, generator: torch.Generator
) -> tuple[Float[Tensor, " b *d"], Int[Tensor, " b"] | None]:
    """Data and labels of a batch, each label replaced by ``null``, "no class", with probability ``p_uncond``.

    So one model learns p(x | label) and p(x) at once. A batch without labels stays without, and labels that no
    number stands for the lack of (``null`` is None) stay as they are.
    """
    x, label = batch if len(batch) > 1 else (batch[0], None)
    if label is None or null is None or not p_uncond:
        return x, label
    return x, drop_condition(label, torch.tensor(null), p_uncond, generator)


def check_unlabelled(cond: Tensor | None) -> None:
    """Raise a named error if a model without classes is asked for one: it would answer as if it had not been."""
    if cond is not None:
        raise ShapeError("cond: got labels, but this model has no classes; expected None")


def check_steps(steps: int | None, expected: int, why: str) -> None:
    """Raise a named error if another number of steps is asked for than the one that the family can take."""
    if steps not in (None, expected):
        raise RangeError(f"steps: got {steps!r}, expected {expected}: {why}")


def jumped(t: Float[Tensor, " b"]) -> bool:
    """Whether an encoder has encoded by time t: False where t = 0, True where t = 1; there is nothing in between.

    Raises:
        RangeError: other times, or some of a batch here and some there (a batch has one shape).
    """
    if not ((t == 0).all() or (t == 1).all()):
        raise RangeError(f"t: got {t.min():g}..{t.max():g}, expected all 0 or all 1: an encoder is a single jump")
    return bool((t == 1).all())
