"""More paths: sub-VP and VE of score SDEs, the sigmoid schedule, one that is learned, any that you write yourself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core.paths import Path, VPLinear
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.tensors import check_count, check_finite, check_number

TimeFunction = Callable[[Tensor], Tensor]
"""``t (b,) -> (b,)`` in float64, written in torch operations so that it can be differentiated."""


@dataclass(frozen=True)
class SubVP(Path):
    """As the linear variance-preserving path, with its noise squared: the variance stays below that of VP.

    Its forward SDE has the drift of VP, ``f = -beta/2``, and ``g^2 = beta (1 - e^{-2 int beta})``.
    """

    vp: VPLinear = field(default_factory=VPLinear)
    formula: ClassVar[str] = r"\alpha=\alpha_{VP},\;\sigma=1-\alpha^2"
    source: ClassVar[str] = "Song et al. 2021 (2011.13456), Eq. 12 and 29"

    def alpha(self, t):
        return self.vp.alpha(t)

    def sigma(self, t):
        return self.vp.sigma(t) ** 2

    def time_of(self, lam):
        # alpha = r sigma and sigma = 1 - alpha^2: a quadratic equation; then VP's time at the same alpha.
        q = torch.exp(-lam.double())  # 1/r: 0 at clean data
        root = torch.sqrt(q**2 + 4)
        alpha, sigma = 2 / (q + root), 2 / (1 + torch.sqrt(1 + 4 / q**2))
        return self.vp.time_of(alpha.log() - sigma.log() / 2)


@dataclass(frozen=True)
class VE(Path):
    """Variance exploding on a geometric clock: equal times multiply the noise level by equal factors.

    The exact solution of ``dx = sqrt(d s^2/dt) dW`` with ``s = sigma_min (sigma_max/sigma_min)^t``, from data: its
    variance is ``s(t)^2 - s(0)^2``, so that t = 0 is data itself. ``g^2 = 2 log(sigma_max/sigma_min) s^2``.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    formula: ClassVar[str] = r"\alpha=1,\;\sigma^2=\sigma_{min}^2\big((\sigma_{max}/\sigma_{min})^{2t}-1\big)"
    source: ClassVar[str] = "Song et al. 2021 (2011.13456), Eq. 29 and 30"

    def __post_init__(self):
        check_number("sigma_min", self.sigma_min, 1e-9)
        check_number("sigma_max", self.sigma_max, self.sigma_min * (1 + 1e-6))

    @property
    def _rate(self) -> float:
        return 2 * math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t):
        return torch.ones_like(t)

    def sigma(self, t):
        return self.sigma_min * torch.sqrt(torch.expm1(self._rate * t))

    def time_of(self, lam):
        return (torch.log1p((torch.exp(-lam.double()) / self.sigma_min) ** 2) / self._rate).clamp(0, self.t_max)


