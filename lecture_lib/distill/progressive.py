"""Progressive distillation: a student learns to do in one step what its teacher does in two; then it is the teacher.

16 steps -> 8 -> 4 -> 2 -> 1             each round starts from the weights of the one before
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import X0, Denoise, Denoiser, Path, truncated_snr
from lecture_lib.distill.curricula import EqualPairs
from lecture_lib.distill.maps import Jump, stay
from lecture_lib.distill.semigroup import Leg, semigroup_loss, solved
from lecture_lib.errors import RangeError
from lecture_lib.samplers import DDIM, one_step
from lecture_lib.tensors import blend, check_count, randn_like


def ddim_jump(denoise: Denoise, path: Path, s: Float[Tensor, " b"]) -> Jump:
    """One DDIM step of a denoiser to ``s``, however far."""
    return lambda x_t, t: one_step(DDIM(), denoise, path, x_t, t, s)[0]


def clean_target(path: Path, leg: Leg) -> Float[Tensor, " b *d"]:
    """The x0 with which *one* DDIM step from x_t arrives at x_u.

        x~ = (x_u - (sigma_u/sigma_t) x_t) / (alpha_u - (sigma_u/sigma_t) alpha_t)

    It is neither the end of the teacher's trajectory nor its x0 at t, but what an N-step sampler needs to hear.

    Raises:
        RangeError: a leg of no length: no x0 is told by it.

    Source: Salimans & Ho 2022, algorithm 2.
    """
    _check_falling("leg", leg.u, leg.t)
    ratio, share = _weights(path, leg.t, leg.u)
    return blend((1 / share, leg.x_u), (-ratio / share, leg.x_t))


def _check_falling(name: str, s: Tensor, t: Tensor) -> None:
    if (s >= t).any():
        raise RangeError(f"{name}: some end at or above their t, expected s < t: a step of no length hears no x0")


def _weights(path: Path, t: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """A DDIM step from t to u is ``ratio x_t + share x0``."""
    t, u = t.double(), u.double()
    ratio = path.sigma(u) / path.sigma(t)
    return ratio, path.alpha(u) - ratio * path.alpha(t)


def progressive_loss(
    student: Denoise,
    teacher: Denoise,
    path: Path,
    x_t: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    s: Float[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """``max(SNR, 1) |x0_student - x~|^2``, mean over dimensions: a step of the student, two half steps of the teacher.

    Written as what it is, the semigroup loss of a jump that arrives: ``|x_s - x_s~|^2`` is the square above times the
    square of the step's weight on x0.

    Args:
        student, teacher: conditions bound.
        t, s: of the student's step, t > s.

    Raises:
        RangeError: some s is not below its t.

    Source: Salimans & Ho 2022 (2202.00512), algorithm 2 and section 4.
    """
    _check_falling("s", s, t)
    leg = solved(teacher, path, DDIM(), x_t, t, s, steps=2)
    _, share = _weights(path, t, s)
    weight = truncated_snr(X0, path.coeffs(t)) / share**2
    return semigroup_loss(ddim_jump(student, path, s), stay, leg, weight=weight)


@dataclass(frozen=True)
class Round:
    """One halving: the student's number of steps, and who learns from whom.

    Attributes:
        steps: N of the student; its teacher makes 2 N.
        teacher, student: the student starts as a copy of the teacher, or as the network it was given.
    """

    steps: int
    teacher: Denoise
    student: Denoiser

    def loss(
        self, model: Denoiser, batch: tuple[Tensor, ...], generator: torch.Generator | None = None
    ) -> Float[Tensor, " b"]:
        """``progressive_loss`` at one of the N steps of each sample: for ``training.train``; ``batch[0]`` is x0."""
        x0, path = batch[0], model.path
        t, s = EqualPairs(path, self.steps).sample(len(x0), generator=generator, device=x0.device)
        x_t = path.mix(x0, randn_like(x0, generator), t)
        return progressive_loss(model, self.teacher, path, x_t, t, s)


def halving(teacher: Denoiser, steps: int) -> Iterator[Round]:
    """Rounds of progressive distillation, until one step is left; train ``round.student`` before asking for the next.

        for round in halving(teacher, 16):                      # 8, 4, 2, 1
            for _ in train(round.student, round.loss, ...):
                pass

    Args:
        teacher: an unconditional denoiser; left as it is.
        steps: of the teacher, a power of two.

    Raises (at the first round):
        RangeError: a number of steps that cannot be halved down to one.

    Source: Salimans & Ho 2022, algorithm 2: 8192 steps to 4 on CIFAR-10, each round on the times ``t = i/N``.
    """
    if check_count("steps", steps) & (steps - 1):
        raise RangeError(f"steps: got {steps}, expected a power of two, to be halved until one is left")
    while steps > 1:
        steps //= 2
        student = copy.deepcopy(teacher).requires_grad_(True)
        yield Round(steps, copy.deepcopy(teacher).eval().requires_grad_(False), student)
        teacher = student
