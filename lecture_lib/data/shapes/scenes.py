"""Scenes of the shapes world: what there is to see, before a pixel is drawn or a word is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.errors import RangeError, UnknownNameError
from lecture_lib.tensors import check_count, check_number

SIDE = 32  # scenes are described in pixels of a 32x32 image, whatever they are drawn at
SHAPES = ("circle", "square", "triangle", "diamond", "ring", "cross")
COLOURS = {
    "red": (0.80, -0.80, -0.80),
    "orange": (1.00, 0.10, -0.85),
    "yellow": (0.95, 0.85, -0.60),
    "green": (-0.75, 0.35, -0.60),
    "cyan": (-0.60, 0.75, 0.90),
    "blue": (-0.75, -0.50, 0.85),
    "purple": (0.05, -0.70, 0.35),
    "pink": (1.00, 0.00, 0.60),
}
SIZES = {"small": 5.0, "large": 7.0}  # radius in pixels: every shape fills the square [-r, r]
BACKGROUNDS = {"black": -1.0, "grey": 0.0, "white": 1.0}
RELATIONS = ("left of", "right of", "above", "below")
# One pair per shape that no training image contains: can the model paint a red triangle, having seen red and triangles?
HELD_OUT = (
    ("circle", "yellow"),
    ("square", "purple"),
    ("triangle", "red"),
    ("diamond", "cyan"),
    ("ring", "blue"),
    ("cross", "green"),
)
MARGIN, GAP, SLANT = 0.75, 2.0, 0.6  # pixels to the border, pixels between two shapes, offset across over offset along

Split = Literal["train", "test", "held_out"]


@dataclass(frozen=True)
class Thing:
    """One shape: three words and the centre (x to the right, y down) in pixels of a 32x32 image."""

    shape: str
    colour: str
    size: str
    centre: tuple[float, float]

    def __post_init__(self) -> None:
        for name, value, known in (
            ("shape", self.shape, SHAPES),
            ("colour", self.colour, COLOURS),
            ("size", self.size, SIZES),
        ):
            if value not in known:
                raise UnknownNameError(f"{name}: got {value!r}, expected one of {', '.join(known)}")


@dataclass(frozen=True)
class Scene:
    """One or two things on a plain background."""

    things: tuple[Thing, ...]
    background: str = "grey"

    def __post_init__(self) -> None:
        if len(self.things) not in (1, 2):
            raise RangeError(f"things: got {len(self.things)} of them, expected 1 or 2")
        if self.background not in BACKGROUNDS:
            raise UnknownNameError(f"background: got {self.background!r}, expected one of {', '.join(BACKGROUNDS)}")


@dataclass(frozen=True)
class Scenes:
    """Many scenes as tensors, one row each; ``scenes[i]`` is one of them in words.

    Attributes:
        shape, colour, size: indices into SHAPES, COLOURS, SIZES; the second column is idle where count is 1.
        centre: (x, y) of both things, in pixels of a 32x32 image.
        count: 1 or 2 things.
        background: index into BACKGROUNDS.
    """

    shape: Int[Tensor, " n 2"]
    colour: Int[Tensor, " n 2"]
    size: Int[Tensor, " n 2"]
    centre: Float[Tensor, " n 2 2"]
    count: Int[Tensor, " n"]
    background: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, i: int) -> Scene:
        things = tuple(
            Thing(
                SHAPES[self.shape[i, k]],
                tuple(COLOURS)[self.colour[i, k]],
                tuple(SIZES)[self.size[i, k]],
                tuple(self.centre[i, k].tolist()),
            )
            for k in range(self.count[i])
        )
        return Scene(things, tuple(BACKGROUNDS)[self.background[i]])

    def take(self, index: Tensor | slice) -> Scenes:
        """Some of the scenes: an index tensor, a mask or a slice."""
        return Scenes(*(getattr(self, field.name)[index] for field in fields(self)))

    @property
    def radius(self) -> Float[Tensor, " n 2"]:
        """Radius of both things in pixels of a 32x32 image."""
        return torch.tensor(tuple(SIZES.values()))[self.size]

    @classmethod
    def of(cls, scenes: Sequence[Scene]) -> Scenes:
        """Scenes in words, as tensors."""
        pairs = [(scene.things * 2)[:2] for scene in scenes]  # a single thing fills the idle column, too

        def table(names: Sequence[str], word: str) -> Tensor:
            return torch.tensor([[names.index(getattr(thing, word)) for thing in pair] for pair in pairs])

        return cls(
            table(SHAPES, "shape"),
            table(tuple(COLOURS), "colour"),
            table(tuple(SIZES), "size"),
            torch.tensor([[thing.centre for thing in pair] for pair in pairs]),
            torch.tensor([len(scene.things) for scene in scenes]),
            torch.tensor([tuple(BACKGROUNDS).index(scene.background) for scene in scenes]),
        )


def relation(first: Thing, second: Thing) -> str:
    """Where the first thing stands as seen from the second: along the axis on which they are further apart."""
    dx, dy = (a - b for a, b in zip(first.centre, second.centre, strict=True))
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def draw_scenes(n: int, generator: torch.Generator, *, split: Split = "train", two: float = 0.5) -> Scenes:
    """``n`` random scenes; half of them on grey, a quarter each on black and on white.

    Things lie wholly inside the image and do not touch. In "train" and "test" no thing has a held-out pair of shape
    and colour; in "held_out" the first thing always has one.

    Args:
        n: number of scenes.
        generator: source of all randomness.
        split: which pairs may occur ("test" differs from "train" by its captions, see ``captioned``).
        two: share of scenes with two things.

    Raises:
        UnknownNameError: no such split.
        RangeError: n < 1, or two outside [0, 1].
    """
    if split not in ("train", "test", "held_out"):
        raise UnknownNameError(f"split: got {split!r}, expected 'train', 'test' or 'held_out'")
    check_count("n", n)
    check_number("two", two, 0, 1)
    uniform = lambda *shape: torch.rand(n, *shape, generator=generator)  # noqa: E731
    pairs = _pairs(held_out=False)[(uniform(2) * len(_pairs(held_out=False))).long()]  # (n, 2, 2)
    if split == "held_out":
        pairs[:, 0] = _pairs(held_out=True)[(uniform() * len(HELD_OUT)).long()]
    size = (uniform(2) * len(SIZES)).long()
    count = 1 + (uniform() < two).long()
    background = torch.tensor([1, 1, 0, 2])[(uniform() * 4).long()]
    radius = torch.tensor(tuple(SIZES.values()))[size]
    centre = torch.where((count == 1)[:, None, None], _alone(radius, uniform), _together(radius, uniform))
    return Scenes(pairs[..., 0], pairs[..., 1], size, centre, count, background)


def _pairs(*, held_out: bool) -> Int[Tensor, " k 2"]:
    """All (shape, colour) pairs that are held out, or all others."""
    every = [(s, c) for s in range(len(SHAPES)) for c in range(len(COLOURS))]
    colours = tuple(COLOURS)
    return torch.tensor([(s, c) for s, c in every if ((SHAPES[s], colours[c]) in HELD_OUT) == held_out])


def _anywhere(radius: Tensor, u: Tensor) -> Tensor:
    """A coordinate between the margins, from u in [0, 1]."""
    return MARGIN + radius + u * (SIDE - 2 * (MARGIN + radius))


def _alone(radius: Float[Tensor, " n 2"], uniform) -> Float[Tensor, " n 2 2"]:
    return _anywhere(radius[..., None], uniform(2, 2))


def _together(radius: Float[Tensor, " n 2"], uniform) -> Float[Tensor, " n 2 2"]:
    """Two centres side by side along a random axis, at a distance and a slant that leave the relation clear."""
    slack = SIDE - 2 * MARGIN - GAP - 2 * radius.sum(1)  # pixels to spare along the axis
    before = uniform() * slack
    between = GAP + uniform() * (slack - before)
    along0 = MARGIN + radius[:, 0] + before
    distance = radius.sum(1) + between
    across0 = _anywhere(radius[:, 0], uniform())
    across1 = across0 + SLANT * (2 * uniform() - 1) * distance
    low = MARGIN + radius[:, 1]
    across1 = across1.clamp(low, SIDE - low)
    across1 = torch.minimum(torch.maximum(across1, across0 - SLANT * distance), across0 + SLANT * distance)
    centre = torch.stack(
        [torch.stack([along0, across0], 1), torch.stack([along0 + distance, across1], 1)], 1
    )  # (n, thing, axis)
    mirrored = torch.where((uniform() < 0.5)[:, None, None], SIDE - centre, centre)
    return torch.where((uniform() < 0.5)[:, None, None], mirrored.flip(-1), mirrored)
