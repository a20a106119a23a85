"""1.4 and 1.5: latents of a KL autoencoder, ready for diffusion, and latents that are codes."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lecture_lib.exercises.drawing import normal, number, shape, uniform
from lecture_lib.exercises.stages import lecture1 as stages
from lecture_lib.exercises.task import question

# 1.4 -----------------------------------------------------------------------------------------------------------------


@question("1.4", 5, "a latent, drawn, shifted and scaled")
def to_latent(mean, logvar, noise, scale, shift):
    return scale * (mean + torch.exp(logvar / 2) * noise - shift)


@to_latent.inputs
def _(g):
    size = shape(g, 4)
    encoded = {"mean": normal(g, *size, scale=4.0), "logvar": normal(g, *size) - 1.5, "noise": normal(g, *size)}
    return {**encoded, "scale": number(g, 0.12, 0.45), "shift": number(g, 0.3, 1.4)}


_MEAN, _NOISE = torch.tensor([[2.0, -4.0, 0.5]]), torch.tensor([[0.5, -1.0, 2.0]])
to_latent.edge(
    "without noise: the mean, shifted and scaled",
    torch.tensor([[0.375, -1.125, 0.0]]),
    mean=_MEAN, logvar=_NOISE, noise=0 * _NOISE, scale=0.25, shift=0.5,
)  # fmt: skip
to_latent.edge(
    "log-variance 0, and a mean that the shift removes: scaled noise",
    0.25 * _NOISE,
    mean=0 * _MEAN + 0.5, logvar=0 * _NOISE, noise=_NOISE, scale=0.25, shift=0.5,
)  # fmt: skip


@to_latent.mistake
def variance(mean, logvar, noise, scale, shift):
    """The noise is multiplied by the variance: a draw of N(0, 1) is stretched by the standard deviation."""
    return scale * (mean + torch.exp(logvar) * noise - shift)


@to_latent.mistake
def logarithm_itself(mean, logvar, noise, scale, shift):
    """The noise is multiplied by the log-variance itself, which may be negative: the encoder returns a logarithm."""
    return scale * (mean + logvar * noise - shift)


@to_latent.mistake
def half_outside(mean, logvar, noise, scale, shift):
    """The variance is halved: a standard deviation is its *root*, so it is the logarithm that is halved."""
    return scale * (mean + torch.exp(logvar) / 2 * noise - shift)


@to_latent.mistake
def divided(mean, logvar, noise, scale, shift):
    """Divided by the scale: latents are too wide for the schedule, and the scale is one over their standard deviation.
    Which way makes them of unit size?"""
    return to_latent(mean, logvar, noise, 1 / scale, shift)


@to_latent.mistake
def shifted_last(mean, logvar, noise, scale, shift):
    """Scaled first, then shifted: the shift is a mean of *raw* latents."""
    return scale * (mean + torch.exp(logvar / 2) * noise) - shift


@to_latent.mistake
def shift_added(mean, logvar, noise, scale, shift):
    """The shift is added, as the decoder's side does it: on the way in it is what the latents have too much."""
    return to_latent(mean, logvar, noise, scale, -shift)


@to_latent.mistake
def way_back(mean, logvar, noise, scale, shift):
    """That is the way back, from the diffusion model to the decoder."""
    return (mean + torch.exp(logvar / 2) * noise) / scale + shift


@to_latent.mistake
def noise_unscaled(mean, logvar, noise, scale, shift):
    """The noise comes after the scaling: it is part of the raw latent, and has to be scaled with it."""
    return scale * (mean - shift) + torch.exp(logvar / 2) * noise


@to_latent.mistake
def no_draw(mean, logvar, noise, scale, shift):
    """The mean alone: a draw of the posterior was asked for."""
    return scale * (mean - shift)


# 1.5 -----------------------------------------------------------------------------------------------------------------


@question("1.5", 10, "nearest codes, with a gradient that goes straight through")
def quantised(z, codebook, beta):
    codes = codebook[_nearest(z, codebook)].detach()
    return _straight(z, codes), beta * F.mse_loss(z, codes)


quantised.stage(stages.with_gradients)


def _nearest(z, codebook):
    return (z[:, None] - codebook).square().sum(2).argmin(1)


def _straight(z, codes):
    return z + (codes - z).detach()


@quantised.inputs
def _(g):
    n, k, d = shape(g, 3)
    codebook = normal(g, k, d) * torch.linspace(0.6, 2.2, k)[:, None]
    return {
        "z": normal(g, n + 3, d, scale=1.4),
        "codebook": codebook,
        "beta": number(g, 0.2, 0.45),
        "upstream": uniform(g, n + 3, d, low=0.3, high=1.7),
    }


