"""Batches of images as one labelled picture, enlarged by whole factors: never blurred, every pixel a square."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lecture_lib.errors import NonFiniteError, RangeError, ShapeError
from lecture_lib.viz.style import INK, PAPER, as_array

FONT_SIZE = 14
_PAD = 8


@lru_cache(maxsize=16)
def font(size: int = FONT_SIZE, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries along, so labels look the same on every machine."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def to_pixels(x: Any, scale: int = 1) -> np.ndarray:
    """Images in [-1, 1] -> bytes, each pixel repeated ``scale`` times in both directions.

    Args:
        x: ``(b, c, h, w)`` with one or three channels; -1 becomes black (0), +1 white (255), the rest is clipped.
        scale: whole enlargement factor, at least 1 (nearest neighbour, so every source pixel is an exact square).

    Returns:
        ``uint8`` array ``(b, h * scale, w * scale, 3)``.

    Raises:
        ShapeError: not ``(b, c, h, w)`` with c in {1, 3}. NonFiniteError: NaN or infinity. RangeError: bad scale.
    """
    x = as_array(x)
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ShapeError(f"x: got shape {x.shape}, expected (b, c, h, w) with c = 1 or 3")
    if not np.isfinite(x).all():
        raise NonFiniteError("x: the images contain NaN or infinity, expected finite numbers around [-1, 1]")
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1:
        raise RangeError(f"scale: got {scale!r}, expected a whole number >= 1")
    pixels = np.rint((np.clip(x, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
    pixels = np.repeat(np.repeat(pixels, scale, axis=1), scale, axis=2)
    return pixels if pixels.shape[-1] == 3 else np.repeat(pixels, 3, axis=-1)


def _text_width(text: str, face: ImageFont.FreeTypeFont) -> int:
    return max(int(np.ceil(face.getlength(line))) for line in text.split("\n"))


def _paste_all(canvas: Image.Image, pixels: np.ndarray, columns: int, origin: tuple[int, int], gap: int) -> None:
    """Image k goes to row k // columns, column k % columns."""
    height, width = pixels.shape[1:3]
    for k, pixel in enumerate(pixels):
        row, column = divmod(k, columns)
        canvas.paste(Image.fromarray(pixel), (origin[0] + column * (width + gap), origin[1] + row * (height + gap)))


