"""1.1 and 1.2: what a latent saves, and what it costs."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import count, normal, shape, uniform
from lecture_lib.exercises.task import question

# 1.1 -----------------------------------------------------------------------------------------------------------------


@question("1.1", 5, "what a latent saves, factor by factor", tol=1e-5)
def saved(height, width, f, channels):
    numbers = 3 * height * width / (channels * (height // f) * (width // f))
    return numbers, f**2, f**4


@saved.inputs
def _(g):
    f, (h, w) = count(g, 3, 9), shape(g)
    return {"height": f * h, "width": f * w, "f": f, "channels": count(g, 5, 20)}


saved.edge("f = 1 and three channels save nothing", [1.0, 1, 1], height=40, width=56, f=1, channels=3)
saved.edge("Stable Diffusion, 512 x 512", [48.0, 64, 4096], height=512, width=512, f=8, channels=4)


@saved.mistake
def area_ratio(height, width, f, channels):
    """f is taken for a ratio of *areas*, as some texts define it. It is the ratio of the sides, H/h and W/w alike."""
    return 3 * f / channels, f, f**2


@saved.mistake
def square_of_dimension(height, width, f, channels):
    """The square of the ratio of numbers ("2304 times"), as if attention compared single numbers. It compares
    *places*; channels are no tokens."""
    return 3 * f**2 / channels, f**2, (3 * f**2 / channels) ** 2


@saved.mistake
def channels_in_convolutions(height, width, f, channels):
    """The convolutions are said to save as much as the numbers do. Their cost is one multiplication per weight and
    *place*: the channels of the picture touch the first and the last layer alone."""
    return 3 * f**2 / channels, 3 * f**2 / channels, f**4


@saved.mistake
def one_ratio_for_all(height, width, f, channels):
    """One ratio for everything, that of the numbers ("48 times"): it prices no operation. What does a convolution do
    at each place, and what does a score belong to?"""
    return (3 * f**2 / channels,) * 3


@saved.mistake
def channels_forgotten(height, width, f, channels):
    """Places are counted where numbers were asked for: how many numbers has a pixel, how many a place of the latent?"""
    return float(f**2), f**2, f**4


@saved.mistake
def colours_forgotten(height, width, f, channels):
    """The picture is counted with one number per pixel: it has three colours."""
    return f**2 / channels, f**2, f**4


@saved.mistake
def attention_linear(height, width, f, channels):
    """Self-attention is counted as a convolution: each place looks at *all* places, so a score belongs to a pair."""
    return 3 * f**2 / channels, f**2, f**2


@saved.mistake
def convolution_by_side(height, width, f, channels):
    """Only one side is counted: a map becomes smaller in height *and* in width."""
    return 3 * f / channels, f, f**4


@saved.mistake
def upside_down(height, width, f, channels):
    """Every ratio is upside down: what was asked is how many times *more* the pixels cost."""
    return channels / (3 * f**2), f**-2, f**-4


# 1.2 -----------------------------------------------------------------------------------------------------------------


@question("1.2", 6, "what the first stage loses: PSNR in decibels")
def psnr(x, y):
    return 10 * torch.log10(4 / _mean_square(x - y))


def _mean_square(error):
    """Of each picture, over all its numbers."""
    return error.square().flatten(1).mean(1)


@psnr.inputs
def _(g):
    b, c, h, w = shape(g, 4)
    x = uniform(g, b, c, h, w, low=-1.0)
    noise = normal(g, b, c, h, w) * torch.exp(uniform(g, b, c, low=-3.0, high=-0.5))[:, :, None, None]
    return {"x": x, "y": (x + noise).clamp(-1, 1)}


_FLAT = torch.full((2, 3, 4, 5), 0.3)
psnr.edge("black for white is 0 dB", torch.zeros(2), x=torch.ones(2, 3, 4, 5), y=-torch.ones(2, 3, 4, 5))
psnr.edge("off by a tenth of the range everywhere is 20 dB", torch.full((2,), 20.0), x=_FLAT, y=_FLAT - 0.2)


@psnr.mistake
def range_of_one(x, y):
    """The peak is that of pictures in [0, 1]: these lie in [-1, 1], so how far apart are black and white?"""
    return 10 * torch.log10(1 / _mean_square(x - y))


@psnr.mistake
def range_of_bytes(x, y):
    """The peak is that of bytes, 255: look at how far apart black and white are in *these* pictures."""
    return 10 * torch.log10(255**2 / _mean_square(x - y))


@psnr.mistake
def range_of_these(x, y):
    """The peak is the range that these pictures happen to have, 0 for a plain one: what counts is the largest
    difference that *could* be."""
    return 10 * torch.log10((x.max() - x.min()).square() / _mean_square(x - y))


@psnr.mistake
def whole_batch(x, y):
    """One number for the whole batch: each picture has a PSNR, and the mean of logarithms is no logarithm of means."""
    return 10 * torch.log10(4 / (x - y).square().mean())


@psnr.mistake
def channel_by_channel(x, y):
    """A PSNR of each channel, then their mean: the mean square runs over all numbers of a picture, and then comes the
    logarithm."""
    return 10 * torch.log10(4 / (x - y).square().flatten(2).mean(2)).mean(1)


@psnr.mistake
def natural(x, y):
    """The natural logarithm: decibels count powers of ten."""
    return 10 * torch.log(4 / _mean_square(x - y))


@psnr.mistake
def counted_twice(x, y):
    """Twenty times the logarithm of a *squared* error counts the square twice: 20 belongs to amplitudes, 10 to
    powers."""
    return 20 * torch.log10(4 / _mean_square(x - y))


@psnr.mistake
def absolute(x, y):
    """The mean absolute error: PSNR is defined by the mean *square*, and large errors count more in it."""
    return 20 * torch.log10(2 / (x - y).abs().flatten(1).mean(1))


@psnr.mistake
def summed(x, y):
    """The squares are summed: then a larger picture is a worse one. What is the mean over?"""
    return 10 * torch.log10(4 / (x - y).square().flatten(1).sum(1))


@psnr.mistake
def noise_over_signal(x, y):
    """The ratio is upside down: a better picture must have more decibels."""
    return -psnr(x, y)
