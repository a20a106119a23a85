"""Students on the ring that learn jumps: in continuous time, between any two times, by halving.

from the exact teacher     ring-scd, ring-ctm, ring-pd-8 ... ring-pd-1
from points alone          ring-sct, ring-shortcut, ring-meanflow
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import (
    VELOCITY,
    Denoise,
    Denoiser,
    LogNormalNoise,
    Path,
    RectifiedFlow,
    Times,
    Trigonometric,
    UniformTimes,
    V,
    uniform_grid,
)
from lecture_lib.distill import (
    FlowMapModel,
    Round,
    ctm_loss,
    diagonal_loss,
    dyadic_jumps,
    jump_along,
    mean_flow_loss,
    noise_velocity,
    scm_loss,
    shortcut_loss,
    squared,
)
from lecture_lib.nets import TimeMLP, adaptive_weight
from lecture_lib.oracles import GaussianMixture
from lecture_lib.samplers import DDIM, ConsistencyMultistep, last, sample
from lecture_lib.tensors import randn_like
from lecture_lib.training import Loss
from lecture_lib.zoo.plane import SIGMA_DATA, PlaneRecipe, ring
from lecture_lib.zoo.recipe import Batch, trained

STRAIGHT, CIRCLE = RectifiedFlow(), Trigonometric()


def calm(path: Path, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Network time ``10 t/t_max``: a tangent is multiplied by the slope of the network time, so a small one is safer.

    By argument: nothing else was tried.
    """
    return 10 * t / path.t_max


@dataclass(frozen=True, kw_only=True)
class JumpRecipe(PlaneRecipe):
    """A flow map on the straight path; it draws by jumps of equal length, without noise between them."""

    def build(self) -> FlowMapModel:
        null = {"s": torch.tensor(0.0)}
        return FlowMapModel(Denoiser(self.network(), STRAIGHT, VELOCITY, null=null, network_time=calm))

    @torch.no_grad()
    def draw(self, model: FlowMapModel, n: int, *, steps: int, generator: torch.Generator) -> Float[Tensor, " n 2"]:
        noise = torch.randn(n, 2, generator=generator)
        return last(jump_along(model.given(None), STRAIGHT, uniform_grid(STRAIGHT, steps), noise))