def image_grid(
    x: Any,
    *,
    columns: int | None = None,
    scale: int = 6,
    gap: int = 4,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    title: str = "",
) -> Image.Image:
    """A batch as a grid on a light card, with a label beside each row and above each column.

    Args:
        x: ``(b, c, h, w)`` in [-1, 1], row after row.
        columns: images per row; by default one row up to eight images, then the squarest grid.
        scale: whole enlargement factor; 8x8 digits are judged well at 5 to 8.
        gap: white pixels between images.
        row_labels, column_labels: one text per row or column (``"w = 4"``, ``"7"``), or none at all. A row's label may
            have several lines, as many as its images are high.
        title: one line above everything.

    Returns:
        a Pillow image; ``viz.show`` displays it, ``viz.png_bytes`` encodes it.

    Raises:
        ShapeError, NonFiniteError, RangeError: from ``to_pixels``, or when labels and grid disagree.
    """
    pixels = to_pixels(x, scale)
    count, height, width = pixels.shape[:3]
    columns = _columns(columns, count, count if count <= 8 else int(np.ceil(np.sqrt(count))))
    rows = -(-count // columns)
    _check_labels("row_labels", row_labels, rows)
    _check_labels("column_labels", column_labels, columns)
    face, line = font(), FONT_SIZE + 8
    left = _PAD + (max(_text_width(t, face) for t in row_labels) + 10 if row_labels else 0)
    top = _PAD + (line if title else 0) + (line if column_labels else 0)
    inner = columns * (width + gap) - gap, rows * (height + gap) - gap
    title_width = _text_width(title, font(bold=True)) + 2 * _PAD if title else 0
    canvas = Image.new("RGB", (max(left + inner[0] + _PAD, title_width), top + inner[1] + _PAD), PAPER)
    _paste_all(canvas, pixels, columns, (left, top), gap)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((_PAD, _PAD + line / 2 - 3), title, fill=INK, font=font(bold=True), anchor="lm")
    for row, text in enumerate(row_labels):
        place = (left - 10, top + row * (height + gap) + height / 2)
        draw.text(place, text, fill=INK, font=face, anchor="rm", align="right")
    for column, text in enumerate(column_labels):
        draw.text((left + column * (width + gap) + width / 2, top - line / 2), text, fill=INK, font=face, anchor="mm")
    return canvas


def _columns(wanted: int | None, count: int, default: int) -> int:
    if not count:
        raise ShapeError("x: got no images, expected at least one")
    if wanted is not None and (not isinstance(wanted, int) or wanted < 1):
        raise RangeError(f"columns: got {wanted!r}, expected a whole number >= 1")
    return wanted or default


def _check_labels(name: str, labels: Sequence[str], wanted: int) -> None:
    if labels and len(labels) != wanted:
        raise ShapeError(f"{name}: got {len(labels)} labels, expected {wanted} (one each) or none")


def stack(*pictures: Image.Image, gap: int = 6, sideways: bool = False) -> Image.Image:
    """Several pictures below one another (or side by side) on one card, aligned at the top left corner."""
    sizes = np.array([picture.size for picture in pictures])
    extent = sizes.sum(0) + gap * (len(pictures) - 1)
    size = (extent[0], sizes[:, 1].max()) if sideways else (sizes[:, 0].max(), extent[1])
    canvas, position = Image.new("RGB", tuple(int(v) for v in size), PAPER), 0
    for picture in pictures:
        canvas.paste(picture.convert("RGB"), (position, 0) if sideways else (0, position))
        position += picture.size[0 if sideways else 1] + gap
    return canvas


def captioned_grid(
    x: Any,
    captions: Sequence[str],
    *,
    columns: int | None = None,
    scale: int = 4,
    gap: int = 14,
    width: int = 0,
    title: str = "",
) -> Image.Image:
    """A batch as a grid with a text under each image, wrapped to the image's width: prompts, verdicts, settings.

    Args:
        x: ``(b, c, h, w)`` in [-1, 1], row after row.
        captions: one text per image; a line break starts a new line, and "" leaves the place empty.
        columns: images per row; by default at most four.
        scale: whole enlargement factor; 32x32 scenes are judged well at 4 to 6.
        gap: white pixels between images.
        width: at least so many pixels for each column, where captions are long and images are small.
        title: one line above everything.

    Returns:
        a Pillow image; ``viz.show`` displays it.

    Raises:
        ShapeError, NonFiniteError, RangeError: from ``to_pixels``, or when captions and images disagree in number.
    """
    pixels, face, line = to_pixels(x, scale), font(), FONT_SIZE + 5
    count, height, wide = pixels.shape[:3]
    _check_labels("captions", captions, count)
    columns = _columns(columns, count, min(count, 4))
    cell = max([wide, width, *(_text_width(word, face) for text in captions for word in text.split())])
    blocks = [_wrapped(text, cell, face) for text in captions] or [[]] * count
    rows = [blocks[k : k + columns] for k in range(0, count, columns)]
    heights = [height + 5 + line * max(map(len, row)) + gap for row in rows]
    top = _PAD + (FONT_SIZE + 12 if title else 0)
    across = max(columns * (cell + gap) - gap, _text_width(title, font(bold=True))) + 2 * _PAD
    canvas = Image.new("RGB", (across, top + sum(heights) - gap + _PAD), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((_PAD, _PAD), title, fill=INK, font=font(bold=True))
    for k, pixel in enumerate(pixels):
        row, column = divmod(k, columns)
        left, above = _PAD + column * (cell + gap), top + sum(heights[:row])
        draw.rectangle((left - 1, above - 1, left + wide, above + height), outline="#AAAAAA")  # white on white shows
        canvas.paste(Image.fromarray(pixel), (left, above))
        for i, text in enumerate(blocks[k]):
            draw.text((left, above + height + 5 + i * line), text, fill=INK, font=face)
    return canvas


def _wrapped(text: str, width: int, face: ImageFont.FreeTypeFont) -> list[str]:
    """Lines no wider than ``width`` pixels, as long as single words are; the text's own line breaks stay."""
    lines: list[str] = []
    for paragraph in text.split("\n") if text else ():
        lines.append("")
        for word in paragraph.split():
            candidate = f"{lines[-1]} {word}".strip()
            if _text_width(candidate, face) <= width or not lines[-1]:
                lines[-1] = candidate
            else:
                lines.append(word)
    return lines


def text_card(text: str, *, width: int = 560, title: str = "") -> Image.Image:
    """A message as a picture, wrapped to ``width`` pixels: what a widget shows when there is nothing to draw."""
    face = font()
    lines = _wrapped(" ".join(text.split()), width - 2 * _PAD, face) or [""]
    top = _PAD + (FONT_SIZE + 12 if title else 0)
    canvas = Image.new("RGB", (width, top + len(lines) * (FONT_SIZE + 6) + _PAD), "#F3F3F3")
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((_PAD, _PAD), title, fill=INK, font=font(bold=True))
    for k, wrapped in enumerate(lines):
        draw.text((_PAD, top + k * (FONT_SIZE + 6)), wrapped, fill=INK, font=face)
    return canvas


def rendered(figure: Any) -> Image.Image:
    """A matplotlib figure as a Pillow image (Agg, without touching pyplot)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from lecture_lib.viz.style import style

    canvas = figure.canvas if isinstance(figure.canvas, FigureCanvasAgg) else FigureCanvasAgg(figure)
    with style():
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def as_picture(picture: Any) -> Image.Image:
    """Figure, Pillow image, PNG bytes or a ``uint8`` array ``(h, w, 3)`` -> Pillow image."""
    if isinstance(picture, Image.Image):
        return picture
    if isinstance(picture, bytes):
        return Image.open(io.BytesIO(picture))
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture)
    return rendered(picture)


def png_bytes(picture: Any) -> bytes:
    """A figure, Pillow image or ``uint8`` array as the bytes of a PNG file; bytes are returned unchanged.

    Grey pictures (every grid of digits) are stored with one channel: a third of the work and of the notebook.
    """
    if isinstance(picture, bytes):
        return picture
    image = as_picture(picture).convert("RGB")
    red, green, blue = image.split()
    if red.tobytes() == green.tobytes() == blue.tobytes():
        image = red
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
