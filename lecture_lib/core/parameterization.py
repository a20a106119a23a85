"""What the network predicts. Every choice is one row of the same 2x2 system.

A network sees ``x_t = alpha x0 + sigma eps`` and predicts ``y = a x0 + b eps``. Two equations, two unknowns:

    x0  = (b x_t - sigma y) / det          eps = (alpha y - a x_t) / det          det = alpha b - a sigma

so a parameterization *is* the pair (a, b), and all conversions, loss weights and singular points follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.paths import Coeffs
from lecture_lib.errors import SingularError
from lecture_lib.tensors import check_number, per_sample

_TINY = 1e-12  # below this the 2x2 system is singular: float64 rounding of cos(pi/2) is 6e-17


@dataclass(frozen=True)
class Parameterization:
    """``y = a x0 + b eps``, with ``row(coeffs) -> (a, b)``, each ``(b,)`` float64."""

    name: str
    formula: str
    row: Callable[[Coeffs], tuple[Tensor, Tensor]]

    def det(self, c: Coeffs) -> Float[Tensor, " b"]:
        """Determinant ``alpha b - a sigma``; zero exactly where this prediction does not determine x0 and eps."""
        a, b = self.row(c)
        return c.alpha * b - a * c.sigma

    def encode(self, x0: Float[Tensor, " b *d"], eps: Float[Tensor, " b *d"], c: Coeffs) -> Float[Tensor, " b *d"]:
        """The training target ``y = a x0 + b eps``.

        Raises:
            SingularError: where a or b is infinite, e.g. the score at sigma = 0, a VP path's velocity at t = 0.
        """
        a, b = self._finite_row(c)
        return per_sample(a, x0) * x0 + per_sample(b, x0) * eps

    def _finite_row(self, c: Coeffs) -> tuple[Tensor, Tensor]:
        a, b = self.row(c)
        finite = torch.isfinite(a) & torch.isfinite(b)
        if not finite.all():
            at = int((~finite).nonzero()[0])
            raise SingularError(
                f"{self.name} is infinite where alpha = {c.alpha[at]:.3g}, sigma = {c.sigma[at]:.3g}; "
                "expected a time inside the path: stop the time grid a little earlier"
            )
        return a, b

    def decode(self, y: Float[Tensor, " b *d"], x_t: Float[Tensor, " b *d"], c: Coeffs) -> tuple[Tensor, Tensor]:
        """``(x0, eps)`` from the network's output, by Cramer's rule.

        Both rows are computed from y and x_t directly: getting eps through x0 near t = 0 costs three digits in float32.

        Raises:
            SingularError: where det = 0, e.g. eps-prediction at zero terminal SNR, and where a or b is infinite.
        """
        a, b = self._finite_row(c)
        det = c.alpha * b - a * c.sigma
        if not (det.abs() > _TINY).all():
            at = int((~(det.abs() > _TINY)).nonzero()[0])
            raise SingularError(
                f"{self.name}-prediction does not determine x0 and eps where alpha = {c.alpha[at]:.3g}, "
                f"sigma = {c.sigma[at]:.3g} (det = {det[at]:.3g}); expected det != 0: start or stop the time grid "
                "earlier, or use a network trained with v or velocity"
            )
        x0 = per_sample(b / det, x_t) * x_t - per_sample(c.sigma / det, y) * y
        eps = per_sample(c.alpha / det, y) * y - per_sample(a / det, x_t) * x_t
        return x0, eps

    def x0_weight(self, c: Coeffs) -> Float[Tensor, " b"]:
        """``(det/sigma)^2``: the weight on ``|x0_hat - x0|^2`` that the plain loss ``|y_hat - y|^2`` amounts to.

        At a fixed x_t an error ``d x0`` forces ``d eps = -(alpha/sigma) d x0``, hence ``d y = -(det/sigma) d x0``.
        """
        return (self.det(c) / c.sigma) ** 2

    def _repr_markdown_(self) -> str:
        return f"**{self.name}-prediction**: ${self.formula}$"


def _ones(c: Coeffs) -> Tensor:
    return torch.ones_like(c.alpha)


def _zeros(c: Coeffs) -> Tensor:
    return torch.zeros_like(c.alpha)


X0 = Parameterization("x0", r"y=x_0", lambda c: (_ones(c), _zeros(c)))
EPS = Parameterization("eps", r"y=\epsilon", lambda c: (_zeros(c), _ones(c)))
V = Parameterization("v", r"y=\alpha\epsilon-\sigma x_0", lambda c: (-c.sigma, c.alpha))
VELOCITY = Parameterization("velocity", r"y=\dot\alpha x_0+\dot\sigma\epsilon", lambda c: (c.dalpha, c.dsigma))
SCORE = Parameterization("score", r"y=-\epsilon/\sigma", lambda c: (_zeros(c), -1 / c.sigma))


def edm(sigma_data: float) -> Parameterization:
    """Karras et al. 2022's F, with ``x0 = c_skip x_t/alpha + c_out F`` at noise level sigma/alpha, on any path.

    Solving their Eq. 7 for F gives ``a = sigma/(sigma_data n)``, ``b = -alpha sigma_data / n`` with
    ``n = sqrt(sigma^2 + alpha^2 sigma_data^2)``; at sigma_data = 1 on a VP path F is minus v.
    """
    s = check_number("sigma_data", sigma_data, low=1e-6)

    def row(c: Coeffs) -> tuple[Tensor, Tensor]:
        n = torch.sqrt(c.sigma**2 + (c.alpha * s) ** 2)
        return c.sigma / (s * n), -c.alpha * s / n

    return Parameterization("edm", r"y=\big(x_0-c_{skip}x_t/\alpha\big)/c_{out}", row)
