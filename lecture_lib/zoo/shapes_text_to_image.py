"""The recipe of the course's text-to-image model: a U-Net on the latents of ``shapes-kl-f4``."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.core import VELOCITY, Denoiser, LogitNormalTimes, Parameterization, Path, RectifiedFlow, Times
from lecture_lib.data import Batches
from lecture_lib.data.shapes import captioned
from lecture_lib.families import LatentSpace
from lecture_lib.nets import JointText, TextUNet
from lecture_lib.zoo.recipe import Batch, Recipe, trained
from lecture_lib.zoo.shapes_autoencoders import KL4
from lecture_lib.zoo.shapes_text import CLIP, LANGUAGE, shapes_tokenizer

SCENES = 30_000
CHUNK = 250  # images that the encoder sees at a time
# Mean and 1 / standard deviation of the latents of shapes-kl-f4, measured once and then part of the recipe, as 0.18215
# is of Stable Diffusion's. A test measures them again.
SHIFT, SCALE = 0.1185, 0.7149


@functools.cache
def shapes_space() -> LatentSpace:
    """The latents of ``shapes-kl-f4``, of mean 0 and variance 1."""
    return LatentSpace(trained(KL4), shift=SHIFT, scale=SCALE)


@functools.cache
def shapes_text() -> JointText:
    """CLIP's text encoder and the language model's, side by side, frozen."""
    return JointText([trained(CLIP).text, trained(LANGUAGE).encoder])


@functools.cache
@torch.no_grad()
def latent_scenes(n: int, seed: int, two: float) -> tuple[Float[Tensor, " n 4 8 8"], Int[Tensor, " n 24"]]:
    """Latents and caption tokens of ``n`` training scenes: encoded once, so that no step pays for the encoder."""
    scenes = captioned(n, torch.Generator().manual_seed(seed), two=two)
    latents = torch.cat([shapes_space().encode(x) for x in scenes.images.split(CHUNK)])
    return latents, shapes_tokenizer().encode(scenes.captions)


@dataclass(frozen=True, kw_only=True)
class TextToImageRecipe(Recipe):
    """A denoiser of latents that hears captions; now and then it hears the empty one instead."""

    path: Path
    parameterization: Parameterization
    times: Times
    p_uncond: float = 0.1
    scenes: int = SCENES
    two: float = 0.7  # share of scenes with two things, which are harder

    kind: ClassVar[str] = "latent denoiser"

    def build(self) -> Denoiser:
        with torch.device("cpu"):  # also where the rest is built on the meta device: the null text is computed
            null = shapes_text().null
        return Denoiser(self.network(), self.path, self.parameterization, null=null)

    def batches(self) -> Batches:
        return Batches(latent_scenes(self.scenes, self.seed, self.two), self.batch_size)

    def loss(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        latents, tokens = batch
        cond = shapes_text()(tokens)
        return model.loss(latents, cond, times=self.times, p_uncond=self.p_uncond, generator=generator)


TEXT_TO_IMAGE = TextToImageRecipe(
    name="shapes-text-to-image",
    about="captions to latents: a U-Net with spatial transformers, rectified flow, velocity",
    network=functools.partial(
        TextUNet,
        channels=48,
        multipliers=(1, 2),
        blocks=1,
        depths=(1, 1),
        heads=4,
        context_dim=128,
        vector_dim=128,
        groups=8,
    ),
    steps=5500,
    batch_size=64,
    lr=2e-3,
    path=RectifiedFlow(),
    parameterization=VELOCITY,
    times=LogitNormalTimes(),
)
