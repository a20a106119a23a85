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
# How a student is asked; chosen on other scenes, out of w = 2, 3, 4 and ten grids of four jumps.
ASKED = {"shapes-lcm": {"w": 4.0, "kappa": 2 / 3}, "shapes-lcm-lora": {"kappa": 2 / 3}}


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
def student_rate(model: TextToImage, kind: str, seed: int, *, steps: int, **asked: float) -> float:
    """The same for pictures in ``steps`` jumps."""
    scenes, generator = drawn_scenes(kind, seed)
    parts = [scenes.captions[i : i + CHUNK] for i in range(0, PROMPTS, CHUNK)]
    pictures = torch.cat([model.jump(part, generator=generator, steps=steps, **asked) for part in parts])
    return judge_captions(pictures, scenes.captions).all.double().mean().item()


def jump_rows(name: str, model: TextToImage, bars: dict[str, float], seeds: tuple[int, ...]) -> Iterator[Row]:
    """Per kind of caption: the student in 1, 2, 4, 8 evaluations, its teacher in 40, and the quotient at 4.

    The quotient of all captions, as many of each kind, is what the bar is about; each kind's own says where the
    student loses.
    """
    few, many = 0.0, 0.0
    for kind in KINDS:
        rates = {n: tuple(student_rate(model, kind, s, steps=n, **ASKED[name]) for s in seeds) for n in JUMPS}
        for n, values in rates.items():
            yield Row(name, f"{kind}: all right, {PROMPTS} captions, {n} NFE", values)
        teacher = tuple(teacher_rate(kind, seed) for seed in seeds)
        yield Row(name, f"{kind}: its teacher, w = {GUIDANCE:g}, {2 * TEACHER_STEPS} NFE", teacher)
        # One number: the means, since the bar speaks of rates and single sets of captions are harder or easier.
        yield Row(name, f"{kind}: 4 NFE over its teacher", (sum(rates[4]) / sum(teacher),))
        few, many = few + sum(rates[4]), many + sum(teacher)
    yield Row(name, "all captions: 4 NFE over its teacher", (few / many,), bars.get("all captions"))
