"""Grey levels as whole numbers: what a model that speaks of probabilities counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.errors import RangeError
from lecture_lib.tensors import check_count


@dataclass(frozen=True)
class Levels:
    """``count`` grey levels, evenly from -1 to 1; 17 for the digits, 2 for black and white.

    Raises:
        RangeError: fewer than two levels.
    """

    count: int = 17

    def __post_init__(self) -> None:
        check_count("count", self.count, 2)

    def numbers(self, x: Float[Tensor, " *d"]) -> Int[Tensor, " *d"]:
        """0, 1, ... for each grey value.

        Raises:
            RangeError: x is not on the levels, as dequantised pictures are not: a probability is that of a level.
        """
        scaled = (x + 1) * (self.count - 1) / 2
        numbers = scaled.round().long()
        off = float((scaled - numbers).abs().max())
        if off > 1e-3 or numbers.min() < 0 or numbers.max() >= self.count:
            got = f"{float(x.min()):.4g}..{float(x.max()):.4g}, up to {off:.3g} of a step off"
            raise RangeError(f"x: got {got}, expected the {self.count} levels from -1 to 1")
        return numbers

    def values(self, numbers: Int[Tensor, " *d"]) -> Float[Tensor, " *d"]:
        """-1 to 1."""
        return 2 * numbers.to(torch.get_default_dtype()) / (self.count - 1) - 1
