"""Last steps of a bound: how likely the data is once a Gaussian around it is predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import RangeError
from lecture_lib.tensors import check_number


class Decoder(Protocol):
    """``log p(x0)`` under N(mean, std^2), and whether that is of a density or of levels."""

    of: Literal["density", "probability"]

    def log_prob(self, x0: Float[Tensor, " b *d"], mean: Float[Tensor, " b *d"], std: float) -> Float[Tensor, " b"]: ...


@dataclass(frozen=True)
class GaussianDecoder:
    """The density itself: for data without levels."""

    of: ClassVar[str] = "density"

    def log_prob(self, x0, mean, std):
        z = ((x0.double() - mean.double()) / std).flatten(1)
        return -0.5 * z.square().sum(1) - z.shape[1] * (math.log(std) + math.log(2 * math.pi) / 2)


@dataclass(frozen=True)
class LevelDecoder:
    """The Gaussian's mass in the cell of each grey level; the lowest and the highest level own the tails.

    So the probabilities of all levels add up to 1 whatever the mean and the std.

    Args:
        step: distance of two levels.
        low, high: the lowest and the highest level.

    Raises (when called):
        RangeError: x0 lies outside [low, high].

    Source: Ho et al. 2020 (2006.11239), Eq. 13.
    """

    step: float = 1 / 8
    low: float = -1.0
    high: float = 1.0
    of: ClassVar[str] = "probability"

    def __post_init__(self):
        check_number("step", self.step, 1e-12)
        check_number("high", self.high, self.low + self.step)

    def log_prob(self, x0, mean, std):
        x0, mean = x0.double(), mean.double()
        if x0.min() < self.low - self.step / 4 or x0.max() > self.high + self.step / 4:
            got = f"{float(x0.min()):g} to {float(x0.max()):g}"
            raise RangeError(f"x0: got levels from {got}, expected {self.low:g} to {self.high:g}")
        left = torch.where(x0 < self.low + self.step / 2, -math.inf, (x0 - self.step / 2 - mean) / std)
        right = torch.where(x0 > self.high - self.step / 2, math.inf, (x0 + self.step / 2 - mean) / std)
        # Far out on the right both cdfs round to 1; mirrored to the left their logarithms stay apart.
        mirrored = left > 0
        left, right = torch.where(mirrored, -right, left), torch.where(mirrored, -left, right)
        upper = torch.special.log_ndtr(right)
        mass = upper + torch.log(-torch.expm1(torch.special.log_ndtr(left) - upper))
        return mass.flatten(1).sum(1)
