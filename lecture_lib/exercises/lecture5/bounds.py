"""5.7: a bound, per picture."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import count, normal, number, shape, uniform
from lecture_lib.exercises.task import question

LOG_2PI = math.log(2 * math.pi)

# 5.7 -----------------------------------------------------------------------------------------------------------------


@question("5.7", 10, "an importance-weighted bound")
def iw_bound(x, mean, std, W, s, noise):
    return _log_mean(sum(_terms(x, mean, std, W, s, mean + std * noise)))


def _log_mean(weights):
    return weights.logsumexp(0) - math.log(len(weights))


def _terms(x, mean, std, W, s, z):
    """log p(x|z), log p(z) and -log q(z|x), each (K, b)."""
    decoder = -0.5 * ((x - z @ W.T) / s).square().sum(2) - x.shape[1] * (math.log(s) + LOG_2PI / 2)
    prior, guess = _log_diagonal(z, 0.0, torch.ones(())), _log_diagonal(z, mean, std)
    return decoder, prior, -guess


def _log_diagonal(z, mean, std):
    return (-0.5 * ((z - mean) / std).square() - std.log() - LOG_2PI / 2).sum(2)


@iw_bound.inputs
def _(g):
    b, d = shape(g)
    latent, K = count(g, 2, 3), count(g, 7, 9)
    q = {"mean": normal(g, b, latent, scale=0.4), "std": uniform(g, b, latent, low=0.5, high=0.9)}
    decoder = {"W": normal(g, d + 2, latent, scale=0.5), "s": number(g, 0.75, 0.95)}
    return {"x": normal(g, b, d + 2), **q, **decoder, "noise": normal(g, K, b, latent)}


_X2, _W1 = torch.tensor([[0.7, -0.4], [-1.3, 0.2], [0.1, 1.6]]), torch.tensor([[0.6], [-0.8]])
_ALONG, _ACROSS = _X2 @ _W1, _X2 @ torch.tensor([[0.8], [0.6]])
_DRAWN = torch.tensor([[[0.3], [-1.2], [0.8]], [[1.5], [0.4], [-0.7]]])
iw_bound.edge(
    "with the exact posterior every weight is p(x), whatever was drawn",
    (-(_ALONG**2) / 3 - _ACROSS**2 - 0.5 * math.log(0.75) - LOG_2PI)[:, 0],
    x=_X2, mean=_ALONG * 2 / 3, std=torch.full((3, 1), 3**-0.5), W=_W1, s=0.5**0.5, noise=_DRAWN,
)  # fmt: skip
iw_bound.edge(
    "a decoder that does not listen, and a guess that is the prior",
    -2 * _X2.square().sum(1) - 2 * math.log(0.5) - LOG_2PI,
    x=_X2, mean=torch.zeros(3, 1), std=torch.ones(3, 1), W=0 * _W1, s=0.5, noise=_DRAWN,
)  # fmt: skip
_FAR = 20 * torch.tensor([[1.0, 0.0], [0.6, -0.8], [0.0, 1.0]])
iw_bound.edge(
    "the same for pictures so far away that their probability is too small for any float",
    torch.full((3,), -800 - 2 * math.log(0.5) - LOG_2PI),
    x=_FAR, mean=torch.zeros(3, 1), std=torch.ones(3, 1), W=0 * _W1, s=0.5, noise=_DRAWN,
)  # fmt: skip


def _wrong(x, mean, std, W, s, noise, weigh=lambda decoder, prior, guess: decoder + prior + guess, average=_log_mean):
    return average(weigh(*_terms(x, mean, std, W, s, mean + std * noise)))


@iw_bound.mistake
def batch_first(**k):
    """The pictures are added up before the logarithm of the mean: one bound for the batch, and a far looser one."""
    return _wrong(**k, average=lambda w: w.sum(1).logsumexp(0) - math.log(len(w)))


@iw_bound.mistake
def batch_first_for_each(**k):
    """Each picture is given the bound of the whole batch, added up before the logarithm of the mean: pictures are
    independent, and each has its own."""
    return batch_first(**k).expand(len(k["x"]))


@iw_bound.mistake
def sum_for_mean(**k):
    """A sum over the K draws where a mean belongs: the bound would grow with K for no reason."""
    return _wrong(**k, average=lambda w: w.logsumexp(0))


@iw_bound.mistake
def mean_of_logs(**k):
    """The mean of the logarithms is the ELBO, however many draws; the logarithm of the mean is tighter."""
    return _wrong(**k, average=lambda w: w.mean(0))


@iw_bound.mistake
def best_draw(**k):
    """Only the best of the draws counts here; the mean is over all."""
    return _wrong(**k, average=lambda w: w.max(0).values)


@iw_bound.mistake
def underflow(**k):
    """exp comes before the mean: where a picture is improbable that is 0, and has no logarithm. Stay with logarithms
    to the end."""
    return _wrong(**k, average=lambda w: w.exp().mean(0).log())


@iw_bound.mistake
def decoder_unnormalised(**k):
    """The decoder's normaliser is missing. Those of p(z) and q have the same constant, p(x|z) has one of its own."""
    return _wrong(
        **k, weigh=lambda decoder, prior, guess: (
            decoder + k["x"].shape[1] * (math.log(k["s"]) + LOG_2PI / 2) + prior + guess
        )
    )  # fmt: skip


