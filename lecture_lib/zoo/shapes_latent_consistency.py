"""Recipes of the few-step students of the text-to-image transformer: LCM, and LCM-LoRA, which is an adapter alone."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import Denoiser
from lecture_lib.core.conditions import tell
from lecture_lib.data import Batches
from lecture_lib.distill import SkippedSteps, adapter_consistency_loss, latent_consistency_loss
from lecture_lib.nets import Adapter, MMDiT, add_lora
from lecture_lib.zoo.recipe import Batch, Recipe, trained
from lecture_lib.zoo.shapes_text_to_image import TextToImageRecipe, latent_scenes, shapes_text
from lecture_lib.zoo.shapes_transformers import MMDIT


@dataclass(frozen=True, kw_only=True)
class LatentConsistencyRecipe(Recipe):
    """A student that jumps where its guided teacher walks, with w as an input; it starts as the teacher, deaf to w.

    Its target is itself with the gradient stopped: training resumes exactly without a third copy of the weights.
    """

    teacher: TextToImageRecipe
    pairs: SkippedSteps
    substeps: int
    w_low: float
    w_high: float
    scenes: int = 6_000  # few: they say where the teacher is asked, and the teacher what is right
    two: float = 0.7  # as the teacher was trained

    kind: ClassVar[str] = "latent consistency model"

    def build(self) -> Denoiser:
        with torch.device("cpu"):  # as in the teacher's recipe
            null = tell(shapes_text().null, w=torch.tensor(1.0))
        return Denoiser(self.network(), self.teacher.path, self.teacher.parameterization, null=null)

    def prepare(self, model: Denoiser) -> None:
        model.network.load_state_dict(trained(self.teacher).network.state_dict(), strict=False)  # lacks the w embedding
        for weight in model.network.condition.scale.mlp[2].parameters():
            nn.init.zeros_(weight)  # so that at the start f is the teacher, whatever w

    def batches(self) -> Batches:
        return Batches(latent_scenes(self.scenes, self.seed, self.two), self.batch_size)

    def loss(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        latents, tokens = batch
        w = self.w_low + (self.w_high - self.w_low) * torch.rand(len(latents), generator=generator)
        cond, options = shapes_text()(tokens), {"pairs": self.pairs, "substeps": self.substeps, "generator": generator}
        return latent_consistency_loss(model, trained(self.teacher), latents, cond, w, **options)


@dataclass(frozen=True, kw_only=True)
class AdapterConsistencyRecipe(Recipe):
    """The same with low-rank matrices beside the teacher's layers, at one w; only they are trained and kept.

    ``network`` puts them beside the layers of a network.
    """

    teacher: TextToImageRecipe
    pairs: SkippedSteps
    substeps: int
    w: float
    scenes: int = 6_000  # few: they say where the teacher is asked, and the teacher what is right
    two: float = 0.7  # as the teacher was trained

    kind: ClassVar[str] = "latent consistency adapter"

    def build(self) -> Adapter:
        with torch.device("cpu"):
            network = copy.deepcopy(trained(self.teacher).network)
        return self.network(network)

    def batches(self) -> Batches:
        return Batches(latent_scenes(self.scenes, self.seed, self.two), self.batch_size)

    def loss(self, model: Adapter, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        latents, tokens = batch
        teacher = trained(self.teacher)
        student = Denoiser(model.network, teacher.path, teacher.parameterization, null=teacher.null)
        cond, options = shapes_text()(tokens), {"pairs": self.pairs, "substeps": self.substeps, "generator": generator}
        return adapter_consistency_loss(student, teacher, latents, cond, self.w, **options)


# Of the two teachers the transformer, not the U-Net: a pass costs half as many multiply-adds, an update is eight passes
# per sample (four of the teacher, one of the target, three for the gradient), and its modulation vector has a place for
# w. Four legs, of two steps of the teacher each: what is known, the data, has only four legs to travel up. Of 600
# captions at 4 jumps and w = 3 were right: with 20 legs of one step 0.79, with 8 of one 0.82, with 4 of two 0.84.
LCM = LatentConsistencyRecipe(
    name="shapes-lcm",
    about="captions to latents in 1 to 8 jumps, no second pass: w in [1, 4] is an input; student of shapes-mmdit",
    network=functools.partial(MMDiT, *MMDIT.network.args, **MMDIT.network.keywords, guidance=True),
    steps=2400,
    batch_size=32,
    lr=1e-3,
    decay=0.995,
    teacher=MMDIT,
    pairs=SkippedSteps(1000, 250),
    substeps=2,
    w_low=1.0,
    w_high=4.0,
)
LCM_LORA = AdapterConsistencyRecipe(
    name="shapes-lcm-lora",
    about="an adapter of rank 8 that makes shapes-mmdit jump; w = 2 is built in",
    network=functools.partial(add_lora, rank=8),
    steps=2000,
    batch_size=32,
    lr=2e-3,
    decay=0.995,
    teacher=MMDIT,
    pairs=SkippedSteps(1000, 250),
    substeps=2,
    w=2.0,
)
