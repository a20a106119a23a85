"""5.8: who hears what of a loss with a quantiser in it."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import normal, number, shape
from lecture_lib.exercises.stages import lecture5 as stages
from lecture_lib.exercises.task import question

# 5.8 -----------------------------------------------------------------------------------------------------------------


@question("5.8", 9, "vector quantisation, straight through")
def quantise(z_e, codes, beta):
    e = _nearest(z_e, codes)
    return z_e + (e - z_e).detach(), _apart(z_e.detach(), e) + beta * _apart(z_e, e.detach())


def _nearest(z_e, codes):
    return codes[torch.cdist(z_e.detach(), codes.detach()).argmin(1)]


def _apart(a, b):
    return (a - b).square().sum(1).mean()


quantise.stage(stages.quantising)
quantise.compares("z", "the loss", "what z_e hears", "what the codes hear")


@quantise.inputs
def _(g):
    b, d, k = shape(g, 3)
    sizes = {"z_e": normal(g, b + 1, d), "codes": normal(g, k + 2, d, scale=1.4)}
    return {**sizes, "beta": number(g, 0.2, 0.6), "goal": normal(g, b + 1, d)}


_CODES = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
_GOAL = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
_HIT = _CODES[[2, 1]]
quantise.edge(
    "encodings that are codes: nothing to pay, and only the reconstruction is heard, by the encoder",
    (_HIT, 0.0, _HIT - _GOAL, 0 * _CODES),
    z_e=_HIT, codes=_CODES, beta=0.3, goal=_GOAL,
)  # fmt: skip
_OFF = torch.tensor([[0.4, -0.2], [1.5, 0.1]])
_MISS = _OFF - _CODES[:2]
quantise.edge(
    "two encodings beside two codes, a third code unused",
    (_CODES[:2], 1.3 * 0.23, _CODES[:2] - _GOAL + 0.3 * _MISS, torch.cat([-_MISS, torch.zeros(1, 2)])),
    z_e=_OFF, codes=_CODES, beta=0.3, goal=_GOAL,
)  # fmt: skip


@quantise.mistake
def not_stopped(z_e, codes, beta):
    """z_e + (e - z_e) without a stop-gradient *is* e: the encoder hears nothing of the reconstruction."""
    e = _nearest(z_e, codes)
    return z_e + (e - z_e), quantise(z_e, codes, beta)[1]


@quantise.mistake
def all_stopped(z_e, codes, beta):
    """Everything in z is stopped: now nobody hears of the reconstruction. The *difference* is to be stopped."""
    return _nearest(z_e, codes).detach(), quantise(z_e, codes, beta)[1]


@quantise.mistake
def not_quantised(z_e, codes, beta):
    """z is the encoding itself: nothing was quantised."""
    return z_e * 1.0, quantise(z_e, codes, beta)[1]


@quantise.mistake
def turned_round(z_e, codes, beta):
    """The trick is turned round: this z is z_e, and its gradient goes to the code."""
    e = _nearest(z_e, codes)
    return e + (z_e - e).detach(), quantise(z_e, codes, beta)[1]


@quantise.mistake
def codebook_hears(z_e, codes, beta):
    """Code and encoder both hear of the reconstruction: it is meant for the encoder only."""
    return _nearest(z_e, codes) + z_e - z_e.detach(), quantise(z_e, codes, beta)[1]


@quantise.mistake
def loss_of_the_wrong_z(z_e, codes, beta):
    """The loss uses the z that is returned: its way back leads to the encoder, so the codebook never learns.
    Both terms are about the raw code."""
    z = quantise(z_e, codes, beta)[0]
    return z, _apart(z_e.detach(), z) + beta * _apart(z_e, z.detach())


@quantise.mistake
def loss_not_stopped(z_e, codes, beta):
    """The number of the loss is right, its gradients are not: each of the two terms is meant for one side only,
    so the other side needs a stop-gradient."""
    z, e = quantise(z_e, codes, beta)[0], _nearest(z_e, codes)
    return z, (1 + beta) * _apart(z_e, e)


@quantise.mistake
def beta_on_the_codebook(z_e, codes, beta):
    """beta stands before the wrong term (or the stop-gradients are exchanged): it is the *encoder's* commitment that
    is made weaker."""
    z, e = quantise(z_e, codes, beta)[0], _nearest(z_e, codes)
    return z, beta * _apart(z_e.detach(), e) + _apart(z_e, e.detach())


@quantise.mistake
def beta_on_both(z_e, codes, beta):
    """beta stands before both terms: only the encoder's commitment is made weaker."""
    z, e = quantise(z_e, codes, beta)[0], _nearest(z_e, codes)
    return z, beta * (_apart(z_e.detach(), e) + _apart(z_e, e.detach()))


@quantise.mistake
def codes_stopped(z_e, codes, beta):
    """The number of the loss is right, but the codes hear nothing: in the first term the *encoding* is stopped."""
    z, e = quantise(z_e, codes, beta)[0], _nearest(z_e, codes).detach()
    return z, _apart(z_e.detach(), e) + beta * _apart(z_e, e)


@quantise.mistake
def loss_without_a_way(z_e, codes, beta):
    """The number of the loss is right, but it is nothing else: no gradient flows from it. Is there an `item()`, a
    `detach()`, a `no_grad`?"""
    z, loss = quantise(z_e, codes, beta)
    return z, loss.item()


@quantise.mistake
def encoder_cut_off(z_e, codes, beta):
    """The encoder hears nothing at all, neither of the reconstruction nor of its commitment: z_e is stopped from the
    start."""
    return quantise(z_e.detach(), codes, beta)


@quantise.mistake
def no_commitment(z_e, codes, beta):
    """Nothing commits the encoder to its code: the second term is missing, or 0 because it compares e with the returned
    z, which *is* e."""
    z, e = quantise(z_e, codes, beta)[0], _nearest(z_e, codes)
    return z, _apart(z_e.detach(), e)


@quantise.mistake
def no_codebook_term(z_e, codes, beta):
    """The codebook's own term is missing: since z passes it by, no code would ever move."""
    z, e = quantise(z_e, codes, beta)[0], _nearest(z_e, codes)
    return z, beta * _apart(z_e, e.detach())


@quantise.mistake
def largest_product(z_e, codes, beta):
    """The code with the largest inner product: long codes always win. Nearest means the smallest distance."""
    return _with_code(z_e, codes[(z_e @ codes.T).argmax(1)], beta)


def _with_code(z_e, e, beta):
    return z_e + (e - z_e).detach(), _apart(z_e.detach(), e) + beta * _apart(z_e, e.detach())


@quantise.mistake
def farthest(z_e, codes, beta):
    """The code at the *largest* distance: argmax for argmin?"""
    return _with_code(z_e, codes[torch.cdist(z_e, codes).argmax(1)], beta)


@quantise.mistake
def summed_batch(z_e, codes, beta):
    """The loss is a sum over the batch: its mean is asked for, or the rate of learning depends on the batch."""
    z, loss = quantise(z_e, codes, beta)
    return z, loss * len(z_e)


@quantise.mistake
def mean_over_numbers(z_e, codes, beta):
    """The loss is a mean over all numbers; a squared distance is a *sum* over the numbers of a vector."""
    z, loss = quantise(z_e, codes, beta)
    return z, loss / z_e.shape[1]
