"""3.13: a whole DiT block."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lecture_lib.exercises.drawing import count, normal
from lecture_lib.exercises.lecture3.branch import normed
from lecture_lib.exercises.stages.lecture3 import with_weights
from lecture_lib.exercises.task import question


@question("3.13", 12, "boss: a whole DiT block", tol=1e-5)
def dit_block(x, c, w, heads):
    return _block(x, c, w, heads)


def _six(c, w):
    """Shift, scale, gate of the attention, then those of the MLP."""
    return _linear(F.silu(c), w, "modulation")[:, None].chunk(6, dim=-1)


def _linear(x, w, name):
    return F.linear(x, w[name], w[f"{name}_bias"])


def _attention(h, w, heads, width=None):
    """Self-attention with heads; ``width`` is what scores are divided by the root of."""
    q, k, v = _linear(h, w, "qkv").unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    weights = torch.softmax(q @ k.mT / (width or q.shape[-1]) ** 0.5, dim=-1)
    return _linear((weights @ v).transpose(1, 2).flatten(2), w, "out")


def _gelu(h):
    return F.gelu(h, approximate="tanh")


def _torch_norm(x):
    """Layer norm as PyTorch has it by default."""
    return F.layer_norm(x, x.shape[-1:])


def _block(x, c, w, heads, six=_six, attention=_attention, act=_gelu, mlp_norm=normed, attention_norm=normed):
    b1, s1, g1, b2, s2, g2 = six(c, w)
    x = x + g1 * attention((1 + s1) * attention_norm(x) + b1, w, heads)
    return x + g2 * _linear(act(_linear((1 + s2) * mlp_norm(x) + b2, w, "up")), w, "down")


dit_block.stage(with_weights)


@dit_block.inputs
def _(g):
    b, n, heads, d, ratio = count(g, 2, 3), count(g, 4, 6), count(g, 2, 3), count(g, 4, 5), count(g, 2, 4)
    dim = heads * d
    sizes = {"modulation": (6 * dim, dim), "qkv": (3 * dim, dim), "out": (dim, dim)}
    sizes |= {"up": (ratio * dim, dim), "down": (dim, ratio * dim)}
    weights = {name: normal(g, *size, scale=1.2 / size[1] ** 0.5) for name, size in sizes.items()}
    biases = {f"{name}_bias": normal(g, size[0], scale=0.5) for name, size in sizes.items()}
    return {"x": normal(g, b, n, dim, scale=1.7) + 0.4, "c": normal(g, b, dim), "heads": heads, **weights, **biases}


def _fixed(gates):
    """Inputs of one token, width 4, two heads: modulations of zero but for the gates, values and sums as they come."""
    eye, zero = torch.eye(4), torch.zeros(4)
    bias = torch.cat([zero, zero, gates[0] + zero, zero, zero, gates[1] + zero])
    weights = {"modulation": torch.zeros(24, 4), "modulation_bias": bias, "qkv": torch.cat([eye, 2 * eye, 3 * eye])}
    weights |= {"qkv_bias": torch.zeros(12), "out": eye, "out_bias": zero + 0.5, "up": torch.zeros(8, 4)}
    weights |= {"up_bias": torch.full((8,), 9.0), "down": torch.ones(4, 8), "down_bias": zero - 2}
    return {"x": _X, "c": _X[:, 0] / 3, "heads": 2, **weights}


_X = torch.tensor([[[1.0, -1.0, -1.0, 1.0]]])
dit_block.edge("all gates closed: bit for bit what went in", _X, **_fixed((0.0, 0.0)))
dit_block.edge("the MLP's gate closed, a single token", 7 * _X + 1, **_fixed((2.0, 0.0)))
dit_block.edge("the MLP's gate closed, a token that hardly varies", (1e-3 + 6 * 0.5**0.5) * _X + 1,
               **_fixed((2.0, 0.0)) | {"x": 1e-3 * _X})  # fmt: skip
dit_block.edge("the attention's gate closed, a constant MLP", _X + 35, **_fixed((0.0, 0.5)))


@dit_block.mistake
def no_silu(x, c, w, heads):
    """The condition enters the modulation as it is: a SiLU stands before the linear layer."""
    return _block(x, c, w, heads, six=lambda c, w: _linear(c, w, "modulation")[:, None].chunk(6, dim=-1))


@dit_block.mistake
def silu_behind(x, c, w, heads):
    """The SiLU comes behind the linear layer: there it would forbid strongly negative shifts. It stands before it."""
    return _block(x, c, w, heads, six=lambda c, w: F.silu(_linear(c, w, "modulation"))[:, None].chunk(6, dim=-1))


@dit_block.mistake
def gamma_for_scale(x, c, w, heads):
    """The scales multiply by themselves: at birth they are 0, and tokens would be gone. What must scale 0 leave?"""

    def six(c, w):
        b1, s1, g1, b2, s2, g2 = _six(c, w)
        return b1, s1 - 1, g1, b2, s2 - 1, g2

    return _block(x, c, w, heads, six=six)


@dit_block.mistake
def no_gates(x, c, w, heads):
    """The gates are not used: with all of them closed, the block must be the identity."""

    def six(c, w):
        b1, s1, g1, b2, s2, g2 = _six(c, w)
        return b1, s1, torch.ones_like(g1), b2, s2, torch.ones_like(g2)

    return _block(x, c, w, heads, six=six)


@dit_block.mistake
def gates_around_one(x, c, w, heads):
    """Gates like the scales, around 1: with all of them closed, the block must be the identity."""

    def six(c, w):
        b1, s1, g1, b2, s2, g2 = _six(c, w)
        return b1, s1, 1 + g1, b2, s2, 1 + g2

    return _block(x, c, w, heads, six=six)


@dit_block.mistake
def scale_first(x, c, w, heads):
    """Scale and shift are exchanged: read the order of the six vectors once more."""

    def six(c, w):
        s1, b1, g1, s2, b2, g2 = _six(c, w)
        return b1, s1, g1, b2, s2, g2

    return _block(x, c, w, heads, six=six)


@dit_block.mistake
def by_kind(x, c, w, heads):
    """The six vectors are taken kind by kind, both shifts first: all three of a branch lie together."""

    def six(c, w):
        b1, b2, s1, s2, g1, g2 = _six(c, w)
        return b1, s1, g1, b2, s2, g2

    return _block(x, c, w, heads, six=six)


@dit_block.mistake
def branches_exchanged(x, c, w, heads):
    """The first three vectors are given to the MLP: they belong to the branch that comes first."""

    def six(c, w):
        first, second = _six(c, w)[:3], _six(c, w)[3:]
        return *second, *first

    return _block(x, c, w, heads, six=six)


@dit_block.mistake
def same_three_twice(x, c, w, heads):
    """Both branches get the same three vectors: the second has three of its own."""
    return _block(x, c, w, heads, six=lambda c, w: _six(c, w)[:3] * 2)


@dit_block.mistake
def side_by_side(x, c, w, heads):
    """The MLP reads what went into the block (FLUX's single-stream blocks do so): here it reads what attention left."""
    b1, s1, g1, b2, s2, g2 = _six(c, w)
    a = g1 * _attention((1 + s1) * normed(x) + b1, w, heads)
    return x + a + g2 * _linear(_gelu(_linear((1 + s2) * normed(x) + b2, w, "up")), w, "down")


@dit_block.mistake
def highway_restarted(x, c, w, heads):
    """The MLP's result is added to what went into the block: what attention added is lost. The highway goes on."""
    b1, s1, g1, b2, s2, g2 = _six(c, w)
    y = x + g1 * _attention((1 + s1) * normed(x) + b1, w, heads)
    return x + g2 * _linear(_gelu(_linear((1 + s2) * normed(y) + b2, w, "up")), w, "down")


@dit_block.mistake
def one_norm(x, c, w, heads):
    """The MLP's input is not normed: each branch has a norm in front."""
    return _block(x, c, w, heads, mlp_norm=lambda x: x)


@dit_block.mistake
def scale_of_the_width(x, c, w, heads):
    """Scores are divided by the root of the whole width: a score is a sum over the channels of one head."""
    return _block(x, c, w, heads, attention=lambda h, w, heads: _attention(h, w, heads, h.shape[-1]))


@dit_block.mistake
def not_scaled(x, c, w, heads):
    """Scores are not scaled by the width of a head."""
    return _block(x, c, w, heads, attention=lambda h, w, heads: _attention(h, w, heads, 1.0))


@dit_block.mistake
def one_head(x, c, w, heads):
    """One head over all channels."""
    return dit_block(x, c, w, 1)


@dit_block.mistake
def three_per_head(x, c, w, heads):
    """The result of `qkv` is read head by head: it holds *all* queries first, then all keys, then all values."""

    def sorted_by_kind(rows):
        return rows.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)

    return dit_block(x, c, {**w, **{name: sorted_by_kind(w[name]) for name in ("qkv", "qkv_bias")}}, heads)


