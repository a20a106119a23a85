"""3.5: attention tile by tile."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import normal, shape
from lecture_lib.exercises.task import question


@question("3.5", 8, "softmax, one tile at a time")
def read_tile(m, l, o, s, v):
    m_new = _larger(m, s)
    shrink, p = (m - m_new).exp(), (s - m_new[:, None]).exp()
    return m_new, shrink * l + p.sum(1), shrink[:, None] * o + p @ v


def _larger(m, s):
    return torch.maximum(m, s.amax(1))


@read_tile.inputs
def _(g):
    n, t, d = shape(g, 3)
    old, values = normal(g, n + 3, 7, scale=1.5), normal(g, 7, d)
    m, p = old.amax(1), (old - old.amax(1, keepdim=True)).exp()
    return {"m": m, "l": p.sum(1), "o": p @ values, "s": normal(g, n + 3, t, scale=2.0), "v": normal(g, t, d)}


_S = torch.tensor([[1.0, 2.0, 4.0]]).log()
_V = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
read_tile.edge(
    "before the first tile nothing has been seen",
    (torch.tensor([4.0]).log(), torch.tensor([1.75]), torch.tensor([[1.25, 1.5]])),
    m=torch.tensor([-torch.inf]),
    l=torch.zeros(1),
    o=torch.zeros(1, 2),
    s=_S,
    v=_V,
)
read_tile.edge(
    "logits of a hundred do not overflow",
    (torch.tensor([120.0]), torch.tensor([1.75]), torch.tensor([[1.25, 1.5]])),
    m=torch.tensor([10.0]),
    l=torch.tensor([2.0]),
    o=torch.tensor([[3.0, -1.0]]),
    s=_S - _S.max() + 120,
    v=_V,
)


@read_tile.mistake
def output_not_shrunk(m, l, o, s, v):
    """The old output is not shrunk: its terms were measured against the *old* maximum, as those of the old sum were."""
    m_new, l_new, o_new = read_tile(m, l, o, s, v)
    return m_new, l_new, o_new + (1 - (m - m_new).exp())[:, None] * o


@read_tile.mistake
def sum_not_shrunk(m, l, o, s, v):
    """The old sum is not shrunk: its terms were measured against the *old* maximum, as those of the old output were."""
    m_new, l_new, o_new = read_tile(m, l, o, s, v)
    return m_new, l_new + (1 - (m - m_new).exp()) * l, o_new


@read_tile.mistake
def nothing_shrunk(m, l, o, s, v):
    """Neither old sum nor old output is shrunk: their terms were measured against the old maximum."""
    m_new = _larger(m, s)
    p = (s - m_new[:, None]).exp()
    return m_new, l + p.sum(1), o + p @ v


@read_tile.mistake
def grown(m, l, o, s, v):
    """The sign in the exponent: a larger maximum must make the old sums *smaller*; this can overflow."""
    m_new = _larger(m, s)
    grow, p = (m_new - m).exp(), (s - m_new[:, None]).exp()
    return m_new, grow * l + p.sum(1), grow[:, None] * o + p @ v


@read_tile.mistake
def tile_alone(m, l, o, s, v):
    """The maximum is that of this tile: an earlier one may have been larger, and then the old sums grow."""
    m_new = s.amax(1)
    shrink, p = (m - m_new).exp(), (s - m_new[:, None]).exp()
    return m_new, shrink * l + p.sum(1), shrink[:, None] * o + p @ v


@read_tile.mistake
def two_scales(m, l, o, s, v):
    """The tile's weights are measured against the tile's own maximum, the old sums against the new one: both must be
    measured against the same."""
    m_new, p = _larger(m, s), (s - s.amax(1, keepdim=True)).exp()
    shrink = (m - m_new).exp()
    return m_new, shrink * l + p.sum(1), shrink[:, None] * o + p @ v


@read_tile.mistake
def old_maximum(m, l, o, s, v):
    """The tile's weights are measured against the *old* maximum, the old sums against the new one: all against the new
    one, or the first tile is measured against minus infinity."""
    m_new, p = _larger(m, s), (s - m[:, None]).exp()
    shrink = (m - m_new).exp()
    return m_new, shrink * l + p.sum(1), shrink[:, None] * o + p @ v


@read_tile.mistake
def mean_carried_along(m, l, o, s, v):
    """The output is kept as a mean, multiplied by the sum and divided again at each tile: some papers do so. Here it is
    a plain *sum*, in and out."""
    m_new, l_new, _ = read_tile(m, l, o, s, v)
    shrink, p = (m - m_new).exp(), (s - m_new[:, None]).exp()
    return m_new, l_new, ((shrink * l)[:, None] * o + p @ v) / l_new[:, None]


@read_tile.mistake
def divided_already(m, l, o, s, v):
    """The output is divided by the sum already: then the next tile would shrink a mean instead of a sum. Divide once,
    after the last tile."""
    m_new, l_new, o_new = read_tile(m, l, o, s, v)
    return m_new, l_new, o_new / l_new[:, None]


@read_tile.mistake
def softmax_of_the_tile(m, l, o, s, v):
    """A softmax within the tile: each tile would get the same share, however good its keys are."""
    m_new = _larger(m, s)
    shrink = (m - m_new).exp()
    return m_new, shrink * l + 1, shrink[:, None] * o + torch.softmax(s, 1) @ v


@read_tile.mistake
def values_of_a_softmax(m, l, o, s, v):
    """A softmax within the tile weighs the values, while the sum has the exponentials: the same numbers must weigh the
    values and be summed."""
    m_new, l_new, _ = read_tile(m, l, o, s, v)
    return m_new, l_new, (m - m_new).exp()[:, None] * o + torch.softmax(s, 1) @ v


@read_tile.mistake
def one_maximum(m, l, o, s, v):
    """One maximum for all queries: each has its own, or the sums of the others may vanish."""
    m_new = torch.maximum(m, s.amax())
    shrink, p = (m - m_new).exp(), (s - m_new[:, None]).exp()
    return m_new, shrink * l + p.sum(1), shrink[:, None] * o + p @ v


@read_tile.mistake
def no_maximum(m, l, o, s, v):
    """The exponentials are those of the logits themselves: a logit of a hundred is too much for them. Sums are kept
    relative to the largest logit so far."""
    p = s.exp()
    return _larger(m, s), l + p.sum(1), o + p @ v
