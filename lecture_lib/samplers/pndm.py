"""PNDM: classical Adams–Bashforth for eps, DDIM's step in place of the straight line. For equal steps in t."""

from __future__ import annotations

from dataclasses import dataclass
from math import isinf
from typing import ClassVar

from torch import Tensor

from lecture_lib.core.paths import Coeffs
from lecture_lib.samplers.base import Sampler
from lecture_lib.samplers.weights import jump
from lecture_lib.tensors import blend

ADAMS = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


def transfer(x: Tensor, eps: Tensor, t: Coeffs, s: Coeffs) -> Tensor:
    """DDIM's step with a given eps; algebraically the paper's Eq. 11."""
    return blend((s.alpha / t.alpha, x), (s.sigma - s.alpha * t.level, eps))


def adams(history: list[Tensor]) -> Tensor:
    """eps extrapolated half a step ahead, by the Adams–Bashforth rule for as many equal steps as there are."""
    return blend(*zip(ADAMS[len(history)], history, strict=True))


@dataclass(frozen=True, repr=False)
class PLMS(Sampler):
    """Pseudo linear multistep, as Stable Diffusion shipped it: a Heun-like first step, then orders 2, 3, 4.

    Adams' coefficients are of order 4, the run is of order 2: they act on eps, and the transfer is not linear in t.
    """

    order: ClassVar[int] = 2
    evaluations: ClassVar[str] = "1 NFE per step, 2 for the first"
    formula: ClassVar[str] = (
        r"x_s=\phi\big(x_t,\tfrac{55\epsilon_0-59\epsilon_{-1}+37\epsilon_{-2}-9\epsilon_{-3}}{24},t,s\big)"
    )
    source: ClassVar[str] = "Liu et al. 2022 (2202.09778); CompVis latent-diffusion"

    def step(self, denoise, x, t, s, state, noise):
        p = denoise(x, t)
        if isinf(t.level) or (state is None and s.sigma == 0):
            return jump(p, s), state
        history = [p.eps, *(state or [])][:4]
        if len(history) > 1:
            return transfer(x, adams(history), t, s), history
        ahead = denoise(transfer(x, p.eps, t, s), s).eps
        return transfer(x, (p.eps + ahead) / 2, t, s), history


@dataclass(frozen=True, repr=False)
class FPNDM(Sampler):
    """Three pseudo Runge–Kutta steps of four evaluations each, then Adams–Bashforth of order 4."""

    order: ClassVar[int] = 2
    evaluations: ClassVar[str] = "4 NFE for each of the first three steps, then 1"
    formula: ClassVar[str] = r"\epsilon'=\tfrac{e_1+2e_2+2e_3+e_4}6\text{ three times, then as PLMS}"
    source: ClassVar[str] = "Liu et al. 2022 (2202.09778), F-PNDM"

    def step(self, denoise, x, t, s, state, noise):
        p = denoise(x, t)
        if isinf(t.level) or (len(state or []) < 3 and s.sigma == 0):
            return jump(p, s), state
        history = [p.eps, *(state or [])][:4]
        if len(history) == 4:
            return transfer(x, adams(history), t, s), history
        mid, e1 = t.path.at((t.time + s.time) / 2), p.eps
        e2 = denoise(transfer(x, e1, t, mid), mid).eps
        e3 = denoise(transfer(x, e2, t, mid), mid).eps
        e4 = denoise(transfer(x, e3, t, s), s).eps
        return transfer(x, (e1 + 2 * e2 + 2 * e3 + e4) / 6, t, s), history
