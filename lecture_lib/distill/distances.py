"""How far apart two pictures are: one number per sample. Means over dimensions, so that sizes do not set the rate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.tensors import check_number

Distance = Callable[[Tensor, Tensor], Tensor]
"""``(a (b, ...), b (b, ...)) -> (b,)``."""


def squared(a: Float[Tensor, " b *d"], b: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """``|a - b|^2 / d``."""
    return (a - b).square().flatten(1).mean(1)


def pseudo_huber(c: float | None = None) -> Distance:
    """``sqrt(|a - b|^2 + c^2) - c`` with the norm of the *whole* sample: near zero a square, far away a length.

    An outlier pulls no harder than a small error. Taken element by element it would be another loss.

    Args:
        c: where it changes over; default ``0.00054 sqrt(d)`` for d numbers per sample; 0 is the plain norm.

    Source: Song & Dhariwal 2023 (iCT), section 3.3.
    """
    c = None if c is None else check_number("c", c, 0)

    def distance(a: Float[Tensor, " b *d"], b: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
        square = (a - b).square().flatten(1)
        width = 0.00054 * square.shape[1] ** 0.5 if c is None else c
        # The square root has no slope at zero; a floor below all that matters keeps c = 0 differentiable.
        kind = torch.finfo(square.dtype)
        floor = max(1e-30, kind.tiny * kind.eps)  # float16 takes 1e-30 for 0
        return (square.sum(1) + width**2).clamp(min=floor).sqrt() - width

    return distance


def huber(c: float = 0.001) -> Distance:
    """``sqrt(delta^2 + c^2) - c`` per element, averaged: LCM's (Luo et al. 2023, training script)."""
    c = check_number("c", c, 1e-12)
    return lambda a, b: (((a - b).square() + c**2).sqrt() - c).flatten(1).mean(1)


def normalised(power: float = 1.0, c: float = 1e-3) -> Distance:
    """``S / sg(S + c)^power`` with ``S = |a - b|^2``: MeanFlow's, whose gradient does not grow with the error.

    At power 1 it even falls, as 2/|a - b|, and the value is about 1 until an error falls below sqrt(c): read S itself
    from ``squared`` to see progress. At power 1/2 every sample pulls alike: twice the pseudo-Huber distance's gradient.
    Power 0 is the plain square.

    Source: Geng et al. 2025 (2505.13447), section 4.3 and eq. 22.
    """
    power, c = check_number("power", power, 0, 1), check_number("c", c, 1e-12)

    def distance(a: Float[Tensor, " b *d"], b: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
        square = (a - b).square().flatten(1).sum(1)
        return square / (square.detach() + c) ** power

    return distance
