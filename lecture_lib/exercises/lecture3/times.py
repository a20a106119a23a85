"""3.9: at which times to train for more pixels."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import count, normal, number
from lecture_lib.exercises.task import question


@question("3.9", 7, "training times for more pixels")
def training_times(u, mean, std, old, new):
    return _shifted(torch.sigmoid(mean + std * u), math.sqrt(new / old))


def _shifted(t, kappa):
    return kappa * t / (1 + (kappa - 1) * t)


@training_times.inputs
def _(g):
    law = {"mean": number(g, 0.2, 0.6), "std": number(g, 0.4, 0.7)}
    return {"u": normal(g, count(g, 5, 9)), **law, "old": count(g, 200, 300), "new": count(g, 1000, 3000)}


_ODDS = torch.tensor([0.0, 2 * math.log(3), -2 * math.log(3)])
training_times.edge("as many pixels as before: logit-normal", torch.tensor([0.5, 0.75, 0.25]),
                    u=_ODDS, mean=0.0, std=0.5, old=100, new=100)  # fmt: skip
training_times.edge(
    "four times the pixels", torch.tensor([2 / 3, 6 / 7, 0.4]), u=_ODDS, mean=0.0, std=0.5, old=100, new=400
)
training_times.edge("mean and no spread: one time", torch.tensor([0.75] * 3),
                    u=_ODDS, mean=math.log(3), std=0.0, old=100, new=100)  # fmt: skip


@training_times.mistake
def no_root(u, mean, std, old, new):
    """kappa is the ratio of pixel numbers: noise averages out like the *root* of a number of pixels."""
    return _shifted(torch.sigmoid(mean + std * u), new / old)


@training_times.mistake
def upside_down(u, mean, std, old, new):
    """kappa is upside down: a picture with more pixels looks *less* noisy, so it must be trained with more noise, and
    in this course t = 1 is noise."""
    return training_times(u, mean, std, new, old)


@training_times.mistake
def variance(u, mean, std, old, new):
    """`std` is squared: a normal number is mean + std u."""
    return training_times(u, mean, std**2, old, new)


@training_times.mistake
def standardised(u, mean, std, old, new):
    """The mean is taken away and the rest divided, which is how one gets *to* a standard normal number. u is one."""
    return training_times((u - mean) / std, 0.0, 1.0, old, new)


@training_times.mistake
def not_shifted(u, mean, std, old, new):
    """Not shifted: these are the times for the old number of pixels."""
    return torch.sigmoid(mean + std * u)


@training_times.mistake
def noise_first(u, mean, std, old, new):
    """Time runs the other way: here t = 0 is data and t = 1 is noise."""
    return 1 - training_times(u, mean, std, old, new)


@training_times.mistake
def reversed_first(u, mean, std, old, new):
    """The shift acts on 1 - t: t is the share of noise already, and is not turned round."""
    return _shifted(1 - torch.sigmoid(mean + std * u), math.sqrt(new / old))


@training_times.mistake
def mean_scaled(u, mean, std, old, new):
    """`std` multiplies the mean, too: it scales the spread alone."""
    return training_times(mean + u, 0.0, std, old, new)


@training_times.mistake
def no_mean(u, mean, std, old, new):
    """The mean is not used: the logit is normal around it."""
    return training_times(u, 0.0, std, old, new)


@training_times.mistake
def no_deviation(u, mean, std, old, new):
    """The deviation is not used: u varies by 1, the logit by `std`."""
    return training_times(u, mean, 1.0, old, new)


@training_times.mistake
def noise_level(u, mean, std, old, new):
    """Returned is the noise level t/(1-t): the *time* is asked for, and lies between 0 and 1."""
    t = training_times(u, mean, std, old, new)
    return t / (1 - t)


@training_times.mistake
def exchanged(u, mean, std, old, new):
    """Mean and deviation are exchanged: one is added, the other multiplies."""
    return training_times(u, std, mean, old, new)


@training_times.mistake
def no_parentheses(u, mean, std, old, new):
    """Parentheses are missing around the denominator: Python divides by its first term alone."""
    t, kappa = torch.sigmoid(mean + std * u), math.sqrt(new / old)
    return kappa * t / 1 + (kappa - 1) * t


@training_times.mistake
def multiplied(u, mean, std, old, new):
    """The times are multiplied and cut off at 1: kappa multiplies the noise level t/(1-t), and no time reaches 1."""
    return (math.sqrt(new / old) * torch.sigmoid(mean + std * u)).clamp(max=1)


@training_times.mistake
def within_the_spread(u, mean, std, old, new):
    """The shift passes through `std`: first the logit-normal time, then the shift."""
    return torch.sigmoid(mean + std * (u + 0.5 * math.log(new / old)))


@training_times.mistake
def normal_cdf(u, mean, std, old, new):
    """The normal distribution function stands where the sigmoid should: a logit-normal time is one whose *logit* is
    normal."""
    return _shifted(torch.special.ndtr(mean + std * u), math.sqrt(new / old))
