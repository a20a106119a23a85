"""Recipes of the shapes world's text encoders: CLIP's, trained with images, and one trained on captions alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.data import Batches
from lecture_lib.data.shapes import VOCABULARY, captioned, glosses
from lecture_lib.families import gloss_loss, info_nce, same_texts
from lecture_lib.nets import ContrastivePair, GlossWriter, ImageEncoder, TextEncoder, Tokenizer, causal_mask, full_mask
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


def shapes_glosses(
    captions: Sequence[str],
) -> tuple[Int[Tensor, " n 24"], Int[Tensor, " n 24"], Int[Tensor, " n 3 16"]]:
    """Captions, and what their words are about, as ``gloss_loss`` wants it.

    Returns:
        tokens (n, 24); the number of each token's gloss (n, 24), 0 for <start> and <end>; three glosses per caption
        (n, 3, 16), the last one empty where there is one thing.
    """
    owner, texts = torch.zeros(len(captions), 24, dtype=torch.long), []
    for row, caption in zip(owner, captions, strict=True):
        told = glosses(caption)
        row[1 : 1 + len(told.owner)] = torch.tensor(told.owner)
        texts += [*told.texts, *[""] * (3 - len(told.texts))]
    tokenizer = shapes_tokenizer()
    return tokenizer.encode(captions), owner, tokenizer.encode(texts)[:, :16].unflatten(0, (len(captions), 3))


@functools.cache
def _training_glosses(n: int, seed: int) -> tuple[Tensor, ...]:
    return shapes_glosses(captioned(n, torch.Generator().manual_seed(seed)).captions)


def shapes_clip(*, dim: int, depth: int, heads: int) -> ContrastivePair:
    """Causal text encoder and convolutional image encoder, all of width ``dim``."""
    text = TextEncoder(len(shapes_tokenizer()), dim=dim, depth=depth, heads=heads, visible=causal_mask)
    return ContrastivePair(text, ImageEncoder(dim), dim)


def shapes_lm(*, dim: int, depth: int, heads: int) -> GlossWriter:
    """Bidirectional text encoder, with a decoder that is of use in training only."""
    text = TextEncoder(len(shapes_tokenizer()), dim=dim, depth=depth, heads=heads, visible=full_mask)
    return GlossWriter(text, heads=heads)


@dataclass(frozen=True, kw_only=True)
class ContrastiveRecipe(Recipe):
    """Images and captions that find one another in a batch (Radford et al. 2021); equal captions are not opponents.

    ``noise`` is added to the images: flat colours would otherwise be told apart by their last bits.
    """

    noise: float = 0.05
    scenes: int = SCENES

    kind: ClassVar[str] = "contrastive pair"

    def build(self) -> ContrastivePair:
        return self.network()

    def batches(self) -> Batches:
        """Endless batches of training images in half precision and the tokens of their captions."""
        return Batches(shapes_pairs(self.scenes, self.seed), self.batch_size)

    def loss(self, model: ContrastivePair, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        images, tokens = batch[0].float(), batch[1]
        noise = torch.randn(images.shape, generator=generator, device=generator.device).to(images.device)
        return info_nce(model.similarity(images + self.noise * noise, tokens), same_texts(tokens))


@dataclass(frozen=True, kw_only=True)
class LanguageRecipe(Recipe):
    """Words of captions that say what they are about; the images are not looked at.

    Missing words, T5's task, can be filled in a language this small without knowing whose colour a word is; features
    learned from that made pictures of two things that mixed them up. A gloss cannot be written without it.
    """

    noise: float = 0.5
    scenes: int = SCENES

    kind: ClassVar[str] = "language model"

    def build(self) -> GlossWriter:
        return self.network()

    def batches(self) -> Batches:
        """Endless batches of captions, whose word each is, and their glosses."""
        return Batches(_training_glosses(self.scenes, self.seed), self.batch_size)

    def loss(self, model: GlossWriter, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        return gloss_loss(model, *batch, generator, noise=self.noise)


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
    about="text encoder of the shapes world, bidirectional, trained to say what each word is about",
    network=functools.partial(shapes_lm, dim=64, depth=3, heads=4),
    steps=3000,
    batch_size=128,
    lr=2e-3,
)
