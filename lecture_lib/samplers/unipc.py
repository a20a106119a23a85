"""UniPC: one formula predicts the next point and, once the network has been asked there, corrects it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import expm1, factorial, isinf
from typing import ClassVar, NamedTuple

from torch import Tensor

from lecture_lib.core.paths import Coeffs
from lecture_lib.samplers.base import Sampler
from lecture_lib.samplers.exponential import DATA, Form, endless
from lecture_lib.samplers.weights import jump, matching, phis, remember
from lecture_lib.tensors import blend, check_count


def B1(tau: float) -> float:
    """``B(tau) = tau``."""
    return tau


def B2(tau: float) -> float:
    """``B(tau) = e^tau - 1``."""
    return expm1(tau)


class Memory(NamedTuple):
    """What a step leaves to the next: predictions ``(lam, m)`` newest first, and the point it started from."""

    history: list[tuple[float, Tensor]]
    x: Tensor
    t: Coeffs


@dataclass(frozen=True, repr=False)
class UniPC(Sampler):
    """Predictor of order p and corrector of order p + 1, still one evaluation per step.

    The correction of a point waits for the evaluation that the next step makes there anyway; so the last point stays
    as predicted. ``B`` matters only where a single coefficient is set to 1/2 (predictor of order 2, corrector of order
    1): solved exactly, the system cancels it.
    """

    order: int = 3
    B: Callable[[float], float] = B2
    form: Form = DATA
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = (
        r"x_s=\rho\,x_t-a(e^\tau-1)m_t-a\,B(\tau)\sum_k\rho_k\tfrac{m_k-m_t}{r_k},"
        r"\;\sum_kr_k^{i-1}\rho_k=\tfrac{i!\,\tau\,\phi_{i+1}(\tau)}{B(\tau)}"
    )
    source: ClassVar[str] = "Zhao et al. 2023 (2302.04867), UniC and UniP"

    def __post_init__(self):
        check_count("order", self.order)

    def step(self, denoise, x, t, s, state, noise):
        p = denoise(x, t)
        m = self.form.model(p)
        if state is not None and not endless(state.t, t):
            x = self.update(state, t, arrived=m)  # UniC
        if isinf(t.lam):  # nothing to remember on an infinite clock
            return jump(p, s), None
        memory = Memory(remember(state and state.history, t.lam, m, self.order), x, t)
        return (jump(p, s) if endless(t, s) else self.update(memory, s)), memory  # UniP

    def update(self, memory: Memory, s: Coeffs, arrived: Tensor | None = None) -> Tensor:
        """x_s from where ``memory`` stands; with the prediction ``arrived`` at s it is the corrector."""
        (lam, m), *past = memory.history
        if arrived is not None:
            past.append((s.lam, arrived))
        ratio, amp, tau = self.form.scales(memory.t, s)
        r = [(at - lam) / (s.lam - lam) for at, _ in past]
        scale = -amp * self.B(tau)
        gains = [scale * rho / node for rho, node in zip(self.coefficients(r, tau), r, strict=True)]
        terms = [(gain, value) for gain, (_, value) in zip(gains, past, strict=True)]
        return blend((ratio, memory.x), (-amp * expm1(tau) - sum(gains), m), *terms)

    def coefficients(self, r: list[float], tau: float) -> list[float]:
        """``rho_k`` for nodes ``r_k``: 1/2 for a single one, as in the paper; else its linear system solved."""
        if len(r) < 2:
            return [0.5] * len(r)
        scale = tau / self.B(tau)
        return matching(r, [factorial(i) * scale * value for i, value in enumerate(phis(len(r) + 1, tau))][1:])
