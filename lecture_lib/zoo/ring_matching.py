"""Students on the ring that learn straight paths, whole distributions, or from a critic; all on the straight path."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import VELOCITY, Denoiser, RectifiedFlow, UniformTimes, uniform_grid
from lecture_lib.data import Batches
from lecture_lib.distill import (
    DMD2,
    AdversarialConsistency,
    ConsistencyFunction,
    Coupled,
    EqualPairs,
    FakeScore,
    Judged,
    Leg,
    Matched,
    endpoint_loss,
    reflow_loss,
    solved,
    solved_pairs,
)
from lecture_lib.nets import PointCritic, TimeMLP, held, logistic_discriminator_loss, logistic_generator_loss
from lecture_lib.samplers import ConsistencyMultistep, Euler, Heun, last, sample
from lecture_lib.tensors import randn_like
from lecture_lib.training import Loss
from lecture_lib.zoo.plane import PlaneRecipe, ring
from lecture_lib.zoo.recipe import Batch, Recipe, trained

LINE = RectifiedFlow()
PAIRS = 65_536
SOLVER_STEPS = 64  # of Heun, for pairs
NETWORK = partial(TimeMLP, width=64)
LAST_LAYER = "network.leave.weight"


def noise(n: int, generator: torch.Generator) -> Float[Tensor, " n 2"]:
    """``n`` points of pure noise, x at t = 1."""
    return torch.randn(n, 2, generator=generator)


def flow_pairs(teacher: Recipe | None = None) -> Coupled:
    """``PAIRS`` noises and where a flow takes them: the ring's exact one, or a trained recipe's."""
    denoise = ring().denoise(LINE) if teacher is None else trained(teacher).given(None)
    eps = noise(PAIRS, torch.Generator().manual_seed(4))
    return solved_pairs(denoise, LINE, Heun(), uniform_grid(LINE, SOLVER_STEPS), eps)


def by_euler(flow: Denoiser, eps: Float[Tensor, " b 2"], steps: int) -> Float[Tensor, " b 2"]:
    """Where a flow takes noise in equal Euler steps."""
    return last(sample(flow.given(None), LINE, Euler(), uniform_grid(LINE, steps), eps))


@dataclass(frozen=True, kw_only=True)
class FlowRecipe(PlaneRecipe):
    """Rectified flow: the mean velocity of straight lines between data and fresh noise; Euler draws."""

    def build(self) -> Denoiser:
        return Denoiser(self.network(), LINE, VELOCITY)

    def loss(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return model.loss(batch[0], times=UniformTimes(), generator=generator)

    def draw(self, model: Denoiser, n: int, *, steps: int, generator: torch.Generator) -> Float[Tensor, " n 2"]:
        return by_euler(model, noise(n, generator), steps)


@dataclass(frozen=True, kw_only=True)
class ReflowRecipe(FlowRecipe):
    """The next rectified flow, on pairs of the ring's exact flow; it starts as the network that learned that one."""

    first: FlowRecipe

    def prepare(self, model: Denoiser) -> None:
        model.load_state_dict(trained(self.first).state_dict())

    def batches(self) -> Batches:
        return Batches(flow_pairs(), self.batch_size)

    def loss(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return reflow_loss(model, Coupled(*batch), times=UniformTimes(), generator=generator)


class OneStepRecipe(PlaneRecipe):
    """A student that is asked once, at t = 1, and whose x0 is its sample."""

    few: ClassVar[tuple[int, ...]] = (1,)

    def build(self) -> nn.Module:
        return Denoiser(self.network(), LINE, VELOCITY)

    @torch.no_grad()
    def draw(self, model: Denoiser, n: int, *, steps: int, generator: torch.Generator) -> Float[Tensor, " n 2"]:
        return generated(model, noise(n, generator))


def generated(student: Denoiser, eps: Float[Tensor, " b 2"]) -> Float[Tensor, " b 2"]:
    """``G(eps)``: the student's x0 at t = 1."""
    return student(eps, torch.ones(len(eps))).x0


@dataclass(frozen=True, kw_only=True)
class RegressionRecipe(OneStepRecipe):
    """One step, learned by regression on the pairs of a flow; it starts as that flow's network."""

    teacher: FlowRecipe

    def prepare(self, model: Denoiser) -> None:
        model.load_state_dict(trained(self.teacher).state_dict())

    def batches(self) -> Batches:
        return Batches(flow_pairs(self.teacher), self.batch_size)

    def loss(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return endpoint_loss(ConsistencyFunction(model), LINE, Coupled(*batch))


@dataclass(frozen=True, kw_only=True)
class MatchingRecipe(OneStepRecipe):
    """DMD2 against the exact score; student and fake score start as the first flow's network.

    Both are trained, and kept, as one module: see ``distill.DMD2``.
    """

    first: FlowRecipe
    fake_updates: int = 2
    gan_weight: float = 3e-3

    def build(self) -> Matched:
        student, fake = (Denoiser(self.network(), LINE, VELOCITY) for _ in range(2))
        width = fake.network.enter.out_features
        return Matched(student, FakeScore(fake, "layers.1", PointCritic(width, width=32, depth=1)))

    def prepare(self, model: Matched) -> None:
        for network in (model.student, model.fake.denoiser):
            network.load_state_dict(trained(self.first).state_dict())

    def loss_at(self, done: int) -> Loss:
        return self._game().loss_at(done)

    def loss(self, model: Matched, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return self._game().student_loss(model, batch, generator)

    def _game(self) -> DMD2:
        exact = ring().denoise(LINE)
        return DMD2(
            lambda cond: exact, UniformTimes(0.02, 0.98), fake_updates=self.fake_updates, gan_weight=self.gan_weight
        )

    def draw(self, model: Matched, n: int, *, steps: int, generator: torch.Generator) -> Float[Tensor, " n 2"]:
        return super().draw(model.student, n, steps=steps, generator=generator)


@dataclass(frozen=True, kw_only=True)
class AdversarialRecipe(PlaneRecipe):
    """Consistency distillation from the exact flow in equal steps, with a critic after half of the training."""

    first: FlowRecipe
    legs: int = 16
    gan_weight: float = 1.0

    def build(self) -> Judged:
        return Judged(Denoiser(self.network(), LINE, VELOCITY), PointCritic(), LAST_LAYER)

    def prepare(self, model: Judged) -> None:
        model.student.load_state_dict(trained(self.first).state_dict())

    def loss_at(self, done: int) -> Loss:
        return self._game().loss_at(done)

    def loss(self, model: Judged, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return self._game().student_loss(model, batch, generator)

    def _game(self) -> AdversarialConsistency:
        return AdversarialConsistency(self._leg, gan_weight=self.gan_weight, gan_start=self.steps // 2)

    def _leg(self, x0: Tensor, generator: torch.Generator) -> Leg:
        t, u = EqualPairs(LINE, self.legs).sample(len(x0), generator=generator)
        return solved(ring().denoise(LINE), LINE, Heun(), LINE.mix(x0, randn_like(x0, generator), t), t, u)

    @torch.no_grad()
    def draw(self, model: Judged, n: int, *, steps: int, generator: torch.Generator) -> Float[Tensor, " n 2"]:
        denoise, grid = model.student.given(None), uniform_grid(LINE, steps)
        return last(sample(denoise, LINE, ConsistencyMultistep(), grid, noise(n, generator), generator=generator))


@dataclass(frozen=True, kw_only=True)
class GanRecipe(OneStepRecipe):
    """A plain GAN, non-saturating logistic losses in turns: no teacher, no path."""

    def build(self) -> Judged:
        return Judged(super().build(), PointCritic(), LAST_LAYER)

    def loss_at(self, done: int) -> Loss:
        return self.loss if done % 2 else self.critic_loss

    def loss(self, model: Judged, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        with held(model.critic):
            return logistic_generator_loss(model.critic(generated(model.student, randn_like(batch[0], generator))))

    def critic_loss(self, model: Judged, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Tell data from what the generator makes."""
        fakes = generated(model.student, randn_like(batch[0], generator)).detach()
        return logistic_discriminator_loss(model.critic(batch[0]), model.critic(fakes))

    def draw(self, model: Judged, n: int, *, steps: int, generator: torch.Generator) -> Float[Tensor, " n 2"]:
        return super().draw(model.student, n, steps=steps, generator=generator)


FLOW = FlowRecipe(
    name="ring-flow",
    about="rectified flow on the ring, velocity",
    network=NETWORK,
    steps=10_000,
    batch_size=256,
)
REFLOW = ReflowRecipe(
    name="ring-reflow",
    about="2-rectified flow: straight lines between each noise and where the exact flow takes it",
    network=NETWORK,
    steps=10_000,
    batch_size=256,
    first=FLOW,
)
INSTAFLOW = RegressionRecipe(
    name="ring-instaflow",
    about="one step, distilled from the 2-rectified flow on noise alone",
    network=NETWORK,
    steps=4_000,
    batch_size=256,
    lr=1e-3,
    teacher=REFLOW,
)
DMD = MatchingRecipe(
    name="ring-dmd",
    about="DMD2 in one step: matched distributions, a fake score, a critic on its features",
    network=NETWORK,
    steps=6_000,
    batch_size=128,
    lr=2e-3,
    first=FLOW,
)
ACM = AdversarialRecipe(
    name="ring-acm",
    about="consistency distillation with a critic",
    network=NETWORK,
    steps=4_000,
    batch_size=256,
    lr=1e-3,
    first=FLOW,
)
GAN = GanRecipe(
    name="ring-gan",
    about="a plain GAN: what a critic alone does to eight modes",
    network=NETWORK,
    steps=4_000,
    batch_size=256,
    lr=1e-3,
)
RING_MATCHING = (FLOW, REFLOW, INSTAFLOW, DMD, ACM, GAN)  # in the order in which they lean on each other
