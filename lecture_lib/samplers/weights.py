"""The few numbers that all multistep methods are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.paths import Coeffs
from lecture_lib.core.prediction import Prediction
from lecture_lib.tensors import Number, blend


def phis(n: int, tau: float) -> list[float]:
    r"""``phi_1 .. phi_n`` with ``phi_k(tau) = int_0^1 e^{(1-u) tau} u^{k-1}/(k-1)! du``, of exponential integrators.

    ``phi_1 = (e^tau - 1)/tau`` and ``phi_{k+1} = (phi_k - 1/k!)/tau`` (Hochbruck & Ostermann 2010). Near zero that
    recursion cancels; there the last one is summed as a power series, ``sum_j tau^j/(j+n)!``, and it runs downwards.
    """
    if abs(tau) >= 1:
        values = [math.expm1(tau) / tau]
        for k in range(1, n):
            values.append((values[-1] - 1 / math.factorial(k)) / tau)
        return values
    series = 1.0
    for j in range(n + 18, n, -1):  # Horner's rule; 1/19! is below the rounding of float64
        series = 1.0 + tau / j * series
    values = [series / math.factorial(n)]
    for k in range(n - 1, 0, -1):
        values.append(tau * values[-1] + 1 / math.factorial(k))
    return values[::-1]


def phi(k: int, tau: float) -> float:
    """``phi_k(tau)`` alone."""
    return phis(k, tau)[-1]


def adams_weights(nodes: Sequence[float], tau: float) -> list[float]:
    """``w`` with ``sum_j w_j f(nodes_j) = int_0^1 e^{(1-u) tau} f(u) du`` for all polynomials of degree < len(nodes).

    A step runs from u = 0 to u = 1, past values of f lie at negative nodes. ``tau = 0``: Adams–Bashforth with unequal
    steps. The powers of u integrate to ``k! phi_{k+1}(tau)``, so w solves a Vandermonde system.
    """
    return matching(nodes, [math.factorial(k) * value for k, value in enumerate(phis(len(nodes), tau))])


def matching(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """``w`` with ``sum_j w_j nodes_j^i = moments_i``, i = 0, 1, ...: a quadrature rule that is exact on powers.

    Björck & Pereyra 1970, "Solution of Vandermonde systems of equations": a fifth of a call to a matrix solver for two
    or three nodes, at every step of every multistep method, and with less rounding.
    """
    w, n = list(moments), len(nodes)
    for k in range(n - 1):
        for j in range(n - 1, k, -1):
            w[j] -= nodes[k] * w[j - 1]
    for k in range(n - 2, -1, -1):
        for j in range(k + 1, n):
            w[j] /= nodes[j] - nodes[j - k - 1]
        for j in range(k, n - 1):
            w[j] -= w[j + 1]
    return w


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
