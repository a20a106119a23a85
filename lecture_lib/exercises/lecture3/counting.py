"""3.6 and 3.8: what blocks cost, and how many places a masked model keeps at each step."""

from __future__ import annotations

import itertools
import math

import torch

from lecture_lib.exercises.drawing import count
from lecture_lib.exercises.stages.lecture3 import whole_numbers
from lecture_lib.exercises.task import question

# 3.6 -----------------------------------------------------------------------------------------------------------------


@question("3.6", 8, "what DiT blocks cost", tol=1e-12)
def cost(tokens, dim, depth, ratio, gates):
    return depth * _parameters(dim, ratio, gates), 2 * depth * _multiply_adds(tokens, dim, ratio, gates)


def _vectors(gates):
    return 6 if gates else 4


def _parameters(dim, ratio, gates):
    """Of one block: attention, MLP, modulation, each with its biases."""
    hidden = ratio * dim
    return 4 * (dim + 1) * dim + (dim + 1) * hidden + (hidden + 1) * dim + _vectors(gates) * (dim + 1) * dim


def _multiply_adds(tokens, dim, ratio, gates):
    """Of one block."""
    return (4 + 2 * ratio) * tokens * dim**2 + 2 * tokens**2 * dim + _vectors(gates) * dim**2


@cost.inputs
def _(g):
    size = {"tokens": count(g, 50, 300), "dim": 16 * count(g, 20, 45), "depth": count(g, 8, 19)}
    return {**size, "ratio": count(g, 3, 6), "gates": bool(count(g, 0, 1))}


cost.edge("one token of one channel, no gates", (20, 24), tokens=1, dim=1, depth=1, ratio=1, gates=False)
cost.edge("two tokens of three channels, gates", (330, 888), tokens=2, dim=3, depth=2, ratio=2, gates=True)
cost.edge("DiT-XL/2", (669344256, 237205979136), tokens=256, dim=1152, depth=28, ratio=4, gates=True)


@cost.mistake
def multiply_adds(tokens, dim, depth, ratio, gates):
    """Multiply-adds are counted (the paper's "Gflops"): each of them is more than one operation."""
    return depth * _parameters(dim, ratio, gates), depth * _multiply_adds(tokens, dim, ratio, gates)


@cost.mistake
def exchanged(tokens, dim, depth, ratio, gates):
    """Operations come first: parameters are asked for first."""
    return cost(tokens, dim, depth, ratio, gates)[::-1]


@cost.mistake
def one_block(tokens, dim, depth, ratio, gates):
    """One block is counted: `depth` of them make the stack."""
    return cost(tokens, dim, 1, ratio, gates)


@cost.mistake
def parameters_of_one_block(tokens, dim, depth, ratio, gates):
    """The parameters are those of one block, the operations those of the stack: no block shares its weights."""
    return _parameters(dim, ratio, gates), cost(tokens, dim, depth, ratio, gates)[1]


@cost.mistake
def no_biases(tokens, dim, depth, ratio, gates):
    """The parameters are those of the matrices alone: every linear layer has a bias."""
    matrices = (4 + 2 * ratio + _vectors(gates)) * dim**2
    return depth * matrices, cost(tokens, dim, depth, ratio, gates)[1]


@cost.mistake
def no_bias_of_the_modulation(tokens, dim, depth, ratio, gates):
    """The modulation's layer lacks its bias: it has one number for each output, like the others."""
    p, o = cost(tokens, dim, depth, ratio, gates)
    return p - depth * _vectors(gates) * dim, o


@cost.mistake
def wide_biases(tokens, dim, depth, ratio, gates):
    """Both biases of the MLP are as wide as its hidden layer: a bias has a number for each *output* of its layer."""
    p, o = cost(tokens, dim, depth, ratio, gates)
    return p + depth * (ratio - 1) * dim, o


@cost.mistake
def narrow_biases(tokens, dim, depth, ratio, gates):
    """Both biases of the MLP are D wide: the first layer's outputs are more."""
    p, o = cost(tokens, dim, depth, ratio, gates)
    return p - depth * (ratio - 1) * dim, o


