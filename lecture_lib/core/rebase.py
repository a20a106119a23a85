"""A trained model on another schedule: only the noise-to-signal ratio matters, the rest is scaling."""

from __future__ import annotations

from dataclasses import replace

from lecture_lib.core.paths import Path
from lecture_lib.core.prediction import Denoise
from lecture_lib.tensors import per_sample


def rebase(denoise: Denoise, old: Path, new: Path) -> Denoise:
    """``denoise``, made for path ``old``, as a denoiser on path ``new``.

    A point of the new path at time t is a point of the old one at the time of equal sigma/alpha, times a scale
    (Karras et al. 2022, Sec. 2; Kingma & Gao 2023): no retraining, no approximation, as long as that ratio was trained.
    A ratio outside the old path (pure noise, for EDM) is answered at its nearest end.

    Raises:
        ShapeError: when called, if ``denoise`` speaks about another path than ``old``.
    """

    def rebased(x_t, t):
        t = t.double()
        t_old = old.time_of(new.lam(t))
        radius_old = (old.alpha(t_old) ** 2 + old.sigma(t_old) ** 2).sqrt()
        radius_new = (new.alpha(t) ** 2 + new.sigma(t) ** 2).sqrt()
        p = denoise(per_sample(radius_old / radius_new, x_t) * x_t, t_old).on(old)
        return replace(p, path=new, t=t, x_t=x_t)

    return rebased
