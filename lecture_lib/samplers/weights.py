"""The few numbers that all multistep methods are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.paths import Coeffs
from lecture_lib.core.prediction import Prediction
from lecture_lib.tensors import Number, blend


def phi(k: int, tau: float) -> float:
    r"""``phi_k(tau) = int_0^1 e^{(1-u) tau} u^{k-1}/(k-1)! du``, the functions of exponential integrators.

    ``phi_1 = (e^tau - 1)/tau`` and ``phi_{k+1} = (phi_k - 1/k!)/tau`` (Hochbruck & Ostermann 2010); near
    zero that recursion cancels, and the power series is summed instead.
    """
    if abs(tau) < 1:
        return sum(tau**j / math.factorial(j + k) for j in range(20))
    value = math.expm1(tau) / tau
    for j in range(1, k):
        value = (value - 1 / math.factorial(j)) / tau
    return value


def adams_weights(nodes: Sequence[float], tau: float) -> list[float]:
    """``w`` with ``sum_j w_j f(nodes_j) = int_0^1 e^{(1-u) tau} f(u) du`` for all polynomials of degree < len(nodes).

    A step runs from u = 0 to u = 1, past values of f lie at negative nodes. ``tau = 0``: Adams–Bashforth with unequal
    steps. The powers of u integrate to ``k! phi_{k+1}(tau)``, so w solves a Vandermonde system.
    """
    n = len(nodes)
    moments = [math.factorial(k) * phi(k + 1, tau) for k in range(n)]
    return np.linalg.solve(np.vander(nodes, n, increasing=True).T, moments).tolist()


def remember(history: list | None, where: float, value: Tensor, length: int) -> list[tuple[float, Tensor]]:
    """The last ``length`` values and where they were taken, newest first; a new list."""
    return [(where, value), *(history or [])][:length]


def fresh(amount: Number, noise: Callable[[], Tensor]) -> list[tuple[Number, Tensor]]:
    """The term ``amount z`` with fresh noise z; none is drawn where none is added."""
    return [] if isinstance(amount, float) and amount == 0 else [(amount, noise())]


def jump(p: Prediction, s: Coeffs) -> Float[Tensor, " b *d"]:
    """``alpha_s x0 + sigma_s eps``: DDIM's step, first order, and defined however large the step in log-SNR.

    What every method on an infinite clock does for a step out of pure noise (alpha = 0) or to clean data (sigma = 0).
    """
    return blend(*p.parts(x0=s.alpha, eps=s.sigma))
