"""Recipes of the shapes world's text encoders: CLIP's, trained with images, and T5's, trained on captions alone."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.data import Batches
from lecture_lib.data.shapes import VOCABULARY, captioned
from lecture_lib.families import info_nce, same_texts, span_loss
from lecture_lib.nets import ContrastivePair, ImageEncoder, SpanDenoiser, TextEncoder, Tokenizer, causal_mask, full_mask
from lecture_lib.zoo.recipe import Batch, Recipe

SCENES = 20_000  # training images; their captions are drawn once with them


@functools.cache
def shapes_tokenizer() -> Tokenizer:
    """The tokenizer of all captions of the shapes world: 24 numbers per text, 19 words at most are needed."""
    return Tokenizer(VOCABULARY)


@functools.cache
def shapes_pairs(n: int = SCENES, seed: int = 0) -> tuple[Float[Tensor, " n 3 32 32"], Tensor]:
    """Training images (n, 3, 32, 32) in half precision and their captions as tokens (n, 24), drawn once per process."""
    scenes = captioned(n, torch.Generator().manual_seed(seed))
    return scenes.images.half(), shapes_tokenizer().encode(scenes.captions)


def shapes_clip(*, dim: int, depth: int, heads: int) -> ContrastivePair:
    """Causal text encoder and convolutional image encoder, all of width ``dim``."""
    text = TextEncoder(len(shapes_tokenizer()), dim=dim, depth=depth, heads=heads, visible=causal_mask)
    return ContrastivePair(text, ImageEncoder(dim), dim)


def shapes_lm(*, dim: int, depth: int, heads: int) -> SpanDenoiser:
    """Bidirectional text encoder, with a decoder that is of use in training only."""
    text = TextEncoder(len(shapes_tokenizer()), dim=dim, depth=depth, heads=heads, visible=full_mask)
    return SpanDenoiser(text, heads=heads)


@dataclass(frozen=True, kw_only=True)
class _ShapesTextRecipe(Recipe):
    scenes: int = SCENES

    def batches(self) -> Batches:
        """Endless batches of training images in half precision and the tokens of their captions."""
        return Batches(shapes_pairs(self.scenes, self.seed), self.batch_size)


@dataclass(frozen=True, kw_only=True)
class ContrastiveRecipe(_ShapesTextRecipe):
    """Images and captions that find one another in a batch (Radford et al. 2021); equal captions are not opponents.

    ``noise`` is added to the images: flat colours would otherwise be told apart by their last bits.
    """

    noise: float = 0.05

    kind: ClassVar[str] = "contrastive pair"

    def build(self) -> ContrastivePair:
        return self.network()

    def loss(self, model: ContrastivePair, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        images, tokens = batch[0].float(), batch[1]
        noise = torch.randn(images.shape, generator=generator, device=generator.device).to(images.device)
        return info_nce(model.similarity(images + self.noise * noise, tokens), same_texts(tokens))


@dataclass(frozen=True, kw_only=True)
class LanguageRecipe(_ShapesTextRecipe):
    """Captions with a gap that the model fills (Raffel et al. 2020); the images are not looked at."""

    kind: ClassVar[str] = "language model"

    def build(self) -> SpanDenoiser:
        return self.network()

    def loss(self, model: SpanDenoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return span_loss(model, batch[1], generator)


CLIP = ContrastiveRecipe(
    name="shapes-clip",
    about="image and text encoder of the shapes world, contrastive; its causal text encoder is CLIP's part",
    network=functools.partial(shapes_clip, dim=64, depth=2, heads=4),
    steps=2000,
    batch_size=128,
    lr=1e-3,
    weight_decay=0.05,
)
LANGUAGE = LanguageRecipe(
    name="shapes-lm",
    about="text encoder of the shapes world, bidirectional, trained to write missing spans; it is T5's part",
    network=functools.partial(shapes_lm, dim=64, depth=2, heads=4),
    steps=4000,
    batch_size=128,
    lr=2e-3,
)
