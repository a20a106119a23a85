"""Samplers that add fresh noise on the way; DDIM's eta reaches from none of it (deterministic) to all of DDPM's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.paths import Path
from lecture_lib.errors import SingularError
from lecture_lib.samplers.base import Sampler
from lecture_lib.tensors import check_number, per_sample


@dataclass(frozen=True, repr=False)
class DDIM(Sampler):
    """Re-noise the predicted x0 to level s, with the predicted eps and a share ``eta`` of fresh noise.

    ``eta = 0`` is deterministic: mix(x0, eps, s), nothing else. ``eta = 1`` is DDPM with the posterior variance.
    """

    eta: float = 0.0
    order: ClassVar[int] = 1
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = (
        r"x_s=\alpha_s\hat x_0+\sqrt{\sigma_s^2-\varsigma^2}\,\hat\epsilon+\varsigma z,"
        r"\;\varsigma=\eta\,\sigma_s\sqrt{1-e^{2(\lambda_t-\lambda_s)}}"
    )
    source: ClassVar[str] = "Song et al. 2020 (2010.02502), Eq. 12 and 16"

    def __post_init__(self):
        check_number("eta", self.eta, 0, 1)

    def step(self, denoise, path, x, t, s, state, noise):
        p = denoise(x, t)
        if self.eta == 0:
            return path.mix(p.x0, p.eps, s), None
        alpha_s, sigma_s = path.alpha(s), path.sigma(s)
        fresh = self.eta * sigma_s * (1 - (path.alpha(t) * sigma_s / (alpha_s * path.sigma(t))) ** 2).sqrt()
        kept = (sigma_s**2 - fresh**2).clamp(min=0).sqrt()  # at eta = 1 rounding may fall below 0
        x = per_sample(alpha_s, x) * p.x0 + per_sample(kept, x) * p.eps
        return x + per_sample(fresh, x) * noise(), None


def posterior_variance(beta: Tensor, sigma_t: Tensor, sigma_s: Tensor) -> Tensor:
    """``beta (sigma_s/sigma_t)^2``: the variance of q(x_s | x_t, x0), right for data that is a point."""
    return beta * (sigma_s / sigma_t) ** 2


def forward_variance(beta: Tensor, sigma_t: Tensor, sigma_s: Tensor) -> Tensor:
    """``beta``: the variance of the forward step, right for data that is N(0, I) on a variance-preserving path."""
    return beta


@dataclass(frozen=True, repr=False)
class DDPM(Sampler):
    """Ancestral sampling: the posterior mean of q(x_s | x_t, x0) at the predicted x0, plus noise."""

    variance: Callable[[Tensor, Tensor, Tensor], Tensor] = posterior_variance
    order: ClassVar[int] = 1
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = (
        r"x_s=\tfrac{\alpha_{t|s}\sigma_s^2}{\sigma_t^2}x_t+\tfrac{\alpha_s\beta_{t|s}}{\sigma_t^2}\hat x_0"
        r"+\varsigma z,\;\alpha_{t|s}=\tfrac{\alpha_t}{\alpha_s},\;\beta_{t|s}=\sigma_t^2-\alpha_{t|s}^2\sigma_s^2"
    )
    source: ClassVar[str] = "Ho et al. 2020 (2006.11239), Eq. 7 and Alg. 2"

    def step(self, denoise, path, x, t, s, state, noise):
        x0 = denoise(x, t).x0
        sigma_t, sigma_s = path.sigma(t), path.sigma(s)
        alpha_ts = path.alpha(t) / path.alpha(s)
        beta = sigma_t**2 - (alpha_ts * sigma_s) ** 2
        mean = (
            per_sample(alpha_ts * (sigma_s / sigma_t) ** 2, x) * x
            + per_sample(path.alpha(s) * beta / sigma_t**2, x) * x0
        )
        if (sigma_s == 0).all():  # clean data carries no noise: the last step is its mean
            return mean, None
        return mean + per_sample(self.variance(beta, sigma_t, sigma_s).sqrt(), x) * noise(), None


def forward_diffusion(path: Path, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """``g(t)^2`` of the path's own forward SDE."""
    g2 = path.drift_diffusion(t)[1]
    if not torch.isfinite(g2).all():
        raise SingularError(
            f"grid: the forward SDE of {type(path).__name__} is infinite at t = {float(t[0]):g} (alpha = 0); "
            "start the grid a little earlier, e.g. at 0.999 t_max"
        )
    return g2


@dataclass(frozen=True, repr=False)
class EulerMaruyama(Sampler):
    """The reverse SDE, one Euler step: the ODE's velocity, a push along the score, and noise that makes up for it.

    ``diffusion(path, t)`` is any rate w >= 0 (``(b,)``); the marginals do not depend on it. The default, the
    forward SDE's own ``g^2``, gives Song et al.'s reverse SDE; w = 0 is the probability-flow ODE.
    """

    diffusion: Callable[[Path, Tensor], Tensor] = forward_diffusion
    order: ClassVar[int] = 1
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = r"x_s=x_t+(s-t)\big[\hat u-\tfrac w2\nabla\log p_t\big]+\sqrt{w(t-s)}\,z"
    source: ClassVar[str] = "Song et al. 2021 (2011.13456), Eq. 6; any w: Ma et al. 2024, SiT (2401.08740), Eq. 4"

    def step(self, denoise, path, x, t, s, state, noise):
        p = denoise(x, t)
        w = self.diffusion(path, t)
        mean = x + per_sample(s - t, x) * (p.velocity - per_sample(w / 2, x) * p.score)
        if (path.sigma(s) == 0).all():
            return mean, None
        return mean + per_sample((w * (t - s)).sqrt(), x) * noise(), None
