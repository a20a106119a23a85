"""What information theory says about fast generation, and what it does not.

It says how many bits a *given* sample costs (``water_filling``). It does not say how many evaluations of a network it
takes to draw *some* sample: the output of a generator need not carry a bit about any particular picture, and an
evaluation hands over d real numbers, not bits. ``steps_demanded`` is an argument to the contrary, in print; one
evaluation of the flow map refutes it, and for a Gaussian even one of the plain denoiser (``one_evaluation``).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.prediction import Prediction
from lecture_lib.errors import RangeError
from lecture_lib.tensors import check_finite, check_number, per_sample


class RateDistortion(NamedTuple):
    """One point of the curve.

    Attributes:
        rate: nats for one sample of the whole vector; divide by log 2 for bits.
        distortions: mean square error of each component, (d,); their sum is what was allowed.
    """

    rate: float
    distortions: Float[Tensor, " d"]


def water_filling(variances: Float[Tensor, " d"], distortion: float) -> RateDistortion:
    """R(D) of independent Gaussians: ``sum_i max(0, 1/2 log(s_i^2 / D_i))`` with ``D_i = min(level, s_i^2)``.

    The level is such that the D_i add up to ``distortion``: components below the water are not described at all.

    Args:
        variances: s_i^2, positive.
        distortion: *total* mean square error allowed, above 0; from the total variance on, the rate is 0.

    Raises:
        RangeError: a variance or the distortion is not positive.

    Source: Cover & Thomas, theorem 10.3.3.
    """
    s2 = check_finite("variances", torch.as_tensor(variances, dtype=torch.float64))
    if not (s2 > 0).all():
        raise RangeError(f"variances: got one of {float(s2.min()):g}, expected positive numbers")
    if check_number("distortion", distortion, 0) == 0:
        raise RangeError("distortion: got 0, expected a positive number: no error at all costs infinitely many bits")
    # With the k smallest components under water: level = (D - their sum)/(d - k). The right k is the least that fits.
    rising = s2.sort().values
    under = torch.cat([rising.new_zeros(1), rising.cumsum(0)[:-1]])
    levels = (distortion - under) / torch.arange(len(s2), 0, -1)
    fits = levels <= rising
    level = levels[fits][0] if fits.any() else rising[-1]
    left = torch.minimum(s2, level)
    return RateDistortion(float((s2 / left).log().sum() / 2), left)


def binary_entropy(p: float) -> float:
    """``h_b(p) = -p log p - (1 - p) log(1 - p)`` in nats."""
    p = check_number("p", p, 0, 1)
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def gaussian_information(variance: float, noise: float, dimensions: int = 1) -> float:
    """``I(x0; x0 + noise eps) = d/2 log(1 + variance/noise^2)`` in nats, for white Gaussian data."""
    return (
        dimensions / 2 * math.log1p(check_number("variance", variance, 0) / check_number("noise", noise, 1e-300) ** 2)
    )


def steps_demanded(entropy: float, dimensions: int, error: float, noise_ratio: float) -> float:
    """The bound ``N >= (h(x0) - d h_b(error)) / log(sigma_T/sigma_end)``, in nats throughout. It is false.

    Each step, the argument goes, can add at most the log-ratio of its two noise levels, and there are N of them. But
    the log-ratios of *one* dimension add up to ``log(sigma_T/sigma_end)`` over the whole way, however many steps it is
    cut into, so that the same budget over all d dimensions is enough for "N >= 0.52". A deterministic step is a
    bijection besides, and a good sample need not tell anything about a given x0.

    CIFAR-10 at 8 bits per number, error 0.01, noise from 80 to 0.002: 1591. In print it is 2284, close to the 2296 that
    come of bits divided by nats. DDPM draws in 1000 steps, EDM in 35 evaluations, consistency models in 1.

    Args:
        entropy: of a sample, in nats.
        dimensions: numbers in a sample.
        error: total variation that is allowed.
        noise_ratio: of the first noise level to the last, above 1.
    """
    if check_number("noise_ratio", noise_ratio, 1) == 1:
        raise RangeError("noise_ratio: got 1, expected more: no way to go")
    return (check_number("entropy", entropy) - dimensions * binary_entropy(error)) / math.log(noise_ratio)


def one_evaluation(
    p: Prediction, mean: Float[Tensor, " *d"], std: float, end: Float[Tensor, " b"]
) -> Float[Tensor, " b *d"]:
    """The sample at time ``end`` from one evaluation of the *denoiser*, if the data are N(mean, std^2 I).

        x_end = alpha_end m + (r_end r_t / (alpha_t s^2)) (x0_hat - m)        r^2 = alpha^2 s^2 + sigma^2

    Trajectories of Gaussian data are ``x_t = alpha m + r_t z``, and the denoiser says ``m + alpha s^2 z / r_t``: it
    gives z away. No number of steps is "needed" in between.

    Args:
        p: what the denoiser says at x_t; alpha_t > 0.
        mean, std: of the data.
        end: time wanted, (b,).
    """
    at, to = p.coeffs, p.path.coeffs(end)
    here, there = (((c.alpha * check_number("std", std, 1e-9)) ** 2 + c.sigma**2) ** 0.5 for c in (at, to))
    return per_sample(to.alpha, p.x0) * mean + per_sample(there * here / (at.alpha * std**2), p.x0) * (p.x0 - mean)
