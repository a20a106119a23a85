"""Exponential integrators: the linear part of the ODE solved exactly, only the prediction approximated.

In half log-SNR lam the probability-flow ODE has two exact forms (Lu et al. 2022: 2206.00927, Prop. 3.1; 2211.01095):

    x_s = (sigma_s/sigma_t) x_t + sigma_s int e^lam x0(lam) dlam      hold x0 polynomial: DATA  (DPM-Solver++)
    x_s = (alpha_s/alpha_t) x_t - alpha_s int e^-lam eps(lam) dlam    hold eps polynomial: NOISE (DPM-Solver)

With ``m`` for the prediction, both read ``x_s = ratio x_t - amp (e^tau - 1) m`` where m is constant, with tau = -h or h
and ``h = lam_s - lam_t``; every method of this family is one formula in (ratio, amp, tau).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isinf
from typing import ClassVar

from torch import Tensor

from lecture_lib.core.paths import Coeffs
from lecture_lib.core.prediction import Prediction
from lecture_lib.samplers.base import Sampler
from lecture_lib.samplers.weights import adams_weights, jump, remember
from lecture_lib.tensors import blend, check_count


@dataclass(frozen=True, repr=False)
class Form:
    """One of the two exact forms: which prediction it holds, and its ``(ratio, amp, tau)`` from t to s."""

    name: str
    model: Callable[[Prediction], Tensor]
    scales: Callable[[Coeffs, Coeffs], tuple[float, float, float]]

    def __repr__(self) -> str:
        return self.name


DATA = Form("DATA", lambda p: p.x0, lambda t, s: (s.sigma / t.sigma, s.alpha, t.lam - s.lam))
NOISE = Form("NOISE", lambda p: p.eps, lambda t, s: (s.alpha / t.alpha, s.sigma, s.lam - t.lam))


def endless(t: Coeffs, s: Coeffs) -> bool:
    """Whether the step is infinite in log-SNR: out of pure noise, or to clean data."""
    return isinf(s.lam - t.lam)


@dataclass(frozen=True, repr=False)
class ExponentialAdams(Sampler):
    """The prediction is a polynomial in lam through its last ``order`` values, integrated exactly against e^lam.

    Begins with as few values as there are, so with order 1; the global order of a run is then 2 at most, though with
    small constants. In the DATA form orders 1, 2, 3 are DDIM, DPM-Solver++(2M, Taylor) and the corrected 3M.
    """

    order: int = 3
    form: Form = DATA
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = (
        r"x_s=\rho\,x_t-a\,\tau\sum_jw_jm_{t_j},\;w_j=\int_0^1e^{(1-u)\tau}\ell_j(u)\,du,"
        r"\;u=\tfrac{\lambda-\lambda_t}{\lambda_s-\lambda_t}"
    )
    source: ClassVar[str] = (
        "Hochbruck & Ostermann 2010, exponential multistep; for diffusion Zhang & Chen 2022, DEIS (2204.13902)"
    )

    def __post_init__(self):
        check_count("order", self.order)

    def step(self, denoise, x, t, s, state, noise):
        p = denoise(x, t)
        history = state if isinf(t.lam) else remember(state, t.lam, self.form.model(p), self.order)
        if endless(t, s):
            return jump(p, s), history
        ratio, amp, tau = self.form.scales(t, s)
        weights = adams_weights([(lam - t.lam) / (s.lam - t.lam) for lam, _ in history], tau)
        terms = [(-amp * tau * w, m) for w, (_, m) in zip(weights, history, strict=True)]
        return blend((ratio, x), *terms), history
