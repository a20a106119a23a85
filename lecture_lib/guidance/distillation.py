"""Guidance distillation: one network learns what two passes of its teacher say, with w as an input."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.conditions import Cond, check_cond, expand_cond, tell
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
    cond: Cond,
    w: Float[Tensor, " b"],
    *,
    times: Times,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " b"]:
    """``|y_student(x_t, t, c, w) - y_guided|^2`` per sample, the teacher's guided prediction as fixed target.

    Meng et al. 2023 (2210.03142), stage one. Student and teacher share path and parameterization. It saves the second
    pass, not the steps.

    Args:
        student: hears what its teacher hears and w: ``{"label": (b,), "w": (b,)}`` where the teacher's condition is a
            tensor of labels, ``{..., "w": (b,)}`` where it is a dict, such as ``{"tokens", "mask", "vector"}``.
        teacher: a denoiser with and without condition; fixed.
        x0: clean data.
        cond: conditions of the batch, as the teacher takes them.
        w: a guidance scale per sample; 1 is the plain conditional model.
        times: where on the path to compare.

    Raises:
        ShapeError: different paths, or a condition that student or teacher does not know.
        RangeError: a label outside the classes.
    """
    check_batch("x0", x0)
    if student.path != teacher.path:
        raise ShapeError(f"student: speaks {student.path!r}, but its teacher {teacher.path!r}")
    b, device = x0.shape[0], x0.device
    heard = expand_cond(check_cond(tell(cond, w=w.to(x0.dtype)), student.null), b, device)
    t = times.sample(b, generator=generator, device=device)
    c = student.path.coeffs(t)
    x_t = student.path.mix(x0, randn_like(x0, generator), t)
    with torch.no_grad():
        guided = fused(teacher, None, cond, linear(w))(x_t, t)
        target = student.parameterization.encode(guided.x0, guided.eps, c)
    y = student.raw(x_t, t, heard, c)
    return (y - target).square().flatten(1).mean(1)
