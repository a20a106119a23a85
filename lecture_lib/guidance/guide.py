"""Guidance: two denoisers in, one denoiser out. Every method here returns an ordinary ``Denoise``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lecture_lib.core.conditions import Cond, check_cond, expand_cond, map_cond
from lecture_lib.core.denoiser import Denoiser
from lecture_lib.core.paths import Path
from lecture_lib.core.prediction import Denoise, Prediction
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.guidance.rules import Rule, Scale, linear
from lecture_lib.tensors import check_number, per_sample


def guide(reference: Denoise, main: Denoise, rule: Rule) -> Denoise:
    """``rule`` applied to both predictions at every call: two passes. Both must speak about the same path."""

    def denoise(x_t: Tensor, t: Tensor) -> Prediction:
        m = main(x_t, t)
        return rule(reference(x_t, t).on(m.path), m)

    return denoise


def extrapolate(reference: Denoise, main: Denoise, w: Scale) -> Denoise:
    """``reference + w (main - reference)``.

    One function, three names: classifier-free guidance (reference = unconditional), negative prompt (reference =
    the unwanted prompt), autoguidance (reference = a weaker model; Karras et al. 2024, 2406.02507).
    """
    return guide(reference, main, linear(w))


def fused(denoiser: Denoiser, reference: Cond | int | None, main: Cond | int | None, rule: Rule) -> Denoise:
    """The same as ``guide(denoiser.given(reference), denoiser.given(main), rule)`` in *one* pass over a batch of 2b.

    Same arithmetic, same number of network evaluations per sample, fewer and fuller kernel launches.
    """
    if denoiser.null is None:
        raise ShapeError("denoiser: its network has no condition, so there are no two branches to fuse")
    reference, main = check_cond(reference, denoiser.null), check_cond(main, denoiser.null)

    def denoise(x_t: Tensor, t: Tensor) -> Prediction:
        b = x_t.shape[0]
        cond = map_cond(lambda r, m: torch.cat([r, m]), *(expand_cond(c, b, x_t.device) for c in (reference, main)))
        both = denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), cond)
        halves = [replace(both, t=t, x_t=x_t, x0=both.x0[k], eps=both.eps[k]) for k in (slice(0, b), slice(b, None))]
        return rule(*halves)

    return denoise


def compose(reference: Denoise, concepts: Sequence[tuple[Denoise, float]]) -> Denoise:
    """``reference + sum_i w_i (concept_i - reference)``: AND for w_i > 0, NOT for w_i < 0 (Liu et al. 2022, Eq. 11).

    The score of ``p(x) prod_i (p(x|c_i)/p(x))^w_i`` at each single noise level.
    """
    weights = [check_number(f"concepts[{i}] weight", w) for i, (_, w) in enumerate(concepts)]

    def denoise(x_t: Tensor, t: Tensor) -> Prediction:
        base = reference(x_t, t)
        parts = [concept(x_t, t).on(base.path) for concept, _ in concepts]
        x0 = base.x0 + sum(w * (p.x0 - base.x0) for w, p in zip(weights, parts, strict=True))
        eps = base.eps + sum(w * (p.eps - base.eps) for w, p in zip(weights, parts, strict=True))
        return replace(base, x0=x0, eps=eps, nfe=base.nfe + sum(p.nfe for p in parts))

    return denoise


def interval(path: Path, guided: Denoise, plain: Denoise, low: float, high: float) -> Denoise:
    """``guided`` where the noise level sigma/alpha lies in (low, high], ``plain`` elsewhere (Kynkaanniemi et al. 2024).

    A batch that lies wholly on one side costs only that side: the saving is real, and counted in nfe.
    """
    if not 0 <= low < high:
        raise RangeError(f"low, high: got {low}, {high}, expected noise levels with 0 <= low < high")

    def denoise(x_t: Tensor, t: Tensor) -> Prediction:
        # Shrunk by a hair, so that rounding (0.9/(1 - 0.9) > 9) does not decide about an inclusive bound.
        level = path.sigma(t.double()) / path.alpha(t.double()) * (1 - 1e-12)
        inside = (level > low) & (level <= high)
        if inside.all() or not inside.any():
            return (guided if inside.all() else plain)(x_t, t).on(path)
        a, b = guided(x_t, t).on(path), plain(x_t, t).on(path)
        x0, eps = (torch.where(per_sample(inside, y) > 0, y, z) for y, z in ((a.x0, b.x0), (a.eps, b.eps)))
        return replace(a, x0=x0, eps=eps, nfe=a.nfe + b.nfe)

    return denoise
