"""Digits in one step: students that jump from noise to the end of their teacher's trajectory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import Denoiser
from lecture_lib.distill import EqualPairs, cd_loss, pseudo_huber
from lecture_lib.training import Loss
from lecture_lib.zoo.recipe import Batch, DistilledRecipe, Recipe, trained


@dataclass(frozen=True, kw_only=True)
class DigitConsistencyRecipe(Recipe):
    """Consistency distillation of a guided teacher that hears w: Heun's steps, on grids that double.

    The student starts as a copy of its teacher, whose x0 at high noise is a mean of many digits; what it learns is the
    one digit at the end of the trajectory. On a coarse grid that message comes down from t = 1 in few hops, on a fine
    one each hop is exact: hence first the one, then the other.

    Attributes:
        teacher: whose trajectories are learned.
        w_low, w_high: guidance scales in training, uniform.
        coarsest: steps of the first grid.
        doublings: after equal numbers of updates each.
    """

    teacher: DistilledRecipe
    w_low: float
    w_high: float
    coarsest: int
    doublings: int

    kind: ClassVar[str] = "few-step student"

    def build(self) -> Denoiser:
        return self.teacher.build()

    def prepare(self, model: Denoiser) -> None:
        model.load_state_dict(trained(self.teacher).state_dict())

    def grid_steps(self, done: int) -> int:
        """Steps of the grid after ``done`` updates."""
        stage = min(done * (self.doublings + 1) // self.steps, self.doublings)
        return self.coarsest * 2**stage

    def loss_at(self, done: int) -> Loss:
        return partial(self._loss, self.grid_steps(done))

    def loss(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return self.loss_at(self.steps)(model, batch, generator)

    def _loss(self, steps: int, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        images, labels = batch
        w = self.w_low + (self.w_high - self.w_low) * torch.rand(len(images), generator=generator)
        cond = {"label": labels, "w": w}
        return cd_loss(
            model,
            trained(self.teacher).given(cond),
            images,
            cond,
            pairs=EqualPairs(model.path, steps),
            distance=pseudo_huber(),
            end=0.0,
            generator=generator,
        )
