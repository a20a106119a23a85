"""Last steps of a bound: how likely the data is once a Gaussian around it is predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.likelihood import standard_normal_log_prob
from lecture_lib.families.levels import Levels


class Decoder(Protocol):
    """``log p(x0)`` under N(mean, std^2), and whether that is of a density or of levels."""

    of: Literal["density", "probability"]

    def log_prob(self, x0: Float[Tensor, " b *d"], mean: Float[Tensor, " b *d"], std: float) -> Float[Tensor, " b"]:
        """Summed over dimensions, float64."""
        ...


@dataclass(frozen=True)
class GaussianDecoder:
    """The density itself: for data without levels."""

    of: ClassVar[str] = "density"

    def log_prob(self, x0, mean, std):
        """Any x0; float64."""
        return standard_normal_log_prob((x0.double() - mean.double()) / std) - x0[0].numel() * math.log(std)


@dataclass(frozen=True)
class LevelDecoder:
    """The Gaussian's mass in the cell of each grey level; the lowest and the highest level own the tails.

    So the probabilities of all levels add up to 1 whatever the mean and the std.

    Args:
        levels: which they are.

    Raises (when called):
        RangeError: x0 is not on the levels.

    Source: Ho et al. 2020 (2006.11239), Eq. 13.
    """

    levels: Levels = field(default_factory=Levels)
    of: ClassVar[str] = "probability"

    def log_prob(self, x0, mean, std):
        """x0 on the levels; float64."""
        number, last = self.levels.numbers(x0), self.levels.count - 1
        off, half = x0.double() - mean.double(), 1 / last  # neighbours are 2/last apart
        left = torch.where(number == 0, -math.inf, (off - half) / std)
        right = torch.where(number == last, math.inf, (off + half) / std)
        # Far out on the right both cdfs round to 1; mirrored to the left their logarithms stay apart.
        mirrored = left > 0
        left, right = torch.where(mirrored, -right, left), torch.where(mirrored, -left, right)
        upper = torch.special.log_ndtr(right)
        mass = upper + torch.log(-torch.expm1(torch.special.log_ndtr(left) - upper))
        return mass.flatten(1).sum(1)
