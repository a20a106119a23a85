"""Pictures beside words: which caption belongs to which image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from lecture_lib.errors import ShapeError
from lecture_lib.viz.images import to_pixels
from lecture_lib.viz.style import INK, as_array, panels, styled

_COLUMN, _LINE = 0.62, 0.42  # inches per image and per caption


@styled
def similarity_matrix(
    values: Any,
    images: Any,
    captions: Sequence[str],
    *,
    value_label: str,
    titles: Sequence[str] = ("",),
    form: str = "{:.2f}",
) -> Figure:
    """One or several tables of caption against image on a common scale, the images standing above their columns.

    Args:
        values: ``(panels, captions, images)``, or ``(captions, images)`` for a single table.
        images: ``(b, c, h, w)`` in [-1, 1].
        captions: one per row, top to bottom.
        value_label: quantity and unit on the colour bar.
        titles: one per table.
        form: how the number in each cell is written.

    Raises:
        ShapeError: values, images, captions and titles do not fit together.
    """
    values, pixels = as_array(values), to_pixels(images)
    values = values[None] if values.ndim == 2 else values
    expected = (len(titles), len(captions), len(pixels))
    if values.shape != expected:
        raise ShapeError(f"values: got shape {values.shape}, expected {expected}: tables, captions, images")
    wide = 0.075 * max(map(len, captions)) + len(titles) * (0.3 + _COLUMN * len(pixels)) + 0.9
    figure, axes = panels(1, len(titles), size=(wide, 1.4 + _LINE * len(captions)), squeeze=False, sharey=True)
    low, high = values.min(), values.max()
    for ax, table, title in zip(axes[0], values, titles, strict=True):
        shades = ax.imshow(table, cmap="cividis", aspect="auto", vmin=low, vmax=high)
        for (row, column), value in np.ndenumerate(table):
            ink = INK if value > (low + high) / 2 else "#FFFFFF"
            ax.text(column, row, form.format(value), ha="center", va="center", color=ink, fontsize=9)
        for column, pixel in enumerate(pixels):
            thumbnail = OffsetImage(pixel, zoom=1, interpolation="nearest")
            ax.add_artist(AnnotationBbox(thumbnail, (column, -0.5), (0, 22), boxcoords="offset points", pad=0.05))
        ax.set_xticks([])
        ax.set_yticks(range(len(captions)), captions)
        ax.grid(visible=False)
        ax.set_title(title, pad=44)
    figure.colorbar(shades, ax=axes[0], label=value_label)
    return figure
