"""Concept steering: a direction in the tokens of one block, turned up, beside a random one of the same length."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, islice, product

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib import zoo
from lecture_lib.data.shapes import COLOURS, SHAPES, SIZES, Seen, captioned, read
from lecture_lib.families import TextToImage
from lecture_lib.guidance import linear
from lecture_lib.nets import concept_direction, random_direction, steered
from lecture_lib.viz import captioned_grid, stack
from lecture_lib.widgets.controls import choice, number, same_seed, text
from lecture_lib.widgets.explorer import Explorer, Scene
from lecture_lib.widgets.verdicts import seen_words

SAMPLES, STEPS, W = 6, 8, 3.0
PAIRS = 48  # noisy latents over which a direction is averaged
SCALE, WIDTH = 4, 138
MOST = 4.0  # lengths of the direction; beyond, everything falls apart whatever the direction


@dataclass(frozen=True)
class Concept:
    """Two captions that differ in one word, the rest filled in; and how the oracle knows the concept when it sees it.

    Attributes:
        caption, without: with {size}, {colour}, {shape} where any will do.
        attribute, value: of a thing, or "background" of a picture.
    """

    caption: str
    without: str
    attribute: str
    value: str

    def pairs(self, n: int) -> tuple[list[str], list[str]]:
        """``n`` captions with the concept, and the same without it."""
        rest = [dict(zip(("size", "colour", "shape"), words, strict=True)) for words in product(SIZES, COLOURS, SHAPES)]
        words = list(islice(cycle(rest[::5]), n))  # sizes, colours and shapes all come along
        return [self.caption.format(**w) for w in words], [self.without.format(**w) for w in words]

    def shown(self, seen: Seen) -> bool:
        """Whether the oracle reads the concept in a picture."""
        if self.attribute == "background":
            return seen.background == self.value
        return any(getattr(thing, self.attribute) == self.value for thing in seen.things)


CONCEPTS = {
    "black ground, not white": Concept(
        "a {size} {colour} {shape} on a black background",
        "a {size} {colour} {shape} on a white background",
        "background",
        "black",
    ),
    "blue, not red": Concept("a {size} blue {shape}", "a {size} red {shape}", "colour", "blue"),
    "large, not small": Concept("a large {colour} {shape}", "a small {colour} {shape}", "size", "large"),
    "circle, not square": Concept("a {size} {colour} circle", "a {size} {colour} square", "shape", "circle"),
}


NOWHERE = (next(iter(CONCEPTS)), 1, False)  # of strength 0, so any will do


class Steering:
    """Directions of one model, and pictures steered along them; both remembered."""

    def __init__(self, model: TextToImage) -> None:
        self.model = model
        self.direction = lru_cache(maxsize=64)(self._direction)
        self.pictures = lru_cache(maxsize=256)(self._pictures)

    @torch.no_grad()
    def _direction(self, concept: str, layer: int) -> Float[Tensor, " d"]:
        """The mean difference that the concept makes behind the block, on noisy scenes at times from 0.3 to 1."""
        model, generator = self.model, torch.Generator().manual_seed(0)
        x0 = model.space.encode(captioned(PAIRS, generator).images)
        t = 0.3 + 0.7 * torch.rand(PAIRS, generator=generator, dtype=torch.float64)
        x_t = model.path.mix(x0, torch.randn(x0.shape, generator=generator), t)
        caption, without = (model.condition(texts) for texts in CONCEPTS[concept].pairs(PAIRS))
        times = model.denoiser.network_time(model.path, t).to(x_t)
        return concept_direction(model.denoiser.network, block_name(layer), x_t, times, caption, without)

    def push(self, concept: str, layer: int, by_chance: bool) -> Float[Tensor, " d"]:
        """The concept's direction, or a random one of its length."""
        direction = self.direction(concept, layer)
        return random_direction(direction, torch.Generator().manual_seed(1)) if by_chance else direction

    @torch.inference_mode()
    def _pictures(
        self, prompt: str, seed: int, strength: float, pushed: tuple[str, int, bool]
    ) -> Float[Tensor, " n 3 32 32"]:
        """Guided pictures, both branches pushed; strength 0 leaves the network as it is."""
        network, layer = self.model.denoiser.network, block_name(pushed[1])
        with steered(network, layer, self.push(*pushed), strength):
            generator = torch.Generator().manual_seed(seed)
            return self.model.generate([prompt] * SAMPLES, generator=generator, steps=STEPS, rule=linear(W))

    def scene(self, prompt: str, concept: str, layer: int, strength: float, seed: int) -> Scene:
        """Three rows on the same noise: as it is, along the concept, and along a random direction as long.

        Raises:
            UnknownNameError: a word that the tokenizer does not know.
        """
        start = time.perf_counter()
        rows = {
            "as it is": self.pictures(prompt, seed, 0.0, NOWHERE),
            f"{strength:+g} x \u201c{concept}\u201d": self.pictures(prompt, seed, strength, (concept, layer, False)),
            f"{strength:+g} x a random direction": self.pictures(prompt, seed, strength, (concept, layer, True)),
        }
        seen = [read(images) for images in rows.values()]
        grids = [
            captioned_grid(images, [seen_words(s) for s in row], columns=SAMPLES, scale=SCALE, width=WIDTH, title=title)
            for (title, images), row in zip(rows.items(), seen, strict=True)
        ]
        length = float(self.direction(concept, layer).norm())
        note = f"{_found(CONCEPTS[concept], list(rows.values()), seen)} The direction is {length:.2f} long; "
        return Scene(stack(*grids, gap=10), note + f"{1000 * (time.perf_counter() - start):.0f} ms for what was new.")


