"""The reverse SDE: the ODE's velocity, a push along the score, and noise that makes up for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from lecture_lib.core.paths import Coeffs
from lecture_lib.errors import SingularError
from lecture_lib.samplers.base import Sampler
from lecture_lib.samplers.weights import fresh, jump
from lecture_lib.tensors import Number, all_zero, blend, check_count, check_number, root

Diffusion = Callable[[Coeffs], Number]
"""The rate ``w >= 0`` of a reverse SDE at one moment; the marginals do not depend on it."""


def forward_diffusion(c: Coeffs) -> Number:
    """``g(t)^2`` of the path's own forward SDE: gives Song et al.'s reverse SDE, and is SiT's ``w^KL``.

    Raises:
        SingularError: where alpha = 0; that SDE is infinite there.
    """
    if all_zero(c.alpha):
        raise SingularError(
            f"grid: the forward SDE of {type(c.path).__name__} is infinite at t = {float(c.time):g} (alpha = 0); "
            "start the grid a little earlier, e.g. at 0.999 t_max"
        )
    return c.path.drift_diffusion(c)[1]


def no_diffusion(c: Coeffs) -> Number:
    """``w = 0``: the SDE is the ODE."""
    return 0.0


def sigma_diffusion(c: Coeffs) -> Number:
    """``w = sigma_t``: fades out as noise does (SiT's default)."""
    return c.sigma


def bump_diffusion(c: Coeffs) -> Number:
    """``w = sin^2(pi t/t_max)``: none at either end."""
    return (1 - _cos(2 * math.pi / c.path.t_max * c.time)) / 2


@dataclass(frozen=True)
class ConstantDiffusion:
    """``w`` the same at all times: ``2 epsilon`` of stochastic interpolants, ``sigma^2`` of a Schroedinger bridge."""

    w: float

    def __post_init__(self):
        check_number("w", self.w, 0)

    def __call__(self, c: Coeffs) -> Number:
        """``w``, whatever the moment."""
        return self.w


def _cos(angle: Number) -> Number:
    return math.cos(angle) if isinstance(angle, float) else angle.cos()


@dataclass(frozen=True, repr=False)
class EulerMaruyama(Sampler):
    """One Euler step of the reverse SDE with any diffusion; the last step, to clean data, is its mean."""

    diffusion: Diffusion = forward_diffusion
    order: ClassVar[int] = 1
    deterministic: ClassVar[bool] = False
    per_sample: ClassVar[bool] = True
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = r"x_s=x_t+(s-t)\big[\hat u-\tfrac w2\nabla\log p_t\big]+\sqrt{w(t-s)}\,z"
    source: ClassVar[str] = "Song et al. 2021 (2011.13456), Eq. 6; any w: Ma et al. 2024, SiT (2401.08740), Eq. 4"

    def step(self, denoise, x, t, s, state, noise):
        p, w, h = denoise(x, t), self.diffusion(t), t.time - s.time
        mean = [(1.0, x), *p.parts(velocity=-h, score=h * w / 2)]
        if all_zero(s.sigma):
            return blend(*mean), None
        return blend(*mean, *fresh(root(w * h), noise)), None


@dataclass(frozen=True, repr=False)
class PredictorCorrector(Sampler):
    """Any sampler as predictor, then Langevin steps *at* the new time: they correct the marginal, and move no time.

    ``snr`` is the ratio of the Langevin step's push to its noise; the norms are means over the batch, as in the source.
    """

    predictor: Sampler = field(default_factory=EulerMaruyama)
    snr: float = 0.16
    corrections: int = 1
    order: ClassVar[int] = 1
    deterministic: ClassVar[bool] = False
    evaluations: ClassVar[str] = "the predictor's NFE + 1 per correction"
    formula: ClassVar[str] = (
        r"x\leftarrow x+e\,\nabla\log p_s(x)+\sqrt{2e}\,z,\;e=2\big(r\,\|z\|/\|\nabla\log p_s\|\big)^2"
    )
    source: ClassVar[str] = "Song et al. 2021 (2011.13456), Alg. 4 and 5"

    def __post_init__(self):
        check_number("snr", self.snr, 0, 10)
        check_count("corrections", self.corrections, 0)

    def step(self, denoise, x, t, s, state, noise):
        x, state = self.predictor.step(denoise, x, t, s, state, noise)
        for _ in range(0 if all_zero(s.sigma) else self.corrections):  # clean data has no score
            p, z = denoise(x, s), noise()
            ratio = z.flatten(1).norm(dim=1).mean() / (p.eps.flatten(1).norm(dim=1).mean() / s.sigma)
            e = (2 * (self.snr * ratio) ** 2).expand(len(x))
            x = blend((1.0, x), *p.parts(score=e), (root(2 * e), z))
        return x, state


@dataclass(frozen=True, repr=False)
class EDMChurn(Sampler):
    """Karras' stochastic sampler: a little *more* noise first, up to sigma-hat, then Heun down from there.

    The network is asked at sigma-hat, where x-hat is; asking at the old sigma is a bug of several public codes.

    Args:
        gamma: share by which the noise level rises, at most sqrt(2) - 1; the paper's S_churn is ``gamma N``.
        low, high: only noise levels sigma/alpha in between are churned.
        inflate: S_noise; above 1 the samples come out too wide, on purpose (1 is exact).
    """

    gamma: float = 0.1
    low: float = 0.0
    high: float = math.inf
    inflate: float = 1.0
    order: ClassVar[int] = 2
    deterministic: ClassVar[bool] = False
    evaluations: ClassVar[str] = "2 NFE per step, 1 for a last step to clean data"
    formula: ClassVar[str] = (
        r"\hat\sigma=(1+\gamma)\bar\sigma_t,\;\hat x=\bar x_t+\sqrt{\hat\sigma^2-\bar\sigma_t^2}\,z,"
        r"\;\bar x_s=\hat x+\tfrac{\bar\sigma_s-\hat\sigma}2(\hat\epsilon+\hat\epsilon')"
    )
    source: ClassVar[str] = "Karras et al. 2022 (2206.00364), Alg. 2"

    def __post_init__(self):
        check_number("gamma", self.gamma, 0, 2**0.5 - 1 + 1e-12)
        check_number("inflate", self.inflate, 0)

    @classmethod
    def of(cls, churn: float, steps: int, **options: float) -> EDMChurn:
        """From the paper's ``S_churn`` and the number of steps."""
        return cls(min(churn / steps, 2**0.5 - 1), **options)

    def step(self, denoise, x, t, s, state, noise):
        if self.gamma > 0 and self.low <= t.level <= self.high and not math.isinf(t.level):
            hat = t.path.at_lam(t.lam - math.log1p(self.gamma))  # stays at t_max if the path ends before
            ratio = hat.alpha / t.alpha
            added = root(hat.sigma**2 - (ratio * t.sigma) ** 2)
            x, t = blend((ratio, x), *fresh(self.inflate * added, noise)), hat
        p = denoise(x, t)
        euler = jump(p, s)
        if s.sigma == 0 or math.isinf(t.level):
            return euler, None
        q, h = denoise(euler, s), s.level - t.level
        return blend((s.alpha / t.alpha, x), *p.parts(eps=s.alpha * h / 2), *q.parts(eps=s.alpha * h / 2)), None