@dit_block.mistake
def heads_interleaved(x, c, w, heads):
    """Channels are dealt out to the heads in turn: a head owns a *block* of neighbouring channels."""
    dealt = {name: w[name].unflatten(0, (3, -1, heads)).transpose(1, 2).flatten(0, 2) for name in ("qkv", "qkv_bias")}
    back = w["out"].unflatten(1, (-1, heads)).transpose(1, 2).flatten(1)
    return dit_block(x, c, {**w, **dealt, "out": back}, heads)


@dit_block.mistake
def not_turned_back(x, c, w, heads):
    """Heads are merged by a reshape alone: by then they stand before the tokens. Exchange these two axes first."""

    def attention(h, w, heads):
        plain = {**w, "out": torch.eye(h.shape[-1]), "out_bias": 0 * w["out_bias"]}
        a = _attention(h, plain, heads).unflatten(-1, (heads, -1)).transpose(1, 2)
        return _linear(a.reshape(h.shape), w, "out")

    return _block(x, c, w, heads, attention=attention)


@dit_block.mistake
def tokens_cut_up(x, c, w, heads):
    """A reshape straight to (b, heads, tokens, d) deals whole *tokens* out to the heads: split the channels first."""

    def attention(h, w, heads):
        b, n, dim = h.shape
        q, k, v = (part.reshape(b, heads, n, -1) for part in _linear(h, w, "qkv").chunk(3, dim=-1))
        a = torch.softmax(q @ k.mT / (dim // heads) ** 0.5, dim=-1) @ v
        return _linear(a.reshape(b, n, dim), w, "out")

    return _block(x, c, w, heads, attention=attention)


@dit_block.mistake
def not_projected(x, c, w, heads):
    """The heads' results are not mixed by the output layer `out`."""
    eye = {"out": torch.eye(x.shape[-1]), "out_bias": torch.zeros(x.shape[-1])}
    return dit_block(x, c, {**w, **eye}, heads)


@dit_block.mistake
def no_biases(x, c, w, heads):
    """The biases are not added: every linear layer has one."""
    return dit_block(x, c, {name: 0 * v if name.endswith("bias") else v for name, v in w.items()}, heads)


@dit_block.mistake
def no_bias_of_the_modulation(x, c, w, heads):
    """The modulation lacks its bias: every linear layer has one."""
    return dit_block(x, c, {**w, "modulation_bias": 0 * w["modulation_bias"]}, heads)


@dit_block.mistake
def default_epsilon(x, c, w, heads):
    """Nearly: PyTorch's layer norm adds 1e-5 to the variance, unless told otherwise. LN is that of 3.4."""
    return _block(x, c, w, heads, mlp_norm=_torch_norm, attention_norm=_torch_norm)


@dit_block.mistake
def exact_gelu(x, c, w, heads):
    """Nearly: this is the exact GELU, and DiT's is not. Weights belong to the function they were trained with."""
    return _block(x, c, w, heads, act=F.gelu)


@dit_block.mistake
def silu_again(x, c, w, heads):
    """A SiLU stands in the MLP, as before the modulation: DiT has a GELU there."""
    return _block(x, c, w, heads, act=F.silu)


@dit_block.mistake
def relu(x, c, w, heads):
    """A ReLU stands in the MLP: DiT has a GELU there."""
    return _block(x, c, w, heads, act=F.relu)