def _found(concept: Concept, rows: Sequence[Tensor], seen: Sequence[Sequence[Seen]]) -> str:
    """In how many pictures of each row the concept is, and how far the rows are from the first."""
    counts = [sum(concept.shown(picture) for picture in row) for row in seen]
    moved = [float((row - rows[0]).square().mean().sqrt()) for row in rows[1:]]
    return (
        f"\u201c{concept.value}\u201d is seen in {counts[0]} of {SAMPLES} as they are, {counts[1]} along the concept, "
        f"{counts[2]} along the random direction, which is as long. The pictures move by {moved[0]:.2f} and "
        f"{moved[1]:.2f} (root mean square; range -1 to 1)."
    )


def block_name(layer: int) -> str:
    """The name in the network of a block counted from 1."""
    return f"blocks.{layer - 1}"


def concept_slider(model: TextToImage | None = None, *, prompt: str = "") -> Explorer:
    """One concept turned up and down inside the network, with the prompt left alone.

    Args:
        model: its network an ``MMDiT``; default ``zoo.transformer_text_to_image()``.
        prompt: what to begin with.
    """
    model = zoo.transformer_text_to_image() if model is None else model
    depth = len(model.denoiser.network.blocks)
    blocks = [(str(k), k) for k in range(1, depth + 1)]
    tip = "In lengths of the direction: 1 adds once what the words make as a difference on average"
    controls = {
        "prompt": text("prompt", prompt, "What to draw; press Enter. Empty: whatever the model likes"),
        "concept": choice("concept", NOWHERE[0], list(CONCEPTS), "The direction from the second word to the first"),
        "layer": choice("behind block", min(2, depth), blocks, "Where the direction is added to the image tokens"),
        "strength": number("strength", 2.0, -MOST, MOST, 0.25, tip),
        "seed": same_seed(),
    }
    return Explorer(
        Steering(model).scene,
        controls,
        keep=True,
        caption="Turn the strength up from 0: when does the concept come, and when do the pictures fall apart? Look "
        "at the third row before you believe the second: a push of that length changes pictures whatever its meaning, "
        "and only what the concept does and the random direction does not is the concept's. Try the other blocks. Then "
        "ask for the opposite in the prompt (*a large red circle on a white background*), and see who wins.",
        alt="Three rows of six generated pictures with the same noise: as they are, with a concept's direction added "
        "inside the network, and with a random direction of the same length; below each, what the oracle reads in it.",
    )
