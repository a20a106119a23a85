"""Distribution matching: all samples together are to look like the teacher's, whichever noise made which of them.

    x = G(z)      x_t = alpha x + sigma eps      g = (D_fake(x_t) - D_real(x_t)) / mean |x - D_real(x_t)|

g is the direction in which the reverse KL divergence of the two *noised* distributions falls. Noised, both reach
everywhere, so that it is finite where the clean ones do not overlap. D_real is the teacher; D_fake is a second network
that goes on learning what the student makes at present. A critic on top of it sees real data as well.

Source: Yin et al. 2023 (2311.18828, DMD), section 3.2; Yin et al. 2024 (2405.14867, DMD2), section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import Denoise, Denoiser, Path, Prediction, Times
from lecture_lib.core.conditions import Cond
from lecture_lib.distill.distances import squared
from lecture_lib.distill.maps import ConsistencyFunction, Jump
from lecture_lib.errors import ShapeError, UnknownNameError
from lecture_lib.nets import held, logistic_discriminator_loss, logistic_generator_loss
from lecture_lib.tensors import check_count, check_number, per_sample, randn_like

MatchingWeight = Callable[[Tensor, Prediction], Tensor]
"""``(x (b, ...), what the teacher says about x_t) -> (b,)``, the weight on ``D_fake - D_real``."""


def by_teacher_error(x: Float[Tensor, " b *d"], real: Prediction) -> Float[Tensor, " b"]:
    """``1 / mean |x - D_real(x_t)|``: every noise level pulls about equally hard (DMD, eq. 8; mean over dimensions)."""
    return 1 / (x - real.x0).abs().flatten(1).mean(1).clamp(min=1e-5)


def by_divergence(x: Float[Tensor, " b *d"], real: Prediction) -> Float[Tensor, " b"]:
    """``(alpha/sigma)^2``: the gradient is then d^-1 times that of ``KL(q_t | p_t)``, averaged over t.

    From ``d KL/d theta = E[alpha (s_fake - s_real) dG/d theta]`` and ``s = (alpha D - x_t)/sigma^2``.
    """
    return (real.coeffs.alpha / real.coeffs.sigma) ** 2


def matching_loss(
    real: Denoise,
    fake: Denoise,
    path: Path,
    x: Float[Tensor, " b *d"],
    eps: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    *,
    weight: MatchingWeight = by_teacher_error,
) -> Float[Tensor, " b"]:
    """``1/2 |x - sg(x - g)|^2``, mean over dimensions: a number without meaning whose gradient at x is ``g/d``.

    Args:
        real: the teacher, its condition bound; guided or not.
        fake: denoiser of what the student makes, its condition bound. No gradient reaches either of them.
        x: what the student made; the gradient flows through it alone, as through G.
        eps, t: noise and times at which the two are compared.
        weight: on ``D_fake - D_real``.
    """
    with torch.no_grad():
        x_t = path.mix(x, eps, t)
        p_real, p_fake = real(x_t, t), fake(x_t, t)
        g = per_sample(weight(x, p_real), x) * (p_fake.x0 - p_real.x0)
    return squared(x, (x - g).detach()) / 2


class FakeScore(nn.Module):
    """A denoiser of what the student makes, with a critic's head on its features: one network for both (DMD2).

    Args:
        denoiser: usually starts as a copy of the teacher.
        layer: name of the module within ``denoiser.network`` whose output the head reads, (b, ...).
        head: that output -> logits (b, ...).

    Raises:
        UnknownNameError: there is no such module.
    """

    def __init__(self, denoiser: Denoiser, layer: str, head: nn.Module) -> None:
        super().__init__()
        if layer not in (names := [name for name, _ in denoiser.network.named_modules() if name]):
            raise UnknownNameError(f"layer: got {layer!r}, expected one of {', '.join(names)}")
        self.denoiser, self.layer, self.head = denoiser, layer, head

    def judge(
        self, x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"], cond: Cond | None = None
    ) -> Float[Tensor, " b *k"]:
        """Logits, large for noised samples that look like noised data."""
        features = []
        tap = self.denoiser.network.get_submodule(self.layer)
        handle = tap.register_forward_hook(lambda _module, _inputs, said: features.append(said))
        try:
            self.denoiser(x_t, t, cond)
        finally:
            handle.remove()
        return self.head(features[0])


class Matched(nn.Module):
    """The two networks that train each other.

    Args:
        student: read as G: its x0 at ``(x_t, t)`` is a sample.
        fake: what follows it.

    Raises:
        ShapeError: they live on different paths.
    """

    def __init__(self, student: Denoiser, fake: FakeScore) -> None:
        super().__init__()
        if student.path != fake.denoiser.path:
            raise ShapeError(f"fake: speaks {fake.denoiser.path!r}, expected the student's {student.path!r}")
        self.student, self.fake = student, fake


@torch.no_grad()
def simulated(
    jump: Jump,
    path: Path,
    grid: Sequence[float],
    x_T: Float[Tensor, " b *d"],
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " b *d"]:
    """Backward simulation: the student's own x at the last time of ``grid``, reached by jumping and re-noising.

    Training on noised *data* instead would show it, at every time but the first, inputs that it never meets in use.

    Source: Yin et al. 2024, section 4.5.
    """
    x = x_T
    for t, s in pairwise(grid):
        x = jump(x, torch.full((len(x),), t, dtype=torch.float64, device=x.device))
        x = path.mix(x, randn_like(x, generator), torch.full((len(x),), s, dtype=torch.float64, device=x.device))
    return x


@dataclass(frozen=True)
class DMD2:
    """The two losses, and whose turn it is: ``training.train(Matched(...), ByStep(DMD2(...).loss_at), ...)``.

    One update is either the fake score's or the student's; the other network has no gradient in it, and Adam leaves
    what has no gradient alone. So one optimizer serves both, with a group each where their rates differ.

    Attributes:
        teacher: condition of the batch (None without) -> Denoise: ``teacher.given``, or a guided one.
        times: where on the path they are compared.
        grid: times at which the student is asked, falling from ``t_max``; a single one makes a one-step student.
        fake_updates: updates of the fake score for one of the student.
        gan_weight: of the critic's word in the student's loss; 3e-3 (ImageNet-64) to 1e-3 (Stable Diffusion 1.5).
        critic_weight: of the critic's own loss beside the denoising loss, 1e-2.

    A batch is (real data, condition) or (real data,).
    """

    teacher: Callable[[Cond | None], Denoise]
    times: Times
    grid: tuple[float, ...] = (1.0,)
    fake_updates: int = 5
    gan_weight: float = 3e-3
    critic_weight: float = 1e-2

    def __post_init__(self):
        check_count("grid", len(self.grid)), check_count("fake_updates", self.fake_updates)
        check_number("gan_weight", self.gan_weight, 0), check_number("critic_weight", self.critic_weight, 0)

    def loss_at(self, done: int) -> Callable[[Matched, tuple[Tensor, ...], torch.Generator], Tensor]:
        """The loss of the update after ``done`` others: ``fake_updates`` of the fake score's, then the student's."""
        return self.student_loss if done % (self.fake_updates + 1) == self.fake_updates else self.fake_loss

    def student_loss(self, pair: Matched, batch: tuple[Tensor, ...], generator: torch.Generator) -> Float[Tensor, " b"]:
        """Match the distributions, and please the critic."""
        (x0, *more), path = batch, pair.student.path
        cond = more[0] if more else None
        x = self.generated(pair.student, x0, cond, generator)
        t = self.times.sample(len(x), generator=generator, device=x.device)
        fake = pair.fake.denoiser.given(cond)
        matching = matching_loss(self.teacher(cond), fake, path, x, randn_like(x, generator), t)
        with held(pair.fake):
            logits = self._judged(pair.fake, x, cond, generator)
        return matching + self.gan_weight * logistic_generator_loss(logits)

    def fake_loss(self, pair: Matched, batch: tuple[Tensor, ...], generator: torch.Generator) -> Float[Tensor, " b"]:
        """Denoise what the student makes now, and tell it from data."""
        x0, *more = batch
        cond = more[0] if more else None
        with torch.no_grad():
            x = self.generated(pair.student, x0, cond, generator)
        denoising = pair.fake.denoiser.loss(x, cond, times=self.times, generator=generator)
        real, fake = (self._judged(pair.fake, y, cond, generator) for y in (x0, x))
        return denoising + self.critic_weight * logistic_discriminator_loss(real, fake)

    def generated(
        self, student: Denoiser, like: Float[Tensor, " b *d"], cond: Cond | None, generator: torch.Generator
    ) -> Float[Tensor, " b *d"]:
        """What the student makes at one of its times, drawn at random; the gradient flows through the last jump."""
        path, jump = student.path, ConsistencyFunction(student, cond)
        last = int(torch.randint(len(self.grid), (), generator=generator, device=generator.device))
        times = [torch.full((len(like),), t, dtype=torch.float64, device=like.device) for t in self.grid[: last + 1]]
        x_T = path.mix(torch.zeros_like(like), randn_like(like, generator), times[0])
        return jump(simulated(jump, path, self.grid[: last + 1], x_T, generator=generator), times[-1])

    def _judged(self, fake: FakeScore, x: Tensor, cond: Cond | None, generator: torch.Generator) -> Tensor:
        t = self.times.sample(len(x), generator=generator, device=x.device)
        return fake.judge(fake.denoiser.path.mix(x, randn_like(x, generator), t), t, cond)
