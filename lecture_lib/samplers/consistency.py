"""Multistep sampling of consistency models: jump to the data, re-noise, jump again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lecture_lib.core.paths import Path
from lecture_lib.core.prediction import Denoise, Prediction
from lecture_lib.samplers.base import Sampler
from lecture_lib.samplers.weights import fresh
from lecture_lib.tensors import blend, check_number, per_sample, root


def consistency(f: Callable[[Tensor, Tensor], Tensor], path: Path) -> Denoise:
    """A consistency function ``(x_t, t) -> x_end`` as a ``Denoise``: its value is x0, eps what remains of x_t."""

    def denoise(x_t: Tensor, t: Tensor) -> Prediction:
        c, x0 = path.coeffs(t), f(x_t, t)
        return Prediction(path, t, x_t, x0, (x_t - per_sample(c.alpha, x0) * x0) / per_sample(c.sigma, x0))

    return denoise


@dataclass(frozen=True, repr=False)
class ConsistencyMultistep(Sampler):
    """The model's x0 *is* its sample at time ``end``; each further step adds fresh noise up to s and jumps again.

    ``end`` is the time that the consistency function maps to: 0.002 for Song et al.'s models, 0 for latent consistency
    models. With a plain denoiser the same loop is DDIM with all its noise fresh, and in few steps gives blurred means.
    """

    end: float = 0.0
    order: ClassVar[int] = 1
    deterministic: ClassVar[bool] = False
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = (
        r"x_s=\tfrac{\alpha_s}{\alpha_{end}}f(x_t,t)+\sqrt{\sigma_s^2-\tfrac{\alpha_s^2}{\alpha_{end}^2}\sigma_{end}^2}\,z"
    )
    source: ClassVar[str] = "Song et al. 2023 (2303.01469), Alg. 1; Luo et al. 2023, LCM (2310.04378)"

    def __post_init__(self):
        check_number("end", self.end, 0)

    def step(self, denoise, x, t, s, state, noise):
        f = denoise(x, t).x0
        if s.time <= self.end:
            return f, None
        end = t.path.at(self.end)
        ratio = s.alpha / end.alpha
        return blend((ratio, f), *fresh(root(s.sigma**2 - (ratio * end.sigma) ** 2), noise)), None
