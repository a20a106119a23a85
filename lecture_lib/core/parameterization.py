"""What the network predicts. Every choice is one row of the same 2x2 system.

A network sees ``x_t = alpha x0 + sigma eps`` and predicts ``y = a x0 + b eps``. Two equations, two unknowns:

    x0  = (b x_t - sigma y) / det          eps = (alpha y - a x_t) / det          det = alpha b - a sigma

so a parameterization *is* the pair (a, b), and all conversions, loss weights and singular points follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.paths import Coeffs
from lecture_lib.errors import SingularError
from lecture_lib.tensors import Number, all_finite, blend, check_number

_TINY = 1e-12  # below this the 2x2 system is singular: float64 rounding of cos(pi/2) is 6e-17


@dataclass(frozen=True)
class Parameterization:
    """``y = a x0 + b eps``, with ``row(coeffs) -> (a, b)``, each a float or ``(b,)`` float64."""

    name: str
    formula: str
    row: Callable[[Coeffs], tuple[Number, Number]]

    def det(self, c: Coeffs) -> Number:
        """Determinant ``alpha b - a sigma``; zero exactly where this prediction does not determine x0 and eps."""
        a, b = self.row(c)
        return c.alpha * b - a * c.sigma

    def encode(self, x0: Float[Tensor, " b *d"], eps: Float[Tensor, " b *d"], c: Coeffs) -> Float[Tensor, " b *d"]:
        """The training target ``y = a x0 + b eps``.

        Raises:
            SingularError: where a or b is infinite, e.g. the score at sigma = 0, a VP path's velocity at t = 0.
        """
        a, b = self.finite_row(c)
        return blend((a, x0), (b, eps))

    def finite_row(self, c: Coeffs) -> tuple[Number, Number]:
        """``(a, b)``, or a SingularError where one of them is infinite."""
        try:
            a, b = self.row(c)
        except ZeroDivisionError:  # floats raise where tensors say inf
            a, b = math.inf, math.inf
        if not all_finite(a + b):  # a sum keeps every inf and NaN of its terms
            raise SingularError(
                f"{self.name} is infinite {_place(c, _size(a) + _size(b))}; "
                "expected a time inside the path: stop the time grid a little earlier"
            )
        return a, b

    def inverse(self, c: Coeffs) -> tuple[tuple[Number, Number], tuple[Number, Number]]:
        """The inverse system: x0 and eps, each as its two coefficients on ``(x_t, y)``, by Cramer's rule.

        Both rows come from y and x_t directly: getting eps through x0 near t = 0 costs three digits in float32.

        Raises:
            SingularError: where det = 0, e.g. eps-prediction at zero terminal SNR, and where a or b is infinite.
        """
        a, b = self.finite_row(c)
        det = c.alpha * b - a * c.sigma
        if not (abs(det) > _TINY if isinstance(det, float) else (det.abs() > _TINY).all()):
            raise SingularError(
                f"{self.name}-prediction does not determine x0 and eps {_place(c, -_size(det))} "
                "(det = 0); expected det != 0: start or stop the time grid earlier, or use a network trained with v "
                "or velocity"
            )
        return (b / det, -c.sigma / det), (-a / det, c.alpha / det)

    def decode(self, y: Float[Tensor, " b *d"], x_t: Float[Tensor, " b *d"], c: Coeffs) -> tuple[Tensor, Tensor]:
        """``(x0, eps)`` from the network's output. Raises as ``inverse`` does."""
        return tuple(blend((on_x, x_t), (on_y, y)) for on_x, on_y in self.inverse(c))

    def x0_weight(self, c: Coeffs) -> Number:
        """``(det/sigma)^2``: the weight on ``|x0_hat - x0|^2`` that the plain loss ``|y_hat - y|^2`` amounts to.

        At a fixed x_t an error ``d x0`` forces ``d eps = -(alpha/sigma) d x0``, hence ``d y = -(det/sigma) d x0``.
        """
        return (self.det(c) / c.sigma) ** 2

    def _repr_markdown_(self) -> str:
        return f"**{self.name}-prediction**: ${self.formula}$"


def _size(value: Number) -> Tensor:
    return torch.as_tensor(value).abs()


def _place(c: Coeffs, value: Number) -> str:
    """Where on the path ``value`` is largest, infinite or NaN."""
    alpha, sigma, value = (torch.as_tensor(v).double().reshape(-1) for v in (c.alpha, c.sigma, value))
    at = int(value.nan_to_num(math.inf).argmax())
    return f"where alpha = {float(alpha[at]):.3g}, sigma = {float(sigma[at]):.3g}"


X0 = Parameterization("x0", r"y=x_0", lambda c: (1.0, 0.0))
EPS = Parameterization("eps", r"y=\epsilon", lambda c: (0.0, 1.0))
V = Parameterization("v", r"y=\alpha\epsilon-\sigma x_0", lambda c: (-c.sigma, c.alpha))
VELOCITY = Parameterization("velocity", r"y=\dot\alpha x_0+\dot\sigma\epsilon", lambda c: (c.dalpha, c.dsigma))
SCORE = Parameterization("score", r"y=-\epsilon/\sigma", lambda c: (0.0, -1 / c.sigma))


def edm(sigma_data: float) -> Parameterization:
    """Karras et al. 2022's F, with ``x0 = c_skip x_t/alpha + c_out F`` at noise level sigma/alpha, on any path.

    Solving their Eq. 7 for F gives ``a = sigma/(sigma_data n)``, ``b = -alpha sigma_data / n`` with
    ``n = sqrt(sigma^2 + alpha^2 sigma_data^2)``; at sigma_data = 1 on a VP path F is minus v.
    """
    s = check_number("sigma_data", sigma_data, low=1e-6)

    def row(c: Coeffs) -> tuple[Number, Number]:
        n = (c.sigma**2 + (c.alpha * s) ** 2) ** 0.5
        return c.sigma / (s * n), -c.alpha * s / n

    return Parameterization("edm", r"y=\big(x_0-c_{skip}x_t/\alpha\big)/c_{out}", row)
