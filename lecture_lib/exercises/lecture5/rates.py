"""5.4: two famous special cases, given by a rate and by a growing noise."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import count, number, uniform
from lecture_lib.exercises.task import question

# 5.4 -----------------------------------------------------------------------------------------------------------------


@question("5.4", 8, "special cases: VP and VE")
def special_cases(t, rate_0, rate_1, sigma_min, sigma_max):
    alpha = _alpha(t, rate_0, rate_1)
    return alpha, (1 - alpha**2).sqrt(), _g(t, sigma_min, sigma_max)


def _alpha(t, rate_0, rate_1):
    return torch.exp(-0.5 * (rate_0 * t + 0.5 * (rate_1 - rate_0) * t**2))


def _level(t, sigma_min, sigma_max):
    return sigma_min * (sigma_max / sigma_min) ** t


def _g(t, sigma_min, sigma_max):
    return _level(t, sigma_min, sigma_max) * math.sqrt(2 * math.log(sigma_max / sigma_min))


@special_cases.inputs
def _(g):
    rates = {"rate_0": number(g, 0.1, 0.4), "rate_1": number(g, 3.0, 6.0)}
    levels = {"sigma_min": number(g, 0.1, 0.3), "sigma_max": number(g, 1.5, 2.5)}
    return {"t": uniform(g, count(g, 5, 8), low=0.05, high=0.95), **rates, **levels}


special_cases.compares("alpha", "sigma", "g")
_VE = {"sigma_min": 0.5, "sigma_max": 0.5 * math.exp(2)}
_END = torch.ones(1)
special_cases.edge(
    "at t = 0: data without noise; sigma of VE grows from its smallest value",
    (_END, 0 * _END, _END),
    t=0 * _END,
    rate_0=0.2,
    rate_1=4.0,
    **_VE,
)
special_cases.edge(
    "at t = 1, with a rate that does not change",
    (_END * math.exp(-0.7), _END * math.sqrt(1 - math.exp(-1.4)), _END * math.exp(2)),
    t=_END,
    rate_0=1.4,
    rate_1=1.4,
    **_VE,
)


def _cases(wrong=None, **k):
    """The right three, with some of them replaced."""
    right = dict(zip(("alpha", "sigma", "g"), special_cases(**k), strict=True))
    return list({**right, **wrong}.values())


@special_cases.mistake
def rate_as_variance(t, rate_0, rate_1, sigma_min, sigma_max):
    """The rate is used as if it were a variance, alpha^2 = 1 - rate: the rate may be 20, and a root is left of -19.
    A rate is what a variance loses per unit of *time*."""
    rate = rate_0 + (rate_1 - rate_0) * t
    return (1 - rate).sqrt(), rate.sqrt(), _g(t, sigma_min, sigma_max)


@special_cases.mistake
def alpha_bar(**k):
    """alpha-bar for alpha: that is the share of the *variance* that is left, alpha its root."""
    return _cases({"alpha": special_cases(**k)[0] ** 2}, **k)


@special_cases.mistake
def rate_of_the_drift(t, rate_0, rate_1, **levels):
    """alpha falls twice as fast as the drift makes it: mind the factor before r(t) x."""
    return special_cases(t, 2 * rate_0, 2 * rate_1, **levels)


@special_cases.mistake
def rate_times_time(t, rate_0, rate_1, sigma_min, sigma_max):
    """The rate of now is taken for all the time since 0: it grew on the way, so it is to be integrated."""
    alpha = torch.exp(-0.5 * (rate_0 + (rate_1 - rate_0) * t) * t)
    return alpha, (1 - alpha**2).sqrt(), _g(t, sigma_min, sigma_max)


@special_cases.mistake
def sigma_squared(**k):
    """sigma of VP is a variance here: a standard deviation is asked for. (As it stands it is the sub-VP SDE's.)"""
    return _cases({"sigma": 1 - special_cases(**k)[0] ** 2}, **k)


@special_cases.mistake
def adds_up_to_one(**k):
    """alpha and sigma of VP add up to 1 here, as in a straight interpolant. VP preserves the *variance*."""
    return _cases({"sigma": 1 - special_cases(**k)[0]}, **k)


@special_cases.mistake
def sigma_for_g(t, sigma_min, sigma_max, **k):
    """g of VE is taken to be sigma. sigma is how much noise there *is*; g says how fast it comes."""
    level = _level(t, sigma_min, sigma_max)
    return _cases({"g": level}, t=t, sigma_min=sigma_min, sigma_max=sigma_max, **k)


@special_cases.mistake
def g_squared(**k):
    """g squared is returned for g of VE."""
    return _cases({"g": special_cases(**k)[2] ** 2}, **k)


@special_cases.mistake
def variance_not_derived(**k):
    """A factor is lost in g of VE: it is the *square* of sigma whose derivative counts, and the square brings one."""
    return _cases({"g": special_cases(**k)[2] / math.sqrt(2)}, **k)


@special_cases.mistake
def speed_of_sigma(t, sigma_min, sigma_max, **k):
    """g of VE is the derivative of sigma here. Of independent noises the variances add up, not the deviations."""
    speed = _level(t, sigma_min, sigma_max) * math.log(sigma_max / sigma_min)
    return _cases({"g": speed}, t=t, sigma_min=sigma_min, sigma_max=sigma_max, **k)


@special_cases.mistake
def root_of_the_speed(t, sigma_min, sigma_max, **k):
    """The root of the derivative of sigma: it is sigma *squared* whose derivative g squared is."""
    speed = _level(t, sigma_min, sigma_max) * math.log(sigma_max / sigma_min)
    return _cases({"g": speed.sqrt()}, t=t, sigma_min=sigma_min, sigma_max=sigma_max, **k)


@special_cases.mistake
def root_too_short(t, sigma_min, sigma_max, **k):
    """g of VE has the units of sigma, but only a part of g squared went under the root."""
    g = 2 * math.log(sigma_max / sigma_min) * _level(t, sigma_min, sigma_max)
    return _cases({"g": g}, t=t, sigma_min=sigma_min, sigma_max=sigma_max, **k)


@special_cases.mistake
def rate_not_integrated(t, rate_0, rate_1, sigma_min, sigma_max):
    """The rate itself stands in the exponent: then noise is there at t = 0, before any time has passed."""
    alpha = torch.exp(-0.5 * (rate_0 + (rate_1 - rate_0) * t))
    return alpha, (1 - alpha**2).sqrt(), _g(t, sigma_min, sigma_max)


@special_cases.mistake
def rates_exchanged(t, rate_0, rate_1, **levels):
    """The rate falls from rate_1 to rate_0 here: it begins with rate_0, at the data."""
    return special_cases(t, rate_1, rate_0, **levels)


@special_cases.mistake
def alpha_not_squared(**k):
    """sigma of VP is the root of 1 - alpha: the variances add up to 1, and alpha is no variance."""
    return _cases({"sigma": (1 - special_cases(**k)[0]).sqrt()}, **k)
