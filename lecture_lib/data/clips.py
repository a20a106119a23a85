"""Short clips in which a digit flies straight ahead: what there is to learn beyond one picture is where it is going."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.data.digits import Split, digits
from lecture_lib.errors import RangeError
from lecture_lib.tensors import check_count

DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""(rows, columns) per frame; numbers of them are the second label of a clip."""
DIGIT = 8  # side of a digit in pixels


@dataclass(frozen=True)
class LabelledClips:
    """Clips in [-1, 1] with what is to be seen in them, and where it is going.

    Attributes:
        clips: (n, frames, 1, side, side), float32.
        labels: the digit, (n,).
        directions: number in ``DIRECTIONS``, (n,).
    """

    clips: Float[Tensor, " n f 1 h w"]
    labels: Int[Tensor, " n"]
    directions: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)


def moving_digits(n: int, *, frames: int = 4, side: int = 12, seed: int = 0, split: Split = "train") -> LabelledClips:
    """``n`` clips of a digit that moves one pixel per frame in one of eight directions and never leaves the picture.

    The digit and its direction are independent; where it starts is uniform among the places from which it stays inside.
    The same arguments give the same clips for ever.

    Args:
        n: number of clips.
        frames: per clip.
        side: of a frame; at least 8 + frames - 1.
        seed: of digits, directions and places.
        split: which digits fly.

    Raises:
        RangeError: the digit would leave the picture.
    """
    check_count("n", n)
    room, way = check_count("side", side) - DIGIT, check_count("frames", frames) - 1
    if way > room:
        raise RangeError(f"side: got {side} for {frames} frames, expected at least {DIGIT + way}")
    generator, source = torch.Generator().manual_seed(seed), digits(split)
    chosen = torch.randint(len(source), (n,), generator=generator)
    directions = torch.randint(len(DIRECTIONS), (n,), generator=generator)
    step = torch.tensor(DIRECTIONS)[directions]  # (n, 2)
    low, high = (-way * step).clamp(min=0), room - (way * step).clamp(min=0)  # first and last start that stays inside
    start = low + (torch.rand(n, 2, generator=generator) * (high - low + 1)).long()
    clips = torch.full((n, frames, 1, side, side), -1.0)
    inside = torch.arange(DIGIT)
    for frame in range(frames):
        corner = start + frame * step  # (n, 2)
        rows, columns = (corner[:, axis, None] + inside for axis in (0, 1))  # (n, 8) each
        each = torch.arange(n)[:, None, None]
        clips[each, frame, 0, rows[:, :, None], columns[:, None, :]] = source.images[chosen, 0]
    return LabelledClips(clips, source.labels[chosen], directions)
