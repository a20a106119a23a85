"""4.11: distribution matching, whose loss is a number without meaning and a gradient with one."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import normal, number, shape, uniform
from lecture_lib.exercises.lecture4.numbers import MEAN, A, B, rows
from lecture_lib.exercises.stages import lecture4 as stages
from lecture_lib.exercises.task import question


@question("4.11", 8, "the loss of distribution matching")
def matching_loss(x, real, fake, noise, t):
    x_t = x + rows(t) * noise
    return _loss(x, _pull(x, real(x_t, t), fake(x_t, t)))


def _pull(x, said_real, said_fake):
    return (said_fake - said_real) / (x - said_real).abs().mean(1, keepdim=True)


def _loss(x, g):
    return (x - (x - g).detach()).square().mean() / 2


matching_loss.stage(stages.matching_loss)


@matching_loss.inputs
def _(g):
    m, b, d = shape(g, 3)
    student = {"weight": normal(g, m, d), "z": normal(g, b, m)}
    real = {"real_mean": normal(g, d) + 1.5, "real_std": number(g, 0.3, 0.6)}
    fake = {"fake_mean": normal(g, d) - 0.5, "fake_std": number(g, 0.8, 1.2)}
    return {**student, **real, **fake, "noise": normal(g, b, d), "t": uniform(g, b, low=0.5, high=1.8)}


_Z = torch.tensor([[1.0, -0.5], [0.75, 2.0]])
_N = torch.tensor([-0.25, 1.0, 0.5])
_T = torch.tensor([1.5, 0.8])
_STUDENT = {"weight": A, "z": _Z, "noise": B, "t": _T}
matching_loss.edge(
    "a student whose samples look like the teacher's has arrived",
    [0.0, torch.zeros(2, 3)], **_STUDENT, real_mean=MEAN, real_std=0.6, fake_mean=MEAN.clone(), fake_std=0.6,
)  # fmt: skip
_G = (_N - MEAN) / (_Z @ A - MEAN).abs().mean(1, keepdim=True)
matching_loss.edge(
    "two worlds of a single point each",
    [_G.square().mean() / 2, _Z.mT @ _G / _G.numel()],
    **_STUDENT, real_mean=MEAN, real_std=0.0, fake_mean=_N, fake_std=0.0,
)  # fmt: skip


@matching_loss.mistake
def towards_itself(x, real, fake, noise, t):
    """The sign: the number is right, but its gradient leads away from the teacher, towards what the student makes
    already. x moves *against* its gradient."""
    x_t = x + rows(t) * noise
    return _loss(x, -_pull(x, real(x_t, t), fake(x_t, t)))


@matching_loss.mistake
def through_denoisers(x, real, fake, noise, t):
    """The number is right, but the gradient runs through both denoisers, which is no gradient of KL: the direction is
    to be taken as given."""
    x_t = x + rows(t) * noise
    return _pull(x, real(x_t, t), fake(x_t, t)).square().mean() / 2


@matching_loss.mistake
def nothing_learns(x, real, fake, noise, t):
    """The number is right, but no gradient reaches the student: is x stopped in both places, or is it in neither, so
    that it cancels? Or is the loss a plain number?"""
    return matching_loss(x, real, fake, noise, t).detach()


@matching_loss.mistake
def not_weighted(x, real, fake, noise, t):
    """The weight is missing: at some noise levels the pull would be a hundred times that at others."""
    x_t = x + rows(t) * noise
    return _loss(x, fake(x_t, t) - real(x_t, t))


@matching_loss.mistake
def one_weight(x, real, fake, noise, t):
    """One weight for the whole batch: each sample has its own noise level, and its own weight."""
    x_t = x + rows(t) * noise
    return _loss(x, (fake(x_t, t) - real(x_t, t)) / (x - real(x_t, t)).abs().mean())


@matching_loss.mistake
def weight_of_fake(x, real, fake, noise, t):
    """The weight is measured at the fake denoiser: it is the teacher's error at x."""
    x_t = x + rows(t) * noise
    return _loss(x, (fake(x_t, t) - real(x_t, t)) / (x - fake(x_t, t)).abs().mean(1, keepdim=True))


