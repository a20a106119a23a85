"""4.6: how far apart two samples are."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import normal, number, shape
from lecture_lib.exercises.lecture4.numbers import A
from lecture_lib.exercises.task import question


@question("4.6", 6, "the pseudo-Huber distance")
def pseudo_huber(a, b, factor):
    square = (a - b).square().flatten(1)
    return _huber(square.sum(1), factor * square.shape[1] ** 0.5)


def _huber(square, c):
    return (square + c**2).sqrt() - c


@pseudo_huber.inputs
def _(g):
    size = shape(g, 4)
    return {"a": normal(g, *size, scale=0.7), "b": normal(g, *size) + 0.3, "factor": number(g, 0.3, 0.7)}


_X = torch.arange(8.0).reshape(2, 1, 2, 2) / 4
_Y = _X + torch.tensor([1.5, -2.5]).reshape(2, 1, 1, 1)
pseudo_huber.edge("a sample and itself", torch.zeros(2), a=A[:, :, None], b=A[:, :, None], factor=0.4)
pseudo_huber.edge("hardly any width: the length", torch.tensor([3.0, 5.0]), a=_X, b=_Y, factor=1e-5)
pseudo_huber.edge("sides 3, 4 and 5", torch.tensor([1.0, math.hypot(5, 4) - 4]), a=_X, b=_Y, factor=2.0)


@pseudo_huber.mistake
def element_by_element(a, b, factor):
    """It is taken element by element: then a wrong digit weighs no more than a noisy one. The length is that of the
    whole sample."""
    c = factor * a[0].numel() ** 0.5
    return _huber((a - b).square(), c).flatten(1).mean(1)


@pseudo_huber.mistake
def elements_summed(a, b, factor):
    """Element by element, and summed: the square root belongs around the sum."""
    return _huber((a - b).square(), factor * a[0].numel() ** 0.5).flatten(1).sum(1)


@pseudo_huber.mistake
def factor_for_width(a, b, factor):
    """`factor` is taken for c: lengths grow with the number of dimensions, and c must grow alike."""
    return _huber((a - b).square().flatten(1).sum(1), factor)


@pseudo_huber.mistake
def linear_width(a, b, factor):
    """c is made proportional to d: a length grows more slowly than that."""
    return _huber((a - b).square().flatten(1).sum(1), factor * a[0].numel())


@pseudo_huber.mistake
def channels_alone(a, b, factor):
    """d is the number of channels here: it counts *all* numbers of a sample."""
    return _huber((a - b).square().flatten(1).sum(1), factor * a.shape[1] ** 0.5)


@pseudo_huber.mistake
def batch_counted(a, b, factor):
    """d counts the batch, too: c would hang on how many samples are shown at once."""
    return _huber((a - b).square().flatten(1).sum(1), factor * a.numel() ** 0.5)


@pseudo_huber.mistake
def not_from_zero(a, b, factor):
    """Equal samples are not at distance 0: something is to be taken away at the end."""
    c = factor * a[0].numel() ** 0.5
    return _huber((a - b).square().flatten(1).sum(1), c) + c


@pseudo_huber.mistake
def plain_square(a, b, factor):
    """That is the squared length: one outlier outweighs all else. Far away the distance is to grow like a length."""
    return (a - b).square().flatten(1).sum(1)


@pseudo_huber.mistake
def plain_length(a, b, factor):
    """That is the length alone, which has a kink at 0: near zero the distance is to be a square."""
    return (a - b).flatten(1).norm(dim=1)


@pseudo_huber.mistake
def mean_inside(a, b, factor):
    """A mean over the numbers stands within the root; a length squared is a sum."""
    return _huber((a - b).square().flatten(1).mean(1), factor * a[0].numel() ** 0.5)


@pseudo_huber.mistake
def width_not_squared(a, b, factor):
    """c is added to squares without being squared."""
    c = factor * a[0].numel() ** 0.5
    return ((a - b).square().flatten(1).sum(1) + c).sqrt() - c


@pseudo_huber.mistake
def one_length(a, b, factor):
    """One length for the whole batch: each sample has its own."""
    return _huber((a - b).square().sum(), factor * a[0].numel() ** 0.5).expand(len(a))


@pseudo_huber.mistake
def statistics(a, b, factor):
    """That is the form of statistics, c^2 times a root with 1 in it: far away its slope is c, and here it is 1."""
    c = factor * a[0].numel() ** 0.5
    return c**2 * (((a - b).square().flatten(1).sum(1) / c**2 + 1).sqrt() - 1)


@pseudo_huber.mistake
def two_pieces(a, b, factor):
    """That is Huber's own function, a square up to c and a length from there; "pseudo" is the one without a seam."""
    c, length = factor * a[0].numel() ** 0.5, plain_length(a, b, factor)
    return torch.where(length < c, length**2 / (2 * c), length - c / 2)


@pseudo_huber.mistake
def city_blocks(a, b, factor):
    """The length is a sum of absolute values: |a - b| is Euclid's."""
    return _huber((a - b).abs().flatten(1).sum(1) ** 2, factor * a[0].numel() ** 0.5)
