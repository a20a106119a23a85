"""Scenes to pixels: signed distances, and a soft edge one pixel wide."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.data.shapes.scenes import BACKGROUNDS, COLOURS, SHAPES, SIDE, Scenes
from lecture_lib.tensors import check_count

Distance = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x, y, r) -> distance to the edge of a shape of radius r around the origin, negative inside; y points down."""


def circle(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """All points within r."""
    return torch.hypot(x, y) - r


def square(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """|x| and |y| at most r."""
    return torch.maximum(x.abs(), y.abs()) - r


def triangle(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Apex up: from (0, -r) to (-r, r) and (r, r); the slanted sides have the normal (2, -1)/sqrt(5)."""
    return torch.maximum((2 * x.abs() - y - r) / 5**0.5, y - r)


def diamond(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """|x| + |y| at most r."""
    return (x.abs() + y.abs() - r) / 2**0.5


def ring(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """A band of 0.5 r below radius r."""
    return (torch.hypot(x, y) - 0.75 * r).abs() - 0.25 * r


def cross(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Two bars of half-width 0.3 r."""
    long, short = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    return torch.maximum(long - r, short - 0.3 * r)


DISTANCES: dict[str, Distance] = dict(zip(SHAPES, (circle, square, triangle, diamond, ring, cross), strict=True))


def coverage(
    name: str, centre: Float[Tensor, " n 2"], radius: Float[Tensor, " n"], side: int = SIDE
) -> Float[Tensor, " n h w"]:
    """Which share of every pixel a shape covers, in [0, 1]: 1/2 - distance, cut off; ``side`` pixels per side."""
    pixel = (torch.arange(side) + 0.5).to(centre)
    x = pixel[None, None, :] - centre[:, 0, None, None]
    y = pixel[None, :, None] - centre[:, 1, None, None]
    return (0.5 - DISTANCES[name](x, y, radius[:, None, None])).clamp(0, 1)


def draw(scenes: Scenes, side: int = SIDE) -> Float[Tensor, " n 3 h w"]:
    """Images in [-1, 1] of all scenes, ``side`` pixels per side (32, or 64 on request), anti-aliased.

    Raises:
        RangeError: side < 1.
    """
    scale = check_count("side", side) / SIDE
    levels = torch.tensor(tuple(BACKGROUNDS.values()))[scenes.background]
    images = levels[:, None, None, None].expand(-1, 3, side, side).clone()
    palette = torch.tensor(tuple(COLOURS.values()))
    for k in range(2):
        for index, name in enumerate(SHAPES):
            rows = ((scenes.shape[:, k] == index) & (scenes.count > k)).nonzero()[:, 0]
            share = coverage(name, scale * scenes.centre[rows, k], scale * scenes.radius[rows, k], side)[:, None]
            images[rows] = torch.lerp(images[rows], palette[scenes.colour[rows, k]][:, :, None, None], share)
    return images
