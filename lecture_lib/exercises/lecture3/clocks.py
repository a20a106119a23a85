"""3.3: rotary positions in two dimensions."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import count, normal
from lecture_lib.exercises.task import question


@question("3.3", 8, "rotary positions, rows and columns")
def turned(x, places):
    return _turned(x, _angles(places, x.shape[1] // 2))


def _angles(places, d):
    """One for each pair of channels: those of the row, then those of the column, d channels each."""
    omega = 10000.0 ** (-2 * torch.arange(d // 2).double() / d)
    return (places.double()[:, :, None] * omega).flatten(1)


def _pairs(x):
    return x[:, 0::2].double(), x[:, 1::2].double()


def _zipped(even, odd):
    return torch.stack([even, odd], dim=-1).flatten(1).float()


def _turned(x, angles):
    (even, odd), cos, sin = _pairs(x), angles.cos(), angles.sin()
    return _zipped(even * cos - odd * sin, even * sin + odd * cos)


@turned.inputs
def _(g):
    n, dim = count(g, 3, 6), 4 * count(g, 2, 5)
    return {"x": normal(g, n, dim), "places": torch.randint(1, 12, (n, 2), generator=g).float()}


_X = torch.tensor([[0.5, -1.0, 2.0, 1.5, 0.25, -0.75, 3.0, -2.0]])
turned.edge("at row 0 and column 0 nothing turns", _X, x=_X, places=torch.zeros(1, 2))
turned.edge(
    "a quarter turn for the row, a half turn for the column",
    torch.tensor([[-2.0, 1.0, -3.0, -4.0]]),
    x=torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
    places=torch.tensor([[math.pi / 2, math.pi]]),
)


@turned.mistake
def backwards(x, places):
    """The clocks run backwards: scores would see the opposite displacement. Check the sign of both sines by turning
    (1, 0) by a small angle: the second number must grow."""
    return turned(x, -places)


@turned.mistake
def halves_of_all(x, places):
    """Each channel of the first half is paired with one of the second (the layout of another library, whose weights fit
    it). Here neighbours are a pair, so that row and column keep channels of their own."""
    (a, b), angles = x.double().chunk(2, dim=1), _angles(places, x.shape[1] // 2)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], dim=1).float()


@turned.mistake
def halves(x, places):
    """Within an axis, each channel of the first half is paired with one of the second: here neighbours are a pair."""
    angles = _angles(places, x.shape[1] // 2).unflatten(1, (2, -1))
    a, b = x.double().unflatten(1, (2, 2, -1)).unbind(2)
    parts = a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()
    return torch.stack(parts, dim=2).flatten(1).float()


@turned.mistake
def frequencies_of_the_whole(x, places):
    """The slowest clock is too fast: the exponent goes half the way. Is its 2 there, and is it divided by the width of
    *one axis*, half of the channels?"""
    d = x.shape[1] // 2
    omega = 10000.0 ** (-torch.arange(d // 2).double() / d)
    return _turned(x, (places.double()[:, :, None] * omega).flatten(1))


@turned.mistake
def axes_exchanged(x, places):
    """Row and column are exchanged: `places` is (row, column), and the row turns the first half of the channels."""
    return turned(x, places.flip(1))


@turned.mistake
def axes_added(x, places):
    """Every pair is turned by row plus column: then (3, 5) and (5, 3) are one place. Each axis has its channels."""
    return _turned(x, _angles(places.sum(1, keepdim=True), x.shape[1]))


@turned.mistake
def rows_alone(x, places):
    """Only the row turns anything: the column is not used."""
    return _turned(x, _angles(places[:, :1], x.shape[1]))


@turned.mistake
def row_for_both(x, places):
    """Both halves are turned by the row: the column is not used."""
    return turned(x, places[:, :1].expand(-1, 2))


@turned.mistake
def column_for_both(x, places):
    """Both halves are turned by the column: the row is not used."""
    return turned(x, places[:, 1:].expand(-1, 2))


@turned.mistake
def frequencies_go_on(x, places):
    """The columns' clocks go on where the rows' stop: k starts again from 0 in each half, so that both axes have the
    same frequencies."""
    dim = x.shape[1]
    omega = 10000.0 ** (-2 * torch.arange(dim // 2).double() / dim)
    return _turned(x, (places.double()[:, :, None] * omega.unflatten(0, (2, -1))).flatten(1))


@turned.mistake
def axes_in_turn(x, places):
    """Pairs belong to row and column in turn: the whole first *half* of the channels belongs to the row."""
    return _turned(x, _angles(places, x.shape[1] // 2).unflatten(1, (2, -1)).mT.flatten(1))


@turned.mistake
def overwritten(x, places):
    """The first line overwrites a channel that the second still needs: a rotation mixes the *old* numbers of a pair."""
    (even, odd), angles = _pairs(x), _angles(places, x.shape[1] // 2)
    even = even * angles.cos() - odd * angles.sin()
    return _zipped(even, even * angles.sin() + odd * angles.cos())


@turned.mistake
def no_rotation(x, places):
    """Both sines have the same sign: this is no rotation, since lengths change. One of the two differs."""
    (even, odd), angles = _pairs(x), _angles(places, x.shape[1] // 2)
    return _zipped(even * angles.cos() - odd * angles.sin(), odd * angles.cos() - even * angles.sin())


@turned.mistake
def not_zipped(x, places):
    """The turned channels are put one block behind the other: a pair must go back to the two places it came from."""
    y = turned(x, places)
    return torch.cat([y[:, 0::2], y[:, 1::2]], dim=1)


@turned.mistake
def order_for_place(x, places):
    """The angles grow with the token's number in the list; `places` says where it stands."""
    return turned(x, torch.arange(len(x))[:, None].expand(-1, 2).float())