@iw_bound.mistake
def unit_decoder(**k):
    """The squared error is taken as it is, as if the decoder had s = 1: its spread s is given."""
    return _wrong(**{**k, "s": 1.0})


@iw_bound.mistake
def variance_for_deviation(**k):
    """s is used as the decoder's variance; it is its standard deviation."""
    return _wrong(**{**k, "s": k["s"] ** 0.5})


@iw_bound.mistake
def guess_not_divided(**k):
    """q is missing: draws from q instead of the prior are to be weighted by p(z)/q(z|x)."""
    return _wrong(**k, weigh=lambda decoder, prior, guess: decoder + prior)


@iw_bound.mistake
def prior_missing(**k):
    """The prior p(z) is missing from the weight."""
    return _wrong(**k, weigh=lambda decoder, prior, guess: decoder + guess)


@iw_bound.mistake
def decoder_alone(**k):
    """p(x|z) alone: that would be right for z drawn from the *prior*, but these come from q."""
    return _wrong(**k, weigh=lambda decoder, prior, guess: decoder)


@iw_bound.mistake
def std_squared(x, mean, std, W, s, noise):
    """`std**2 * noise`: z is drawn with a variance in the place of a standard deviation."""
    return _log_mean(sum(_terms(x, mean, std, W, s, mean + std**2 * noise)))


@iw_bound.mistake
def no_normalisers(**k):
    """Three exponents, and no normaliser: neither the decoder's, nor the guess's standard deviations."""
    return iw_bound(**k) + k["x"].shape[1] * (math.log(k["s"]) + LOG_2PI / 2) - k["std"].log().sum(1)


@iw_bound.mistake
def no_two_pi(**k):
    """The constants 2 pi of p(z) and q cancel, being of the same dimension; the decoder's is left."""
    return iw_bound(**k) + k["x"].shape[1] * LOG_2PI / 2


@iw_bound.mistake
def guess_unnormalised(**k):
    """q's normaliser is missing: a density of z that is narrow is high. (That of the `noise` is no density of z.)"""
    return iw_bound(**k) - k["std"].log().sum(1)


@iw_bound.mistake
def prior_of_the_noise(x, mean, std, W, s, noise):
    """The prior is asked about the noise: it is the density of z."""
    decoder, _, guess = _terms(x, mean, std, W, s, mean + std * noise)
    return _log_mean(decoder + _log_diagonal(noise, 0.0, torch.ones(())) + guess)


@iw_bound.mistake
def deviation_squared(**k):
    """s squared is used as the decoder's standard deviation: s itself is that."""
    return _wrong(**{**k, "s": k["s"] ** 2})


@iw_bound.mistake
def guess_too_narrow(x, mean, std, W, s, noise):
    """q's density is evaluated with a variance in the place of its standard deviation."""
    z = mean + std * noise
    decoder, prior, _ = _terms(x, mean, std, W, s, z)
    return _log_mean(decoder + prior - _log_diagonal(z, mean, std**2))


@iw_bound.mistake
def guess_multiplied(**k):
    """q multiplies the weight: it stands below the line."""
    return _wrong(**k, weigh=lambda decoder, prior, guess: decoder + prior - guess)


@iw_bound.mistake
def divergence_for_densities(**k):
    """The closed KL divergence is a *mean* of log q/p. Inside the logarithm each draw has its own densities."""
    gap = 0.5 * (k["mean"].square() + k["std"].square() - 1).sum(1) - k["std"].log().sum(1)
    return _wrong(**k, weigh=lambda decoder, prior, guess: decoder - gap)


@iw_bound.mistake
def mean_decoded(x, mean, std, W, s, noise):
    """The decoder is given the encoder's mean: each draw is to be decoded."""
    decoder = _terms(x, mean, std, W, s, mean.expand_as(noise))[0]
    _, prior, guess = _terms(x, mean, std, W, s, mean + std * noise)
    return _log_mean(decoder + prior + guess)


@iw_bound.mistake
def divided_outside(**k):
    """K divides the logarithm: it belongs inside."""
    return _wrong(**k, average=lambda w: w.logsumexp(0) / len(w))


@iw_bound.mistake
def mean_over_numbers(**k):
    """Means over pixels and latents: the logarithm of a product is a *sum*."""
    sizes = k["x"].shape[1], *[k["mean"].shape[1]] * 2
    return _wrong(**k, weigh=lambda *terms: sum(term / size for term, size in zip(terms, sizes, strict=True)))
