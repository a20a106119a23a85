"""Endless fresh scenes: a training set that is never seen twice, since drawing is cheaper than storing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.data.shapes.drawing import draw
from lecture_lib.data.shapes.scenes import draw_scenes


@dataclass(frozen=True)
class FreshScenes:
    """Batches of new training images (batch_size, 3, 32, 32) in [-1, 1], without captions.

    About 0.2 ms per image. The generator is the whole state, as with ``data.Batches``.
    """

    batch_size: int
    two: float = 0.5

    def draw(self, generator: torch.Generator) -> tuple[Float[Tensor, " b 3 32 32"]]:
        return (draw(draw_scenes(self.batch_size, generator, two=self.two)),)
