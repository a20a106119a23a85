"""3.1 and 3.2: from tokens back to pixels, and a table that says where a token stands."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import count, normal, shape
from lecture_lib.exercises.task import question

# 3.1 -----------------------------------------------------------------------------------------------------------------


@question("3.1", 5, "from tokens back to pixels")
def unpatchify(tokens, p, height):
    return _spread(_cut(tokens, p, height // p), (0, 5, 1, 3, 2, 4))


def _cut(tokens, p, rows):
    """(b, rows, columns, p, p, c): the order in which the numbers lie."""
    b, n, _ = tokens.shape
    return tokens.reshape(b, rows, n // rows, p, p, -1)


def _spread(parts, axes):
    """Axes (b, c, row, row in the patch, column, column in the patch), made one picture."""
    return parts.permute(axes).flatten(4, 5).flatten(2, 3)


@unpatchify.inputs
def _(g):
    b, rows, columns, c = shape(g, 4)
    p = count(g, 2, 3)
    return {"tokens": normal(g, b, rows * columns, p * p * c), "p": p, "height": rows * p}


unpatchify.edge(
    "two patches, side by side",
    torch.tensor([[[[0.0, 1, 2, 3], [4, 5, 6, 7]]]]),
    tokens=torch.tensor([[[0.0, 1, 4, 5], [2, 3, 6, 7]]]),
    p=2,
    height=2,
)
unpatchify.edge(
    "a patch of one pixel is that pixel",
    torch.tensor([[[[0.0, 2], [4, 6], [8, 10]], [[1, 3], [5, 7], [9, 11]]]]),
    tokens=torch.arange(12.0).reshape(1, 6, 2),
    p=1,
    height=3,
)


@unpatchify.mistake
def convolution_order(tokens, p, height):
    """Channels are taken to come first in a patch: a convolution's weights lie so. Here a token is (row, column,
    channel), and mixing the two orders scrambles the picture without an error."""
    b, n, _ = tokens.shape
    rows = height // p
    return _spread(tokens.reshape(b, rows, n // rows, -1, p, p), (0, 3, 1, 4, 2, 5))


@unpatchify.mistake
def only_reshaped(tokens, p, height):
    """Only the shape is changed: neighbours in memory are not neighbours in the picture. Name all axes and permute."""
    b, n, _ = tokens.shape
    return tokens.reshape(b, -1, height, n * p * p // height)


@unpatchify.mistake
def column_by_column(tokens, p, height):
    """The grid of tokens is read column by column; tokens run along a row first."""
    parts = tokens.reshape(len(tokens), -1, height // p, p, p, tokens.shape[-1] // p**2)
    return _spread(parts, (0, 5, 2, 3, 1, 4))


@unpatchify.mistake
def patches_transposed(tokens, p, height):
    """Rows and columns *within* each patch are exchanged."""
    return _spread(_cut(tokens, p, height // p), (0, 5, 1, 4, 2, 3))


@unpatchify.mistake
def interleaved(tokens, p, height):
    """The place in the patch has become the outer axis: every patch is spread over the whole picture. A pixel's row is
    the patch's row first, and the row within the patch second."""
    return _spread(_cut(tokens, p, height // p), (0, 5, 3, 1, 4, 2))


@unpatchify.mistake
def height_as_width(tokens, p, height):
    """`height` is used as the width: it says how many *rows* the picture has. (A square picture would hide this.)"""
    return _spread(_cut(tokens, p, tokens.shape[1] * p // height), (0, 5, 1, 3, 2, 4))


@unpatchify.mistake
def channels_last(tokens, p, height):
    """Channels stand last; a picture is (b, c, height, width) in this course."""
    return unpatchify(tokens, p, height).permute(0, 2, 3, 1)


# 3.2 -----------------------------------------------------------------------------------------------------------------


@question("3.2", 7, "a table of positions in two dimensions")
def positions(height, width, dim):
    rows, columns = _places(height, width)
    return torch.cat([_waves(rows, dim // 2), _waves(columns, dim // 2)], dim=1)


def _places(height, width):
    """Row and column of every token, row by row."""
    return torch.cartesian_prod(torch.arange(height), torch.arange(width)).double().unbind(1)


def _phases(places, k):
    """Angles of waves with exponents ``k``."""
    return places[:, None] * 10000.0 ** -torch.as_tensor(k).double()


def _waves(places, d):
    """Sines, then cosines, of d/2 frequencies."""
    phases = _phases(places, torch.arange(d // 2) / (d // 2))
    return torch.cat([phases.sin(), phases.cos()], dim=1).float()


def _both(height, width, waves):
    """A table with other waves for each axis."""
    return torch.cat([waves(places) for places in _places(height, width)], dim=1).float()


@positions.inputs
def _(g):
    height, width = shape(g)
    return {"height": height, "width": width, "dim": 4 * count(g, 3, 7)}


positions.edge("the first token stands at row 0, column 0", torch.tensor([[0.0, 0, 1, 1, 0, 0, 1, 1]]),
               height=1, width=1, dim=8)  # fmt: skip
positions.edge(
    "two tokens in one row, one wave for each axis",
    torch.tensor([[0.0, 1, 0, 1], [0, 1, math.sin(1), math.cos(1)]]),
    height=1,
    width=2,
    dim=4,
)


@positions.mistake
def columns_first(height, width, dim):
    """The column's waves come first: (row, column) in this course, also here."""
    rows, columns = _places(height, width)
    return torch.cat([_waves(columns, dim // 2), _waves(rows, dim // 2)], dim=1)


@positions.mistake
def cosines_first(height, width, dim):
    """Cosines come first: that is the order of DiT's features of *time*. For positions look at the formula again."""
    return _both(height, width, lambda p: torch.roll(_waves(p, dim // 2), dim // 4, dims=1))


@positions.mistake
def alternating(height, width, dim):
    """Sines and cosines alternate, as in language models; here all sines of an axis come before its cosines."""
    return _both(height, width, lambda p: _waves(p, dim // 2).unflatten(1, (2, -1)).mT.flatten(1))


@positions.mistake
def half_of_the_range(height, width, dim):
    """The slowest wave is too fast: the exponent stops half-way. Count how many frequencies one axis has; k runs
    through all of them, and is divided by that number."""
    phases = [_phases(p, torch.arange(dim // 4) / (dim // 2)) for p in _places(height, width)]
    return torch.cat([f(p) for p in phases for f in (torch.sin, torch.cos)], dim=1).float()


@positions.mistake
def last_included(height, width, dim):
    """Off by one: the exponent reaches 1 at the last frequency. It stops one step before."""
    k = torch.arange(dim // 4) / max(dim // 4 - 1, 1)
    phases = [_phases(p, k) for p in _places(height, width)]
    return torch.cat([f(p) for p in phases for f in (torch.sin, torch.cos)], dim=1).float()


@positions.mistake
def twice_the_range(height, width, dim):
    """The slowest waves are too slow: the exponent goes on to nearly 2. Divide k by the *number of frequencies* of one
    axis."""
    phases = [_phases(p, torch.arange(dim // 4) / (dim / 8)) for p in _places(height, width)]
    return torch.cat([f(p) for p in phases for f in (torch.sin, torch.cos)], dim=1).float()


@positions.mistake
def counted_from_one(height, width, dim):
    """Places are counted from 1: the first row and the first column are number 0."""
    places = (p + 1 for p in _places(height, width))
    return torch.cat([_waves(p, dim // 2) for p in places], dim=1)


@positions.mistake
def tokens_column_by_column(height, width, dim):
    """The tokens are listed column by column; `patchify` lists them row by row."""
    table = positions(height, width, dim).unflatten(0, (height, width))
    return table.transpose(0, 1).flatten(0, 1)


@positions.mistake
def added_up(height, width, dim):
    """Both axes use the full width and are added: then (3, 5) and (5, 3) look alike. Each axis has its own half."""
    return sum(_waves(places, dim) for places in _places(height, width))


@positions.mistake
def one_dimensional(height, width, dim):
    """The token's number is used as its place: the end of a row then lies beside the start of the next. A patch has
    two coordinates."""
    return _waves(torch.arange(height * width).double(), dim)


@positions.mistake
def whole_turns(height, width, dim):
    """A factor of 2 pi: with it the fastest wave has period 1 and says the same at all places. The phase is p omega."""
    return _both(height, width, lambda p: _waves(2 * math.pi * p, dim // 2))
