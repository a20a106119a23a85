"""Predict x0, then re-noise it to the next level: with the old noise (DDIM), with fresh noise (DDPM), or a mixture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from lecture_lib.samplers.base import Sampler
from lecture_lib.samplers.weights import fresh
from lecture_lib.tensors import Number, all_zero, blend, check_number, root


@dataclass(frozen=True, repr=False)
class DDIM(Sampler):
    """Re-noise the predicted x0 to level s, with the predicted eps and a share ``eta`` of fresh noise.

    ``eta = 0`` is deterministic: mix(x0, eps, s), nothing else. ``eta = 1`` is DDPM with the posterior variance.
    """

    eta: float = 0.0
    order: ClassVar[int] = 1
    per_sample: ClassVar[bool] = True
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = (
        r"x_s=\alpha_s\hat x_0+\sqrt{\sigma_s^2-\varsigma^2}\,\hat\epsilon+\varsigma z,"
        r"\;\varsigma=\eta\,\sigma_s\sqrt{1-e^{2(\lambda_t-\lambda_s)}}"
    )
    source: ClassVar[str] = "Song et al. 2020 (2010.02502), Eq. 12 and 16"

    def __post_init__(self):
        check_number("eta", self.eta, 0, 1)

    @property
    def deterministic(self) -> bool:
        """Without fresh noise."""
        return self.eta == 0

    def step(self, denoise, x, t, s, state, noise):
        p = denoise(x, t)
        q = (t.alpha * s.sigma) / (s.alpha * t.sigma)  # e^(lam_t - lam_s), finite at both ends
        new = self.eta * s.sigma * root(1 - q**2)
        kept = s.sigma * root(1 - self.eta**2 + (self.eta * q) ** 2)  # sqrt(sigma_s^2 - new^2)
        return blend(*p.parts(x0=s.alpha, eps=kept), *fresh(new, noise)), None


def posterior_variance(beta: Number, sigma_t: Number, sigma_s: Number) -> Number:
    """``beta (sigma_s/sigma_t)^2``: the variance of q(x_s | x_t, x0), right for data that is a point."""
    return beta * (sigma_s / sigma_t) ** 2


def forward_variance(beta: Number, sigma_t: Number, sigma_s: Number) -> Number:
    """``beta``: the variance of the forward step, right for data that is N(0, I) on a variance-preserving path."""
    return beta


@dataclass(frozen=True, repr=False)
class DDPM(Sampler):
    """Ancestral sampling: the posterior mean of q(x_s | x_t, x0) at the predicted x0, plus noise."""

    variance: Callable[[Number, Number, Number], Number] = posterior_variance
    order: ClassVar[int] = 1
    deterministic: ClassVar[bool] = False
    per_sample: ClassVar[bool] = True
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = (
        r"x_s=\tfrac{\alpha_{t|s}\sigma_s^2}{\sigma_t^2}x_t+\tfrac{\alpha_s\beta_{t|s}}{\sigma_t^2}\hat x_0"
        r"+\varsigma z,\;\alpha_{t|s}=\tfrac{\alpha_t}{\alpha_s},\;\beta_{t|s}=\sigma_t^2-\alpha_{t|s}^2\sigma_s^2"
    )
    source: ClassVar[str] = "Ho et al. 2020 (2006.11239), Eq. 7 and Alg. 2"

    def step(self, denoise, x, t, s, state, noise):
        p = denoise(x, t)
        alpha_ts = t.alpha / s.alpha
        beta = t.sigma**2 - (alpha_ts * s.sigma) ** 2
        mean = [(alpha_ts * (s.sigma / t.sigma) ** 2, x), *p.parts(x0=s.alpha * beta / t.sigma**2)]
        if all_zero(s.sigma):  # clean data carries no noise: the last step is its mean
            return blend(*mean), None
        return blend(*mean, *fresh(root(self.variance(beta, t.sigma, s.sigma)), noise)), None


@dataclass(frozen=True, repr=False)
class EulerAncestral(Sampler):
    """Euler on the EDM clock *past* the next level, down to ``sigma_down``, then fresh noise up to it.

    Written in the coordinates of its source; for every ``eta`` it is DDIM(eta), and at eta = 1 DDPM (a test says so).
    """

    eta: float = 1.0
    order: ClassVar[int] = 1
    per_sample: ClassVar[bool] = True
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = (
        r"\bar x_s=\bar x_t+(\bar\sigma_{down}-\bar\sigma_t)\hat\epsilon+\bar\sigma_{up}z,"
        r"\;\bar\sigma_{up}^2=\eta^2\bar\sigma_s^2(1-\bar\sigma_s^2/\bar\sigma_t^2),"
        r"\;\bar\sigma_{down}^2=\bar\sigma_s^2-\bar\sigma_{up}^2"
    )
    source: ClassVar[str] = "Crowson, k-diffusion, sample_euler_ancestral"

    def __post_init__(self):
        check_number("eta", self.eta, 0, 1)

    @property
    def deterministic(self) -> bool:
        """Without fresh noise."""
        return self.eta == 0

    def step(self, denoise, x, t, s, state, noise):
        p = denoise(x, t)
        q = s.level / t.level  # 0 out of pure noise
        up, down = self.eta * s.level * root(1 - q**2), s.level * root(1 - self.eta**2 + (self.eta * q) ** 2)
        if all_zero(t.alpha):  # there x/alpha is infinite, but the limit of the step is not
            euler = p.parts(x0=s.alpha, eps=s.alpha * down)
        else:
            euler = [(s.alpha / t.alpha, x), *p.parts(eps=s.alpha * (down - t.level))]
        return blend(*euler, *fresh(s.alpha * up, noise)), None
