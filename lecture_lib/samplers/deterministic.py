"""Samplers that follow the probability-flow ODE: same noise in, same picture out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lecture_lib.samplers.base import Sampler
from lecture_lib.tensors import per_sample


@dataclass(frozen=True, repr=False)
class Euler(Sampler):
    """One velocity, one straight step, on the path's own clock."""

    order: ClassVar[int] = 1
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = r"x_s=x_t+(s-t)\,\hat u(x_t,t)"
    source: ClassVar[str] = "Euler; flow matching's usual sampler"

    def step(self, denoise, path, x, t, s, state, noise):
        return x + per_sample(s - t, x) * denoise(x, t).velocity, None


@dataclass(frozen=True, repr=False)
class Heun(Sampler):
    """Euler, then once more with the average of the slopes at both ends; the step to sigma = 0 stays Euler."""

    order: ClassVar[int] = 2
    evaluations: ClassVar[str] = "2 NFE per step, 1 for a last step to clean data"
    formula: ClassVar[str] = r"x_s=x_t+\tfrac{s-t}2\big(\hat u(x_t,t)+\hat u(x^{Euler}_s,s)\big)"
    source: ClassVar[str] = "Karras et al. 2022 (2206.00364), Alg. 1"

    def step(self, denoise, path, x, t, s, state, noise):
        h = per_sample(s - t, x)
        slope = denoise(x, t).velocity
        euler = x + h * slope
        if (path.sigma(s) == 0).all():  # the slope (x - x0)/sigma is 0/0 on clean data
            return euler, None
        return x + h / 2 * (slope + denoise(euler, s).velocity), None


@dataclass(frozen=True, repr=False)
class DPMSolverPP2M(Sampler):
    """Exponential integrator in half log-SNR: linear part exact, x0 extrapolated from the last two predictions."""

    order: ClassVar[int] = 2
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = (
        r"x_s=\tfrac{\sigma_s}{\sigma_t}x_t-\alpha_s(e^{-h}-1)"
        r"\big[(1+\tfrac1{2r})\hat x_0-\tfrac1{2r}\hat x_0^{prev}\big],\;h=\lambda_s-\lambda_t,\;r=h_{prev}/h"
    )
    source: ClassVar[str] = "Lu et al. 2022 (2211.01095), Alg. 2"

    def step(self, denoise, path, x, t, s, state, noise):
        x0 = denoise(x, t).x0
        h = path.lam(s) - path.lam(t)
        D = x0
        # First order at the first step, and wherever a step in log-SNR is infinite: to sigma = 0, from alpha = 0.
        if state is not None and torch.isfinite(h).all() and torch.isfinite(state[1]).all():
            x0_prev, h_prev = state
            r = per_sample(h_prev / h, x)
            D = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * x0_prev
        ratio, gain = path.sigma(s) / path.sigma(t), -path.alpha(s) * torch.expm1(-h)
        return per_sample(ratio, x) * x + per_sample(gain, x) * D, (x0, h)
