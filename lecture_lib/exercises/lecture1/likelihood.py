"""1.3: the loss that the autoencoder learns by."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import normal, number, shape, uniform
from lecture_lib.exercises.task import question

# 1.3 -----------------------------------------------------------------------------------------------------------------


@question("1.3", 9, "the loss of a KL autoencoder, as a bound on the likelihood")
def first_stage_loss(x, x_hat, mean, logvar, log_scale, beta):
    size = x[0].numel()
    likelihood = -_total((x - x_hat).abs()) / math.exp(log_scale) - size * (log_scale + math.log(2))
    return -likelihood + beta * _kl(mean, logvar)


def _total(y):
    """Of each sample, over all its numbers."""
    return y.flatten(1).sum(1)


def _kl(mean, logvar):
    return _total(mean.square() + logvar.exp() - 1 - logvar) / 2


@first_stage_loss.inputs
def _(g):
    b, c, h, w = shape(g, 4)
    pictures = {"x": uniform(g, b, 3, 2 * h, 2 * w, low=-1.0), "x_hat": uniform(g, b, 3, 2 * h, 2 * w, low=-1.0)}
    latents = {"mean": normal(g, b, c, h, w, scale=1.3), "logvar": normal(g, b, c, h, w) - 0.8}
    return {**pictures, **latents, "log_scale": number(g, -1.4, -0.4), "beta": number(g, 0.3, 0.8)}


_X, _ZERO = torch.full((2, 3, 2, 1), 0.25), torch.zeros(2, 4, 1, 1)
_EVEN = {"mean": _ZERO, "logvar": _ZERO, "beta": 0.5}
first_stage_loss.edge(
    "a perfect picture from a standard normal code: the normaliser alone",
    torch.full((2,), 6 * (0.5 + math.log(2))),
    x=_X, x_hat=_X, log_scale=0.5, **_EVEN,
)  # fmt: skip
first_stage_loss.edge(
    "b = 1/2, where the normaliser is 0: what is left are the error and the KL",
    torch.full((2,), 6 * 0.25 / 0.5 + 0.5 * 4 * 0.5),
    x=_X, x_hat=0 * _X, log_scale=-math.log(2), mean=_ZERO + 1, logvar=_ZERO, beta=0.5,
)  # fmt: skip


@first_stage_loss.mistake
def bound_minimised(x, x_hat, mean, logvar, log_scale, beta):
    """That is the evidence bound itself, which is to be *maximised*: a loss has the other sign."""
    return -first_stage_loss(x, x_hat, mean, logvar, log_scale, beta)


@first_stage_loss.mistake
def kl_subtracted(x, x_hat, mean, logvar, log_scale, beta):
    """The KL is taken away from the loss, as in "minimise E[log p] - KL". It would grow without limit: descend, and
    ask where the code goes."""
    return first_stage_loss(x, x_hat, mean, logvar, log_scale, -beta)


@first_stage_loss.mistake
def normaliser_missing(x, x_hat, mean, logvar, log_scale, beta):
    """The scale stands below the error and nowhere else: without the density's normaliser, a learned scale would grow
    for ever."""
    return _total((x - x_hat).abs()) / math.exp(log_scale) + beta * _kl(mean, logvar)


@first_stage_loss.mistake
def scale_itself(x, x_hat, mean, logvar, log_scale, beta):
    """The error is divided by the *logarithm* of the scale, which may be negative: what is learned is the logarithm."""
    error = _total((x - x_hat).abs()) / log_scale + x[0].numel() * (log_scale + math.log(2))
    return error + beta * _kl(mean, logvar)


@first_stage_loss.mistake
def halved_error(x, x_hat, mean, logvar, log_scale, beta):
    """The error is halved, as in a Gaussian's exponent: in Laplace's density the 2 stands in the normaliser alone."""
    return (
        first_stage_loss(x, x_hat, mean, logvar, log_scale, beta) - _total((x - x_hat).abs()) / math.exp(log_scale) / 2
    )


@first_stage_loss.mistake
def two_missing(x, x_hat, mean, logvar, log_scale, beta):
    """The normaliser lacks its constant: harmless for training, but then it is no likelihood. Integrate the density."""
    return first_stage_loss(x, x_hat, mean, logvar, log_scale, beta) - x[0].numel() * math.log(2)


@first_stage_loss.mistake
def normalised_once(x, x_hat, mean, logvar, log_scale, beta):
    """One normaliser per picture: the density is a product over its numbers, and each factor has its own."""
    error = _total((x - x_hat).abs()) / math.exp(log_scale)
    return error + log_scale + math.log(2) + beta * _kl(mean, logvar)


@first_stage_loss.mistake
def normalised_by_place(x, x_hat, mean, logvar, log_scale, beta):
    """One normaliser per place: each of the three colours is a number of its own, with a density of its own."""
    loss = first_stage_loss(x, x_hat, mean, logvar, log_scale, beta)
    return loss - 2 * x[0, 0].numel() * (log_scale + math.log(2))


@first_stage_loss.mistake
def mean_of_pixels(x, x_hat, mean, logvar, log_scale, beta):
    """A mean over the picture's numbers beside a KL that is a sum: the likelihood of a picture is a product over all
    of them, and beta means something else otherwise."""
    likelihood = first_stage_loss(x, x_hat, mean, logvar, log_scale, 0.0)
    return likelihood / x[0].numel() + beta * _kl(mean, logvar)


@first_stage_loss.mistake
def gaussian(x, x_hat, mean, logvar, log_scale, beta):
    """A squared error: that is Gaussian noise. The first stage assumes Laplace noise, whose exponent is linear in the
    distance."""
    error = _total((x - x_hat).square()) / math.exp(log_scale) + x[0].numel() * (log_scale + math.log(2))
    return error + beta * _kl(mean, logvar)


@first_stage_loss.mistake
def kl_of_deviation(x, x_hat, mean, logvar, log_scale, beta):
    """The log-variance is read as the logarithm of a standard deviation."""
    return first_stage_loss(x, x_hat, mean, 2 * logvar, log_scale, beta)


@first_stage_loss.mistake
def half_missing(x, x_hat, mean, logvar, log_scale, beta):
    """The KL is twice as large as it should be: where do its terms come from, and what stands in a Gaussian's
    exponent?"""
    return first_stage_loss(x, x_hat, mean, logvar, log_scale, 2 * beta)


@first_stage_loss.mistake
def beta_forgotten(x, x_hat, mean, logvar, log_scale, beta):
    """The KL has no weight: where is beta?"""
    return first_stage_loss(x, x_hat, mean, logvar, log_scale, 1.0)


@first_stage_loss.mistake
def kl_averaged(x, x_hat, mean, logvar, log_scale, beta):
    """The KL is averaged over the latent's numbers: for independent numbers divergences add up."""
    return first_stage_loss(x, x_hat, mean, logvar, log_scale, beta / mean[0].numel())


@first_stage_loss.mistake
def one_for_the_batch(x, x_hat, mean, logvar, log_scale, beta):
    """One mean for the whole batch where a loss of each picture is asked for."""
    return first_stage_loss(x, x_hat, mean, logvar, log_scale, beta).mean()