@dataclass(frozen=True)
class Sigmoid(Path):
    """Variance preserving, ``alpha^2`` a falling sigmoid between ``start`` and ``end``, stretched to run from 1 to 0.

    A small ``tau`` makes it steep; moving ``start`` and ``end`` up or down puts more of the time on clean or on noisy
    pictures. Both slopes are infinite at an end: alpha's at t = 1, sigma's at t = 0.
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0
    formula: ClassVar[str] = (
        r"\alpha^2=\frac{\varsigma(b)-\varsigma(a+t(b-a))}{\varsigma(b)-\varsigma(a)},\;"
        r"a=\tfrac{start}{\tau},\,b=\tfrac{end}{\tau}"
    )
    source: ClassVar[str] = "Jabri et al. 2022 (2212.11972); Chen 2023 (2301.10972)"

    def __post_init__(self):
        check_number("start", self.start)
        check_number("end", self.end, self.start + 1e-6)
        check_number("tau", self.tau, 1e-6)
        least = max(abs(self.start), abs(self.end), self.end - self.start) / 100
        if self.tau < least:  # a jump rather than a schedule, and soon past the range of cosh
            raise RangeError(f"tau: got {self.tau:g}, expected at least {least:g} for start and end so far out")

    @property
    def _width(self) -> float:
        return (self.end - self.start) / self.tau

    def _share(self, part: Tensor, t: Tensor, edge: float) -> Tensor:
        """alpha^2 or sigma^2 as a product, so that nothing cancels where it is small.

        ``sigmoid(u) - sigmoid(v) = sinh((u - v)/2) / (2 cosh(u/2) cosh(v/2))``, divided by the whole difference.
        """
        u = self.start / self.tau + self._width * t
        edge = math.cosh(edge / self.tau / 2) / math.sinh(self._width / 2)
        return torch.sinh(self._width / 2 * part) / torch.cosh(u / 2) * edge

    def alpha(self, t):
        return self._share((1 - t).clamp(min=0), t, self.start).sqrt()

    def sigma(self, t):
        return self._share(t, t, self.end).sqrt()

    def time_of(self, lam):
        # SNR = ratio sinh(width (1 - t)/2)/sinh(width t/2), solved for t.
        ratio = math.cosh(self.start / self.tau / 2) / math.cosh(self.end / self.tau / 2)
        r, d = torch.exp(2 * lam.double()) / ratio, self._width
        return (torch.log1p(2 * math.sinh(d / 2) / (r + math.exp(-d / 2))) / d).clamp(0, self.t_max)


class LearnedSchedule(nn.Module, Path):
    """Variance preserving, with a half log-SNR that is learned: whatever its parameters, it falls strictly.

    ``lam`` goes from ``lam_max`` at t = 0 to ``lam_min`` at t = 1 along a Bernstein polynomial whose coefficients rise
    by positive steps; a monotone network with one layer, so to speak. A hundredth of every step is fixed: no parameters
    can make it flat. Parameters of 0 give a straight line. Two schedules are equal if they are the same object.

    Note that t = 0 still holds noise, ``sigma = exp(-lam_max)`` or so, as in the paper.

    Args:
        lam_max, lam_min: the ends; the defaults are those that the paper starts from (-13.3 and 5 for -2 lam).
        degree: how many steps, that is, parameters; their inputs are ``logits (degree,)``.
    """

    formula = r"\lambda=\lambda_{max}-(\lambda_{max}-\lambda_{min})\sum_kc_kB_{k,n}(t),\;c_k<c_{k+1}"
    source = "a learned schedule as in Kingma et al. 2021 (2107.00630)"
    fixed: ClassVar[float] = 0.01

    def __init__(self, lam_max: float = 6.65, lam_min: float = -2.5, degree: int = 32):
        super().__init__()
        self.lam_max, self.lam_min = check_number("lam_max", lam_max), check_number("lam_min", lam_min)
        if not self.lam_min < self.lam_max:
            raise RangeError(f"lam_min: got {lam_min:g}, expected less than lam_max = {lam_max:g}")
        if check_count("degree", degree) > 1000:  # the binomial coefficients leave float64
            raise RangeError(f"degree: got {degree}, expected at most 1000")
        self.logits = nn.Parameter(torch.zeros(degree, dtype=torch.float64))
        k = torch.arange(degree + 1, dtype=torch.float64)
        binomial = torch.lgamma(k[-1] + 1) - torch.lgamma(k + 1) - torch.lgamma(k[-1] - k + 1)
        self.register_buffer("_k", k, persistent=False)
        self.register_buffer("_binomial", binomial.exp(), persistent=False)

    def _progress(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """From 0 to 1, strictly rising: ``sum_k c_k binomial(n, k) t^k (1 - t)^(n - k)``."""
        # To where the times are: a sampler asks on the CPU, wherever the network lives.
        logits, k, binomial = (x.to(t.device, torch.float64) for x in (self.logits, self._k, self._binomial))
        n = len(logits)
        rises = (1 - self.fixed) * logits.softmax(0) + self.fixed / n
        heights = torch.cat([rises.new_zeros(1), rises.cumsum(0)])
        t = t[:, None]
        return (binomial * t**k * (1 - t) ** (n - k)) @ heights

    def lam(self, t):
        return self.lam_max - (self.lam_max - self.lam_min) * self._progress(t.double())

    def alpha(self, t):
        return torch.sigmoid(2 * self.lam(t)).sqrt()

    def sigma(self, t):
        return torch.sigmoid(-2 * self.lam(t)).sqrt()

    def extra_repr(self) -> str:
        """What stands between the brackets of the repr."""
        return f"lam_max={self.lam_max:g}, lam_min={self.lam_min:g}, degree={len(self.logits)}"


@dataclass(frozen=True, repr=False)
class FunctionPath(Path):
    """Any path, from its two functions; that they make one is checked on a sample of times.

    ``FunctionPath(lambda t: 1 - t**2, lambda t: t)``. Give the functions names (or keep them at hand) if you build the
    path more than once: two paths are equal if their functions are the same objects.

    Args:
        alpha, sigma: ``t (b,) -> (b,)`` in float64, in torch operations; alpha(0) = 1 and never rising, sigma(0) = 0,
            and alpha/sigma strictly falling.
        t_max: where the path ends.
        formula, source: what a notebook shows.

    Raises:
        ShapeError: what a function returns is not a float64 tensor like t, or autodiff cannot see through it.
        RangeError, NonFiniteError: the values do not make a path; the message says where.
    """

    # The fields stand in for Path's abstract methods, which they can only do with a default; None is refused below.
    alpha: TimeFunction = None
    sigma: TimeFunction = None
    t_max: float = 1.0
    formula: str = field(default=r"\alpha(t),\;\sigma(t)", compare=False)
    source: str = field(default="a path of your own", compare=False)

    def __post_init__(self):
        t = torch.linspace(0, check_number("t_max", self.t_max, 1e-6), 257, dtype=torch.float64)
        alpha, sigma = check_function("alpha", self.alpha, t), check_function("sigma", self.sigma, t)
        expect((alpha[:1] - 1).abs() <= 1e-6, t, f"alpha: got {alpha[0]:g}, expected 1 (t = 0 is data)")
        expect(sigma[:1].abs() <= 1e-6, t, f"sigma: got {sigma[0]:g}, expected 0 (t = 0 is data)")
        expect(sigma[1:] > 0, t[1:], "sigma: got 0 or less, expected positive numbers")
        expect(alpha >= 0, t, "alpha: got a negative number, expected numbers >= 0")
        expect(alpha.diff() <= 1e-12, t, "alpha: rises, expected it to fall or to stay")
        expect((alpha[1:] / sigma[1:]).diff() < 0, t[1:], "alpha/sigma: does not fall, expected it to fall strictly")

    def __repr__(self) -> str:
        return f"FunctionPath({name_of(self.alpha)}, {name_of(self.sigma)}, t_max={self.t_max:g})"


def name_of(f: TimeFunction) -> str:
    """A function by its name; what has none, by its repr."""
    return getattr(f, "__name__", repr(f))


def check_function(name: str, f: TimeFunction, t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """``f(t)``, if it is a finite float64 tensor like ``t`` that autodiff can follow; otherwise a named error."""
    if not callable(f):
        raise ShapeError(f"{name}: got {f!r}, expected a function of the times t")
    values = f(t)
    if not isinstance(values, Tensor) or values.shape != t.shape or values.dtype != t.dtype:
        got = f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise ShapeError(f"{name}: returned {got}, expected a float64 tensor {tuple(t.shape)}, one number per time")
    check_finite(name, values)
    slope = torch.func.jvp(f, (t,), (torch.ones_like(t),))[1]
    if (slope == 0).all() and values.max() > values.min():
        raise ShapeError(f"{name}: changes, but autodiff sees no slope; expected torch operations, no detach, no item")
    return values


def expect(good: Tensor, t: Tensor, what: str) -> None:
    """A RangeError that says what is wrong and at which of the times ``t``, unless all are ``good``."""
    if not good.all():
        raise RangeError(f"{what} at t = {float(t[int((~good).nonzero()[0])]):.4g}")
