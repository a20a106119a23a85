"""DPM-Solver++, multistep: earlier predictions serve again, one evaluation per step. The ODE, then the SDE."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, expm1, isinf, sqrt
from typing import ClassVar

from torch import Tensor

from lecture_lib.core.paths import Coeffs
from lecture_lib.samplers.base import Sampler
from lecture_lib.samplers.dpm_solver import singlestep2
from lecture_lib.samplers.exponential import DATA, endless
from lecture_lib.samplers.weights import fresh, jump, remember
from lecture_lib.tensors import blend


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

    def step(self, denoise, x, t, s, state, noise):
        p, h = denoise(x, t), s.lam - t.lam
        ratio, gain = s.sigma / t.sigma, -s.alpha * expm1(-h)
        if state is None or isinf(h):  # first order at the first step, out of pure noise, and to clean data
            return blend((ratio, x), *p.parts(x0=gain)), (p, h)
        previous, h_prev = state
        k = h / (2 * h_prev)  # 1/2r; zero after a step out of pure noise: first order once more
        return blend((ratio, x), *p.parts(x0=gain * (1 + k)), *previous.parts(x0=-gain * k)), (p, h)


def differences(history: list[tuple[float, Tensor]], h: float) -> tuple[Tensor, Tensor | float]:
    """``h x0'`` and ``h^2 x0''`` at t, from the last two or three predictions ``(lam, x0)``, newest first.

    The second one is *twice* Newton's divided difference; public 3M codes forget the 2, and are second order.
    """
    (lam, D), (lam_1, D_1), *older = history
    r0 = (lam - lam_1) / h
    D10 = (D - D_1) / r0
    if not older:
        return D10, 0.0
    r1 = (lam_1 - older[0][0]) / h
    D11 = (D_1 - older[0][1]) / r1
    return D10 + r0 / (r0 + r1) * (D10 - D11), 2 * (D10 - D11) / (r0 + r1)


@dataclass(frozen=True, repr=False)
class DPMSolverPP3M(Sampler):
    """Third order: x0 a parabola through the last three predictions. The first step is 2S, since order 3 needs it.

    A first step of order 1, as usual elsewhere, limits the whole run to order 2; one evaluation more mends that.
    """

    order: ClassVar[int] = 3
    evaluations: ClassVar[str] = "1 NFE per step, 2 for the first"
    formula: ClassVar[str] = (
        r"x_s=\tfrac{\sigma_s}{\sigma_t}x_t-\alpha_s\varphi_1\hat x_0"
        r"+\alpha_s\varphi_2D^{(1)}-\alpha_s\varphi_3D^{(2)},"
        r"\;\varphi_1=e^{-h}-1,\;\varphi_2=\tfrac{\varphi_1}h+1,\;\varphi_3=\tfrac{\varphi_2}h-\tfrac12"
    )
    source: ClassVar[str] = "Lu et al. 2022 (2211.01095), its third order with D2 corrected (docs/samplers.md)"

    def step(self, denoise, x, t, s, state, noise):
        p, h = denoise(x, t), s.lam - t.lam
        history = state if isinf(t.lam) else remember(state, t.lam, p.x0, 3)
        if endless(t, s):
            return jump(p, s), history
        if len(history) == 1:
            return singlestep2(DATA, denoise, p, x, t, s, 0.5), history
        D1, D2 = differences(history, h)
        phi1 = expm1(-h)
        phi2 = phi1 / h + 1
        phi3 = phi2 / h - 0.5
        base = blend((s.sigma / t.sigma, x), (-s.alpha * phi1, p.x0))
        return base + s.alpha * phi2 * D1 - s.alpha * phi3 * D2, history


# The same for the reverse SDE with the path's own g: e^-h more damping, and as much fresh noise as that takes away.


def sde_first_order(x: Tensor, D: Tensor, t: Coeffs, s: Coeffs, noise) -> Tensor:
    """``(sigma_s/sigma_t) e^-h x + alpha_s (1 - e^-2h) x0 + sigma_s sqrt(1 - e^-2h) z``: DDIM with eta = 1."""
    h = s.lam - t.lam
    kept, renewed = s.sigma / t.sigma * exp(-h), -expm1(-2 * h)
    return blend((kept, x), (s.alpha * renewed, D), *fresh(s.sigma * sqrt(renewed), noise))


@dataclass(frozen=True, repr=False)
class SDEDPMSolverPP1(Sampler):
    """First order: exactly DDPM's step with the posterior variance."""

    order: ClassVar[int] = 1
    deterministic: ClassVar[bool] = False
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = (
        r"x_s=\tfrac{\sigma_s}{\sigma_t}e^{-h}x_t+\alpha_s(1-e^{-2h})\hat x_0+\sigma_s\sqrt{1-e^{-2h}}\,z"
    )
    source: ClassVar[str] = "Lu et al. 2022 (2211.01095), SDE-DPM-Solver++1"

    def step(self, denoise, x, t, s, state, noise):
        return sde_first_order(x, denoise(x, t).x0, t, s, noise), None


@dataclass(frozen=True, repr=False)
class SDEDPMSolverPP2M(Sampler):
    """Second order (weakly), midpoint."""

    order: ClassVar[int] = 2
    deterministic: ClassVar[bool] = False
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = (
        r"\text{order 1}+\tfrac12\alpha_s(1-e^{-2h})\tfrac{\hat x_0-\hat x_0^{prev}}r,\;r=h_{prev}/h"
    )
    source: ClassVar[str] = "Lu et al. 2022 (2211.01095), SDE-DPM-Solver++2M"

    def step(self, denoise, x, t, s, state, noise):
        D, h = denoise(x, t).x0, s.lam - t.lam
        first = sde_first_order(x, D, t, s, noise)
        if state is None or isinf(h) or isinf(state[1]):
            return first, (D, h)
        D_prev, h_prev = state
        gain = -s.alpha * expm1(-2 * h) / (2 * h_prev / h)
        return blend((1.0, first), (gain, D), (-gain, D_prev)), (D, h)


@dataclass(frozen=True, repr=False)
class SDEDPMSolverPP3M(Sampler):
    """Taylor terms up to the second derivative; weak order 2, since the noise itself is taken to first order."""

    order: ClassVar[int] = 2
    deterministic: ClassVar[bool] = False
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = (
        r"\text{order 1}+\alpha_s\big(1-\tfrac{1-e^{-2h}}{2h}\big)D^{(1)}"
        r"+\alpha_s\big(\tfrac12+\tfrac{1-e^{-2h}-2h}{4h^2}\big)D^{(2)}"
    )
    source: ClassVar[str] = "Crowson, k-diffusion, sample_dpmpp_3m_sde, with D2 corrected (docs/samplers.md)"

    def step(self, denoise, x, t, s, state, noise):
        D, h = denoise(x, t).x0, s.lam - t.lam
        history = state if isinf(t.lam) else remember(state, t.lam, D, 3)
        first = sde_first_order(x, D, t, s, noise)
        if endless(t, s) or len(history) == 1:
            return first, history
        D1, D2 = differences(history, h)
        psi1 = 1 + expm1(-2 * h) / (2 * h)
        psi2 = 0.5 - (expm1(-2 * h) + 2 * h) / (4 * h**2)
        return first + s.alpha * psi1 * D1 + s.alpha * psi2 * D2, history
