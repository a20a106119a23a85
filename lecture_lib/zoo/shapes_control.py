"""The recipe of the shapes world's ControlNet: edges to shapes, on the frozen text-to-image model of Lecture 1."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lecture_lib.core import Times
from lecture_lib.data import Batches
from lecture_lib.data.shapes import captioned, edges
from lecture_lib.families import control_loss
from lecture_lib.nets import ControlNet, HintEncoder, TextUNet
from lecture_lib.zoo.recipe import Batch, Recipe, trained
from lecture_lib.zoo.shapes_text_to_image import TEXT_TO_IMAGE, TextToImageRecipe, latent_scenes, shapes_text


@functools.cache
def edge_scenes(n: int, seed: int, two: float) -> Bool[Tensor, " n 1 32 32"]:
    """Edges of the scenes of ``latent_scenes`` with the same arguments."""
    return edges(captioned(n, torch.Generator().manual_seed(seed), two=two).images).bool()


def edge_branch(base: TextUNet, widths: Sequence[int]) -> ControlNet:
    """A branch for ``base`` whose hints are edges."""
    return ControlNet(base, HintEncoder(1, base.enter.out_channels, widths))


@dataclass(frozen=True, kw_only=True)
class ControlRecipe(Recipe):
    """The branch of a ControlNet, which starts as a copy of half of its teacher; only the branch is trained and kept.

    ``network`` builds it around a U-Net.
    """

    teacher: TextToImageRecipe
    times: Times
    p_uncond: float = 0.5
    scenes: int = 30_000
    two: float = 0.5  # share of scenes with two things

    kind: ClassVar[str] = "control branch"

    def build(self) -> ControlNet:
        return self.network(self.teacher.network())

    def prepare(self, model: ControlNet) -> None:
        model.load_state_dict(trained(self.teacher).network.state_dict(), strict=False)  # the copied half has its names

    def batches(self) -> Batches:
        known = self.scenes, self.seed, self.two
        return Batches((*latent_scenes(*known), edge_scenes(*known)), self.batch_size)

    def loss(self, model: ControlNet, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        latents, tokens, hint = batch
        cond, options = shapes_text()(tokens), {"times": self.times, "p_uncond": self.p_uncond}
        return control_loss(model, trained(self.teacher), latents, cond, hint.float(), generator=generator, **options)


CONTROL = ControlRecipe(
    name="shapes-controlnet",
    about="edges to shapes: a ControlNet for the text-to-image model",
    network=functools.partial(edge_branch, widths=(8, 16, 32)),
    steps=1500,
    batch_size=32,
    lr=5e-4,
    teacher=TEXT_TO_IMAGE,
    times=TEXT_TO_IMAGE.times,
)
