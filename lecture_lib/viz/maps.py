"""Tables of numbers as small pictures: one square per number, colours on a scale that is drawn beside them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image, ImageDraw

from lecture_lib.errors import NonFiniteError, RangeError
from lecture_lib.viz.images import FONT_SIZE, font
from lecture_lib.viz.style import INK, PAPER, as_array

SEQUENTIAL, DIVERGING = "cividis", "PuOr"  # both are read alike by colour-blind readers


@lru_cache(maxsize=8)
def shades(colour: str) -> LinearSegmentedColormap:
    """From white to ``colour``: a background over which points and lines stay visible."""
    return LinearSegmentedColormap.from_list(colour, [PAPER, colour])


@lru_cache(maxsize=2)
def _palette(diverging: bool) -> np.ndarray:
    """(256, 3) in [-1, 1]."""
    from matplotlib import colormaps

    return 2 * colormaps[DIVERGING if diverging else SEQUENTIAL](np.linspace(0, 1, 256))[:, :3] - 1


def coloured(values: Any, low: float, high: float, *, diverging: bool = False) -> np.ndarray:
    """Numbers as colours, for ``image_grid`` and ``captioned_grid``.

    Args:
        values: ``(b, h, w)``; what lies outside ``[low, high]`` takes the colour of that end.
        low, high: ends of the scale.
        diverging: white in the middle of the scale, for numbers whose sign matters; else from dark to light.

    Returns:
        images ``(b, 3, h, w)`` in [-1, 1].

    Raises:
        NonFiniteError: NaN or infinity. RangeError: ``low`` is not below ``high``.
    """
    values = as_array(values)
    if not np.isfinite(values).all():
        raise NonFiniteError("values: contain NaN or infinity, expected finite numbers")
    if not low < high:
        raise RangeError(f"low: got {low:g}, expected less than high = {high:g}")
    shades = np.rint(255 * np.clip((values - low) / (high - low), 0, 1)).astype(int)
    return np.moveaxis(_palette(diverging)[shades], -1, 1)


def colour_bar(low: float, high: float, label: str, *, diverging: bool = False, width: int = 260) -> Image.Image:
    """The scale of ``coloured`` as a strip, its two ends and its middle in numbers, and what the numbers are."""
    face, height = font(), 12
    label_width = int(face.getlength(label)) + 24
    ends = [f"{value:.3g}" for value in (low, (low + high) / 2, high)]
    margin = int(max(face.getlength(text) for text in ends) / 2) + 4
    canvas = Image.new("RGB", (width + 2 * margin + label_width, height + FONT_SIZE + 16), PAPER)
    draw, top = ImageDraw.Draw(canvas), 6
    strip = coloured(np.linspace(low, high, width)[None, None], low, high, diverging=diverging)[0]
    pixels = np.repeat(np.rint((strip.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8), height, axis=0)
    canvas.paste(Image.fromarray(pixels), (margin, top))
    draw.rectangle((margin - 1, top - 1, margin + width, top + height), outline="#AAAAAA")
    for text, share in zip(ends, (0, 0.5, 1), strict=True):
        draw.text((margin + share * width, top + height + 3), text, fill=INK, font=face, anchor="ma")
    draw.text((2 * margin + width + 12, top + height / 2), label, fill=INK, font=face, anchor="lm")
    return canvas
