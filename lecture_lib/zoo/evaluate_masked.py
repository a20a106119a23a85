"""What the masked image model and its tokens can do, read back from their pixels by the oracle."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lecture_lib.data.shapes import judge_captions
from lecture_lib.families import MaskedTextToImage, MostConfident, psnr
from lecture_lib.nets import TokenAutoencoder, perplexity
from lecture_lib.zoo.evaluate_shapes import CHUNK, FRESH, PROMPTS, fresh_scenes
from lecture_lib.zoo.row import Row

GUIDANCE, STEPS, TEMPERATURE = 1.75, 12, 1.0  # 24 evaluations per picture; chosen on other scenes


@torch.inference_mode()
def token_rows(name: str, model: TokenAutoencoder, bars: dict[str, float], seeds: tuple[int, ...]) -> Iterator[Row]:
    """Reconstruction of scenes never seen, from their tokens: decibels, what the oracle reads, how many codes."""
    quality, read, used = [], [], []
    for seed in seeds:
        scenes = fresh_scenes(1000, seed)
        tokens = torch.cat([model.tokens(x) for x in scenes.images.split(CHUNK)])
        rebuilt = torch.cat([model.decode(x).clamp(-1, 1) for x in tokens.split(CHUNK)])
        quality.append(psnr(rebuilt, scenes.images).mean().item())
        read.append(judge_captions(rebuilt, scenes.captions).all.double().mean().item())
        used.append(perplexity(tokens, model.size).item())
    yield Row(name, "PSNR of test scenes, mean, dB", tuple(quality), bars.get("psnr"))
    yield Row(name, "read right in all attributes after reconstruction", tuple(read), bars.get("read"))
    yield Row(name, f"perplexity of the {model.size} codes", tuple(used))


def draw_masked(
    model: MaskedTextToImage,
    prompts: tuple[str, ...],
    *,
    w: float = GUIDANCE,
    steps: int = STEPS,
    temperature: float = TEMPERATURE,
    generator: torch.Generator,
) -> Tensor:
    """Pictures of many prompts, in chunks."""
    parts = [prompts[i : i + CHUNK] for i in range(0, len(prompts), CHUNK)]
    options = {"w": w, "steps": steps, "order": MostConfident(temperature), "generator": generator}
    return torch.cat([model.generate(part, **options) for part in parts])


def masked_rows(name: str, model: MaskedTextToImage, bars: dict[str, float], seeds: tuple[int, ...]) -> Iterator[Row]:
    """Share of pictures that show all their caption asks for: one thing, pairs never seen, two things."""
    kinds = {"one thing": ("test", 0.0), "held-out pairs": ("held_out", 0.0), "two things": ("test", 1.0)}
    for kind, (split, two) in kinds.items():
        right = []
        for seed in seeds:
            scenes = fresh_scenes(PROMPTS, seed, split=split, two=two)
            generator = torch.Generator().manual_seed(2 * FRESH + seed)
            pictures = draw_masked(model, scenes.captions, generator=generator)
            right.append(judge_captions(pictures, scenes.captions).all.double().mean().item())
        measure = f"{kind}: all right, {PROMPTS} captions, w = {GUIDANCE:g}, {STEPS} steps"
        yield Row(name, measure, tuple(right), bars.get(kind))
