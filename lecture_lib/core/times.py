"""Times: which noise levels a model is trained on. Those that a sampler visits are in ``grids``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.paths import Path
from lecture_lib.core.tables import Discrete
from lecture_lib.errors import RangeError
from lecture_lib.tensors import check_count, check_number


class Times(Protocol):
    """A distribution of training times."""

    def sample(self, n: int, *, generator: torch.Generator | None = None, device=None) -> Float[Tensor, " n"]: ...


def _draw(kind, n: int, generator: torch.Generator | None, device) -> Tensor:
    source = device if generator is None else generator.device
    return kind(check_count("n", n), generator=generator, device=source, dtype=torch.float64).to(device or source)


@dataclass(frozen=True)
class UniformTimes:
    """``t`` uniform in [low, high] on the path's clock; where that does not end at 1, give ``high=path.t_max``."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self):
        if not 0 <= self.low < self.high < math.inf:
            raise RangeError(f"low, high: got {self.low}, {self.high}, expected finite 0 <= low < high")

    def sample(self, n, *, generator=None, device=None):
        return self.low + (self.high - self.low) * _draw(torch.rand, n, generator, device)


@dataclass(frozen=True)
class TableTimes:
    """The times of a table's entries, ``i/T`` for i = 1..T, all equally often: DDPM's training (Ho et al., Alg. 1)."""

    path: Discrete

    def sample(self, n, *, generator=None, device=None):
        T = len(self.path.angles) - 1
        return (T * _draw(torch.rand, n, generator, device)).floor().add(1).clamp(max=T) / T


@dataclass(frozen=True)
class LogitNormalTimes:
    """``t = sigmoid(mean + std u)``, ``u ~ N(0, 1)``: mostly the hard middle (Esser et al. 2024, Sec. 3.1)."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self):
        check_number("mean", self.mean)
        check_number("std", self.std, 0)

    def sample(self, n, *, generator=None, device=None):
        return torch.sigmoid(self.mean + self.std * _draw(torch.randn, n, generator, device))


@dataclass(frozen=True)
class LogNormalNoise:
    """Noise level ``sigma/alpha`` log-normal, on any path (Karras et al. 2022: mean -1.2, std 1.2)."""

    path: Path
    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self):
        check_number("mean", self.mean)
        check_number("std", self.std, 0)

    def sample(self, n, *, generator=None, device=None):
        return self.path.time_of(-(self.mean + self.std * _draw(torch.randn, n, generator, device)))