@matching_loss.mistake
def weight_summed(x, real, fake, noise, t):
    """The weight has a sum where a mean belongs: pulls would be weaker for larger pictures."""
    x_t = x + rows(t) * noise
    return _loss(x, _pull(x, real(x_t, t), fake(x_t, t)) / x.shape[1])


@matching_loss.mistake
def length_for_mean(x, real, fake, noise, t):
    """The weight has the length of the error: it is the mean of its absolute values."""
    x_t = x + rows(t) * noise
    return _loss(x, (fake(x_t, t) - real(x_t, t)) / (x - real(x_t, t)).norm(dim=1, keepdim=True))


@matching_loss.mistake
def error_of_noised(x, real, fake, noise, t):
    """The weight compares the teacher's x_0 with the noised sample: the error is that at the clean one."""
    x_t = x + rows(t) * noise
    return _loss(x, _pull(x_t, real(x_t, t), fake(x_t, t)).detach())


@matching_loss.mistake
def clean(x, real, fake, noise, t):
    """The denoisers are asked at x itself: clean supports may not overlap, which is why both sides are noised."""
    return _loss(x, _pull(x, real(x, t), fake(x, t)))


@matching_loss.mistake
def squared_level(x, real, fake, noise, t):
    """The noise is multiplied by t squared: t is its standard deviation."""
    x_t = x + rows(t) ** 2 * noise
    return _loss(x, _pull(x, real(x_t, t), fake(x_t, t)))


@matching_loss.mistake
def twice(x, real, fake, noise, t):
    """The half is missing: then the gradient is twice the direction."""
    return 2 * matching_loss(x, real, fake, noise, t)


@matching_loss.mistake
def towards_teacher(x, real, fake, noise, t):
    """The fake denoiser is not used: x goes to the teacher's mean, and all samples to the middle of a mode."""
    x_t = x + rows(t) * noise
    return _loss(x, _pull(x, real(x_t, t), x))


@matching_loss.mistake
def exchanged(x, real, fake, noise, t):
    """The two denoisers are exchanged throughout: the teacher is `real`, in the weight as well."""
    return matching_loss(x, fake, real, noise, t)


@matching_loss.mistake
def linear(x, real, fake, noise, t):
    """The gradient is right, its number is not: that is the mean of g x, asked for is that of a square."""
    x_t = x + rows(t) * noise
    return (_pull(x, real(x_t, t), fake(x_t, t)).detach() * x).mean()


@matching_loss.mistake
def mean_pull(x, real, fake, noise, t):
    """That is the mean of g: asked for is a loss whose *gradient* is g."""
    x_t = x + rows(t) * noise
    return _pull(x, real(x_t, t), fake(x_t, t)).mean()


@matching_loss.mistake
def summed(x, real, fake, noise, t):
    """A sum over the batch where a mean is asked for."""
    return matching_loss(x, real, fake, noise, t) * x.numel()


@matching_loss.mistake
def lengths_squared(x, real, fake, noise, t):
    """The squares of a sample are added up before the mean: that of the loss is over all numbers."""
    return matching_loss(x, real, fake, noise, t) * x.shape[1]


@matching_loss.mistake
def squares_below(x, real, fake, noise, t):
    """The weight is a mean of squares: it is one of absolute values."""
    x_t = x + rows(t) * noise
    return _loss(x, (fake(x_t, t) - real(x_t, t)) / (x - real(x_t, t)).square().mean(1, keepdim=True))


@matching_loss.mistake
def sign_kept(x, real, fake, noise, t):
    """The weight is a mean of differences with their signs, which cancel: each is to count by its absolute value."""
    x_t = x + rows(t) * noise
    return _loss(x, (fake(x_t, t) - real(x_t, t)) / (x - real(x_t, t)).mean(1, keepdim=True))


@matching_loss.mistake
def other_path(x, real, fake, noise, t):
    """The samples are noised on the line of a rectified flow; on EDM's path x keeps its size."""
    x_t = rows(1 - t) * x + rows(t) * noise
    return _loss(x, _pull(x, real(x_t, t), fake(x_t, t)))
