"""Two-sided interpolants ``x_t = alpha x0 + beta x1 + gamma z``: bridges between any two distributions.

At t = 0 there is the data point x0, at t = t_max the other end x1, and in between a little noise z on top. Everything
else in the library is the one-sided case, where x1 is noise already and gamma = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.paths import Coeffs, Path
from lecture_lib.core.schedules import TimeFunction, check_function, expect, name_of
from lecture_lib.errors import RangeError, ShapeError, SingularError
from lecture_lib.tensors import all_finite, blend, check_number, per_sample


@dataclass(frozen=True, repr=False)
class Interpolant(Path):
    """``x_t = alpha(t) x0 + beta(t) x1 + gamma(t) z``; a path whose ``sigma``, the Gaussian noise in x_t, is gamma.

    Noise comes and goes, so a noise level belongs to two times: there is no ``time_of`` and no forward SDE, and
    ``interpolate`` with its three tensors takes the place of ``mix``. Equal functions make equal interpolants.

    Args:
        alpha, beta, gamma: ``t (b,) -> (b,)`` in float64, in torch operations; alpha(0) = 1, beta(0) = 0, at the end
            beta > 0 and alpha at most a tenth of it; gamma >= 0 and 0 at both ends.
        t_max, formula, source: as in ``FunctionPath``.

    Raises:
        ShapeError, RangeError, NonFiniteError: the functions do not lead from x0 to x1; the message says where.
    """

    # The field stands in for Path's abstract method, which it can only do with a default; None is refused below.
    alpha: TimeFunction = None
    beta: TimeFunction = None
    gamma: TimeFunction = None
    t_max: float = 1.0
    formula: str = field(default=r"x_t=\alpha x_0+\beta x_1+\gamma z", compare=False)
    source: str = field(default="Albergo et al. 2023 (2303.08797)", compare=False)

    def __post_init__(self):
        t = torch.linspace(0, check_number("t_max", self.t_max, 1e-6), 257, dtype=torch.float64)
        alpha, beta, gamma = (check_function(name, getattr(self, name), t) for name in ("alpha", "beta", "gamma"))
        start, end = t[:1], t[-1:]
        expect((alpha[:1] - 1).abs() <= 1e-6, start, f"alpha: got {alpha[0]:g}, expected 1 (x0 alone)")
        expect(beta[:1].abs() <= 1e-6, start, f"beta: got {beta[0]:g}, expected 0 (x0 alone)")
        expect(beta[-1:] > 0, end, f"beta: got {beta[-1]:g}, expected a positive number (x1 alone)")
        expect(alpha[-1:].abs() <= 0.1 * beta[-1:], end, f"alpha: got {alpha[-1]:g}, expected 0 (x1 alone)")
        expect(gamma >= 0, t, "gamma: got a negative number, expected numbers >= 0")
        expect(gamma[[0, -1]] <= 1e-6, t[[0, -1]], "gamma: got noise, expected 0 at both ends")

    def __repr__(self) -> str:
        return f"Interpolant({name_of(self.alpha)}, {name_of(self.beta)}, {name_of(self.gamma)}, t_max={self.t_max:g})"

    def sigma(self, t):
        return self.gamma(t)

    def interpolate(
        self, x0: Float[Tensor, " b *d"], x1: Float[Tensor, " b *d"], z: Float[Tensor, " b *d"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b *d"]:
        """``x_t = alpha x0 + beta x1 + gamma z``."""
        t = t.double()
        return blend((self.alpha(t), x0), (self.beta(t), x1), (self.gamma(t), z))

    def derivatives(self, t: Float[Tensor, " b"]) -> tuple[Tensor, Tensor, Tensor]:
        """``d alpha/dt, d beta/dt, d gamma/dt``, each ``(b,)``, by forward-mode autodiff as in ``Path.slopes``."""
        with torch.inference_mode(False):
            t = (t.clone() if t.is_inference() else t).double().contiguous().clamp(max=self.t_max)
            row = lambda t: (self.alpha(t), self.beta(t), self.gamma(t))  # noqa: E731
            return torch.func.jvp(row, (t,), (torch.ones_like(t),))[1]

    def mirrored(self) -> Interpolant:
        """The same way walked from the other end: x1 is at t = 0, and what was forward in time is backward.

        A sampler that runs down its clock thus follows ``self`` upwards. Mirrored twice it is itself again.
        """
        alpha, beta, gamma = (_flip(f, self.t_max) for f in (self.beta, self.alpha, self.gamma))
        return Interpolant(alpha, beta, gamma, self.t_max, self.formula, self.source)

    def mix(self, x0, eps, t):
        """Refused: there are three things to mix."""
        raise ShapeError("mix: got two tensors, expected x0, x1 and z; use interpolate(x0, x1, z, t)")

    def time_of(self, lam):
        """Refused: gamma rises and falls."""
        raise RangeError("time_of: gamma rises and falls, so a noise level belongs to two times; expected a Path")

    def drift_diffusion(self, t):
        """Refused: x1 is no noise."""
        raise RangeError("drift_diffusion: a bridge to x1 is no forward SDE of x0 alone; expected a one-sided Path")


@dataclass(frozen=True)
class TwoSided:
    """What a denoiser says about one batch between two ends: the conditional means given ``x_t``.

    Attributes:
        path, t: where on which interpolant; ``t`` is ``(b,)``.
        x_t, x0, x1, z: ``(b, ...)`` alike, tied by ``x_t = alpha x0 + beta x1 + gamma z``.
        nfe: network evaluations per sample that this cost.
    """

    path: Interpolant
    t: Float[Tensor, " b"]
    x_t: Float[Tensor, " b *d"]
    x0: Float[Tensor, " b *d"]
    x1: Float[Tensor, " b *d"]
    z: Float[Tensor, " b *d"]
    nfe: int = 1

    @classmethod
    def decoded(
        cls,
        path: Interpolant,
        t: Float[Tensor, " b"],
        x_t: Float[Tensor, " b *d"],
        transport: Float[Tensor, " b *d"],
        z: Float[Tensor, " b *d"],
        nfe: int = 1,
    ) -> TwoSided:
        """From the two things that are learned: ``transport = E[alpha' x0 + beta' x1 | x_t]`` and ``z = E[z | x_t]``.

        Two equations for x0 and x1: ``alpha x0 + beta x1 = x_t - gamma z`` and ``alpha' x0 + beta' x1 = transport``.

        Raises:
            SingularError: the equations are one and the same, as where encoding-decoding has lost one of the ends.
        """
        alpha, beta, gamma = (f(t.double()) for f in (path.alpha, path.beta, path.gamma))
        dalpha, dbeta, _ = path.derivatives(t)
        det = alpha * dbeta - dalpha * beta
        if not (all_finite(det) and (det.abs() > 1e-9).all()):
            raise SingularError(
                "decoded: alpha beta' - alpha' beta is zero or infinite, so x0 and x1 do not follow from their mixture "
                "and its slope; expected an interpolant that mixes both ends at these times"
            )
        ends = (1.0, x_t), (-gamma, z)
        x0 = blend(*((dbeta / det * c, y) for c, y in ends), (-beta / det, transport))
        x1 = blend(*((-dalpha / det * c, y) for c, y in ends), (alpha / det, transport))
        return cls(path, t, x_t, x0, x1, z, nfe)

    def mirrored(self) -> TwoSided:
        """The same means, told by the clock of ``path.mirrored()``."""
        return TwoSided(self.path.mirrored(), self.path.t_max - self.t, self.x_t, self.x1, self.x0, self.z, self.nfe)

    @property
    def velocity(self) -> Float[Tensor, " b *d"]:
        """``alpha' x0 + beta' x1 + gamma' z``: the right-hand side of the ODE, learned or exact.

        Raises:
            SingularError: where a slope is infinite, as that of sqrt(t (1 - t)) at both ends.
        """
        slopes = self.path.derivatives(self.t)
        if not all(map(all_finite, slopes)):
            raise SingularError(
                "velocity: a slope is infinite, as that of gamma = sqrt(t (1 - t)) at both ends (gamma' z tends to a "
                "limit there, but as infinity times 0); expected times a little inside, such as 1e-3 from each end"
            )
        return blend(*zip(slopes, (self.x0, self.x1, self.z), strict=True))

    @property
    def score(self) -> Float[Tensor, " b *d"]:
        """``grad log p_t(x_t) = -z/gamma``; a SingularError where gamma = 0: there z is not in x_t."""
        gamma = self.path.gamma(self.t.double())
        if not (gamma > 0).all():
            raise SingularError("score: at gamma = 0 there is no noise to read it from; expected times with gamma > 0")
        return -self.z / per_sample(gamma, self.z)

    def on(self, path: Path) -> TwoSided:
        """The prediction itself, if it speaks about ``path``; a ShapeError if it was made for another one."""
        if self.path != path:
            raise ShapeError(f"path: the denoiser speaks {self.path!r}, expected {path!r}")
        return self

    def at(self, c: Coeffs) -> TwoSided:
        """The prediction itself: the driver offers the numbers of the moment, but they lack beta."""
        return self

    def parts(self, **weights: Tensor | float) -> list[tuple[Tensor | float, Tensor]]:
        """Pairs ``(weight, tensor)`` for a sampler to add up: ``parts(x0=a, z=c)`` is ``[(a, x0), (c, z)]``.

        What has weight 0.0 is not looked at: a sampler without noise never meets a score that is singular.
        """
        asked = {name: w for name, w in weights.items() if isinstance(w, Tensor) or w != 0.0}
        return [(weight, getattr(self, name)) for name, weight in asked.items()]


def mirrored(denoise: Callable[[Tensor, Tensor], TwoSided], path: Interpolant) -> Callable[[Tensor, Tensor], TwoSided]:
    """A two-sided denoiser of ``path``, on the clock of ``path.mirrored()``: any sampler then goes from x0 to x1."""
    return lambda x_t, t: denoise(x_t, path.t_max - t).mirrored()


@dataclass(frozen=True)
class _Flipped:
    """``f(t_max - t)``, equal for equal functions."""

    f: TimeFunction
    t_max: float

    def __call__(self, t):
        return self.f(self.t_max - t)


def _flip(f: TimeFunction, t_max: float) -> TimeFunction:
    return f.f if isinstance(f, _Flipped) and f.t_max == t_max else _Flipped(f, t_max)


# What gamma may be, and the usual interpolants. Named functions, not lambdas: equal ones must compare equal.


@dataclass(frozen=True)
class BrownianNoise:
    """``gamma = sqrt(scale t (1 - t))``: the spread of a Brownian bridge, with infinite slopes at both ends."""

    scale: float = 2.0

    def __post_init__(self):
        check_number("scale", self.scale, 1e-12)

    def __call__(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        return (self.scale * t * (1 - t)).clamp(min=0).sqrt()


_BROWNIAN = BrownianNoise()


def no_noise(t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """``gamma = 0``: deterministic given its two ends; x_t then has no score to speak of."""
    return torch.zeros_like(t)


def parabolic_noise(t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """``gamma = t (1 - t)``: finite slopes everywhere."""
    return (t * (1 - t)).clamp(min=0)


def sine_noise(t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """``gamma = sin^2(pi t)``: it starts and ends without a slope."""
    return torch.sin(math.pi * torch.minimum(t, 1 - t)) ** 2  # exactly 0 at t = 1, where sin(pi) is 1e-16


def one_sided(path: Path) -> Interpolant:
    """A path as the special case ``beta = sigma``, ``gamma = 0``: x1 is the noise eps."""
    alpha, sigma = _Coefficient(path, "alpha"), _Coefficient(path, "sigma")
    return Interpolant(alpha, sigma, no_noise, path.t_max, path.formula, path.source)


@dataclass(frozen=True)
class _Coefficient:
    """A path's method as a function that is equal for equal paths, which bound methods are not."""

    path: Path
    name: str

    def __repr__(self) -> str:
        return f"{self.name} of {self.path!r}"

    def __call__(self, t):
        return getattr(self.path, self.name)(t)