@dataclass(frozen=True, kw_only=True)
class CtmRecipe(JumpRecipe):
    """Soft consistency with the exact teacher, and denoising weighed so that both pull alike."""

    solver_steps: int = 2

    def loss(self, model: FlowMapModel, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        (x0,) = batch
        eps, r = randn_like(x0, generator), torch.rand(3, len(x0), generator=generator, dtype=torch.float64)
        t = r[0]
        s = t * r[1]
        u = s + (t - s) * r[2]
        teacher, x_t = ring().denoise(STRAIGHT), STRAIGHT.mix(x0, eps, t)
        soft = ctm_loss(model, teacher, x_t, t, u, s, steps=self.solver_steps)
        denoising = diagonal_loss(model, x0, eps, t)
        weight = adaptive_weight(soft.mean(), denoising.mean(), model.denoiser.network.leave.weight)
        return soft + weight * denoising


@dataclass(frozen=True, kw_only=True)
class ShortcutRecipe(JumpRecipe):
    """Flow matching on most of a batch, self-consistency of dyadic jumps on the rest; no teacher."""

    levels: int = 6
    share: float = 0.25  # of the batch that learns jumps

    def loss(self, model: FlowMapModel, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        (x0,) = batch
        eps, k = randn_like(x0, generator), int(self.share * len(x0))
        t, s = dyadic_jumps(k, self.levels, generator=generator)
        jumps = shortcut_loss(model, STRAIGHT.mix(x0[:k], eps[:k], t), t, s)
        anywhere = torch.rand(len(x0) - k, generator=generator, dtype=torch.float64)
        return torch.cat([jumps, diagonal_loss(model, x0[k:], eps[k:], anywhere)])


@dataclass(frozen=True, kw_only=True)
class MeanFlowRecipe(JumpRecipe):
    """The average velocity from single pairs of data and noise; no teacher."""

    times: Times
    share: float = 0.25  # of the batch that has s < t

    def loss(self, model: FlowMapModel, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        (x0,) = batch
        eps, b = randn_like(x0, generator), len(x0)
        pair = torch.stack([self.times.sample(b, generator=generator) for _ in range(2)])
        t, s = pair.amax(0), pair.amin(0)
        s = torch.where(torch.rand(b, generator=generator) < self.share, s, t)
        x_t, v = STRAIGHT.mix(x0, eps, t), noise_velocity(STRAIGHT, x0, eps, t)
        # Not the paper's normalised distance: it weighs each pair by how wrong it happens to be, which in many
        # dimensions is much the same for all, but in two should move the mean (by argument; not tried).
        return mean_flow_loss(model, x_t, t, s, v, distance=squared)


@dataclass(frozen=True, kw_only=True)
class ScmRecipe(PlaneRecipe):
    """sCM on the ring in units of its standard deviation; a subclass says where dx/dt comes from.

    It starts as a denoiser, as sCM does, which here is the first part of the same training, and does without the
    adaptive weight. A first version with the weight and without that start ended at a distance of 0.26 in one step,
    this one at 0.04; which of the two it was, was not tried apart.
    """

    times: Times
    denoising: int  # updates before the first tangent
    warm_up: int  # updates in which r goes from 0 to 1
    c: float = 0.1

    def build(self) -> Denoiser:
        return Denoiser(self.network(), CIRCLE, V, network_time=calm)

    def loss_at(self, done: int) -> Loss:
        if done < self.denoising:
            return self.denoise
        return partial(self.loss, warm=min(1.0, (done - self.denoising) / self.warm_up))

    def denoise(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """The plain loss of v."""
        return model.loss(batch[0] / SIGMA_DATA, times=self.times, generator=generator)

    def loss(self, model: Denoiser, batch: Batch, generator: torch.Generator, warm: float = 1.0) -> Float[Tensor, " b"]:
        x0 = batch[0] / SIGMA_DATA
        eps = randn_like(x0, generator)
        t = self.times.sample(len(x0), generator=generator)
        x_t = CIRCLE.mix(x0, eps, t)
        return scm_loss(model, x_t, t, self.velocity(x0, eps, x_t, t), warm=warm, c=self.c)

    def velocity(self, x0: Tensor, eps: Tensor, x_t: Tensor, t: Tensor) -> Float[Tensor, " b 2"]:
        """That of the pair: consistency training."""
        return noise_velocity(CIRCLE, x0, eps, t)

    @torch.no_grad()
    def draw(self, model: Denoiser, n: int, *, steps: int, generator: torch.Generator) -> Float[Tensor, " n 2"]:
        noise, grid = torch.randn(n, 2, generator=generator), uniform_grid(CIRCLE, steps)
        frames = sample(model.given(None), CIRCLE, ConsistencyMultistep(), grid, noise, generator=generator)
        return SIGMA_DATA * last(frames)


@dataclass(frozen=True, kw_only=True)
class ScdRecipe(ScmRecipe):
    """Consistency distillation: the velocity of the exact teacher."""

    def velocity(self, x0: Tensor, eps: Tensor, x_t: Tensor, t: Tensor) -> Float[Tensor, " b 2"]:
        world = ring()
        unit = GaussianMixture(world.weights, world.means / SIGMA_DATA, world.variances[:, 0] / SIGMA_DATA**2)
        return unit.denoise(CIRCLE)(x_t, t).velocity


@dataclass(frozen=True, kw_only=True)
class HalvedRecipe(PlaneRecipe):
    """One round of progressive distillation: N steps that do what 2 N of its teacher did."""

    student_steps: int
    teacher: HalvedRecipe | None = None  # None: the ring's exact denoiser, which has no weights to start from

    @property
    def few(self) -> tuple[int, ...]:
        """It can draw in N steps and no other number."""
        return (self.student_steps,)

    def build(self) -> Denoiser:
        return Denoiser(self.network(), STRAIGHT, VELOCITY)

    def prepare(self, model: Denoiser) -> None:
        if self.teacher is not None:
            model.load_state_dict(trained(self.teacher).state_dict())

    def loss(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return Round(self.student_steps, self._taught(), model).loss(model, batch, generator)

    def _taught(self) -> Denoise:
        return ring().denoise(STRAIGHT) if self.teacher is None else trained(self.teacher)

    @torch.no_grad()
    def draw(self, model: Denoiser, n: int, *, steps: int, generator: torch.Generator) -> Float[Tensor, " n 2"]:
        noise = torch.randn(n, 2, generator=generator)
        return last(sample(model.given(None), STRAIGHT, DDIM(), uniform_grid(STRAIGHT, steps), noise))


_map = partial(TimeMLP, width=64, depth=3, numbers={"s": 1.0})
_plain = partial(TimeMLP, width=64, depth=3)
SCD = ScdRecipe(
    name="ring-scd",
    about="consistency in continuous time, distilled from the exact teacher (sCD)",
    network=_plain,
    steps=4000,
    batch_size=256,
    times=LogNormalNoise(CIRCLE, 0.0, 1.6),
    denoising=2500,
    warm_up=500,
)
# Pairs are random where a teacher is not, and a tangent divided by its own length has another mean: hence a large c (by
# argument; no other was tried).
SCT = ScmRecipe(
    name="ring-sct",
    about="consistency in continuous time, from points alone (sCT)",
    network=_plain,
    steps=4000,
    batch_size=256,
    times=LogNormalNoise(CIRCLE, 0.0, 1.6),
    denoising=2500,
    warm_up=500,
    c=10.0,
)
CTM = CtmRecipe(
    name="ring-ctm",
    about="consistency trajectory model: soft consistency with the exact teacher, and denoising",
    network=_map,
    steps=2000,
    batch_size=256,
)
SHORTCUT = ShortcutRecipe(
    name="ring-shortcut",
    about="shortcut model: flow matching, and jumps that are two jumps of half the length; from points alone",
    network=_map,
    steps=3500,
    batch_size=256,
)
MEAN_FLOW = MeanFlowRecipe(
    name="ring-meanflow",
    about="MeanFlow: the average velocity, from points alone",
    network=_map,
    steps=2500,
    batch_size=256,
    times=UniformTimes(),
    share=0.5,
)


def _halved(steps: int, teacher: HalvedRecipe | None) -> HalvedRecipe:
    taught = "the exact denoiser" if teacher is None else teacher.name
    return HalvedRecipe(
        name=f"ring-pd-{steps}",
        about=f"progressive distillation: {steps} step{'s' * (steps > 1)} for {2 * steps} of {taught}",
        network=_plain,
        steps=4000 if teacher is None else 2000,
        batch_size=512,
        student_steps=steps,
        teacher=teacher,
    )


PD_8 = _halved(8, None)
PD_4 = _halved(4, PD_8)
PD_2 = _halved(2, PD_4)
PD_1 = _halved(1, PD_2)

RING_JUMPS = (SCD, SCT, CTM, SHORTCUT, MEAN_FLOW, PD_8, PD_4, PD_2, PD_1)
