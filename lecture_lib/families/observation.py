"""What a decoder's output says about the data: p(x | x_hat), with every normaliser.

    Gaussian              log N(x; x_hat, s^2) = -(x - x_hat)^2/(2 s^2) - log s - 1/2 log 2 pi
    DiscretisedLogistic   P(x) = F((x + step/2 - x_hat)/s) - F((x - step/2 - x_hat)/s),   F the logistic function

The scale s is learned, one for each number of a sample. A squared error without the 1/2 and without a scale is a
Gaussian of variance 1/2, whatever the data: it sets the weight of everything else in the loss (the KL) by accident.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.families.levels import Levels
from lecture_lib.tensors import check_number, randn_like


def normal_log_prob(
    x: Float[Tensor, " b *d"], mean: Float[Tensor, " b *d"], logvar: Float[Tensor, " b *d"]
) -> Float[Tensor, " b"]:
    """``log N(x; mean, e^logvar)`` of independent components, summed over them; ``D/2 log 2 pi`` is in it."""
    each = (x - mean).square() * (-logvar).exp() + logvar + math.log(2 * math.pi)
    return -each.flatten(1).sum(1) / 2


class Observation(nn.Module, ABC):
    """p(x | x_hat) with a learned scale for each number of a sample.

    Args:
        event: shape of one sample.
        log_scale: where the logarithms of the scales start.

    Attributes:
        of: whether ``log_prob`` is of a density or of probabilities of grey levels.
    """

    of: ClassVar[Literal["density", "probability"]]

    def __init__(self, event: Sequence[int], *, log_scale: float = -1.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full(tuple(event), check_number("log_scale", log_scale)))

    @abstractmethod
    def log_prob(self, x: Float[Tensor, " b *d"], x_hat: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
        """Nats of each sample, summed over its numbers.

        Raises:
            ShapeError: x and x_hat differ in shape.
        """

    @abstractmethod
    def sample(self, x_hat: Float[Tensor, " b *d"], generator: torch.Generator) -> Float[Tensor, " b *d"]:
        """A draw of x, noise of the scale included; no gradients."""

    def check(self, x: Tensor, x_hat: Tensor) -> None:
        """Raise a named error unless both are samples of this event."""
        if x.shape != x_hat.shape or x.shape[1:] != self.log_scale.shape:
            expected = f"(b, {', '.join(map(str, self.log_scale.shape))}) both"
            raise ShapeError(f"x, x_hat: got shapes {tuple(x.shape)}, {tuple(x_hat.shape)}, expected {expected}")


class GaussianObservation(Observation):
    """A density: x_hat and independent normal noise. For points of the plane, and for dequantised grey levels."""

    of = "density"

    def log_prob(self, x, x_hat):
        self.check(x, x_hat)
        return normal_log_prob(x, x_hat, 2 * self.log_scale)

    @torch.no_grad()
    def sample(self, x_hat, generator):
        return x_hat + self.log_scale.exp() * randn_like(x_hat, generator)


class DiscretisedLogistic(Observation):
    """Probabilities of grey levels: logistic noise, of which each level owns its cell and the two ends own the rest.

    They add up to 1 over the levels, so that nothing has to be dequantised, and a pixel that is black in all pictures
    costs nothing (a density of it would grow without bound). The difference of two logistic functions is taken as
    ``F(b) - F(a) = F(b) F(-a) (1 - e^(a - b))``, which does not cancel.

    Args:
        event: shape of one sample.
        levels: the grey levels; 17 for the digits.
        log_scale: where the logarithms of the scales start.

    Raises (from log_prob):
        RangeError: x is not on the levels.

    Source: Kingma et al. 2016 (1606.04934), section 5.3 and appendix C; Salimans et al. 2017 (1701.05517), section 2.1.
    """

    of = "probability"

    def __init__(self, event: Sequence[int], *, levels: Levels | None = None, log_scale: float = -1.0) -> None:
        super().__init__(event, log_scale=log_scale)
        self.levels = levels or Levels(17)

    def log_prob(self, x, x_hat):
        self.check(x, x_hat)
        number, last = self.levels.numbers(x), self.levels.count - 1
        scale, step = self.log_scale.exp(), 2 / last
        below = F.logsigmoid((x + step / 2 - x_hat) / scale)  # log F(b)
        above = F.logsigmoid((x_hat - x + step / 2) / scale)  # log F(-a)
        inside = torch.log(-torch.expm1(-step / scale))  # log(1 - e^(a - b)), the same for all levels
        each = torch.where(number == 0, below, torch.where(number == last, above, below + above + inside))
        return each.flatten(1).sum(1)

    @torch.no_grad()
    def sample(self, x_hat, generator):
        u = torch.rand(x_hat.shape, generator=generator, device=generator.device, dtype=x_hat.dtype).to(x_hat.device)
        u = u.clamp(1e-7, 1 - 1e-7)
        x = x_hat + self.log_scale.exp() * (u.log() - torch.log1p(-u))
        last = self.levels.count - 1
        return self.levels.values(((x + 1) * last / 2).round().clamp(0, last))
