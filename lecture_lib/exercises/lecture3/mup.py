"""3.11: factors by which a learning rate and an initial size travel to a wider network."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import count
from lecture_lib.exercises.task import question


@question("3.11", 6, "muP: a rate that travels")
def mup_factors(shapes, base):
    out, m = _growth(shapes, base)
    return _factors(out, m, 1 / m, torch.where(out > 1, m**-0.5, 1 / m))


def _growth(shapes, base):
    """By how much the number of outputs and that of inputs have grown."""
    return (shapes.double() / base.double()).unbind(1)


def _factors(out, m, rate, std):
    return torch.stack([rate, std], dim=1).float()


@mup_factors.inputs
def _(g):
    small, growth, ratio = 8 * count(g, 4, 9), (3, 5, 6, 7)[count(g, 0, 3)], count(g, 2, 3)

    def layers(dim):
        return [[dim, 12], [3 * dim, dim], [ratio * dim, dim], [dim, ratio * dim], [10, dim], [7, 4]]

    order = torch.randperm(6, generator=g)
    return {"shapes": torch.tensor(layers(growth * small))[order], "base": torch.tensor(layers(small))[order]}


_LAYERS = torch.tensor([[64, 64], [5, 64], [64, 3]])
mup_factors.edge("at the base width nothing changes", torch.ones(3, 2), shapes=_LAYERS, base=_LAYERS)
mup_factors.edge(
    "four times as wide: a hidden, an output, an input layer",
    torch.tensor([[0.25, 0.5], [0.25, 0.25], [1.0, 1.0]]),
    shapes=torch.tensor([[256, 256], [5, 256], [256, 3]]),
    base=_LAYERS,
)

mup_factors.edge(
    "an MLP that is four times as wide, and nine times inside",
    torch.tensor([[1 / 4, 1 / 2], [1 / 9, 1 / 3]]),
    shapes=torch.tensor([[864, 256], [256, 864]]),
    base=torch.tensor([[96, 64], [64, 96]]),
)


@mup_factors.mistake
def hidden_like_output(shapes, base):
    """Hidden layers start as small as output layers: their random weights are not aligned with the inputs, so their
    sum grows more slowly. A variance, perhaps, for a standard deviation?"""
    out, m = _growth(shapes, base)
    return _factors(out, m, 1 / m, 1 / m)


@mup_factors.mistake
def output_like_hidden(shapes, base):
    """Output layers start as hidden ones do: then the first updates of a wide network move its output too far."""
    out, m = _growth(shapes, base)
    return _factors(out, m, 1 / m, m**-0.5)


@mup_factors.mistake
def exchanged(shapes, base):
    """Hidden and output layers are exchanged in the initial size: look which of the two axes grows."""
    out, m = _growth(shapes, base)
    return _factors(out, m, 1 / m, torch.where(out > 1, 1 / m, m**-0.5))


@mup_factors.mistake
def root_in_rate(shapes, base):
    """The rate falls like a root: Adam's moves are *aligned* with the inputs, and add up without cancelling."""
    out, m = _growth(shapes, base)
    return _factors(out, m, m**-0.5, torch.where(out > 1, m**-0.5, 1 / m))


@mup_factors.mistake
def by_outputs(shapes, base):
    """The growth is taken from the number of outputs: weights add up over their *inputs*. Shapes are (out, in)."""
    return mup_factors(shapes.flip(1), base.flip(1))


@mup_factors.mistake
def one_growth(shapes, base):
    """All layers get the growth of the widest: m is that of a layer's own inputs, which may differ between layers."""
    out, m = _growth(shapes, base)
    widest = torch.where(m > 1, torch.maximum(out, m).max(), m)
    return _factors(out, widest, 1 / widest, torch.where(out > 1, widest**-0.5, 1 / widest))


@mup_factors.mistake
def hidden_by_outputs(shapes, base):
    """Hidden layers are scaled by the growth of their outputs: weights add up over their *inputs*."""
    out, m = _growth(shapes, base)
    m = torch.where((out > 1) & (m > 1), out, m)
    return _factors(out, m, 1 / m, torch.where(out > 1, m**-0.5, 1 / m))


@mup_factors.mistake
def every_layer(shapes, base):
    """The input layer is slowed down, too: its number of inputs does not grow, and it would hardly learn any more."""
    out, m = _growth(shapes, base)
    wider = torch.maximum(out, m)
    return _factors(out, wider, 1 / wider, torch.where((out > 1) & (m > 1), m**-0.5, 1 / wider))


@mup_factors.mistake
def upside_down(shapes, base):
    """Upside down: a wider layer needs a smaller rate and smaller weights."""
    return 1 / mup_factors(shapes, base)


@mup_factors.mistake
def rate_untouched(shapes, base):
    """The rate does not change: smaller initial weights alone (the standard parameterization) do not make it travel."""
    return mup_factors(shapes, base).clone().index_fill(1, torch.tensor(0), 1.0)


@mup_factors.mistake
def output_rate_untouched(shapes, base):
    """The output layer keeps its rate, which is right where its result is divided by m instead. Here nothing is."""
    out, m = _growth(shapes, base)
    hidden = out > 1
    return _factors(out, m, torch.where(hidden, 1 / m, 1.0), torch.where(hidden, m**-0.5, 1 / m))


@mup_factors.mistake
def width_itself(shapes, base):
    """The number of inputs is used itself: a factor is a *ratio* to the base, and 1 at its width."""
    out, _ = _growth(shapes, base)
    n = shapes[:, 1].double()
    return _factors(out, n, 1 / n, torch.where(out > 1, n**-0.5, 1 / n))


@mup_factors.mistake
def columns_exchanged(shapes, base):
    """The two columns are exchanged: the rate's factor stands first."""
    return mup_factors(shapes, base).flip(1)
