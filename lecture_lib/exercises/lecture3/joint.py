"""3.7: attention of two streams."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import count, normal, shape
from lecture_lib.exercises.task import question


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
def image_reads_image(text, image, heads):
    """The image reads only itself: then no word can say what to draw."""
    return joint_attention(text, image, heads)[0], _read(*_heads(image, heads))


@joint_attention.mistake
def heads_read_heads(text, image, heads):
    """Heads and tokens are not exchanged after the split: the heads of one token read one another, and no token reads
    another."""

    def read(qkv):
        q, k, v = qkv.unflatten(-1, (heads, -1))
        return (torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v).flatten(2)

    return _joint(text, image, read)


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
def tokens_cut_up(text, image, heads):
    """A reshape straight to (b, heads, tokens, d) deals whole *tokens* out to the heads. Split the channels first, then
    exchange heads and tokens; the same on the way back."""

    def read(qkv):
        parts = qkv.reshape(*qkv.shape[:2], heads, qkv.shape[2], -1)
        return _read(*parts).unflatten(2, (heads, -1)).transpose(1, 2).reshape(qkv.shape[1:])

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
