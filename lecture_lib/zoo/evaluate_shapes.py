"""What the models of the shapes world can do, read back from their pixels by the oracle."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lecture_lib.data.shapes import Captioned, captioned, judge_captions
from lecture_lib.families import TextToImage, gloss_loss, psnr
from lecture_lib.guidance import linear
from lecture_lib.nets import ContrastivePair, GlossWriter, KLAutoencoder
from lecture_lib.tensors import check_count
from lecture_lib.zoo.row import Row
from lecture_lib.zoo.shapes_text import shapes_glosses

FRESH = 10_000  # seeds from here on draw scenes for evaluation, those from twice as much on the noise
CHUNK = 100  # pictures at a time
GUIDANCE, STEPS = 2.0, 10  # 20 evaluations per picture; the scale was chosen on other scenes (1.5, 2, 2.5, 3, 4 tried)
PROMPTS = 500


def fresh_scenes(n: int, seed: int, *, split: str = "test", two: float = 0.5) -> Captioned:
    """Scenes that no recipe has drawn."""
    return captioned(check_count("n", n), torch.Generator().manual_seed(FRESH + seed), split=split, two=two)


@torch.inference_mode()
def autoencoder_rows(name: str, model: KLAutoencoder, bars: dict[str, float], seeds: tuple[int, ...]) -> Iterator[Row]:
    """Reconstruction of scenes never seen: decibels, and whether the oracle still reads them."""
    quality, read = [], []
    for seed in seeds:
        scenes = fresh_scenes(1000, seed)
        rebuilt = torch.cat([model.decode(model.encode(x).mode()).clamp(-1, 1) for x in scenes.images.split(CHUNK)])
        quality.append(psnr(rebuilt, scenes.images).mean().item())
        read.append(judge_captions(rebuilt, scenes.captions).all.double().mean().item())
    yield Row(name, "PSNR of test scenes, mean, dB", tuple(quality), bars.get("psnr"))
    yield Row(name, "read right in all attributes after reconstruction", tuple(read), bars.get("read"))


@torch.inference_mode()
def contrastive_rows(name: str, model: ContrastivePair, tokenizer, seeds: tuple[int, ...]) -> Iterator[Row]:
    """Of 64 test captions, the one that belongs to an image (equal captions count as right)."""
    hits = []
    for seed in seeds:
        scenes = fresh_scenes(640, seed)
        tokens = tokenizer.encode(scenes.captions)
        for images, texts in zip(scenes.images.split(64), tokens.split(64), strict=True):
            chosen = texts[model.similarity(images, texts).argmax(1)]
            hits.append((chosen == texts).all(1).double().mean().item())
    yield Row(name, "right caption of 64", tuple(hits))


@torch.inference_mode()
def language_rows(name: str, model: GlossWriter, seeds: tuple[int, ...]) -> Iterator[Row]:
    """Cross-entropy of the glosses of test captions, in nats per word."""
    losses = []
    for seed in seeds:
        batch = shapes_glosses(fresh_scenes(1000, seed).captions)
        losses.append(gloss_loss(model, *batch, torch.Generator().manual_seed(seed), noise=0.0).mean().item())
    yield Row(name, "nats per word of a gloss", tuple(losses))


def draw_prompts(
    model: TextToImage, prompts: tuple[str, ...], *, w: float, steps: int, generator: torch.Generator
) -> Tensor:
    """Pictures of many prompts, in chunks."""
    parts = [prompts[i : i + CHUNK] for i in range(0, len(prompts), CHUNK)]
    return torch.cat([model.generate(part, rule=linear(w), steps=steps, generator=generator) for part in parts])


def text_to_image_rows(name: str, model: TextToImage, bars: dict[str, float], seeds: tuple[int, ...]) -> Iterator[Row]:
    """Share of pictures that show all their caption asks for: one thing, pairs never seen, two things."""
    kinds = {"one thing": ("test", 0.0), "held-out pairs": ("held_out", 0.0), "two things": ("test", 1.0)}
    for kind, (split, two) in kinds.items():
        right = []
        for seed in seeds:
            scenes = fresh_scenes(PROMPTS, seed, split=split, two=two)
            generator = torch.Generator().manual_seed(2 * FRESH + seed)  # not that of the scenes: both draw uniforms
            pictures = draw_prompts(model, scenes.captions, w=GUIDANCE, steps=STEPS, generator=generator)
            right.append(judge_captions(pictures, scenes.captions).all.double().mean().item())
        measure = f"{kind}: all right, {PROMPTS} captions, w = {GUIDANCE:g}, {2 * STEPS} NFE"
        yield Row(name, measure, tuple(right), bars.get(kind))
