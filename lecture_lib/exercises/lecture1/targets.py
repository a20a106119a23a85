"""1.8 and 1.9: four words for one prediction, and one weight in three of them."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import count, normal, number, shape, uniform
from lecture_lib.exercises.task import question

A, B = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]]), torch.tensor([[1.0, 0.5, -1.5], [-0.5, 2.0, 0.3]])

# 1.8 -----------------------------------------------------------------------------------------------------------------


@question("1.8", 9, "data and noise from whatever the network predicts")
def read_off(x_t, out, kind, alpha, sigma):
    if kind == "v":
        return alpha * x_t - sigma * out, sigma * x_t + alpha * out
    if kind == "x0":
        return out, (x_t - alpha * out) / sigma
    eps = -sigma * out if kind == "score" else out
    return (x_t - sigma * eps) / alpha, eps


_KINDS = "eps", "x0", "v", "score"


@read_off.inputs
def _(g):
    b, d = shape(g)
    alpha = number(g, 0.3, 0.65)
    level = {"alpha": alpha, "sigma": (1 - alpha**2) ** 0.5}
    return {"x_t": normal(g, b, d), "out": normal(g, b, d), "kind": _KINDS[count(g, 0, 3)], **level}


_OUTS = dict(zip(_KINDS, (B, A, 0.6 * B - 0.8 * A, B / -0.8), strict=True))
for _kind in _KINDS:
    read_off.edge(
        f"a perfect prediction of {_kind}", [A, B], x_t=0.6 * A + 0.8 * B, out=_OUTS[_kind], kind=_kind,
        alpha=0.6, sigma=0.8,
    )  # fmt: skip
read_off.edge("v at alpha = 0 is minus the data", [A, B], x_t=B, out=-A, kind="v", alpha=0.0, sigma=1.0)
read_off.edge("v at sigma = 0 is the noise", [A, B], x_t=A, out=B, kind="v", alpha=1.0, sigma=0.0)


@read_off.mistake
def v_turned(x_t, out, kind, alpha, sigma):
    """v has the other sign: in this course v is alpha eps - sigma x0, which points towards the noise."""
    return read_off(x_t, -out if kind == "v" else out, kind, alpha, sigma)


@read_off.mistake
def v_as_velocity(x_t, out, kind, alpha, sigma):
    """v is read as the velocity of a rectified flow, eps - x0: that is another target on another path."""
    if kind == "v":
        return x_t - sigma * out, x_t + alpha * out
    return read_off(x_t, out, kind, alpha, sigma)


@read_off.mistake
def v_factors_exchanged(x_t, out, kind, alpha, sigma):
    """In v, alpha and sigma are exchanged: alpha belongs to the noise there, and sigma to the data."""
    if kind == "v":
        return sigma * x_t - alpha * out, alpha * x_t + sigma * out
    return read_off(x_t, out, kind, alpha, sigma)


@read_off.mistake
def score_turned(x_t, out, kind, alpha, sigma):
    """The sign of the score: it points to where data are dense, hence *against* the noise."""
    return read_off(x_t, -out if kind == "score" else out, kind, alpha, sigma)


@read_off.mistake
def score_as_noise(x_t, out, kind, alpha, sigma):
    """A score is taken for minus the noise: between the two lies a factor sigma."""
    return read_off(x_t, -out, "eps", alpha, sigma) if kind == "score" else read_off(x_t, out, kind, alpha, sigma)


@read_off.mistake
def score_divided(x_t, out, kind, alpha, sigma):
    """The score is divided by sigma once more: it is the noise over sigma already."""
    return read_off(x_t, out / sigma**2 if kind == "score" else out, kind, alpha, max(sigma, 1e-9))


@read_off.mistake
def alpha_forgotten(x_t, out, kind, alpha, sigma):
    """What is left after the noise is taken away is not divided by alpha: it is the *scaled* data."""
    x0, eps = read_off(x_t, out, kind, alpha, sigma)
    return (alpha * x0 if kind in ("eps", "score") else x0), eps


@read_off.mistake
def sigma_forgotten(x_t, out, kind, alpha, sigma):
    """What is left after the data are taken away is not divided by sigma: it is the *scaled* noise."""
    x0, eps = read_off(x_t, out, kind, alpha, sigma)
    return x0, (sigma * eps if kind == "x0" else eps)


@read_off.mistake
def squares(x_t, out, kind, alpha, sigma):
    """alpha-bar and 1 - alpha-bar are used: the factors of data and noise are alpha and sigma, their roots."""
    return read_off(x_t, out, kind, alpha**2, sigma**2)


@read_off.mistake
def exchanged(x_t, out, kind, alpha, sigma):
    """Data and noise are exchanged in what is returned."""
    return read_off(x_t, out, kind, alpha, sigma)[::-1]


# 1.9 -----------------------------------------------------------------------------------------------------------------


@question("1.9", 9, "min-SNR, in the words of the network")
def min_snr_loss(out, target, kind, alpha, sigma, gamma):
    snr = (alpha / sigma).square()
    return _weighted(out, target, snr.clamp(max=gamma) / _of_x0(kind, snr))


def _of_x0(kind, snr):
    """How much larger the squared error is in other words than in x0."""
    return {"x0": torch.ones_like(snr), "eps": snr, "v": snr + 1}[kind]


def _weighted(out, target, weight):
    return (weight * (out - target).square().mean(1)).mean()


_WORDS = "x0", "eps", "v"


@min_snr_loss.inputs
def _(g):
    b, d = shape(g)
    angle = torch.linspace(0.25, 1.3, b + 2) + uniform(g, b + 2, low=-0.08, high=0.08)  # SNR of both sides of gamma
    pair = {"out": normal(g, b + 2, d), "target": normal(g, b + 2, d)}
    levels = {"alpha": torch.cos(angle), "sigma": torch.sin(angle), "gamma": number(g, 2.5, 5)}
    return {**pair, "kind": _WORDS[count(g, 0, 2)], **levels}


_ONES = torch.ones(2, 3)
_LEVELS = {"alpha": torch.tensor([0.2, 0.9]).sqrt(), "sigma": torch.tensor([0.8, 0.1]).sqrt()}  # SNR 1/4 and 9
for _kind, _loss in zip(_WORDS, (2.125, 13 / 18, 0.3), strict=True):
    min_snr_loss.edge(
        f"errors of 1 in {_kind}, at an SNR below gamma and one above it", _loss,
        out=_ONES, target=0 * _ONES, kind=_kind, gamma=4.0, **_LEVELS,
    )  # fmt: skip
min_snr_loss.edge(
    "gamma above all SNR: the plain loss of the noise", 1.0,
    out=_ONES, target=0 * _ONES, kind="eps", gamma=100.0, **_LEVELS,
)  # fmt: skip


@min_snr_loss.mistake
def misquoted(out, target, kind, alpha, sigma, gamma):
    """The same weight in all three words, as if it belonged to the noise. It is a weight on the error of *x0*: how
    large is the error of the data if that of the noise, or of v, is 1?"""
    return min_snr_loss(out, target, "x0", alpha, sigma, gamma)


@min_snr_loss.mistake
def v_like_noise(out, target, kind, alpha, sigma, gamma):
    """v has the weight of the noise: its squared error contains the error of the data as well."""
    return min_snr_loss(out, target, "eps" if kind == "v" else kind, alpha, sigma, gamma)


@min_snr_loss.mistake
def multiplied(out, target, kind, alpha, sigma, gamma):
    """The conversion goes the wrong way: the error of the noise is SNR times that of the data, so its weight must be
    smaller by that, not larger."""
    snr = (alpha / sigma).square()
    return _weighted(out, target, snr.clamp(max=gamma) * _of_x0(kind, snr))


@min_snr_loss.mistake
def not_squared(out, target, kind, alpha, sigma, gamma):
    """alpha/sigma is a ratio of amplitudes: SNR is one of powers."""
    return min_snr_loss(out, target, kind, alpha.sqrt(), sigma.sqrt(), gamma)


@min_snr_loss.mistake
def noise_to_signal(out, target, kind, alpha, sigma, gamma):
    """The ratio is upside down: *signal* to noise."""
    return min_snr_loss(out, target, kind, sigma, alpha, gamma)


@min_snr_loss.mistake
def larger_of_both(out, target, kind, alpha, sigma, gamma):
    """The larger of SNR and gamma is taken: the point is to *bound* the weight of nearly clean pictures."""
    snr = (alpha / sigma).square()
    return _weighted(out, target, snr.clamp(min=gamma) / _of_x0(kind, snr))


@min_snr_loss.mistake
def one_weight(out, target, kind, alpha, sigma, gamma):
    """One weight for the whole batch: each sample has its own noise level."""
    snr = (alpha / sigma).square()
    return _weighted(out, target, (snr.clamp(max=gamma) / _of_x0(kind, snr)).mean())


@min_snr_loss.mistake
def summed(out, target, kind, alpha, sigma, gamma):
    """The squares of a sample are summed: the loss is a mean over all numbers."""
    return min_snr_loss(out, target, kind, alpha, sigma, gamma) * out.shape[1]


@min_snr_loss.mistake
def batch_summed(out, target, kind, alpha, sigma, gamma):
    """The samples are summed: a larger batch would have a larger loss. It is their mean."""
    return min_snr_loss(out, target, kind, alpha, sigma, gamma) * len(out)


@min_snr_loss.mistake
def absolute(out, target, kind, alpha, sigma, gamma):
    """The absolute error: weights of the squared error are converted by SNR, those of this one would be by its root."""
    snr = (alpha / sigma).square()
    weight = snr.clamp(max=gamma) / _of_x0(kind, snr)
    return (weight * (out - target).abs().mean(1)).mean()


@min_snr_loss.mistake
def weights_normalised(out, target, kind, alpha, sigma, gamma):
    """The weights are divided by their sum: then the same picture counts more or less, as its neighbours are."""
    snr = (alpha / sigma).square()
    weight = snr.clamp(max=gamma) / _of_x0(kind, snr)
    return _weighted(out, target, weight / weight.mean())
