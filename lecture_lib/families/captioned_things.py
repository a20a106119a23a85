"""The smallest world of words and pictures: one thing on grey, 16x16 pixels, and "a small red circle"."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.data.shapes import COLOURS, SHAPES, SIZES, draw, draw_scenes
from lecture_lib.data.shapes.scenes import MARGIN
from lecture_lib.nets import Tokenizer

SIDE = 16  # of the small pictures, in pixels
WANDER = 2.0  # largest distance of a thing from the middle along an axis, in pixels of the large ones
CAPTION = 6  # <start> a size colour shape <end>


@cache
def thing_words() -> Tokenizer:
    """The tokenizer of captions such as "a small red circle"."""
    return Tokenizer(("a", *SIZES, *COLOURS, *SHAPES), CAPTION)


@dataclass(frozen=True)
class CaptionedThings:
    """Batches of fresh pictures (b, 3, 16, 16) of one thing on grey, with the tokens (b, 6) of "a small red circle".

    The thing stands near the middle; where exactly, no caption says. The oracle of the shapes world reads 32x32 pixels:
    ``enlarged`` makes them, and it is then right about all that are drawn.
    """

    batch_size: int

    def draw(self, generator: torch.Generator) -> tuple[Float[Tensor, " b 3 16 16"], Int[Tensor, " b 6"]]:
        """One batch; the generator is the whole state."""
        scenes = draw_scenes(self.batch_size, generator, two=0.0)
        centre = 16 + WANDER * (scenes.centre - 16) / (16 - MARGIN - scenes.radius[..., None])
        scenes = replace(scenes, background=torch.ones_like(scenes.background), centre=centre)
        ids = thing_words().ids
        columns = [
            torch.tensor([ids[word] for word in names])[index[:, 0]]
            for names, index in ((SIZES, scenes.size), (COLOURS, scenes.colour), (SHAPES, scenes.shape))
        ]
        start, a, end = (torch.full_like(columns[0], ids[word]) for word in ("<start>", "a", "<end>"))
        return draw(scenes, SIDE), torch.stack([start, a, *columns, end], dim=1)


def enlarged(x: Float[Tensor, " b 3 16 16"]) -> Float[Tensor, " b 3 32 32"]:
    """The picture at the size that the oracle of the shapes world reads, clamped to [-1, 1]."""
    return F.interpolate(x, size=(2 * SIDE, 2 * SIDE), mode="bicubic").clamp(-1, 1)
