"""1.10: what is put around a network."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import normal, number, shape, uniform
from lecture_lib.exercises.stages import lecture1 as stages
from lecture_lib.exercises.task import question

# 1.10 ----------------------------------------------------------------------------------------------------------------


@question("1.10", 9, "EDM's preconditioning")
def preconditioned(network, x, sigma, sigma_data):
    return _around(network, x, sigma, sigma_data)


def _around(network, x, sigma, s, skip=None, out=None, into=None, clock=None):
    """The denoiser, any of its four factors replaced."""
    total = sigma**2 + s**2
    skip = s**2 / total if skip is None else skip
    out = sigma * s / total.sqrt() if out is None else out
    into = 1 / total.sqrt() if into is None else into
    clock = sigma.log() / 4 if clock is None else clock
    return skip[:, None] * x + out[:, None] * network(into[:, None] * x, clock)


preconditioned.stage(stages.with_network)


@preconditioned.inputs
def _(g):
    b, d = shape(g)
    net = {"weight": normal(g, d, d), "slope": normal(g, d), "bias": normal(g, d, scale=0.3)}
    sigma = torch.exp(uniform(g, b, low=-2.0, high=1.2))
    return {"x": normal(g, b, d), "sigma": sigma, "sigma_data": number(g, 0.3, 0.8), **net}


_Y, _NONE = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]]), torch.zeros(3)
_SILENT = {"weight": torch.zeros(3, 3), "slope": _NONE}
preconditioned.edge(
    "noise as large as the data, a silent network: half of x",
    _Y / 2, x=_Y, sigma=torch.full((2,), 0.5), sigma_data=0.5, bias=_NONE, **_SILENT,
)  # fmt: skip
preconditioned.edge(
    "almost no noise: x itself", _Y, x=_Y, sigma=torch.full((2,), 1e-7), sigma_data=0.5, bias=_NONE + 1, **_SILENT
)
preconditioned.edge(
    "almost nothing but noise: the network's answer, as large as data are",
    torch.full((2, 3), 0.4 * math.tanh(1)),
    x=_Y, sigma=torch.full((2,), 1e6), sigma_data=0.4, bias=_NONE + 1, **_SILENT,
)  # fmt: skip


@preconditioned.mistake
def plain_logarithm(network, x, sigma, sigma_data):
    """The network's clock is the logarithm of sigma without its factor: have a look at c_noise."""
    return _around(network, x, sigma, sigma_data, clock=sigma.log())


@preconditioned.mistake
def raw_sigma(network, x, sigma, sigma_data):
    """The network hears sigma itself, which runs over four orders of magnitude: it was trained on a logarithm."""
    return _around(network, x, sigma, sigma_data, clock=sigma)


@preconditioned.mistake
def input_unscaled(network, x, sigma, sigma_data):
    """The network sees x as it is, whose size grows with sigma: where is c_in?"""
    return _around(network, x, sigma, sigma_data, into=torch.ones_like(sigma))


@preconditioned.mistake
def input_by_variance(network, x, sigma, sigma_data):
    """The input is divided by its variance: unit size takes a standard deviation."""
    return _around(network, x, sigma, sigma_data, into=1 / (sigma**2 + sigma_data**2))


@preconditioned.mistake
def deviations_added(network, x, sigma, sigma_data):
    """The input is divided by sigma + sigma_data: of independent things the *variances* add up."""
    return _around(network, x, sigma, sigma_data, into=1 / (sigma + sigma_data))


@preconditioned.mistake
def skip_turned(network, x, sigma, sigma_data):
    """The skip is the share of the noise: where there is no noise, x has to come through unchanged."""
    return _around(network, x, sigma, sigma_data, skip=sigma**2 / (sigma**2 + sigma_data**2))


@preconditioned.mistake
def skip_unsquared(network, x, sigma, sigma_data):
    """The skip is a ratio of standard deviations: the best linear guess of the data weighs with variances."""
    return _around(network, x, sigma, sigma_data, skip=sigma_data / (sigma**2 + sigma_data**2).sqrt())


@preconditioned.mistake
def skip_and_out_exchanged(network, x, sigma, sigma_data):
    """c_skip and c_out are exchanged: without noise x must come through, and the network's answer must not."""
    total = sigma**2 + sigma_data**2
    skip, out = sigma * sigma_data / total.sqrt(), sigma_data**2 / total
    return _around(network, x, sigma, sigma_data, skip=skip, out=out)


@preconditioned.mistake
def output_as_for_one(network, x, sigma, sigma_data):
    """c_out lacks the size of the data: with nothing but noise in x, the network's answer must be as large as data."""
    return _around(network, x, sigma, sigma_data, out=sigma / (sigma**2 + sigma_data**2).sqrt())


@preconditioned.mistake
def output_by_variance(network, x, sigma, sigma_data):
    """c_out without the root: for large sigma it would vanish, just where the network has all the work."""
    return _around(network, x, sigma, sigma_data, out=sigma * sigma_data / (sigma**2 + sigma_data**2))


@preconditioned.mistake
def no_skip(network, x, sigma, sigma_data):
    """The network's part alone: where is the skip?"""
    return _around(network, x, sigma, sigma_data, skip=torch.zeros_like(sigma))
