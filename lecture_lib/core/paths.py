"""Paths: how data turns into noise.

A path is two functions of time, ``x_t = alpha(t) x0 + sigma(t) eps``; everything else here is derived from them.
``t = 0`` is data, ``t = t_max`` is noise. Times and schedules are float64 (a float32 ``1 - alpha_bar`` loses the
last steps of a sampler); images keep their own dtype.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache, cached_property
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.tensors import Number, blend, check_number


class Coeffs:
    """A moment of a path: its time, and there alpha, sigma, the half log-SNR and the slopes; each only when asked for.

    Either all numbers are ``(b,)`` float64 tensors, one time per sample (training, distillation), or all are floats,
    one time for the whole batch (samplers: no small tensors, no waiting for a GPU).

    Attributes:
        path, time: where on which path; ``alpha``, ``sigma``, ``lam``, ``dalpha``, ``dsigma`` are the values there.
    """

    def __init__(self, path: Path, time: Float[Tensor, " b"]):
        self.path, self.time = path, time

    @cached_property
    def alpha(self) -> Number:
        """The signal's coefficient."""
        return self.path.alpha(self.time)

    @cached_property
    def sigma(self) -> Number:
        """The noise's coefficient."""
        return self.path.sigma(self.time)

    @cached_property
    def lam(self) -> Number:
        """Half log-SNR ``log(alpha/sigma)``; infinite at clean data, minus infinite where alpha = 0."""
        return self.path.lam(self.time)

    @cached_property
    def _slopes(self) -> tuple[Number, Number]:
        return self.path.slopes(self.time)

    @property
    def dalpha(self) -> Number:
        """``d alpha / dt``."""
        return self._slopes[0]

    @property
    def dsigma(self) -> Number:
        """``d sigma / dt``."""
        return self._slopes[1]

    def batch(self, x: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
        """The time as a network wants it: one per sample of ``x``."""
        return self.time

    @property
    def level(self) -> Number:
        """Noise-to-signal ratio ``sigma/alpha``, the clock of EDM; infinite where alpha = 0."""
        if isinstance(self.alpha, float) and self.alpha == 0:
            return math.inf
        return self.sigma / self.alpha


class _Shared(Coeffs):
    """Coefficients that were computed together with those of a whole grid."""

    def __init__(self, path, time, alpha, sigma, lam, clock, slopes):
        self.path, self.time, self.alpha, self.sigma, self.lam = path, time, alpha, sigma, lam
        self._clock, self._all_slopes = clock, slopes

    def batch(self, x):
        if self._clock is not None:
            return self._clock
        return torch.full(x.shape[:1], self.time, dtype=torch.float64, device=x.device)

    @property
    def _slopes(self):
        return self._all_slopes()[self.time]


class Path(ABC):
    """``x_t = alpha(t) x0 + sigma(t) eps``: implement alpha and sigma, get the rest.

    Both functions take float64 times ``(b,)`` in ``[0, t_max]`` and return ``(b,)``.
    """

    t_max: float = 1.0
    formula: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def alpha(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The signal's coefficient; 1 (or its maximum) at t = 0."""

    @abstractmethod
    def sigma(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The noise's coefficient; 0 at t = 0, rising."""

    def slopes(self, t: Float[Tensor, " b"]) -> tuple[Tensor, Tensor]:
        """``d alpha/dt`` and ``d sigma/dt`` by forward-mode autodiff: exact, no formula to mistype."""
        # Forward-mode AD refuses tensors born in inference mode, and expanded views: the few numbers are made anew.
        with torch.inference_mode(False):
            t = (t.clone() if t.is_inference() else t).double().contiguous()
            t = t.clamp(max=self.t_max)  # a float32 pi/2 lies past the end, where a clamped alpha has slope 0
            return torch.func.jvp(lambda t: (self.alpha(t), self.sigma(t)), (t,), (torch.ones_like(t),))[1]

    def coeffs(self, t: Float[Tensor, " b"]) -> Coeffs:
        """alpha, sigma, lam and slopes at ``t``, one time per sample, in float64."""
        return Coeffs(self, t.double())

    def along(self, grid: Float[Tensor, " n"], x: Float[Tensor, " b *d"] | None = None) -> list[Coeffs]:
        """The moments of a time grid, as floats: all of them computed at once, slopes when the first is asked for.

        With ``x``, the batch that is going to be there, each has its times ``(b,)`` ready as well: one tensor for the
        whole run, not one per step.
        """
        grid = grid.detach().double().cpu()
        with torch.no_grad():
            rows = [v.tolist() for v in (grid, self.alpha(grid), self.sigma(grid), self.lam(grid))]
        clocks = [None] * len(grid) if x is None else grid.to(x.device)[:, None].expand(-1, x.shape[0]).unbind()

        @cache
        def slopes() -> dict[float, tuple[float, float]]:
            return dict(zip(rows[0], zip(*(v.tolist() for v in self.slopes(grid)), strict=True), strict=True))

        return [_Shared(self, *numbers, slopes) for numbers in zip(*rows, clocks, strict=True)]

    def at(self, time: float) -> Coeffs:
        """The moment at one time, as floats."""
        return self.along(torch.tensor([time], dtype=torch.float64))[0]

    def at_lam(self, lam: float) -> Coeffs:
        """The moment at which the half log-SNR equals ``lam``, as floats."""
        return self.at(float(self.time_of(torch.tensor([lam], dtype=torch.float64))))

    def mix(
        self, x0: Float[Tensor, " b *d"], eps: Float[Tensor, " b *d"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b *d"]:
        """``x_t = alpha x0 + sigma eps``: the forward process, and also the DDIM step (with predicted x0 and eps)."""
        t = t.double()
        return blend((self.alpha(t), x0), (self.sigma(t), eps))

    def lam(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Half log-SNR ``log(alpha / sigma)``: +inf at the clean end, falling; -inf where alpha = 0."""
        t = t.double()
        return self.alpha(t).log() - self.sigma(t).log()

    def time_of(self, lam: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The time at which the half log-SNR equals ``lam``, by bisection to the last bit, in ``[0, t_max]``."""
        lam = lam.double()
        low, high = torch.zeros_like(lam), torch.full_like(lam, self.t_max)
        for _ in range(80):
            middle = (low + high) / 2
            too_clean = self.lam(middle) > lam
            low, high = torch.where(too_clean, middle, low), torch.where(too_clean, high, middle)
        return (low + high) / 2

    def drift_diffusion(self, t: Float[Tensor, " b"] | Coeffs) -> tuple[Number, Number]:
        """``f`` and ``g^2`` of the forward SDE ``dx = f x dt + g dW`` with these marginals (Kingma et al. 2021, Eq. 7).

        ``f = alpha'/alpha`` and ``g^2 = 2 sigma (sigma' - f sigma)``; both ``(b,)``. Infinite where alpha = 0.
        """
        c = t if isinstance(t, Coeffs) else self.coeffs(t)
        f = c.dalpha / c.alpha
        return f, 2 * c.sigma * (c.dsigma - f * c.sigma)

    def _repr_markdown_(self) -> str:
        return f"**{type(self).__name__}**: ${self.formula}$, $t\\in[0, {self.t_max:g}]$. *{self.source}*"


@dataclass(frozen=True)
class RectifiedFlow(Path):
    """The straight line ``x_t = (1 - t) x0 + t eps``."""

    formula: ClassVar[str] = r"\alpha=1-t,\;\sigma=t"
    source: ClassVar[str] = "Liu et al. 2022 (2209.03003); Lipman et al. 2022 (2210.02747)"

    def alpha(self, t):
        return 1 - t

    def sigma(self, t):
        return t * 1.0

    def slopes(self, t):
        return -torch.ones_like(t), torch.ones_like(t)  # the most used path goes without autodiff's set-up

    def time_of(self, lam):
        return torch.sigmoid(-lam.double())


@dataclass(frozen=True)
class Trigonometric(Path):
    """The quarter circle ``x_t = cos(t) x0 + sin(t) eps``; its clock is the angle, ``t_max = pi/2``."""

    t_max: ClassVar[float] = math.pi / 2
    formula: ClassVar[str] = r"\alpha=\cos t,\;\sigma=\sin t"
    source: ClassVar[str] = "TrigFlow, Lu & Song 2024 (2410.11081)"

    def alpha(self, t):
        # cos written as sin(pi/2 - t): exactly 0 at the end, not 6e-17. A float32 pi/2 is past the quarter turn.
        return torch.sin(math.pi / 2 - t).clamp(min=0)

    def sigma(self, t):
        return torch.sin(t)

    def slopes(self, t):
        return -torch.sin(t), torch.cos(t)

    def time_of(self, lam):
        return torch.atan(torch.exp(-lam.double()))


@dataclass(frozen=True)
class VPLinear(Path):
    """Variance preserving with ``beta(t)`` linear in t: DDPM's schedule in continuous time."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    formula: ClassVar[str] = r"\alpha=e^{-\frac14t^2(\beta_1-\beta_0)-\frac12t\beta_0},\;\sigma=\sqrt{1-\alpha^2}"
    source: ClassVar[str] = "Song et al. 2021 (2011.13456), Eq. 32"

    def __post_init__(self):
        check_number("beta_min", self.beta_min, 1e-9)
        check_number("beta_max", self.beta_max, self.beta_min)

    def _log_alpha(self, t):
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def alpha(self, t):
        return torch.exp(self._log_alpha(t))

    def sigma(self, t):
        return torch.sqrt(-torch.expm1(2 * self._log_alpha(t)))  # 1 - exp(.) would lose all digits near t = 0

    def time_of(self, lam):
        a, b = (self.beta_max - self.beta_min) / 4, self.beta_min / 2
        # c = -log alpha, from alpha^2 = sigmoid(2 lam); finite also at lam = -inf, where the answer is t_max.
        c = torch.nn.functional.softplus(-2 * lam.double()).clamp(max=1e100) / 2
        return (2 * c / (b + torch.sqrt(b**2 + 4 * a * c))).clamp(0, self.t_max)


@dataclass(frozen=True)
class VPCosine(Path):
    """Variance preserving, ``alpha`` a quarter cosine that starts ``s`` late, so that no first steps are wasted."""

    s: float = 0.008
    formula: ClassVar[str] = (
        r"\alpha=\cos\!\big(\tfrac\pi2\tfrac{t+s}{1+s}\big)/\cos\!\big(\tfrac\pi2\tfrac{s}{1+s}\big)"
    )
    source: ClassVar[str] = "Nichol & Dhariwal 2021 (2102.09672), Eq. 17"

    def __post_init__(self):
        check_number("s", self.s, 0, 1)

    def _angle(self, t):
        return 0.5 * math.pi * t / (1 + self.s)

    def alpha(self, t):
        # cos(a) written as sin(pi/2 - a), so that alpha(1) is exactly 0 and not 6e-17.
        return torch.sin(self._angle(1 - t)) / math.cos(0.5 * math.pi * self.s / (1 + self.s))

    def sigma(self, t):
        # 1 - cos^2(a)/cos^2(a0) = sin(a - a0) sin(a + a0) / cos^2(a0): no cancellation near t = 0.
        a0 = 0.5 * math.pi * self.s / (1 + self.s)
        return torch.sqrt(torch.sin(self._angle(t)) * torch.sin(self._angle(t) + 2 * a0)) / math.cos(a0)

    def time_of(self, lam):
        alpha = torch.sigmoid(2 * lam.double()).sqrt()
        late = torch.asin(alpha * math.cos(0.5 * math.pi * self.s / (1 + self.s)))  # the angle of 1 - t
        return (1 - late * 2 * (1 + self.s) / math.pi).clamp(0, self.t_max)


@dataclass(frozen=True)
class EDM(Path):
    """Variance exploding, ``x_t = x0 + t eps``: the clock *is* the noise level, up to ``t_max`` (80 in the paper)."""

    t_max: float = 80.0
    formula: ClassVar[str] = r"\alpha=1,\;\sigma=t"
    source: ClassVar[str] = "Karras et al. 2022 (2206.00364), Table 1"

    def __post_init__(self):
        check_number("t_max", self.t_max, low=1e-6)

    def alpha(self, t):
        return torch.ones_like(t)

    def sigma(self, t):
        return t * 1.0

    def slopes(self, t):
        return torch.zeros_like(t), torch.ones_like(t)

    def time_of(self, lam):
        return torch.exp(-lam.double()).clamp(max=self.t_max)