def linear_interpolant(gamma: TimeFunction = _BROWNIAN) -> Interpolant:
    """``(1 - t) x0 + t x1 + gamma z`` with ``gamma = sqrt(2 t (1 - t))`` by default."""
    return Interpolant(_fall, _rise, gamma, formula=r"x_t=(1-t)x_0+t\,x_1+\gamma z")


def trigonometric_interpolant(gamma: TimeFunction = _BROWNIAN) -> Interpolant:
    """``cos(pi t/2) x0 + sin(pi t/2) x1 + gamma z``: keeps the variance of ends that have variance 1, gamma apart."""
    return Interpolant(_cosine, _sine, gamma, formula=r"x_t=\cos\tfrac{\pi t}2x_0+\sin\tfrac{\pi t}2x_1+\gamma z")


def encoding_decoding() -> Interpolant:
    """x0 turns into noise by t = 1/2, and then into x1: ``cos^2(pi t)`` on either half, ``gamma = sin^2(pi t)``."""
    formula = r"x_t=\cos^2(\pi t)\,(1_{t<\frac12}x_0+1_{t>\frac12}x_1)+\sin^2(\pi t)\,z"
    return Interpolant(_encode, _decode, sine_noise, formula=formula)


def _fall(t):
    return 1 - t


def _rise(t):
    return t * 1.0


def _cosine(t):
    return torch.sin(math.pi / 2 * (1 - t))  # exactly 0 at t = 1


def _sine(t):
    return torch.sin(math.pi / 2 * t)


def _encode(t):
    return torch.where(t < 0.5, torch.cos(math.pi * t) ** 2, torch.zeros_like(t))


def _decode(t):
    return torch.where(t > 0.5, torch.cos(math.pi * t) ** 2, torch.zeros_like(t))
