"""DPM-Solver and DPM-Solver++, singlestep: Runge–Kutta in log-SNR, nothing remembered between steps.

The same three algorithms in two forms (see ``exponential``): NOISE is DPM-Solver, DATA is DPM-Solver++.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import expm1
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.paths import Coeffs
from lecture_lib.core.prediction import Prediction
from lecture_lib.errors import RangeError
from lecture_lib.samplers.base import Sampler
from lecture_lib.samplers.exponential import DATA, NOISE, Form, endless
from lecture_lib.samplers.weights import jump, phi
from lecture_lib.tensors import blend, check_count, check_number

Ask = Callable[[Tensor, Coeffs], Prediction]


def singlestep1(form: Form, p: Prediction, x: Float[Tensor, " b *d"], t: Coeffs, s: Coeffs) -> Float[Tensor, " b *d"]:
    """``ratio x - amp (e^tau - 1) m``: in both forms this is DDIM."""
    if endless(t, s):
        return jump(p, s)
    ratio, amp, tau = form.scales(t, s)
    return blend((ratio, x), (-amp * expm1(tau), form.model(p)))


def singlestep2(form: Form, denoise: Ask, p: Prediction, x: Tensor, t: Coeffs, s: Coeffs, r: float) -> Tensor:
    """One evaluation more, at a share r of the way in lam, turns the constant m into a line."""
    if endless(t, s):
        return jump(p, s)
    mid = t.path.at_lam(t.lam + r * (s.lam - t.lam))
    u = singlestep1(form, p, x, t, mid)
    m, m_mid = form.model(p), form.model(denoise(u, mid))
    ratio, amp, tau = form.scales(t, s)
    gain = -amp * expm1(tau)
    return blend((ratio, x), (gain * (1 - 1 / (2 * r)), m), (gain / (2 * r), m_mid))


def singlestep3(form: Form, denoise: Ask, p: Prediction, x: Tensor, t: Coeffs, s: Coeffs) -> Tensor:
    """Two evaluations more, at 1/3 and 2/3 of the way in lam."""
    if endless(t, s):
        return jump(p, s)
    r1, r2, h = 1 / 3, 2 / 3, s.lam - t.lam
    one, two = t.path.at_lam(t.lam + r1 * h), t.path.at_lam(t.lam + r2 * h)
    m = form.model(p)
    D1 = form.model(denoise(singlestep1(form, p, x, t, one), one)) - m
    ratio, amp, tau = form.scales(t, two)
    u = blend((ratio, x), (-amp * expm1(tau), m), (-amp * r2 / r1 * tau * phi(2, tau), D1))
    D2 = form.model(denoise(u, two)) - m
    ratio, amp, tau = form.scales(t, s)
    return blend((ratio, x), (-amp * expm1(tau), m), (-amp / r2 * tau * phi(2, tau), D2))


@dataclass(frozen=True, repr=False)
class DPMSolver1(Sampler):
    """First order in the NOISE form: DDIM under another name."""

    order: ClassVar[int] = 1
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = r"x_s=\tfrac{\alpha_s}{\alpha_t}x_t-\sigma_s(e^h-1)\hat\epsilon,\;h=\lambda_s-\lambda_t"
    source: ClassVar[str] = "Lu et al. 2022 (2206.00927), Eq. 3.7"

    def step(self, denoise, x, t, s, state, noise):
        return singlestep1(NOISE, denoise(x, t), x, t, s), None


@dataclass(frozen=True, repr=False)
class DPMSolver2(Sampler):
    """Second order, noise form."""

    r: float = 0.5
    order: ClassVar[int] = 2
    evaluations: ClassVar[str] = "2 NFE per step, 1 for a last step to clean data"
    formula: ClassVar[str] = (
        r"x_s=\tfrac{\alpha_s}{\alpha_t}x_t-\sigma_s(e^h-1)"
        r"\big[\hat\epsilon_t+\tfrac1{2r}(\hat\epsilon_u-\hat\epsilon_t)\big]"
    )
    source: ClassVar[str] = "Lu et al. 2022 (2206.00927), Alg. 1"

    def __post_init__(self):
        check_number("r", self.r, 1e-3, 1)

    def step(self, denoise, x, t, s, state, noise):
        return singlestep2(NOISE, denoise, denoise(x, t), x, t, s, self.r), None


@dataclass(frozen=True, repr=False)
class DPMSolver3(Sampler):
    """Third order, noise form."""

    order: ClassVar[int] = 3
    evaluations: ClassVar[str] = "3 NFE per step, 1 for a last step to clean data"
    formula: ClassVar[str] = (
        r"x_s=\tfrac{\alpha_s}{\alpha_t}x_t-\sigma_s(e^h-1)\hat\epsilon_t"
        r"-\tfrac{\sigma_s}{r_2}\big(\tfrac{e^h-1}h-1\big)(\hat\epsilon_{u_2}-\hat\epsilon_t)"
    )
    source: ClassVar[str] = "Lu et al. 2022 (2206.00927), Alg. 2"

    def step(self, denoise, x, t, s, state, noise):
        return singlestep3(NOISE, denoise, denoise(x, t), x, t, s), None


@dataclass(frozen=True, repr=False)
class DPMSolverPP2S(Sampler):
    """Second order, data form."""

    r: float = 0.5
    order: ClassVar[int] = 2
    evaluations: ClassVar[str] = "2 NFE per step, 1 for a last step to clean data"
    formula: ClassVar[str] = (
        r"x_s=\tfrac{\sigma_s}{\sigma_t}x_t-\alpha_s(e^{-h}-1)"
        r"\big[(1-\tfrac1{2r})\hat x_{0,t}+\tfrac1{2r}\hat x_{0,u}\big]"
    )
    source: ClassVar[str] = "Lu et al. 2022 (2211.01095), Alg. 1"

    def __post_init__(self):
        check_number("r", self.r, 1e-3, 1)

    def step(self, denoise, x, t, s, state, noise):
        return singlestep2(DATA, denoise, denoise(x, t), x, t, s, self.r), None


@dataclass(frozen=True, repr=False)
class DPMSolverPP3S(Sampler):
    """Third order, data form."""

    order: ClassVar[int] = 3
    evaluations: ClassVar[str] = "3 NFE per step, 1 for a last step to clean data"
    formula: ClassVar[str] = (
        r"x_s=\tfrac{\sigma_s}{\sigma_t}x_t-\alpha_s(e^{-h}-1)\hat x_{0,t}"
        r"+\tfrac{\alpha_s}{r_2}\big(\tfrac{e^{-h}-1}h+1\big)(\hat x_{0,u_2}-\hat x_{0,t})"
    )
    source: ClassVar[str] = "Lu et al. 2022 (2211.01095), data form of 2206.00927, Alg. 2"

    def step(self, denoise, x, t, s, state, noise):
        return singlestep3(DATA, denoise, denoise(x, t), x, t, s), None


@dataclass(frozen=True, repr=False)
class DPMSolverFast(Sampler):
    """DPM-Solver with orders chosen so that exactly ``nfe`` evaluations are spent: mostly 3, the rest at the end.

    The grid must have ``len(orders)`` steps.
    """

    nfe: int = 10
    order: ClassVar[int] = 3
    evaluations: ClassVar[str] = "as budgeted: nfe in all, fewer where the last step goes to clean data"
    formula: ClassVar[str] = r"K=\lfloor NFE/3\rfloor+1\text{ steps of orders }3,\dots,3\text{ and }2,1\;|\;1\;|\;2"
    source: ClassVar[str] = "Lu et al. 2022 (2206.00927), DPM-Solver-fast"

    def __post_init__(self):
        check_count("nfe", self.nfe)

    @property
    def orders(self) -> list[int]:
        """The order of each step; they add up to ``nfe``."""
        whole, rest = divmod(self.nfe, 3)
        return [3] * (whole - 1) + [2, 1] if rest == 0 else [3] * whole + [rest]

    def step(self, denoise, x, t, s, state, noise):
        i = state or 0
        if i >= len(self.orders):
            raise RangeError(
                f"grid: has more than the {len(self.orders)} steps that a budget of {self.nfe} NFE pays for"
            )
        p, order = denoise(x, t), self.orders[i]
        if order == 1:
            return singlestep1(NOISE, p, x, t, s), i + 1
        if order == 2:
            return singlestep2(NOISE, denoise, p, x, t, s, 0.5), i + 1
        return singlestep3(NOISE, denoise, p, x, t, s), i + 1
