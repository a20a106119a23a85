"""The probability-flow ODE by the classics: Euler, Heun, Adams–Bashforth, adaptive Runge–Kutta."""

from __future__ import annotations

from dataclasses import dataclass
from math import isinf
from typing import ClassVar

import torch

from lecture_lib.core.flow import integrate
from lecture_lib.samplers.base import Sampler
from lecture_lib.samplers.weights import adams_weights, jump, remember
from lecture_lib.tensors import all_zero, blend, check_count, check_number


@dataclass(frozen=True, repr=False)
class Euler(Sampler):
    """One velocity, one straight step, on the path's own clock. On the EDM path it is DDIM."""

    order: ClassVar[int] = 1
    per_sample: ClassVar[bool] = True
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = r"x_s=x_t+(s-t)\,\hat u(x_t,t)"
    source: ClassVar[str] = "Euler; flow matching's usual sampler"

    def step(self, denoise, x, t, s, state, noise):
        p = denoise(x, t)
        return blend((1.0, x), *p.parts(velocity=s.time - t.time)), None


@dataclass(frozen=True, repr=False)
class Heun(Sampler):
    """Euler, then once more with the average of the slopes at both ends; the step to sigma = 0 stays Euler."""

    order: ClassVar[int] = 2
    per_sample: ClassVar[bool] = True
    evaluations: ClassVar[str] = "2 NFE per step, 1 for a last step to clean data"
    formula: ClassVar[str] = r"x_s=x_t+\tfrac{s-t}2\big(\hat u(x_t,t)+\hat u(x^{Euler}_s,s)\big)"
    source: ClassVar[str] = "Karras et al. 2022 (2206.00364), Alg. 1"

    def step(self, denoise, x, t, s, state, noise):
        h, p = s.time - t.time, denoise(x, t)
        euler = blend((1.0, x), *p.parts(velocity=h))
        if all_zero(s.sigma):  # the slope (x - x0)/sigma is 0/0 on clean data
            return euler, None
        q = denoise(euler, s)
        return blend((1.0, x), *p.parts(velocity=h / 2), *q.parts(velocity=h / 2)), None


@dataclass(frozen=True, repr=False)
class LMS(Sampler):
    """Linear multistep: eps a polynomial in the noise level through its last ``order`` values, integrated exactly."""

    order: int = 4
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = (
        r"\tfrac{x_s}{\alpha_s}=\tfrac{x_t}{\alpha_t}+\sum_jc_j\hat\epsilon_{t_j},"
        r"\;c_j=\int_{\bar\sigma_t}^{\bar\sigma_s}\ell_j(\bar\sigma)\,d\bar\sigma,\;\bar\sigma=\tfrac\sigma\alpha"
    )
    source: ClassVar[str] = "Adams–Bashforth with unequal steps; Crowson, k-diffusion; Liu et al. 2022 for diffusion"

    def __post_init__(self):
        check_count("order", self.order)

    def step(self, denoise, x, t, s, state, noise):
        p = denoise(x, t)
        if isinf(t.level):  # pure noise lies infinitely far out on this clock
            return jump(p, s), state
        h = s.level - t.level
        history = remember(state, t.level, p.eps, self.order)
        weights = adams_weights([(level - t.level) / h for level, _ in history], 0.0)
        terms = [(s.alpha * h * w, eps) for w, (_, eps) in zip(weights, history, strict=True)]
        return blend((s.alpha / t.alpha, x), *terms), history


@dataclass(frozen=True, repr=False)
class RK45(Sampler):
    """Dormand–Prince between grid times, as many evaluations as the tolerance asks for: a reference, not a rival."""

    tolerance: float = 1e-5
    order: ClassVar[int] = 5
    evaluations: ClassVar[str] = "adaptive, 6 NFE per accepted or rejected inner step"
    formula: ClassVar[str] = r"x_s=x_t+\int_t^s\hat u(x_\tau,\tau)\,d\tau\text{ to the given tolerance}"
    source: ClassVar[str] = "Dormand & Prince 1980, by scipy; Song et al. 2021 (2011.13456), App. D.4"

    def __post_init__(self):
        check_number("tolerance", self.tolerance, 1e-13, 1)

    def step(self, denoise, x, t, s, state, noise):
        def ask(y, time):  # scipy works in float64, the network in its own precision
            return denoise(y.to(x.dtype), t.path.coeffs(time))

        ends = (torch.full((len(x),), c.time, dtype=torch.float64, device=x.device) for c in (t, s))
        return integrate(ask, t.path, x, *ends, method="RK45", rtol=self.tolerance, atol=self.tolerance), None
