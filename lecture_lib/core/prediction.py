"""What a denoiser says about one noisy batch, readable in every parameterization."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.parameterization import VELOCITY, V
from lecture_lib.core.paths import Path
from lecture_lib.errors import ShapeError, SingularError
from lecture_lib.tensors import per_sample


@dataclass(frozen=True)
class Prediction:
    """Estimates of the clean data and of the noise in ``x_t``, tied by ``x_t = alpha x0 + sigma eps``.

    Attributes:
        path, t: where on which path; ``t`` is ``(b,)``.
        x_t, x0, eps: ``(b, ...)`` alike.
        nfe: network evaluations per sample that this prediction cost (2 when both branches of guidance ran).
    """

    path: Path
    t: Float[Tensor, " b"]
    x_t: Float[Tensor, " b *d"]
    x0: Float[Tensor, " b *d"]
    eps: Float[Tensor, " b *d"]
    nfe: int = 1

    @property
    def v(self) -> Float[Tensor, " b *d"]:
        """``v = alpha eps - sigma x0`` (Salimans & Ho 2022)."""
        return V.encode(self.x0, self.eps, self.path.coeffs(self.t))

    @property
    def velocity(self) -> Float[Tensor, " b *d"]:
        """``dx_t/dt = alpha' x0 + sigma' eps``: the right-hand side of the probability-flow ODE.

        Raises:
            SingularError: where it is infinite: at t = 0 of the VP paths.
        """
        return VELOCITY.encode(self.x0, self.eps, self.path.coeffs(self.t))

    @property
    def score(self) -> Float[Tensor, " b *d"]:
        """``grad log p_t(x_t) = -eps/sigma``; a SingularError at sigma = 0."""
        return -self.eps / self._sigma()

    def with_x0(self, x0: Float[Tensor, " b *d"]) -> Prediction:
        """The prediction with another x0 (clipped, rescaled, inpainted) and the eps that this implies at the same x_t.

        Written as a *change* of eps, ``-(alpha/sigma)(x0_new - x0)``: an unchanged x0 leaves eps alone to the bit.
        """
        alpha = per_sample(self.path.alpha(self.t.double()), x0)
        return replace(self, x0=x0, eps=self.eps - alpha / self._sigma() * (x0 - self.x0))

    def on(self, path: Path) -> Prediction:
        """The prediction itself, if it speaks about ``path``; a ShapeError if it was made for another one."""
        if self.path != path:
            raise ShapeError(f"path: the denoiser speaks {self.path!r}, expected {path!r}; use core.rebase")
        return self

    def with_score_shift(self, g: Float[Tensor, " b *d"]) -> Prediction:
        """The prediction whose score is larger by ``g``: ``eps - sigma g``, and by Tweedie ``x0 + sigma^2/alpha g``."""
        alpha, sigma = self.path.alpha(self.t.double()), self.path.sigma(self.t.double())
        if not (alpha > 0).all():
            raise SingularError(
                "a score shift moves x0 by sigma^2/alpha, infinite at alpha = 0: start the grid earlier"
            )
        return replace(self, eps=self.eps - per_sample(sigma, g) * g, x0=self.x0 + per_sample(sigma**2 / alpha, g) * g)

    def _sigma(self) -> Tensor:
        sigma = self.path.sigma(self.t.double())
        if not (sigma > 0).all():
            raise SingularError("at sigma = 0 there is no noise to speak of: score and eps need t > 0")
        return per_sample(sigma, self.x_t)


Denoise = Callable[[Tensor, Tensor], Prediction]
"""The one contract of the library: ``(x_t (b, ...), t (b,)) -> Prediction``, conditioning already bound."""
