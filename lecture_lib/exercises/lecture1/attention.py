"""1.11: the block through which a network hears words."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import count, normal, shape
from lecture_lib.exercises.task import question

# 1.11 ----------------------------------------------------------------------------------------------------------------


@question("1.11", 10, "cross-attention: a map reads words")
def cross_attention(x, words, mask, w_q, w_k, w_v, w_o, heads):
    return x + _map(_attend(_tokens(x), words, mask, w_q, w_k, w_v, heads) @ w_o, x)


def _tokens(x):
    return x.flatten(2).mT


def _map(tokens, x):
    return tokens.mT.reshape(x.shape)


def _split(y, heads):
    return y.unflatten(2, (heads, -1)).transpose(1, 2)


def _attend(tokens, words, mask, w_q, w_k, w_v, heads, *, split=_split, scale=None, axis=-1, masked=True):
    q, k, v = split(tokens @ w_q, heads), split(words @ w_k, heads), split(words @ w_v, heads)
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if masked:
        scores = scores.masked_fill(~mask[:, None, None], -math.inf)
    return (scores.softmax(axis) @ v).transpose(1, 2).reshape(*tokens.shape[:2], -1)


@cross_attention.inputs
def _(g):
    b, c, h, w = shape(g, 4)
    n, e, heads, depth = count(g, 5, 7), count(g, 7, 8), count(g, 2, 3), count(g, 4, 5)
    mask = torch.arange(n) < torch.randint(2, n, (b, 1), generator=g)
    sizes = {"w_q": (c, heads * depth), "w_k": (e, heads * depth), "w_v": (e, heads * depth), "w_o": (heads * depth, c)}
    weights = {name: normal(g, *size, scale=size[0] ** -0.5) for name, size in sizes.items()}
    return {
        "x": 1.5 * normal(g, b, c, h, w),
        "words": 1.5 * normal(g, b, n, e),
        "mask": mask,
        **weights,
        "heads": heads,
    }


_MAP = torch.arange(12.0).reshape(1, 2, 2, 3) / 7 - 0.6
_SAID = torch.tensor([[[0.3, -1.2, 0.8], [1.1, 0.4, -0.5]]])
_Q, _K = torch.tensor([[0.4, -0.3, 0.9, 0.2], [1.1, 0.5, -0.6, 0.7]]), torch.eye(3, 4) - 0.2
_V, _O = torch.eye(3, 4) + 0.1, torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [2.0, 1.0]])
_WEIGHTS = {"w_q": _Q, "w_k": _K, "w_v": _V, "heads": 2}
cross_attention.edge(
    "a zero output layer changes nothing",
    _MAP, x=_MAP, words=_SAID, mask=torch.tensor([[True, True]]), w_o=0 * _O, **_WEIGHTS,
)  # fmt: skip
cross_attention.edge(
    "a single word that may be read: every place gets its value",
    _MAP + torch.tensor([0.665, -0.825])[:, None, None],
    x=_MAP, words=_SAID, mask=torch.tensor([[True, False]]), w_o=_O, **_WEIGHTS,
)  # fmt: skip


@cross_attention.mistake
def scaled_by_the_width(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """The scores are divided by the root of the whole width: an inner product runs over one *head's* numbers."""
    y = _attend(_tokens(x), words, mask, w_q, w_k, w_v, heads, scale=w_q.shape[1] ** -0.5)
    return x + _map(y @ w_o, x)


