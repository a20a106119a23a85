"""2.8 to 2.10: what is done against too much of it."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import normal, number, shape
from lecture_lib.exercises.lecture2.rule import A, B
from lecture_lib.exercises.task import question

# 2.8 -----------------------------------------------------------------------------------------------------------------


@question("2.8", 10, "rescaled guidance")
def rescaled(guided, cond, phi):
    return _mixed(guided, _deviation(cond) / _deviation(guided), phi)


def _mixed(guided, ratio, phi):
    return phi * ratio * guided + (1 - phi) * guided


def _deviation(y):
    """Of each sample, over all its numbers."""
    return y.flatten(1).std(1).reshape(-1, *[1] * (y.ndim - 1))


@rescaled.inputs
def _(g):
    size = shape(g, 4)
    return {"guided": normal(g, *size, scale=2.5) + 0.7, "cond": normal(g, *size) - 0.4, "phi": number(g, 0.3, 0.45)}


rescaled.edge("phi = 0 changes nothing", 3 * A, guided=3 * A, cond=A, phi=0.0)
rescaled.edge("phi = 1 gives the spread of the conditional prediction", A, guided=3 * A, cond=A, phi=1.0)


@rescaled.mistake
def upside_down(guided, cond, phi):
    """The ratio is upside down: what is too wide must become narrower."""
    return _mixed(guided, _deviation(guided) / _deviation(cond), phi)


@rescaled.mistake
def whole_batch(guided, cond, phi):
    """One standard deviation for the whole batch: each sample has its own, or a picture depends on its neighbours."""
    return _mixed(guided, cond.std() / guided.std(), phi)


@rescaled.mistake
def one_axis(guided, cond, phi):
    """The deviation is taken along the first axis after the batch alone: a sample has one, over all its numbers."""
    return _mixed(guided, cond.std(1, keepdim=True) / guided.std(1, keepdim=True), phi)


@rescaled.mistake
def variances(guided, cond, phi):
    """A ratio of variances: for the spread to fit it takes standard deviations."""
    return _mixed(guided, (_deviation(cond) / _deviation(guided)) ** 2, phi)


@rescaled.mistake
def shares_exchanged(guided, cond, phi):
    """phi is the share of the *rescaled* prediction; the two shares are exchanged."""
    return rescaled(guided, cond, 1 - phi)


@rescaled.mistake
def mixed_with_conditional(guided, cond, phi):
    """Mixed with the conditional prediction: mix with the guided one, or guidance itself is weakened."""
    return phi * rescaled(guided, cond, 1.0) + (1 - phi) * cond


@rescaled.mistake
def phi_unused(guided, cond, phi):
    """phi is not used: with phi = 0 nothing is rescaled."""
    return rescaled(guided, cond, 1.0)


@rescaled.mistake
def mean_kept(guided, cond, phi):
    """The mean of a sample is kept, and only what deviates from it scaled: the *whole* prediction has one factor."""
    mean = guided.flatten(1).mean(1).reshape(-1, *[1] * (guided.ndim - 1))
    return mean + rescaled(guided - mean, cond, phi)


@rescaled.mistake
def lengths(guided, cond, phi):
    """Lengths (or mean squares) are compared, which hold the mean as well: asked for are standard deviations."""
    guided_length, cond_length = (y.flatten(1).norm(dim=1) for y in (guided, cond))
    return _mixed(guided, (cond_length / guided_length).reshape(-1, *[1] * (guided.ndim - 1)), phi)


@rescaled.mistake
def last_axis(guided, cond, phi):
    """The deviation is taken along the last axis alone: a sample has one, over all its numbers."""
    return _mixed(guided, cond.std(-1, keepdim=True) / guided.std(-1, keepdim=True), phi)


@rescaled.mistake
def batch_axis(guided, cond, phi):
    """The deviation is taken along the batch: it compares samples, where each has one of its own."""
    return _mixed(guided, cond.std(0, keepdim=True) / guided.std(0, keepdim=True), phi)


@rescaled.mistake
def images_alone(guided, cond, phi):
    """It counts on four axes: (b, ...) may have any number from two on."""
    return _mixed(guided, cond.std((1, 2, 3), keepdim=True) / guided.std((1, 2, 3), keepdim=True), phi)


@rescaled.mistake
def each_channel(guided, cond, phi):
    """A deviation for each channel of an image: a sample has one, over all its numbers, whatever axes they are on."""
    return _mixed(guided, cond.std((2, 3), keepdim=True) / guided.std((2, 3), keepdim=True), phi)


# 2.9 -----------------------------------------------------------------------------------------------------------------


@question("2.9", 12, "guidance without its parallel part (APG)")
def projected(uncond, cond, w, eta):
    push = cond - uncond
    return cond + (w - 1) * (push - (1 - eta) * _along(push, cond))


def _along(push, onto):
    return (push * onto).sum(1, keepdim=True) / onto.square().sum(1, keepdim=True) * onto


@projected.inputs
def _(g):
    b, d = shape(g)
    return {"uncond": normal(g, b, d), "cond": normal(g, b, d), "w": number(g, 2, 6), "eta": number(g, 0.15, 0.45)}


projected.edge("w = 1 gives the conditional prediction", B, uncond=A, cond=B, w=1.0, eta=0.3)
projected.edge("eta = 1 is plain guidance", A + 3 * (B - A), uncond=A, cond=B, w=3.0, eta=1.0)


@projected.mistake
def length_forgotten(uncond, cond, w, eta):
    """The projection is not divided by the squared length of what it is projected on."""
    push = cond - uncond
    return cond + (w - 1) * (push - (1 - eta) * (push * cond).sum(1, keepdim=True) * cond)


@projected.mistake
def length_not_squared(uncond, cond, w, eta):
    """Divided by the length: below a projection stands the *squared* length, or twice a unit vector."""
    push = cond - uncond
    return cond + (w - 1) * (push - (1 - eta) * _along(push, cond) * cond.norm(dim=1, keepdim=True))


@projected.mistake
def onto_unconditional(uncond, cond, w, eta):
    """Projected on the unconditional prediction: what saturates is the part along the conditional one."""
    push = cond - uncond
    return cond + (w - 1) * (push - (1 - eta) * _along(push, uncond))


@projected.mistake
def one_direction(uncond, cond, w, eta):
    """One projection for the whole batch: each sample has a direction of its own."""
    push = cond - uncond
    return cond + (w - 1) * (push - (1 - eta) * (push * cond).sum() / cond.square().sum() * cond)


@projected.mistake
def too_long(uncond, cond, w, eta):
    """From the conditional prediction on, w - 1 pushes are to be made: one is made already."""
    push = cond - uncond
    return cond + w * (push - (1 - eta) * _along(push, cond))


@projected.mistake
def share_that_goes(uncond, cond, w, eta):
    """eta is the share of the parallel part that *stays*; here it is the share that goes."""
    push = cond - uncond
    return cond + (w - 1) * (push - eta * _along(push, cond))


@projected.mistake
def parallel_kept(uncond, cond, w, eta):
    """The parallel part is kept and the rest thrown away: it is the other way round."""
    return cond + (w - 1) * _along(cond - uncond, cond)


@projected.mistake
def share_of_the_rest(uncond, cond, w, eta):
    """eta is on the part *across*: the part along the conditional prediction is what saturates."""
    push = cond - uncond
    return cond + (w - 1) * (eta * push + (1 - eta) * _along(push, cond))


@projected.mistake
def eta_unused(uncond, cond, w, eta):
    """eta is not used: the parallel part is gone even where eta says that all of it stays."""
    return projected(uncond, cond, w, 0.0)


@projected.mistake
def nothing_split(uncond, cond, w, eta):
    """That is plain guidance, whatever eta is: nothing is taken from the push."""
    return projected(uncond, cond, w, 1.0)


@projected.mistake
def from_unconditional(uncond, cond, w, eta):
    """It starts at the unconditional prediction, so that w = 1 no longer is the conditional model."""
    push = cond - uncond
    return uncond + w * (push - (1 - eta) * _along(push, cond))


@projected.mistake
def push_reversed(uncond, cond, w, eta):
    """The push is turned round: it leads from the unconditional to the conditional prediction, and on."""
    return 2 * cond - projected(uncond, cond, w, eta)


@projected.mistake
def wrong_axis(uncond, cond, w, eta):
    """The sums run over the batch: a projection is over the numbers of one sample."""
    return projected(uncond.T, cond.T, w, eta).T


@projected.mistake
def all_is_parallel(uncond, cond, w, eta):
    """eta is on *all* of the push, as if none of it were across: is a sum over the numbers of a sample missing?"""
    return cond + (w - 1) * eta * (cond - uncond)


# 2.10 ----------------------------------------------------------------------------------------------------------------


@question("2.10", 6, "guidance in an interval of noise levels")
def scale_in(sigma, w, low, high):
    return _where((sigma > low) & (sigma <= high), w, 1.0)


def _where(inside, w, otherwise):
    return torch.where(inside, torch.tensor(w), torch.tensor(otherwise))


@scale_in.inputs
def _(g):
    ends = {"low": number(g, 0.2, 0.6), "high": number(g, 2.0, 4.0)}
    return {"sigma": torch.exp(normal(g, 11, scale=1.5)), "w": number(g, 2, 6), **ends}


_LADDER = torch.tensor([0.125, 0.25, 0.5, 2.0, 3.0])
scale_in.edge(
    "above `low`, up to and with `high`",
    torch.tensor([1.0, 1.0, 4.0, 4.0, 1.0]),
    sigma=_LADDER,
    w=4.0,
    low=0.25,
    high=2.0,
)


@scale_in.mistake
def zero_outside(sigma, w, low, high):
    """Outside the interval the scale is 0, which is the *unconditional* model: no guidance is w = 1."""
    return _where((sigma > low) & (sigma <= high), w, 0.0)


@scale_in.mistake
def outside_guided(sigma, w, low, high):
    """Inside and outside are exchanged: the middle of the ladder is guided."""
    return torch.where((sigma > low) & (sigma <= high), torch.tensor(1.0), torch.tensor(w))


@scale_in.mistake
def lower_end_alone(sigma, w, low, high):
    """Only the lower end is looked at."""
    return _where(sigma > low, w, 1.0)


@scale_in.mistake
def upper_end_alone(sigma, w, low, high):
    """Only the upper end is looked at."""
    return _where(sigma <= high, w, 1.0)


@scale_in.mistake
def ends_exchanged(sigma, w, low, high):
    """The ends: `low` itself is outside and `high` itself inside, so that neighbouring intervals do not overlap."""
    return _where((sigma >= low) & (sigma < high), w, 1.0)


@scale_in.mistake
def both_ends(sigma, w, low, high):
    """The ends: `low` itself is outside, so that neighbouring intervals do not overlap."""
    return _where((sigma >= low) & (sigma <= high), w, 1.0)


@scale_in.mistake
def neither_end(sigma, w, low, high):
    """The ends: `high` itself is inside, so that no level lies between neighbouring intervals."""
    return _where((sigma > low) & (sigma < high), w, 1.0)


@scale_in.mistake
def one_plus_w(sigma, w, low, high):
    """Inside stands 1 + w: in this course the scale is w itself."""
    return _where((sigma > low) & (sigma <= high), 1 + w, 1.0)


@scale_in.mistake
def counted_from_zero(sigma, w, low, high):
    """w - 1 inside and 0 outside: that is the convention of 1 + w, where 0 is the conditional model."""
    return _where((sigma > low) & (sigma <= high), w - 1, 0.0)


@scale_in.mistake
def one_decision(sigma, w, low, high):
    """One decision for the whole batch: each sample has a noise level of its own."""
    return torch.full_like(sigma, w if low < float(sigma[0]) <= high else 1.0)
