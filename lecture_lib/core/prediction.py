"""What a denoiser says about one noisy batch, readable in every parameterization."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.parameterization import SCORE, VELOCITY, Parameterization, V
from lecture_lib.core.paths import Coeffs, Path
from lecture_lib.errors import ShapeError, SingularError
from lecture_lib.tensors import Number, blend, per_sample


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

    @classmethod
    def decoded(
        cls,
        path: Path,
        t: Float[Tensor, " b"],
        x_t: Float[Tensor, " b *d"],
        y: Float[Tensor, " b *d"],
        output: Parameterization,
    ) -> Prediction:
        """What a network's output ``y`` amounts to; x0 and eps are worked out when first asked for.

        Raises (then, not now):
            SingularError: where ``y`` does not determine x0 and eps.
        """
        p = object.__new__(cls)
        vars(p).update(path=path, t=t, x_t=x_t, nfe=1, _y=y, _output=output)
        return p

    def __getattr__(self, name: str) -> Tensor:  # reached only by what ``decoded`` left open
        if name not in ("x0", "eps") or "_y" not in vars(self):
            raise AttributeError(f"Prediction has no attribute {name!r}")
        value = blend(*self.parts(**{name: 1.0}))
        if value.requires_grad or not self._y.requires_grad:  # read under no_grad, it must not stay without a graph
            vars(self)[name] = value
        return value

    @cached_property
    def coeffs(self) -> Coeffs:
        """alpha, sigma and slopes of the path at ``t``."""
        return self.path.coeffs(self.t)

    def parts(
        self, *, x0: Number = 0.0, eps: Number = 0.0, velocity: Number = 0.0, score: Number = 0.0
    ) -> list[tuple[Number, Tensor]]:
        """Terms for ``blend`` that add up to the weighted sum of the named quantities.

        All of them are linear in the two tensors at hand (x0 and eps, or x_t and the network's output), so a sampler
        pays one pass over memory per tensor, whatever it asks for.

        Raises:
            SingularError: a quantity that is infinite at this time, e.g. a VP path's velocity at t = 0.
        """
        if isinstance(velocity, Tensor) or velocity != 0.0:
            a, b = VELOCITY.finite_row(self.coeffs)
            x0, eps = x0 + velocity * a, eps + velocity * b
        if isinstance(score, Tensor) or score != 0.0:
            a, b = SCORE.finite_row(self.coeffs)
            x0, eps = x0 + score * a, eps + score * b
        if "_y" not in vars(self):
            return [(x0, self.x0), (eps, self.eps)]
        (x0_x, x0_y), (eps_x, eps_y) = self._output.inverse(self.coeffs)
        return [(x0 * x0_x + eps * eps_x, self.x_t), (x0 * x0_y + eps * eps_y, self._y)]

    @property
    def v(self) -> Float[Tensor, " b *d"]:
        """``v = alpha eps - sigma x0`` (Salimans & Ho 2022)."""
        return V.encode(self.x0, self.eps, self.coeffs)

    @property
    def velocity(self) -> Float[Tensor, " b *d"]:
        """``dx_t/dt = alpha' x0 + sigma' eps``: the right-hand side of the probability-flow ODE.

        Raises:
            SingularError: where it is infinite: at t = 0 of the VP paths.
        """
        return blend(*self.parts(velocity=1.0))

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
        if self.path is not path and self.path != path:
            raise ShapeError(f"path: the denoiser speaks {self.path!r}, expected {path!r}; use core.rebase")
        return self

    def at(self, c: Coeffs) -> Prediction:
        """The prediction itself, reckoning from now on with ``c``, the coefficients at its time, instead of its own."""
        vars(self)["coeffs"] = c
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
