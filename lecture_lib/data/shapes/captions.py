"""Scenes to words: exact captions in varied wording, and the split that keeps some of them for the test."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.data.shapes.drawing import draw
from lecture_lib.data.shapes.scenes import (
    COLOURS,
    RELATIONS,
    SHAPES,
    SIDE,
    SIZES,
    Scene,
    Scenes,
    Split,
    Thing,
    draw_scenes,
    relation,
)
from lecture_lib.errors import UnknownNameError

SYNONYMS = {
    "small": ("small", "little"),
    "large": ("large", "big"),
    "circle": ("circle", "disc"),
    "diamond": ("diamond", "rhombus"),
    "cross": ("cross", "plus"),
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
FRAMES = ("{}", "{}", "there is {}", "a picture of {}")
PLACES = ("on the left", "on the right", "at the top", "at the bottom", "in the middle")
THIRD = 12.0  # "on the left" is a centre with x < 12, "in the middle" one with both coordinates in 12..20
WORDS = tuple(
    sorted({word for options in SYNONYMS.values() for option in options for word in option.split()})
    + sorted({*SHAPES, *COLOURS, *SIZES} - set(SYNONYMS))
    + ["a", "on", "the", "at", "in", "there", "is", "picture", "of", "left", "right", "top", "bottom", "middle"]
    + ["black", "white", "background"]
)
VOCABULARY = tuple(dict.fromkeys(WORDS))
TEST_SHARE = 8  # one caption in eight is kept for the test


def place(thing: Thing, slack: float = 0.0) -> tuple[str, ...]:
    """The place words that are true of a thing; borders are moved outwards by ``slack`` pixels."""
    x, y = thing.centre
    low, high = THIRD + slack, SIDE - THIRD - slack
    inner_low, inner_high = THIRD - slack, SIDE - THIRD + slack
    middle = inner_low <= x <= inner_high and inner_low <= y <= inner_high
    return tuple(
        word for word, true in zip(PLACES, (x < low, x > high, y < low, y > high, middle), strict=True) if true
    )


def caption(scene: Scene, generator: torch.Generator | None = None) -> str:
    """An exact caption: "a small red circle left of a large blue square on a black background".

    Grey is the background of captions that name none. Of two things the relation is told; of one, now and then its
    place. Without a generator the wording is the plainest, and no place is told.
    """
    pick = _Picker(generator)
    text = pick.frame().format(_describe(scene.things[0], pick))
    if len(scene.things) == 2:
        text += f" {pick.word(relation(*scene.things))} {_describe(scene.things[1], pick)}"
    elif pick.chance(0.4) and place(scene.things[0]):
        text += f" {pick.one_of(place(scene.things[0]))}"
    if scene.background != "grey":
        text += f" on a {scene.background} background"
    return text


def _describe(thing: Thing, pick: _Picker) -> str:
    return f"a {pick.word(thing.size)} {thing.colour} {pick.word(thing.shape)}"


class _Picker:
    """Choices of wording; without a generator always the first."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self.generator = generator

    def chance(self, p: float) -> bool:
        return self.generator is not None and torch.rand((), generator=self.generator).item() < p

    def one_of(self, options: Sequence[str]) -> str:
        if self.generator is None:
            return options[0]
        return options[int(torch.randint(len(options), (), generator=self.generator))]

    def word(self, word: str) -> str:
        return self.one_of(SYNONYMS.get(word, (word,)))

    def frame(self) -> str:
        return self.one_of(FRAMES)


def kept_for_test(text: str) -> bool:
    """Whether a caption is kept out of the training set: one in eight, by the SHA-256 of its text."""
    return hashlib.sha256(text.encode()).digest()[0] % TEST_SHARE == 0


@dataclass(frozen=True)
class Captioned:
    """Scenes with their images (n, 3, 32, 32) in [-1, 1] and their captions."""

    scenes: Scenes
    images: Float[Tensor, " n 3 32 32"]
    captions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.captions)


def captioned(n: int, generator: torch.Generator, *, split: Split = "train", two: float = 0.5) -> Captioned:
    """``n`` scenes with images and captions, as ``draw_scenes`` with the same arguments draws them.

    Training captions are reworded until they are not among those kept for the test. Those of "test" are, as long as
    some wording of the scene is found that is: of one scene in seventeen none is, and its caption may be trained on.
    """
    scenes = draw_scenes(n, generator, split=split, two=two)
    wanted = {"train": False, "test": True, "held_out": None}[split]
    captions = tuple(_worded(scenes[i], generator, wanted) for i in range(n))
    return Captioned(scenes, draw(scenes), captions)