@cost.mistake
def biases_as_operations(tokens, dim, depth, ratio, gates):
    """The operations include the additions of biases: those of matrix products alone are asked for."""
    p, o = cost(tokens, dim, depth, ratio, gates)
    return p, o + depth * (tokens * (5 + ratio) + _vectors(gates)) * dim


@cost.mistake
def no_modulation(tokens, dim, depth, ratio, gates):
    """The modulation is missing: one more linear layer in each block, from the condition to shifts, scales, gates."""
    p, o = cost(tokens, dim, depth, ratio, gates)
    k = _vectors(gates)
    return p - depth * k * (dim + 1) * dim, o - 2 * depth * k * dim**2


@cost.mistake
def modulation_per_token(tokens, dim, depth, ratio, gates):
    """The modulation is counted for every token: all tokens of a picture share it, so it is made once."""
    p, o = cost(tokens, dim, depth, ratio, gates)
    return p, o + 2 * depth * (tokens - 1) * _vectors(gates) * dim**2


@cost.mistake
def modulation_free(tokens, dim, depth, ratio, gates):
    """The operations lack those of the modulation: it is made once for each picture, in every block."""
    p, o = cost(tokens, dim, depth, ratio, gates)
    return p, o - 2 * depth * _vectors(gates) * dim**2


@cost.mistake
def linear_alone(tokens, dim, depth, ratio, gates):
    """The operations lack the quadratic part: scores and weighted sums, between all pairs of tokens."""
    p, o = cost(tokens, dim, depth, ratio, gates)
    return p, o - 4 * depth * tokens**2 * dim


@cost.mistake
def scores_alone(tokens, dim, depth, ratio, gates):
    """The quadratic part is counted once: attention multiplies two pairs of matrices, queries with keys and weights
    with values."""
    p, o = cost(tokens, dim, depth, ratio, gates)
    return p, o - 2 * depth * tokens**2 * dim


@cost.mistake
def always_gates(tokens, dim, depth, ratio, gates):
    """Six vectors, whatever `gates` says: adaLN without gates has fewer."""
    return cost(tokens, dim, depth, ratio, True)


@cost.mistake
def never_gates(tokens, dim, depth, ratio, gates):
    """The gates are not counted: adaLN-Zero has more than shifts and scales."""
    return cost(tokens, dim, depth, ratio, False)


@cost.mistake
def one_set_of_vectors(tokens, dim, depth, ratio, gates):
    """One set of shift, scale and gate for a block: it has two branches, with a set each."""
    k = _vectors(gates) // 2
    p, o = cost(tokens, dim, depth, ratio, gates)
    return p - depth * k * (dim + 1) * dim, o - 2 * depth * k * dim**2


@cost.mistake
def norms_with_weights(tokens, dim, depth, ratio, gates):
    """The norms are given a scale and a shift of their own: in DiT these come from the condition."""
    p, o = cost(tokens, dim, depth, ratio, gates)
    return p + 4 * depth * dim, o


@cost.mistake
def no_output_layer(tokens, dim, depth, ratio, gates):
    """Attention has one linear layer more than those of queries, keys and values: the one that mixes the heads."""
    p, o = cost(tokens, dim, depth, ratio, gates)
    return p - depth * (dim + 1) * dim, o - 2 * depth * tokens * dim**2


@cost.mistake
def always_four(tokens, dim, depth, ratio, gates):
    """The MLP is four times as wide, whatever `ratio` says."""
    return cost(tokens, dim, depth, 4, gates)


@cost.mistake
def half_an_mlp(tokens, dim, depth, ratio, gates):
    """The MLP has two linear layers: up to the hidden width, and down again."""
    p, o = cost(tokens, dim, depth, ratio, gates)
    return p - depth * (ratio * dim + 1) * dim, o - 2 * depth * ratio * tokens * dim**2


# 3.8 -----------------------------------------------------------------------------------------------------------------


@question("3.8", 6, "how many places a masked model keeps")
def kept(n, steps):
    return _kept(n, [math.floor(n * math.cos(math.pi / 2 * k / steps)) for k in range(1, steps)] + [0])


