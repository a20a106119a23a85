"""Consistency students on the ring, in discrete time, and the denoiser that some students start from.

All hear the logarithm of the noise level and none has a target average (theta^- is theta without gradient, as in CD on
CIFAR-10, iCT and ECT): what is left of each method is its leg, its pairs, its distance and its weight.

CT and CD, with the square, uniform n and weight 1, end two to three times as far from the ring as iCT and ECT. It is
mostly the weight. With iCT's 1/(t - u) and all else as it is, CD ends at 0.019 instead of 0.089 and CT at 0.055
instead of 0.108: unweighted squares let the wide gaps at high noise, where targets vary most, drown the narrow ones
near the data. Lognormal n alone brings CT to 0.061, iCT's grid with both to 0.042 and its distance to 0.035. Their
grids are not to blame (what CD would learn in the end, ``distill.exact``, is near the ring), nor is the square: with
the plain norm CD ends at 0.125, and CT collapses onto the middle, the median of what its first targets say.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import EDM, Denoiser, LogNormalNoise, Path, edm, karras_grid
from lecture_lib.core.denoiser import quarter_log_noise, unit_input
from lecture_lib.distill import (
    ConsistencyFunction,
    Jump,
    LogNormalPairs,
    NeighbourPairs,
    RatioPairs,
    cd_loss,
    consistency_scalings,
    ct_loss,
    ct_points,
    ect_loss,
    ect_stage,
    ict_loss,
    ict_points,
    multistep_grid,
)
from lecture_lib.nets import TimeMLP
from lecture_lib.samplers import ConsistencyMultistep, DPMSolverPP2M, last, sample
from lecture_lib.training import Loss
from lecture_lib.zoo.plane import SIGMA_DATA, PlaneRecipe, ring
from lecture_lib.zoo.recipe import Batch, trained


def hundredfold_log_noise(path: Path, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Network time ``100 c_noise``: from -155 to 110, on the scale of the embedding, and smooth from pair to pair.

    With ``1000 c_noise`` two neighbours on a fine grid would sound unrelated; a lower Fourier scale steadies
    consistency training (Song & Dhariwal 2023, section 3.3).
    """
    return 100 * quarter_log_noise(path, t)


def start(n: int, generator: torch.Generator) -> Float[Tensor, " n 2"]:
    """Noise of EDM's end, N(0, 80^2 I): the 80 is the popular thing to forget."""
    return EDM().t_max * torch.randn(n, 2, generator=generator)


@dataclass(frozen=True, kw_only=True)
class RingTeacher(PlaneRecipe):
    """EDM's denoiser: F-prediction, plain loss on F, log-normal noise levels (Karras et al. 2022, Table 1)."""

    few: ClassVar[tuple[int, ...]] = (5, 10, 20)

    def build(self) -> Denoiser:
        return Denoiser(
            self.network(),
            EDM(),
            edm(SIGMA_DATA),
            network_time=hundredfold_log_noise,
            input_scale=unit_input(SIGMA_DATA),
        )

    def loss(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return model.loss(*batch, times=LogNormalNoise(EDM(), -1.2, 1.6), generator=generator)

    def draw(self, model: nn.Module, n: int, *, steps: int, generator: torch.Generator) -> Float[Tensor, " n 2"]:
        grid = karras_grid(EDM(), steps, sigma_min=0.02)
        return last(sample(model.given(None), EDM(), DPMSolverPP2M(), grid, start(n, generator)))


@dataclass(frozen=True, kw_only=True)
class RingConsistency(PlaneRecipe):
    """A student whose x0 is the end of the trajectory; subclasses say by which loss.

    Attributes:
        end: eps, where trajectories end and f is the identity.
    """

    end: float = 0.002

    def build(self) -> Denoiser:
        return Denoiser(
            self.network(),
            EDM(),
            consistency_scalings(SIGMA_DATA, self.end),
            network_time=hundredfold_log_noise,
            input_scale=unit_input(SIGMA_DATA),
        )

    def jump(self, model: Denoiser) -> Jump:
        return ConsistencyFunction(model, end=self.end)

    def draw(self, model: nn.Module, n: int, *, steps: int, generator: torch.Generator) -> Float[Tensor, " n 2"]:
        grid, sampler = multistep_grid(EDM(), steps, end=self.end), ConsistencyMultistep(self.end)
        return last(sample(model.given(None), EDM(), sampler, grid, start(n, generator), generator=generator))


@dataclass(frozen=True, kw_only=True)
class RingCT(RingConsistency):
    """Consistency training on a grid that grows from 2 to ``last + 1`` points."""

    last: int = 150

    def loss_at(self, done: int) -> Loss:
        pairs = NeighbourPairs(EDM(), ct_points(done, self.steps, last=self.last))
        return lambda model, batch, generator: ct_loss(model, *batch, pairs=pairs, end=self.end, generator=generator)

    def loss(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return self.loss_at(self.steps)(model, batch, generator)


@dataclass(frozen=True, kw_only=True)
class RingCD(RingConsistency):
    """Consistency distillation of the ring's exact denoiser, by Heun's steps on a fixed grid."""

    points: int = 40

    def loss(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        pairs, teacher = NeighbourPairs(EDM(), self.points), ring().denoise(EDM())
        return cd_loss(model, teacher, *batch, pairs=pairs, end=self.end, generator=generator)


@dataclass(frozen=True, kw_only=True)
class RingICT(RingConsistency):
    """Improved consistency training: the number of points doubles, 11, 21, ..., ``last + 1``."""

    last: int = 1280

    def loss_at(self, done: int) -> Loss:
        pairs = LogNormalPairs(EDM(), ict_points(done, self.steps, last=self.last))
        return lambda model, batch, generator: ict_loss(model, *batch, pairs=pairs, end=self.end, generator=generator)

    def loss(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return self.loss_at(self.steps)(model, batch, generator)


@dataclass(frozen=True, kw_only=True)
class RingECT(RingConsistency):
    """Easy consistency tuning: starts as ``teacher``, and u/t goes to 1 in stages."""

    teacher: RingTeacher
    end: float = 0.0
    stages: int = 8

    def prepare(self, model: Denoiser) -> None:
        model.load_state_dict(trained(self.teacher).state_dict())

    def loss_at(self, done: int) -> Loss:
        pairs = RatioPairs(EDM(), ect_stage(done, self.steps, stages=self.stages))
        return lambda model, batch, generator: ect_loss(model, *batch, pairs=pairs, generator=generator)

    def loss(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return self.loss_at(self.steps)(model, batch, generator)


TEACHER = RingTeacher(
    name="ring-teacher",
    about="EDM's denoiser of the ring: what students of the ring may start from",
    network=partial(TimeMLP, 2, width=64, depth=3),
    steps=6000,
    batch_size=512,
)
_COMMON = {"network": TEACHER.network, "steps": 8000, "batch_size": 512}
CT = RingCT(name="ring-ct", about="consistency training of the ring, 2 to 151 points", **_COMMON)
CD = RingCD(name="ring-cd", about="consistency distillation of the ring's exact denoiser, Heun, 40 points", **_COMMON)
ICT = RingICT(name="ring-ict", about="improved consistency training of the ring, 11 to 1281 points", **_COMMON)
ECT = RingECT(
    name="ring-ect", about="easy consistency tuning of ring-teacher, eight stages", teacher=TEACHER, **_COMMON
)
RING_CONSISTENCY = (TEACHER, CD, CT, ECT, ICT)
