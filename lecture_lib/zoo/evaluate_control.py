"""How well the ControlNet obeys edges, and whether the words are still heard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lecture_lib.data.shapes import Captioned, Seen, Thing, edges, judge_captions, read
from lecture_lib.families import TextToImage, controlled
from lecture_lib.guidance import linear
from lecture_lib.nets import ControlNet
from lecture_lib.zoo.evaluate_shapes import CHUNK, FRESH, fresh_scenes
from lecture_lib.zoo.row import Row

GUIDANCE, STEPS = 2.0, 10  # 20 evaluations per picture; chosen on other scenes
SCENES = 300
NEAR = 1.5  # pixels by which a thing may be off


def follows(pictures: Float[Tensor, " n 3 32 32"], originals: Float[Tensor, " n 3 32 32"]) -> Bool[Tensor, " n"]:
    """Whether a picture has the things of the original: as many, of the same shape and size, at the same places.

    Colours are not looked at: edges do not tell them.
    """
    pairs = zip(read(pictures), read(originals), strict=True)
    return torch.tensor([_same_forms(seen, wanted) for seen, wanted in pairs])


def _same_forms(seen: Seen, wanted: Seen) -> bool:
    found = [any(_alike(thing, other) for other in seen.things) for thing in wanted.things]
    return len(seen.things) == len(wanted.things) and all(found)


def _alike(a: Thing, b: Thing) -> bool:
    return (a.shape, a.size) == (b.shape, b.size) and math.dist(a.centre, b.centre) <= NEAR


def draw_controlled(
    model: TextToImage,
    branch: ControlNet,
    scenes: Captioned,
    prompts: Sequence[str],
    *,
    w: float = GUIDANCE,
    strength: float = 1.0,
    generator: torch.Generator,
) -> Tensor:
    """A picture for every prompt, along the edges of the scene in its place."""
    pictures = []
    for i in range(0, len(prompts), CHUNK):
        mine = controlled(model, branch, edges(scenes.images[i : i + CHUNK]), strength=strength)
        pictures.append(mine.generate(prompts[i : i + CHUNK], rule=linear(w), steps=STEPS, generator=generator))
    return torch.cat(pictures)


def control_rows(
    name: str, model: TextToImage, branch: ControlNet, bars: dict[str, float], seeds: tuple[int, ...]
) -> Iterator[Row]:
    """Scenes never seen: forms in their places with words and without, and the same from the model without edges."""
    for kind, two in (("one thing", 0.0), ("two things", 1.0)):
        rows = {"right by caption": [], "as drawn": [], "no words: as drawn": [], "no edges: right by caption": []}
        for seed in seeds:
            scenes = fresh_scenes(SCENES, seed, two=two)
            generator = torch.Generator().manual_seed(2 * FRESH + seed)
            told = draw_controlled(model, branch, scenes, scenes.captions, generator=generator)
            silent = draw_controlled(model, branch, scenes, ("",) * SCENES, w=1.0, generator=generator)
            free = draw_controlled(model, branch, scenes, scenes.captions, strength=0.0, generator=generator)
            for values, verdict in zip(
                rows.values(),
                (
                    judge_captions(told, scenes.captions).all,
                    follows(told, scenes.images),
                    follows(silent, scenes.images),
                    judge_captions(free, scenes.captions).all,
                ),
                strict=True,
            ):
                values.append(verdict.double().mean().item())
        for what, values in rows.items():
            measure = f"{kind}, {what}, {SCENES} scenes, w = {GUIDANCE:g}, {2 * STEPS} NFE"
            yield Row(name, measure, tuple(values), bars.get(f"{kind}, {what}"))
