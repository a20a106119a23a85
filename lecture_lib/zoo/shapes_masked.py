"""Recipes of the shapes world's masked image model, and of the autoencoder that turns its images into tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.data import Batches
from lecture_lib.data.shapes import FreshScenes, captioned
from lecture_lib.families import MaskedImageModel
from lecture_lib.nets import FSQ, Decoder, MaskedTransformer, TokenAutoencoder, WindowEncoder
from lecture_lib.zoo.recipe import Batch, Recipe, trained
from lecture_lib.zoo.shapes_text import shapes_tokenizer
from lecture_lib.zoo.shapes_text_to_image import shapes_text

CHUNK = 250  # images that the encoder sees at a time


def shapes_token_autoencoder(
    *, levels: Sequence[int], window: int, channels: int, multipliers: Sequence[int]
) -> TokenAutoencoder:
    """An encoder that sees windows, FSQ, and a decoder that sees all codes."""
    sizes = {"channels": channels, "multipliers": multipliers, "blocks": 1, "groups": 8}
    encoder = WindowEncoder(len(levels), factor=2 ** (len(multipliers) - 1), window=window)
    return TokenAutoencoder(encoder, FSQ(levels), Decoder(len(levels), 3, **sizes))


@dataclass(frozen=True, kw_only=True)
class TokenAutoencoderRecipe(Recipe):
    """Absolute plus squared error of a reconstruction from tokens, and what the quantiser asks for (FSQ: nothing)."""

    kind: ClassVar[str] = "token autoencoder"

    def build(self) -> TokenAutoencoder:
        return self.network()

    def batches(self) -> FreshScenes:
        return FreshScenes(self.batch_size)

    def loss(self, model: TokenAutoencoder, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        (images,) = batch
        rebuilt, quantised = model(images)
        error = (rebuilt - images).flatten(1)
        return error.abs().mean(1) + error.square().mean(1) + quantised.loss


@functools.cache
@torch.no_grad()
def token_scenes(n: int, seed: int, two: float) -> tuple[Int[Tensor, " n 64"], Int[Tensor, " n m"]]:
    """Image tokens and caption tokens of ``n`` training scenes, encoded once."""
    scenes = captioned(n, torch.Generator().manual_seed(seed), two=two)
    images = torch.cat([trained(TOKENS).tokens(x) for x in scenes.images.split(CHUNK)])
    return images, shapes_tokenizer().encode(scenes.captions)


@dataclass(frozen=True, kw_only=True)
class MaskedRecipe(Recipe):
    """A masked transformer that hears captions; now and then it hears the empty one instead."""

    p_uncond: float = 0.1
    scenes: int = 30_000
    two: float = 0.5  # share of scenes with two things

    kind: ClassVar[str] = "masked image model"

    def build(self) -> MaskedImageModel:
        with torch.device("cpu"):  # also where the rest is built on the meta device: the null text is computed
            null = shapes_text().null
        widths = {"context_dim": null["tokens"].shape[-1], "vector_dim": null["vector"].shape[-1]}
        return MaskedImageModel(self.network(**widths), null=null)

    def batches(self) -> Batches:
        return Batches(token_scenes(self.scenes, self.seed, self.two), self.batch_size)

    def loss(self, model: MaskedImageModel, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        images, captions = batch
        return model.loss(images, shapes_text()(captions), p_uncond=self.p_uncond, generator=generator)


TOKENS = TokenAutoencoderRecipe(
    name="shapes-vq",
    about="32x32x3 images to 8x8 tokens of 1000 codes (FSQ): what the masked image model fills in",
    network=functools.partial(
        shapes_token_autoencoder, levels=(8, 5, 5, 5), window=8, channels=16, multipliers=(1, 2, 3)
    ),
    steps=5000,
    batch_size=16,
    lr=2e-3,
    warmup=200,
    decay=0.998,
)
MASKED = MaskedRecipe(
    name="shapes-maskgit",
    about="captions to 8x8 tokens: a masked transformer, decoded in 12 parallel steps",
    network=functools.partial(MaskedTransformer, size=1000, grid=(8, 8), dim=96, depth=3, heads=4),
    steps=6000,
    batch_size=64,
    lr=2e-3,
    weight_decay=0.03,
)