def _worded(scene: Scene, generator: torch.Generator, wanted: bool | None) -> str:
    text = caption(scene, generator)
    for _ in range(200):
        if wanted is None or kept_for_test(text) == wanted:
            break
        text = caption(scene, generator)
    return text


_THING = re.compile(r"(?=\ba (\w+) (\w+) (\w+))")  # looks ahead, since "a picture of a" overlaps with the thing
_PLAIN = {option: word for word, options in SYNONYMS.items() for option in options}


@dataclass(frozen=True)
class Wish:
    """What a caption asks for; what it does not say is None.

    Attributes:
        things: (shape, colour, size) of each thing, in order.
        relation: of the first to the second.
        background: grey unless told.
        place: of a single thing.
    """

    things: tuple[tuple[str, str, str], ...]
    relation: str | None
    background: str
    place: str | None


def parse(text: str) -> Wish:
    """What a caption asks for.

    The inverse of ``caption``; a few free wordings outside its grammar are refused rather than guessed.

    Raises:
        UnknownNameError: no thing, or more than two, can be read in the text, or one in a relation to nothing.
    """
    text = text.lower()
    things = tuple(
        (_PLAIN.get(shape, shape), colour, _PLAIN.get(size, size))
        for size, colour, shape in _THING.findall(text)
        if colour in COLOURS and _PLAIN.get(shape, shape) in SHAPES and _PLAIN.get(size, size) in SIZES
    )
    if len(things) not in (1, 2):
        raise UnknownNameError(f"text: got {text!r}, expected one or two of 'a SIZE COLOUR SHAPE'")
    ground = next((name for name in ("black", "white") if f"on a {name} background" in text), "grey")
    if len(things) == 1:
        if any(f" {option} " in text for word in RELATIONS for option in SYNONYMS[word]):
            raise UnknownNameError(f"text: got {text!r}, expected two things of 'a SIZE COLOUR SHAPE' with a relation")
        return Wish(things, None, ground, next((words for words in PLACES if words in text), None))
    told = [word for word in RELATIONS if any(f" {option} a " in text for option in SYNONYMS[word])]
    if len(told) != 1:
        raise UnknownNameError(f"text: got {text!r}, expected one relation between the two things")
    return Wish(things, told[0], ground, None)


_SIDES = {
    "left of": ("on the left", "on the right"),
    "right of": ("on the right", "on the left"),
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
}


class Glosses(NamedTuple):
    """What the words of a caption are about.

    Attributes:
        texts: the gloss of the scene, which is its background, or "" where that is grey; then that of each thing, in
            the plainest words: its place, itself, the background.
        owner: for each word of the caption, the number of its gloss: 1 or 2 for the words of a thing, else 0.
    """

    texts: tuple[str, ...]
    owner: tuple[int, ...]


def glosses(text: str) -> Glosses:
    """What each word of a caption is about: the thing that it belongs to, where that is, and on which background.

    In "a big blue ring to the right of a small red disc" the words of "a big blue ring" are about "on the right a large
    blue ring". A relation belongs to neither thing; its words, and "there is", are about the scene.

    Raises:
        UnknownNameError: as in ``parse``.
    """
    wish, words = parse(text), text.lower().split()
    ground = "" if wish.background == "grey" else f" on a {wish.background} background"
    sides = _SIDES[wish.relation] if wish.relation else (wish.place or "",)
    things = [
        f"{side} a {size} {colour} {shape}{ground}"
        for side, (shape, colour, size) in zip(sides, wish.things, strict=True)
    ]
    owner = [0] * len(words)
    starts = [at for at in range(len(words) - 3) if _is_thing(*words[at : at + 4])]
    for number, at in enumerate(starts, start=1):
        owner[at : at + 4] = [number] * 4
    return Glosses(tuple(told.strip() for told in (ground, *things)), tuple(owner))


def _is_thing(article: str, size: str, colour: str, shape: str) -> bool:
    return (
        article == "a" and _PLAIN.get(size, size) in SIZES and colour in COLOURS and _PLAIN.get(shape, shape) in SHAPES
    )