_CODES = torch.tensor([[1.0, 0.5], [-0.5, 2.0], [3.0, 3.0]])
_UP = torch.tensor([[0.3, 1.2], [0.7, -0.4], [0.9, 0.2]])
quantised.edge(
    "a latent that is a code stays, costs nothing, and hands the gradient on",
    [_CODES, 0.0, _UP, 0 * _CODES],
    z=_CODES.clone(), codebook=_CODES, beta=0.3, upstream=_UP,
)  # fmt: skip
_ONE, _OFF = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.4, 0.8], [-1.2, 0.4], [2.0, -0.6]])
quantised.edge(
    "a single code: everything becomes it, and is pulled towards it",
    [_ONE.expand(3, 2), 0.3 * float(_OFF.square().mean()), _UP + 0.1 * _OFF, 0 * _ONE],
    z=_ONE + _OFF, codebook=_ONE, beta=0.3, upstream=_UP,
)  # fmt: skip


@quantised.mistake
def not_straight(z, codebook, beta):
    """The right codes, but the gradient does not come through: it ends in the codebook, and the encoder learns nothing
    from what follows. What may *not* be differentiated?"""
    codes = codebook[_nearest(z, codebook)]
    return codes, beta * F.mse_loss(z, codes.detach())


@quantised.mistake
def other_part_stopped(z, codebook, beta):
    """The stop-gradient stands on the other part: forward, that gives z itself and no code at all."""
    codes = codebook[_nearest(z, codebook)]
    return codes + (z - codes).detach(), beta * F.mse_loss(z, codes.detach())


@quantised.mistake
def cut(z, codebook, beta):
    """The right codes without any gradient: the encoder would hear of the commitment alone."""
    codes = codebook[_nearest(z, codebook)].detach()
    return codes, beta * F.mse_loss(z, codes)


@quantised.mistake
def other_side(z, codebook, beta):
    """The stop-gradient stands on the wrong side: that moves the codes towards the encoder. Here the codes follow by
    moving averages, and it is the encoder that has to commit itself."""
    codes = codebook[_nearest(z, codebook)]
    return _straight(z, codes), beta * F.mse_loss(z.detach(), codes)


@quantised.mistake
def no_stop(z, codebook, beta):
    """The loss has no stop-gradient: it moves the codebook as well, which follows by moving averages."""
    codes = codebook[_nearest(z, codebook)]
    return _straight(z, codes), beta * F.mse_loss(z, codes)


@quantised.mistake
def loss_of_the_copy(z, codebook, beta):
    """The number of the loss is right, and its gradient vanishes: z is compared with the straight-through copy, which
    moves along with it, or both sides are stopped."""
    codes = _straight(z, codebook[_nearest(z, codebook)])
    return codes, beta * F.mse_loss(z, codes)


@quantised.mistake
def summed(z, codebook, beta):
    """The squares are summed: the loss would grow with the batch. It is a mean over all numbers."""
    codes = codebook[_nearest(z, codebook)].detach()
    return _straight(z, codes), beta * F.mse_loss(z, codes, reduction="sum")


@quantised.mistake
def summed_in_a_vector(z, codebook, beta):
    """The squares of a vector are summed, and then comes a mean: longer vectors would weigh more. It is a mean over
    *all* numbers."""
    codes = codebook[_nearest(z, codebook)].detach()
    return _straight(z, codes), beta * (z - codes).square().sum(1).mean()


@quantised.mistake
def beta_forgotten(z, codebook, beta):
    """The commitment has no weight: where is beta?"""
    return quantised(z, codebook, 1.0)


@quantised.mistake
def both_losses(z, codebook, beta):
    """The codebook's own loss is there, too: with moving averages it is dropped, and the codes need no gradient."""
    codes = codebook[_nearest(z, codebook)]
    return _straight(z, codes), F.mse_loss(z.detach(), codes) + beta * F.mse_loss(z, codes.detach())


@quantised.mistake
def most_alike(z, codebook, beta):
    """The code with the largest inner product is not the nearest one: long codes win. Write the distance out."""
    codes = codebook[(z @ codebook.mT).argmax(1)].detach()
    return _straight(z, codes), beta * F.mse_loss(z, codes)


@quantised.mistake
def by_angle(z, codebook, beta):
    """The code of the smallest angle: what is meant by near is the distance, in which lengths count as well."""
    codes = codebook[(F.normalize(z, dim=1) @ F.normalize(codebook, dim=1).mT).argmax(1)].detach()
    return _straight(z, codes), beta * F.mse_loss(z, codes)