def _kept(n, planned, least=1):
    """Differences of what is hidden; each step keeps ``least`` more places at least."""
    hidden = [n]
    for plan in planned:
        hidden.append(min(plan, hidden[-1] - least))
    return [before - after for before, after in itertools.pairwise(hidden)]


kept.stage(whole_numbers)


@kept.inputs
def _(g):  # rounding decides for multiples of 3 (the cosine is 1/2 on the way) and for 13 (where it ends below 0)
    return {"n": count(g, 60, 300), "steps": (7, 8, 10, 11, 14)[count(g, 0, 4)]}


kept.edge("one step keeps everything", torch.tensor([50]), n=50, steps=1)
kept.edge("a step for each place: one at a time", torch.ones(10, dtype=torch.long), n=10, steps=10)


@kept.mistake
def still_hidden(n, steps):
    """Returned is how many are still *hidden* after each step; asked for is how many each step keeps."""
    return (n - torch.tensor(kept(n, steps)).cumsum(0)).tolist()


@kept.mistake
def in_all(n, steps):
    """Returned is how many are kept *so far*: each step's own share is the difference to the step before."""
    return torch.tensor(kept(n, steps)).cumsum(0).tolist()


@kept.mistake
def many_first(n, steps):
    """Many are kept first and few in the end: the share of *hidden* places is the cosine. Little is known at first."""
    return kept(n, steps)[::-1]


@kept.mistake
def evenly(n, steps):
    """The same number at each step: the hidden share falls like a cosine, not like a straight line."""
    return _kept(n, [n * (steps - k) // steps for k in range(1, steps + 1)])


@kept.mistake
def steps_from_zero(n, steps):
    """Off by one: the first step's share is taken at k = 0, where all is still hidden. Count steps from 1."""
    return _kept(n, [math.floor(n * math.cos(math.pi / 2 * k / steps)) for k in range(steps)])


@kept.mistake
def late_by_one(n, steps):
    """Off by one: each step but the last leaves hidden what the one before should, and the last keeps two shares. After
    step 1 the cosine is that of k = 1."""
    return _kept(n, [math.floor(n * math.cos(math.pi / 2 * k / steps)) for k in range(steps - 1)] + [0])


@kept.mistake
def none_at_first(n, steps):
    """Some step keeps nothing: with many steps the floor does not change from one to the next. Each must keep one at
    least, or a network evaluation is wasted."""
    return _kept(n, [math.floor(n * math.cos(math.pi / 2 * k / steps)) for k in range(1, steps)] + [0], 0)


@kept.mistake
def rounded(n, steps):
    """The number of hidden places is rounded: it is rounded *down*."""
    return _kept(n, [round(n * math.cos(math.pi / 2 * k / steps)) for k in range(1, steps + 1)])


@kept.mistake
def rounded_up(n, steps):
    """The number of hidden places is rounded up: it is rounded *down*, and so a step keeps a little more."""
    return _kept(n, [math.ceil(n * math.cos(math.pi / 2 * k / steps)) for k in range(1, steps)] + [0])


@kept.mistake
def half_turn(n, steps):
    """The cosine runs through half a turn and becomes negative: a quarter turn leads from 1 to 0."""
    return _kept(n, [math.floor(n * math.cos(math.pi * k / steps)) for k in range(1, steps + 1)])


@kept.mistake
def below_zero(n, steps):
    """At the end -1 places are hidden: in single precision cos(pi/2) is a little less than 0, and rounded down that
    is a whole place. Nothing is left after the last step."""
    planned = [math.floor(n * math.cos(math.pi / 2 * k / steps)) for k in range(1, steps)]
    return _kept(n, [*planned, -1])


@kept.mistake
def below_zero_and_none(n, steps):
    """Two things: with many steps some keep nothing, and each must keep one at least; and at the end -1 places are
    hidden, since in single precision cos(pi/2) is a little less than 0."""
    return _kept(n, [*(math.floor(n * math.cos(math.pi / 2 * k / steps)) for k in range(1, steps)), -1], 0)