@cross_attention.mistake
def unscaled(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """The scores are not scaled: the wider a head, the harder its softmax would choose."""
    return x + _map(_attend(_tokens(x), words, mask, w_q, w_k, w_v, heads, scale=1.0) @ w_o, x)


@cross_attention.mistake
def scaled_without_root(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """The scores are divided by a head's width: the *standard deviation* of a sum of that many terms is a root."""
    y = _attend(_tokens(x), words, mask, w_q, w_k, w_v, heads, scale=heads / w_q.shape[1])
    return x + _map(y @ w_o, x)


@cross_attention.mistake
def over_places(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """The softmax runs over the places of the map: it is each *place* that shares its attention out among words."""
    y = _attend(_tokens(x), words, mask, w_q, w_k, w_v, heads, axis=-2, masked=False)
    return x + _map(y @ w_o, x)


@cross_attention.mistake
def mask_ignored(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """The padding is read as well: what is the mask for?"""
    return x + _map(_attend(_tokens(x), words, mask, w_q, w_k, w_v, heads, masked=False) @ w_o, x)


@cross_attention.mistake
def mask_turned(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """The mask is turned round: True stands for a word that *may* be read."""
    return cross_attention(x, words, ~mask, w_q, w_k, w_v, w_o, heads)


@cross_attention.mistake
def masked_afterwards(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """The padding is silenced after the softmax, which has spent weight on it: the weights of the words that are left
    no longer add up to 1."""
    silent = words * mask[:, :, None]
    q, k = _split(_tokens(x) @ w_q, heads), _split(words @ w_k, heads)
    weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
    y = (weights @ _split(silent @ w_v, heads)).transpose(1, 2).flatten(2)
    return x + _map(y @ w_o, x)


@cross_attention.mistake
def padding_zeroed(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """The padding is set to zero and still read: its scores are 0, and the exponential of 0 is 1, a full share of the
    softmax."""
    return x + _map(_attend(_tokens(x), words * mask[:, :, None], mask, w_q, w_k, w_v, heads, masked=False) @ w_o, x)


@cross_attention.mistake
def scores_zeroed(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """The scores of the padding are 0: the exponential of 0 is 1. Which score has the weight 0?"""
    q, k, v = (_split(y, heads) for y in (_tokens(x) @ w_q, words @ w_k, words @ w_v))
    weights = (q @ k.mT * q.shape[-1] ** -0.5 * mask[:, None, None]).softmax(-1)
    return x + _map((weights @ v).transpose(1, 2).flatten(2) @ w_o, x)


@cross_attention.mistake
def keys_and_values_exchanged(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """Keys and values are exchanged: queries are compared with keys, and what is handed on are the values."""
    return cross_attention(x, words, mask, w_q, w_v, w_k, w_o, heads)


@cross_attention.mistake
def heads_interleaved(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """The numbers are dealt out to the heads in turn, like cards: head 1 has the *first* d of them, side by side."""
    dealt = [w.unflatten(1, (-1, heads)).mT.flatten(1) for w in (w_q, w_k, w_v)]
    w_o = w_o.unflatten(0, (-1, heads)).transpose(0, 1).flatten(0, 1)
    return cross_attention(x, words, mask, *dealt, w_o, heads)


@cross_attention.mistake
def heads_by_reshape(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """The heads are made by a reshape that mixes tokens: first cut each token's numbers into heads, then bring the
    axis of heads forward."""

    def torn(y, heads):
        return y.reshape(len(y), heads, y.shape[1], -1)

    return x + _map(_attend(_tokens(x), words, mask, w_q, w_k, w_v, heads, split=torn) @ w_o, x)


@cross_attention.mistake
def joined_by_reshape(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """The heads are put side by side by a reshape that mixes places: first bring their axis back behind the places."""
    y = _attend(_tokens(x), words, mask, w_q, w_k, w_v, heads)
    return x + _map(_split(y, heads).reshape(y.shape) @ w_o, x)


@cross_attention.mistake
def one_head(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """One head that is as wide as all: each head has a softmax of its own."""
    return cross_attention(x, words, mask, w_q, w_k, w_v, w_o, 1)


@cross_attention.mistake
def map_by_reshape(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """The map becomes tokens by a reshape alone, which mixes channels and places: move an axis first."""
    tokens = x.reshape(len(x), -1, x.shape[1])
    return x + (_attend(tokens, words, mask, w_q, w_k, w_v, heads) @ w_o).reshape(x.shape)


@cross_attention.mistake
def whole_batch(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """Batch and places are one axis, as in a sequence of length B H W: each picture then reads its neighbours'
    captions."""
    tokens = _tokens(x)
    y = _attend(tokens.reshape(1, -1, x.shape[1]), words.flatten(0, 1)[None], mask.reshape(1, -1), w_q, w_k, w_v, heads)
    return x + _map((y @ w_o).reshape(tokens.shape), x)


@cross_attention.mistake
def residual_missing(x, words, mask, w_q, w_k, w_v, w_o, heads):
    """The map that came in is missing: attention is *added* to it."""
    return cross_attention(x, words, mask, w_q, w_k, w_v, w_o, heads) - x
