"""Guidance distillation: one network learns what two passes of its teacher say, with w as an input."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.core.denoiser import Denoiser
from lecture_lib.core.times import Times
from lecture_lib.errors import ShapeError
from lecture_lib.guidance.guide import fused
from lecture_lib.guidance.rules import linear
from lecture_lib.tensors import check_batch, randn_like


def guidance_distillation_loss(
    student: Denoiser,
    teacher: Denoiser,
    x0: Float[Tensor, " b *d"],
    label: Int[Tensor, " b"],
    w: Float[Tensor, " b"],
    *,
    times: Times,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " b"]:
    """``|y_student(x_t, t, c, w) - y_guided|^2`` per sample, the teacher's guided prediction as fixed target.

    Meng et al. 2023 (2210.03142), stage one. Student and teacher share path and parameterization; the student's
    condition is ``{"label": (b,), "w": (b,)}``. It saves the second pass, not the steps.
    """
    check_batch("x0", x0)
    if student.path != teacher.path:
        raise ShapeError(f"student: speaks {student.path!r}, but its teacher {teacher.path!r}")
    t = times.sample(x0.shape[0], generator=generator, device=x0.device)
    c = student.path.coeffs(t)
    x_t = student.path.mix(x0, randn_like(x0, generator), t)
    with torch.no_grad():
        guided = fused(teacher, None, label, linear(w))(x_t, t)
        target = student.parameterization.encode(guided.x0, guided.eps, c)
    y = student.raw(x_t, t, {"label": label, "w": w.to(x0.dtype)}, c)
    return (y - target).square().flatten(1).mean(1)
