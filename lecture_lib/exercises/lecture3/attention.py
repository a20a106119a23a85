"""3.5 and 3.7: attention tile by tile, and attention of two streams."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import count, normal, shape
from lecture_lib.exercises.task import question

# 3.5 -----------------------------------------------------------------------------------------------------------------


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
def one_maximum(m, l, o, s, v):
    """One maximum for all queries: each has its own, or the sums of the others may vanish."""
    m_new = torch.maximum(m, s.amax())
    shrink, p = (m - m_new).exp(), (s - m_new[:, None]).exp()
    return m_new, shrink * l + p.sum(1), shrink[:, None] * o + p @ v


# 3.7 -----------------------------------------------------------------------------------------------------------------


@question("3.7", 9, "joint attention with heads (MM-DiT)")
def joint_attention(text, image, heads):
    return _joint(text, image, lambda qkv: _read(*_heads(qkv, heads)))


def _heads(qkv, heads):
    """(3, b, heads, tokens, width of a head)."""
    return qkv.unflatten(-1, (heads, -1)).transpose(2, 3)


def _read(q, k, v, scale=None, over=-1):
    """Heads side by side again, (b, tokens, D)."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return (torch.softmax(scale * q @ k.mT, dim=over) @ v).transpose(1, 2).flatten(2)


def _joint(text, image, read):
    """What ``read`` makes of one sequence, cut apart again."""
    out = read(torch.cat([text, image], dim=2))
    return out[:, : text.shape[2]], out[:, text.shape[2] :]


@joint_attention.inputs
def _(g):
    b, words, patches = shape(g, 3)
    heads, d = count(g, 2, 3), count(g, 4, 6)
    size = {"text": (3, b, words, heads * d), "image": (3, b, patches, heads * d)}
    return {name: normal(g, *s, scale=1.4) for name, s in size.items()} | {"heads": heads}


def _silent(*values):
    """Queries and keys of zero, and these values: (3, 1, tokens, D)."""
    v = torch.tensor(values)
    return torch.stack([0 * v, 0 * v, v])[:, None]


_WORD, _PATCHES = _silent([3.0, 0.0, 6.0, -3.0]), _silent([0.0, 6.0, 0.0, 3.0], [6.0, 0.0, 3.0, 0.0])
joint_attention.edge(
    "queries of zero read everything alike",
    (torch.tensor([[[3.0, 2.0, 3.0, 0.0]]]), torch.tensor([3.0, 2.0, 3.0, 0.0]).expand(1, 2, 4)),
    text=_WORD,
    image=_PATCHES,
    heads=2,
)
joint_attention.edge(
    "without words the image reads itself",
    (torch.zeros(1, 0, 4), torch.tensor([3.0, 3.0, 1.5, 1.5]).expand(1, 2, 4)),
    text=_WORD[:, :, :0],
    image=_PATCHES,
    heads=2,
)


@joint_attention.mistake
def two_softmaxes(text, image, heads):
    """Two softmaxes: each source gets a full share of 1. That is self- plus cross-attention. In MM-DiT there is one
    over both: what a word takes, the pixels lose."""
    t, i = _heads(text, heads), _heads(image, heads)
    return _read(*t) + _read(t[0], i[1], i[2]), _read(*i) + _read(i[0], t[1], t[2])


@joint_attention.mistake
def each_alone(text, image, heads):
    """Each stream reads only itself: the two never meet."""
    return _read(*_heads(text, heads)), _read(*_heads(image, heads))


@joint_attention.mistake
def cross_alone(text, image, heads):
    """Each stream reads only the *other* one: joint attention reads both."""
    t, i = _heads(text, heads), _heads(image, heads)
    return _read(t[0], i[1], i[2]), _read(i[0], t[1], t[2])


@joint_attention.mistake
def text_reads_text(text, image, heads):
    """The text reads only itself: in MM-DiT it sees the image, too, and changes from block to block."""
    return _read(*_heads(text, heads)), joint_attention(text, image, heads)[1]


@joint_attention.mistake
def scale_of_the_width(text, image, heads):
    """Divided by the root of the *whole* width: a score is a sum over the channels of one head."""
    return _joint(text, image, lambda qkv: _read(*_heads(qkv, heads), scale=qkv.shape[-1] ** -0.5))


@joint_attention.mistake
def not_scaled(text, image, heads):
    """The scores are not scaled: they grow with the width of a head, and the softmax turns hard."""
    return _joint(text, image, lambda qkv: _read(*_heads(qkv, heads), scale=1.0))


@joint_attention.mistake
def without_root(text, image, heads):
    """Divided by the width of a head, without the root (as in muP): the variance of a score is that width."""
    return _joint(text, image, lambda qkv: _read(*_heads(qkv, heads), scale=heads / qkv.shape[-1]))


@joint_attention.mistake
def softmax_over_queries(text, image, heads):
    """The softmax runs over the queries: what one query reads must add up to 1, so it runs over the *keys*."""
    return _joint(text, image, lambda qkv: _read(*_heads(qkv, heads), over=-2))


@joint_attention.mistake
def heads_interleaved(text, image, heads):
    """Channels are dealt out to the heads in turn: a head owns a *block* of neighbouring channels."""

    def dealt(x, hands):
        return x.unflatten(-1, (-1, hands)).transpose(-1, -2).flatten(-2)

    out = joint_attention(dealt(text, heads), dealt(image, heads), heads)
    return tuple(dealt(a, a.shape[-1] // heads) for a in out)


@joint_attention.mistake
def not_turned_back(text, image, heads):
    """Heads are merged by a reshape alone: heads stand before tokens by then. Exchange these two axes first."""

    def read(qkv):
        b, n, dim = qkv.shape[1:]
        return _read(*_heads(qkv, heads)).unflatten(2, (heads, -1)).transpose(1, 2).reshape(b, n, dim)

    return _joint(text, image, read)


@joint_attention.mistake
def one_head(text, image, heads):
    """One head over all channels: each head has a softmax of its own."""
    return joint_attention(text, image, 1)


@joint_attention.mistake
def cut_at_the_wrong_place(text, image, heads):
    """The result is cut where the *image* would end: put together as text, then image, it comes apart so, too."""
    out = torch.cat(joint_attention(text, image, heads), dim=1)
    return out[:, : image.shape[2]], out[:, image.shape[2] :]
