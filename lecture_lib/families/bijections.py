"""Maps with an inverse and a log-determinant: the parts of a normalizing flow.

    z = f(x),   log p(x) = log p(z) + log |det df/dx|

Each part has ``forward(x, cond) -> (z, log |det|)`` and ``inverse(z, cond) -> x``; both keep the shape of x, and the
log-determinant is one number per sample, in the dtype of x.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.tensors import check_number

Labels = Int[Tensor, " b"] | None


class Bijection(nn.Module, ABC):
    """One invertible map."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, " b *d"], cond: Labels = None
    ) -> tuple[Float[Tensor, " b *d"], Float[Tensor, " b"]]:
        """f(x) and ``log |det df/dx|`` of each sample."""

    @abstractmethod
    def inverse(self, z: Float[Tensor, " b *d"], cond: Labels = None) -> Float[Tensor, " b *d"]:
        """The x with f(x) = z."""


class AffineCoupling(Bijection):
    """What is seen stays as it is and says how the rest is stretched and shifted.

        s, t = network(m x),   s <- c tanh s,   z = m x + (1 - m) (x e^s + t),   log |det| = sum (1 - m) s

    The Jacobian is triangular, so its determinant is the product of the stretches; the network may be anything. As the
    stretch is bounded, e^-c to e^c, no single layer can blow up.

    Args:
        mask: m, (*event), True where x is seen and kept.
        network: ``(x (b, d), cond) -> (b, 2 d)``, all numbers of a sample in a row: raw s, then t.
        bound: where the learned c starts, one for each dimension.

    Raises:
        ShapeError: the mask shows all or nothing.

    Source: Dinh, Sohl-Dickstein & Bengio 2017 (1605.08803), eq. 7 to 9; ``c tanh``: section 4.1.
    """

    def __init__(self, mask: Bool[Tensor, " *event"], network: nn.Module, *, bound: float = 2.0) -> None:
        super().__init__()
        if mask.dtype != torch.bool or mask.all() or not mask.any():
            raise ShapeError(
                f"mask: got {mask.dtype} with {int(mask.sum())} of {mask.numel()}, expected bool with both"
            )
        self.register_buffer("mask", mask.clone(), persistent=False)
        self.network = network
        self.bound = nn.Parameter(torch.full(mask.shape, check_number("bound", bound, 0)))

    def stretch_and_shift(self, seen: Tensor, cond: Labels) -> tuple[Tensor, Tensor]:
        """s and t, zero where x is kept."""
        s, t = (half.reshape(seen.shape) for half in self.network(seen.flatten(1), cond).chunk(2, dim=1))
        return ~self.mask * self.bound * torch.tanh(s), ~self.mask * t

    def forward(self, x, cond=None):
        s, t = self.stretch_and_shift(self.mask * x, cond)
        return x * torch.exp(s) + t, s.flatten(1).sum(1)

    def inverse(self, z, cond=None):
        s, t = self.stretch_and_shift(self.mask * z, cond)  # what is seen is the same on both sides
        return (z - t) * torch.exp(-s)


class ActNorm(Bijection):
    """``z = (x - shift) e^-log_scale`` per dimension: a batch norm whose statistics are weights, set once from data.

    It is the identity until ``start_from`` is called, so that no verb depends on which batch came first.
    Source: Kingma & Dhariwal 2018 (Glow), section 3.1.
    """

    def __init__(self, event: tuple[int, ...]) -> None:
        super().__init__()
        self.shift, self.log_scale = nn.Parameter(torch.zeros(event)), nn.Parameter(torch.zeros(event))

    @torch.no_grad()
    def start_from(self, x: Float[Tensor, " b *d"]) -> None:
        """Mean 0 and variance 1 in each dimension, on this batch."""
        self.shift.copy_(x.mean(0))
        self.log_scale.copy_(x.std(0, correction=0).clamp(min=1e-4).log())

    def forward(self, x, cond=None):
        return (x - self.shift) * torch.exp(-self.log_scale), -self.log_scale.sum().expand(len(x))

    def inverse(self, z, cond=None):
        return z * torch.exp(self.log_scale) + self.shift


class Logit(Bijection):
    """Numbers between two bounds to all numbers: ``z = log(u/(1 - u))``, u = (x - low)/(high - low).

    With ``log dz/dx = -log u - log(1 - u) - log(high - low)``, which keeps the density that of x. For dequantised
    pictures, whose density must not spill over the darkest and brightest level.

    Args:
        low, high: the bounds, -17/16 and 17/16 for the dequantised digits.
        margin: how far inside 0..1 the data are moved first, ``margin + (1 - 2 margin) u``: a bound itself would go
            to infinity. Samples may lie outside the bounds by that much.

    Source: Dinh et al. 2017, section 4.1, with margin .05.
    """

    def __init__(self, low: float, high: float, *, margin: float = 0.05) -> None:
        super().__init__()
        self.margin = check_number("margin", margin, 1e-6, 0.49)
        width = check_number("high", high, low) - check_number("low", low)
        self.slope = (1 - 2 * margin) / width if width else math.inf
        self.low = low
        if not math.isfinite(self.slope):
            raise RangeError(f"high: got {high}, expected more than low = {low}")

    def forward(self, x, cond=None):
        u = self.margin + self.slope * (x - self.low)
        if not ((u > 0) & (u < 1)).all():
            low, high = (self.low + (edge - self.margin) / self.slope for edge in (0, 1))
            raise RangeError(f"x: got {x.min():.4g}..{x.max():.4g}, expected numbers between {low:.4g} and {high:.4g}")
        z = torch.logit(u)
        steepness = math.log(self.slope) + F.softplus(z) + F.softplus(-z)  # -log u - log(1 - u), without a cancellation
        return z, steepness.flatten(1).sum(1)

    def inverse(self, z, cond=None):
        return self.low + (torch.sigmoid(z) - self.margin) / self.slope


def checker_mask(event: tuple[int, ...]) -> Bool[Tensor, " *event"]:
    """True where the last two indices (of a vector: the one index) add up to an even number."""
    return sum(torch.meshgrid(*(torch.arange(n) for n in event[-2:]), indexing="ij")).expand(event) % 2 == 0


def stripe_mask(event: tuple[int, ...]) -> Bool[Tensor, " *event"]:
    """True in every other row.

    In a picture of half the side, whose channels are the four pixels of a square, this is a mask of channels.
    """
    return (torch.arange(event[-2]) % 2 == 0)[:, None].expand(event)


def half_mask(event: tuple[int, ...]) -> Bool[Tensor, " *event"]:
    """True in the first half along the first axis that is longer than 1: channels, rows, or the parts of a vector."""
    axis = next((i for i, n in enumerate(event) if n > 1), 0)
    shape = [-1 if i == axis else 1 for i in range(len(event))]
    return (torch.arange(event[axis]) < event[axis] // 2).reshape(shape).expand(event)
