"""Latent consistency (LCM, LCM-LoRA): the jumps of a *guided* teacher, learned with w as an input or held fixed.

    t, u = t_{n+k}, t_n                                                  k of the teacher's timesteps are skipped
    x_u  = DDIM step of x_t with  eps_null + w (eps_c - eps_null)        two passes, as one double batch
    L    = d( f_theta(x_t, t, c, w),  sg f_target(x_u, u, c, w) )        Huber

The student says in one pass, and in one jump, what its teacher says in two passes and many steps. Both halves of that
matter: with the teacher's guided x0 as target instead of f(x_u, u) it would learn guidance distillation, and its jumps
would end in means. LCM writes ``(1 + omega) eps_c - omega eps_null``: omega = w - 1.

Source: Luo et al. 2023, LCM (2310.04378), sections 4.1-4.3 and Alg. 1; Luo et al. 2023, LCM-LoRA (2311.05556).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import Denoiser, Path
from lecture_lib.core.conditions import Cond, check_cond, expand_cond, tell
from lecture_lib.distill.curricula import EqualPairs, Pair
from lecture_lib.distill.distances import Distance, huber
from lecture_lib.distill.maps import ConsistencyFunction
from lecture_lib.distill.semigroup import Leg, semigroup_loss, solved
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.guidance import fused, linear
from lecture_lib.samplers import DDIM, Sampler
from lecture_lib.tensors import check_batch, check_count, randn_like


@dataclass(frozen=True)
class SkippedSteps:
    """The pair law of LCM: ``t_{n+k}`` and ``t_n`` on a clock of ``timesteps`` equal parts, n + k a multiple of k.

    Stable Diffusion counts its timesteps from 0, so that there t_{n+k} is one of 19, 39, ..., 999 for k = 20; the last
    leg leads to clean data. Small k makes small errors of the solver, but the truth, which is known only at the data,
    has timesteps/k legs to travel: LCM found k = 20 to converge fastest, k = 1 hardly at all (their figure 3).

    Attributes:
        timesteps: N, the teacher's; the clock is t_max n/N.
        k: how many are skipped at once, a divisor of N.
    """

    timesteps: int = 1000
    k: int = 20

    def __post_init__(self):
        check_count("k", self.k)
        if check_count("timesteps", self.timesteps) % self.k:
            raise RangeError(f"k: got {self.k}, expected a divisor of timesteps = {self.timesteps}")

    @property
    def legs(self) -> int:
        """How many legs lead from noise to data."""
        return self.timesteps // self.k

    def sample(self, n: int, path: Path, *, generator: torch.Generator | None = None, device=None) -> Pair:
        """``n`` pairs (t, u), each leg as likely as any other; t = t_max, pure noise, is among them."""
        return EqualPairs(path, self.legs).sample(n, generator=generator, device=device)


def guided_leg(
    teacher: Denoiser,
    x0: Float[Tensor, " b *d"],
    cond: Cond,
    w: Float[Tensor, " b"] | float,
    *,
    pairs: SkippedSteps,
    solver: Sampler,
    substeps: int = 1,
    generator: torch.Generator | None = None,
) -> Leg:
    """x_t from the data, and x_u by ``substeps`` of the guided teacher (w = 1 is the plain conditional model)."""
    check_batch("x0", x0)
    t, u = pairs.sample(len(x0), teacher.path, generator=generator, device=x0.device)
    x_t = teacher.path.mix(x0, randn_like(x0, generator), t)
    return solved(fused(teacher, None, cond, linear(w)), teacher.path, solver, x_t, t, u, steps=substeps)


def latent_consistency_loss(
    student: Denoiser,
    teacher: Denoiser,
    x0: Float[Tensor, " b *d"],
    cond: Cond,
    w: Float[Tensor, " b"],
    *,
    pairs: SkippedSteps,
    target: Denoiser | None = None,
    distance: Distance | None = None,
    solver: Sampler | None = None,
    substeps: int = 1,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " b"]:
    """LCM's loss per sample: ``d(f(x_t, t, c, w), sg f_target(x_u, u, c, w))``.

    Args:
        student: hears what its teacher hears and ``w``; its x0 is read as f, so its parameterization has a boundary.
        teacher: a denoiser with and without condition; fixed.
        x0: clean latents.
        cond: conditions of the batch, as the teacher takes them.
        w: a guidance scale per sample, drawn by the caller; LCM: omega = w - 1 uniform in [2, 14].
        pairs: which points of the trajectory are compared.
        target: a slower copy of the student (LCM: moving average, 0.95); default the student itself.
        distance: default ``huber(0.001)``.
        solver: of the teacher's step; default DDIM.
        substeps: equal steps of the teacher in one leg; LCM takes one.

    Raises:
        ShapeError: different paths, or a condition or w that student or teacher does not know.
    """
    _check_same_path(student, teacher)
    options = {"pairs": pairs, "solver": solver or DDIM(), "substeps": substeps, "generator": generator}
    leg = guided_leg(teacher, x0, cond, w, **options)
    heard = expand_cond(check_cond(tell(cond, w=w.to(x0.dtype)), student.null), len(x0), x0.device)
    f, f_target = (ConsistencyFunction(model, heard) for model in (student, target or student))
    return semigroup_loss(f, f_target, leg, distance=distance or huber())


def adapter_consistency_loss(
    student: Denoiser,
    teacher: Denoiser,
    x0: Float[Tensor, " b *d"],
    cond: Cond,
    w: float,
    *,
    pairs: SkippedSteps,
    distance: Distance | None = None,
    solver: Sampler | None = None,
    substeps: int = 1,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " b"]:
    """LCM-LoRA's loss per sample: LCM's with one fixed w, which the student does not hear.

    The student is the teacher's own network with an adapter beside it (``nets.add_lora``), the only weights that train;
    the target is the student itself. What it learns is a direction in weight space, ``W_0 + l_1 dW_LCM``, to which
    another adapter's ``l_2 dW_style`` may be added. In use its guidance is in it already: w in [1, 2] on top.

    Args:
        student: hears what its teacher hears, and no more.
        w: the one guidance scale.
        teacher, x0, cond, pairs, distance, solver, substeps: as in ``latent_consistency_loss``.

    Raises:
        ShapeError: different paths, or a condition that student or teacher does not know.
    """
    _check_same_path(student, teacher)
    options = {"pairs": pairs, "solver": solver or DDIM(), "substeps": substeps, "generator": generator}
    leg = guided_leg(teacher, x0, cond, w, **options)
    f = ConsistencyFunction(student, cond)
    return semigroup_loss(f, f, leg, distance=distance or huber())


def _check_same_path(student: Denoiser, teacher: Denoiser) -> None:
    if student.path != teacher.path:
        raise ShapeError(f"student: speaks {student.path!r}, but its teacher {teacher.path!r}")
