"""Repairs that need only the guided prediction itself: keep x0 where data lives."""

from __future__ import annotations

from torch import Tensor

from lecture_lib.core.prediction import Denoise, Prediction
from lecture_lib.tensors import check_number


def clipped(denoise: Denoise, bound: float = 1.0) -> Denoise:
    """x0 clamped to [-bound, bound] at every step (Ho et al. 2020's static thresholding).

    Not affine: after clipping, guidance in x0, eps and v are no longer the same thing.
    """
    bound = check_number("bound", bound, 1e-6)

    def clip(x_t: Tensor, t: Tensor) -> Prediction:
        p = denoise(x_t, t)
        return p.with_x0(p.x0.clamp(-bound, bound))

    return clip


def thresholded(denoise: Denoise, percentile: float = 0.995) -> Denoise:
    """Dynamic thresholding: clip x0 at its own ``percentile`` s of absolute values, and divide by s, if s > 1.

    Per sample (Saharia et al. 2022, Imagen, Sec. 2.3): saturated pixels move inward instead of sticking at the edge.
    The default is meant for large images; of 64 pixels it is nearly the maximum, there 0.9 does what the paper means.
    """
    percentile = check_number("percentile", percentile, 0, 1)

    def threshold(x_t: Tensor, t: Tensor) -> Prediction:
        p = denoise(x_t, t)
        s = p.x0.flatten(1).abs().quantile(percentile, dim=1).clamp(min=1)
        s = s.reshape(-1, *(1,) * (p.x0.ndim - 1))
        return p.with_x0(p.x0.clamp(-s, s) / s)

    return threshold
