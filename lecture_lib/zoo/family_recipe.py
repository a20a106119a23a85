"""Recipe of a generative family on digits: what is trained is a ``GenerativeModel``, phase by phase."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.data import Batches, Dequantised, Draws
from lecture_lib.families import GenerativeModel, phase_loss, phase_optimizer
from lecture_lib.nets import parameter_count
from lecture_lib.tensors import layers_from
from lecture_lib.training import Loss
from lecture_lib.zoo.recipe import Batch, PicturesRecipe

LOOK = 1442  # pictures from which normalisations start: as many as there are training digits


@dataclass(frozen=True, kw_only=True)
class FamilyRecipe(PicturesRecipe):
    """A family on 8x8 digits; ``network`` builds the whole model.

    Attributes:
        labelled: whether it is told which digit it is; families that are not draw all ten.
        dequantised: whether grey levels are spread over their cells, as a density needs.
    """

    labelled: bool = True
    dequantised: bool = False
    kind: ClassVar[str] = "family"

    def build(self) -> GenerativeModel:
        return self.network()

    def prepare(self, model: GenerativeModel) -> None:
        model.start_from(*replace(self, batch_size=LOOK).batches().draw(torch.Generator().manual_seed(0)))

    def size(self) -> int:
        with layers_from(
            self.seed
        ):  # tables, masks and schedules are looked at while a family is built: no meta device
            return parameter_count(self.build())

    def optimizer(self, model: GenerativeModel) -> torch.optim.Optimizer:
        return phase_optimizer(model, self.lr)

    def loss_at(self, done: int) -> Loss:
        return lambda model, batch, generator: phase_loss(model, self.steps).at(done)(model, batch, generator)

    def loss(self, model: GenerativeModel, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return self.loss_at(0)(model, batch, generator)

    def settle(self, model: GenerativeModel, done: int) -> None:
        model.after_update(model.phase_at(done - 1, self.steps).name)

    def batches(self) -> Draws:
        train = self.data.train()
        batches = Batches((train.images, train.labels) if self.labelled else (train.images,), self.batch_size)
        return Dequantised(batches) if self.dequantised else batches
