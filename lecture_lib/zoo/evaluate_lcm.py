"""How many of the guided teacher's twenty steps a few jumps replace, read back from the pictures by the oracle."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

from lecture_lib.data.shapes import Captioned, judge_captions
from lecture_lib.families import TextToImage
from lecture_lib.zoo.evaluate_shapes import CHUNK, FRESH, GUIDANCE, draw_prompts, fresh_scenes
from lecture_lib.zoo.library import transformer_text_to_image
from lecture_lib.zoo.row import Row

JUMPS = (1, 2, 4, 8)
TEACHER_STEPS = 20  # guided: 40 evaluations
PROMPTS = 200
KINDS = {"one thing": ("test", 0.0), "held-out pairs": ("held_out", 0.0), "two things": ("test", 1.0)}
SCALES = {"shapes-lcm": {"w": 3.0}, "shapes-lcm-lora": {}}  # what a student hears; chosen on other scenes


def drawn_scenes(kind: str, seed: int) -> tuple[Captioned, torch.Generator]:
    """Scenes of a kind that no recipe has drawn, and the generator of the noise that pictures of them start from."""
    split, two = KINDS[kind]
    return fresh_scenes(PROMPTS, seed, split=split, two=two), torch.Generator().manual_seed(2 * FRESH + seed)


@functools.cache
@torch.inference_mode()
def teacher_rate(kind: str, seed: int) -> float:
    """Share of the guided teacher's pictures that are all right; it is the same for all its students."""
    scenes, generator = drawn_scenes(kind, seed)
    options = {"w": GUIDANCE, "steps": TEACHER_STEPS, "generator": generator}
    pictures = draw_prompts(transformer_text_to_image(), scenes.captions, **options)
    return judge_captions(pictures, scenes.captions).all.double().mean().item()


@torch.inference_mode()
def student_rate(model: TextToImage, kind: str, seed: int, *, steps: int, **heard: float) -> float:
    """The same for pictures in ``steps`` jumps."""
    scenes, generator = drawn_scenes(kind, seed)
    parts = [scenes.captions[i : i + CHUNK] for i in range(0, PROMPTS, CHUNK)]
    pictures = torch.cat([model.jump(part, generator=generator, steps=steps, **heard) for part in parts])
    return judge_captions(pictures, scenes.captions).all.double().mean().item()


def jump_rows(name: str, model: TextToImage, bars: dict[str, float], seeds: tuple[int, ...]) -> Iterator[Row]:
    """Per kind of caption: the student in 1, 2, 4, 8 evaluations, its teacher in 40, and the quotient at 4."""
    for kind in KINDS:
        rates = {n: tuple(student_rate(model, kind, s, steps=n, **SCALES[name]) for s in seeds) for n in JUMPS}
        for n, values in rates.items():
            yield Row(name, f"{kind}: all right, {PROMPTS} captions, {n} NFE", values)
        teacher = tuple(teacher_rate(kind, seed) for seed in seeds)
        yield Row(name, f"{kind}: its teacher, w = {GUIDANCE:g}, {2 * TEACHER_STEPS} NFE", teacher)
        # One number: the means, since the bar speaks of rates and single sets of captions are harder or easier.
        yield Row(name, f"{kind}: 4 NFE over its teacher", (sum(rates[4]) / sum(teacher),), bars.get(kind))
