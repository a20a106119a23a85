"""3.4: a branch of a block, under its three vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lecture_lib.exercises.drawing import count, normal
from lecture_lib.exercises.stages.lecture3 import branch_of
from lecture_lib.exercises.task import question


@question("3.4", 7, "adaLN-Zero around a branch")
def branch(x, shift, scale, gate, f):
    return _branch(x, shift, 1 + scale, gate, f, normed(x))


def normed(x):
    """Mean 0 and variance 1 for each token."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def _branch(x, shift, factor, gate, f, h):
    return x + gate[:, None] * f(factor[:, None] * h + shift[:, None])


branch.stage(branch_of)


@branch.inputs
def _(g):
    b, n, dim = count(g, 2, 3), count(g, 4, 5), count(g, 6, 9)
    vectors = {name: normal(g, b, dim) for name in ("shift", "scale", "gate")}
    return {"x": normal(g, b, n, dim, scale=2.5) + 0.7, **vectors, "weight": normal(g, dim, dim, scale=0.4)}


_X, _O = torch.tensor([[[1.0, -1.0, -1.0, 1.0], [-1.0, 1.0, -1.0, 1.0]]]), torch.zeros(1, 4)
_EYE, _ALL = torch.eye(4), {"x": _X, "weight": torch.eye(4)}
branch.edge("a gate of zero: what goes in comes out", 3 * _X + 1,
            x=3 * _X + 1, shift=_O + 0.5, scale=_O - 0.3, gate=_O, weight=_EYE)  # fmt: skip
branch.edge(
    "shift 0 and scale 0 leave the norm as it is", _X + 2 * torch.tanh(_X), shift=_O, scale=_O, gate=_O + 2, **_ALL
)
branch.edge("scale -1 leaves nothing but the shift", _X + 2 * torch.tanh(torch.tensor(0.5)),
            shift=_O + 0.5, scale=_O - 1, gate=_O + 2, **_ALL)  # fmt: skip
# A variance of 1e-6: only here can one see what is added to it, and whether anything is.
branch.edge("tokens that hardly vary", 1e-3 * _X + 2 * torch.tanh(_X * 0.5**0.5),
            x=1e-3 * _X, shift=_O, scale=_O, gate=_O + 2, weight=_EYE)  # fmt: skip


@branch.mistake
def gamma_for_scale(x, shift, scale, gate, f):
    """The scale multiplies by itself: at birth it is 0, and the token would be gone. See what scale 0 must leave."""
    return _branch(x, shift, scale, gate, f, normed(x))


@branch.mistake
def gate_on_all(x, shift, scale, gate, f):
    """The gate is on the sum: a closed gate would shut the highway, too. It stands behind the branch alone."""
    return gate[:, None] * (x + f((1 + scale)[:, None] * normed(x) + shift[:, None]))


@branch.mistake
def no_highway(x, shift, scale, gate, f):
    """What went in is not added: a closed gate would leave nothing of the token."""
    return branch(x, shift, scale, gate, f) - x


@branch.mistake
def no_gate(x, shift, scale, gate, f):
    """The gate is not used: that is adaLN without the Zero, and a fresh block is not the identity."""
    return branch(x, shift, scale, torch.ones_like(gate), f)


@branch.mistake
def one_plus_gate(x, shift, scale, gate, f):
    """A gate like the scale, around 1: then it is open at birth. At gate 0 nothing may come out of the branch."""
    return branch(x, shift, scale, 1 + gate, f)


@branch.mistake
def shift_and_scale_exchanged(x, shift, scale, gate, f):
    """Shift and scale are exchanged: one is added, the other multiplies."""
    return branch(x, scale, shift, gate, f)


@branch.mistake
def shift_scaled(x, shift, scale, gate, f):
    """The shift is scaled, too: first the scale, then the shift. See what scale -1 must leave."""
    return branch(x, (1 + scale) * shift, scale, gate, f)


@branch.mistake
def highway_normed(x, shift, scale, gate, f):
    """The *normed* tokens run along the highway: x itself does, so that a closed gate changes nothing."""
    return branch(x, shift, scale, gate, f) - x + normed(x)


@branch.mistake
def gate_inside(x, shift, scale, gate, f):
    """The gate multiplies what goes *into* the branch: it stands behind it."""
    return x + f(gate[:, None] * ((1 + scale)[:, None] * normed(x) + shift[:, None]))


@branch.mistake
def not_normed(x, shift, scale, gate, f):
    """The norm is missing: shift and scale act on normed tokens."""
    return _branch(x, shift, 1 + scale, gate, f, x)


@branch.mistake
def normed_afterwards(x, shift, scale, gate, f):
    """The norm comes after shift and scale, and undoes what they did: first the norm, then the condition."""
    return x + gate[:, None] * f(normed((1 + scale)[:, None] * x + shift[:, None]))


@branch.mistake
def divided_by_variance(x, shift, scale, gate, f):
    """Divided by the variance: a norm divides by the standard deviation."""
    h = x - x.mean(-1, keepdim=True)
    return _branch(x, shift, 1 + scale, gate, f, h / (x.var(-1, keepdim=True, correction=0) + 1e-6))


@branch.mistake
def corrected_deviation(x, shift, scale, gate, f):
    """The deviation is divided by one number less than there are (PyTorch's default for `std`); layer norm takes the
    mean of the squares."""
    h = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()
    return _branch(x, shift, 1 + scale, gate, f, h)


@branch.mistake
def default_epsilon(x, shift, scale, gate, f):
    """Nearly: PyTorch's layer norm adds 1e-5 to the variance, unless told otherwise. Here it is less, and tokens that
    hardly vary show it."""
    return _branch(x, shift, 1 + scale, gate, f, F.layer_norm(x, x.shape[-1:]))


@branch.mistake
def no_epsilon(x, shift, scale, gate, f):
    """Nearly: nothing is added to the variance, which tokens that hardly vary show."""
    h = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True, correction=0)
    return _branch(x, shift, 1 + scale, gate, f, h)


@branch.mistake
def epsilon_behind_the_root(x, shift, scale, gate, f):
    """Nearly: the small number is added to the deviation; it belongs to the *variance*, before the root."""
    h = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=0) + 1e-6)
    return _branch(x, shift, 1 + scale, gate, f, h)


@branch.mistake
def root_mean_square(x, shift, scale, gate, f):
    """The mean stays in: that is RMS norm, as queries and keys have it. LN takes the mean away first."""
    return _branch(x, shift, 1 + scale, gate, f, x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))


@branch.mistake
def normed_over_tokens(x, shift, scale, gate, f):
    """The norm runs over the tokens: each *token* is normed, over its channels, whatever the others are."""
    return _branch(x, shift, 1 + scale, gate, f, normed(x.mT).mT)


@branch.mistake
def normed_over_picture(x, shift, scale, gate, f):
    """One mean and one deviation for a whole picture: each token has its own."""
    return _branch(x, shift, 1 + scale, gate, f, F.layer_norm(x, x.shape[1:], eps=1e-6))
