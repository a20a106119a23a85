"""The prompt box: type a caption, or put one together, and see four pictures with the oracle's verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import ipywidgets
import torch

from lecture_lib import zoo
from lecture_lib.core import Denoise
from lecture_lib.data.shapes import BACKGROUNDS, COLOURS, RELATIONS, SHAPES, SIZES, parse
from lecture_lib.errors import UnknownNameError
from lecture_lib.families import TextToImage
from lecture_lib.guidance import linear
from lecture_lib.viz import captioned_grid
from lecture_lib.widgets.controls import choice, count, narrow, number, same_seed, text
from lecture_lib.widgets.explorer import Explorer, Scene
from lecture_lib.widgets.verdicts import RIGHT, plain, verdicts

FIRST = "a large green triangle on a black background"
SAMPLES = 4
SCALE = 6  # a scene of 32 pixels becomes 192 wide, a caption below it about three lines
ALONE = "alone"
_EVERY = 10  # long runs show themselves after every tenth step


# Putting a caption together -----------------------------------------------------------------------------------------


def composed(size: str, colour: str, shape: str, relation: str, size2: str, colour2: str, shape2: str, ground: str):
    """The plainest caption of these words; with ``relation`` "alone" there is no second thing."""
    words = f"a {size} {colour} {shape}"
    words += "" if relation == ALONE else f" {relation} a {size2} {colour2} {shape2}"
    return words + ("" if ground == "grey" else f" on a {ground} background")


def composer(field: ipywidgets.Text) -> dict[str, ipywidgets.Dropdown]:
    """Lists that write a valid caption into ``field``, and follow when a caption is typed there."""
    which = ("of the first thing", "of the second thing (if there is one)")
    lists = {}
    for end, said in zip(("", "2"), which, strict=True):
        nth = end or "1"
        lists["size" + end] = choice(f"size {nth}", "small", list(SIZES), f"Size {said}; writes the prompt")
        lists["colour" + end] = choice(f"colour {nth}", "red", list(COLOURS), f"Colour {said}; writes the prompt")
        lists["shape" + end] = choice(f"shape {nth}", "circle", list(SHAPES), f"Shape {said}; writes the prompt")
    lists["relation"] = choice("relation", ALONE, [ALONE, *RELATIONS], "Where the first thing stands")
    lists["ground"] = choice("background", "grey", list(BACKGROUNDS), "Background; writes the prompt")
    order = ("size", "colour", "shape", "relation", "size2", "colour2", "shape2", "ground")
    lists = {name: narrow(lists[name]) for name in order}
    following = []  # not empty while the lists follow the field, so that they do not write into it

    def write(_: Any) -> None:
        if not following:
            field.value = composed(**{name: box.value for name, box in lists.items()})

    def follow(_: Any) -> None:
        following.append(True)
        try:
            for name, value in _as_lists(field.value).items():
                lists[name].value = value
        finally:
            following.clear()

    field.observe(follow, names="value")
    follow(None)
    for box in lists.values():
        box.observe(write, names="value")
    return lists


def _as_lists(prompt: str) -> dict[str, str]:
    """What the lists must show so that they say the same as the prompt; nothing if it is no caption."""
    try:
        wish = parse(plain(prompt))
    except UnknownNameError:
        return {}
    names = [("shape", "colour", "size"), ("shape2", "colour2", "size2")]
    shown = {}
    for row, thing in zip(names, wish.things, strict=False):  # one thing, or two
        shown |= dict(zip(row, thing, strict=True))
    return shown | {"relation": wish.relation or ALONE, "ground": wish.background}


# Pictures -----------------------------------------------------------------------------------------------------------


def prompted(model: TextToImage, prompt: str, negative: str, w: float) -> Denoise:
    """The denoiser bound to a prompt. ``w = 1`` needs one branch only; otherwise both go in one batch."""
    if w == 1:
        model.condition(negative)  # checked all the same: an unknown word is an unknown word at every w
        return model.denoiser.given(model.condition(prompt))
    return model.guided(prompt, negative=negative, rule=linear(w))


@torch.inference_mode()
def prompt_scenes(model: TextToImage, prompt: str, negative: str, w: float, steps: int, seed: int) -> Iterator[Scene]:
    """Four pictures of one prompt; runs of more than ten steps show the prediction of clean pictures on the way."""
    start = time.perf_counter()
    denoise, generator = prompted(model, prompt, negative, w), torch.Generator().manual_seed(seed)
    noise = model.noise(SAMPLES, generator)
    for frame in model.frames(denoise, noise, steps=steps, generator=generator):
        if frame.step == steps:
            images = model.space.decode(frame.x).clamp(-1, 1)
            elapsed = 1000 * (time.perf_counter() - start)
            words = verdicts(images, prompt)
            note = f"{_right(words)}{frame.nfe} network evaluations per picture; all four drawn in {elapsed:.0f} ms."
            yield Scene(captioned_grid(images, words, scale=SCALE), note, progress=1.0)
        elif frame.step and frame.step % _EVERY == 0:
            images = model.space.decode(frame.x0).clamp(-1, 1)
            words = [f"step {frame.step} of {steps}: prediction"] * SAMPLES
            yield Scene(captioned_grid(images, words, scale=SCALE), words[0], progress=frame.step / steps)


def _right(words: list[str]) -> str:
    if not any("\n" in word for word in words):
        return "The oracle cannot judge this prompt (it wants a SIZE COLOUR SHAPE, or two with a relation). "
    return f"The oracle finds {sum(word.endswith(RIGHT) for word in words)} of {len(words)} all right; "


def bound(draw: Callable[..., Any], model: TextToImage | None) -> Callable[..., Any]:
    """``draw`` with its model: the given one, or the zoo's."""
    return partial(draw, zoo.text_to_image() if model is None else model)


def prompt_box(model: TextToImage | None = None) -> Explorer:
    """A prompt, four pictures.

    Args:
        model: default ``zoo.text_to_image()``.
    """
    field = text("prompt", FIRST, "What to draw; press Enter. Unknown words are answered below the picture")
    controls = {
        "prompt": field,
        "negative": text("negative prompt", "", "Takes the place of the empty caption", hint="nothing"),
        "w": number("guidance scale w", 3.0, 0.0, 10.0, 0.25, "0 ignores the prompt, 1 plain, above 1 guided"),
        "steps": count("steps", 10, 1, 30, "Steps of DPM-Solver++(2M); each costs two evaluations when guided"),
        "seed": same_seed(),
    }
    return Explorer(
        bound(prompt_scenes, model),
        controls,
        helpers=composer(field),
        keep=True,
        caption="Type a caption or put one together from the lists. Then keep the seed and move w alone: 0 draws any "
        "scene, 1 often the right one; where is it best, and what goes wrong first on the way to 10? Ask for two "
        "shapes and a relation: which wish is the first to be missed? Type the prompt into the negative prompt as "
        "well: now w pulls at nothing.",
        alt="Four generated pictures of coloured shapes side by side; below each, what the oracle reads in it and "
        "whether that is what the prompt asked for.",
    )
