"""Random inputs for questions: sizes that differ, numbers that are no default."""

from __future__ import annotations

import torch
from torch import Tensor


def number(g: torch.Generator, low: float, high: float) -> float:
    """Uniform, to three digits, so that a student can read it."""
    return round(low + (high - low) * float(torch.rand((), generator=g)), 3)


def count(g: torch.Generator, low: int, high: int) -> int:
    """Uniform among low, ..., high."""
    return int(torch.randint(low, high + 1, (), generator=g))


def shape(g: torch.Generator, dims: int = 2) -> tuple[int, ...]:
    """``dims`` sizes, pairwise different, from 2 on."""
    return tuple((torch.randperm(5, generator=g)[:dims] + 2).tolist())


def normal(g: torch.Generator, *size: int, scale: float = 1.0) -> Tensor:
    """Gaussian numbers."""
    return scale * torch.randn(size, generator=g)


def uniform(g: torch.Generator, *size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform numbers."""
    return low + (high - low) * torch.rand(size, generator=g)
