"""A network as a map: its blocks from left to right, each at the height of its resolution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lecture_lib.errors import ShapeError
from lecture_lib.viz.style import INK, OTHERS, canvas_for, label_axes, legend, styled

Block = tuple[str, str, int | None, int, int]
"""(name, kind, resolution of its output or None, channels, parameters), as a row of ``nets.block_table``."""

# colour of a kind of block: what has a transformer in it, what is a residual block, all the rest
_KINDS = (("transformer", OTHERS[0][0]), ("res", OTHERS[7][0]), ("", "#BBBBBB"))
_NAMES = ("residual block + spatial transformer", "residual block", "convolution")


@styled
def network_map(blocks: Sequence[Block], *, title: str = "", ax: Axes | None = None) -> Figure:
    """Blocks in the order of computation, at the height of their resolution, as wide as they have parameters.

    Width is the block's share of all parameters (with a least width, so that none vanishes); the channels are written
    inside. Blocks without a resolution (what embeds the time) are left out of the picture, not of the shares.

    Args:
        blocks: see ``Block``; at least one with a resolution.

    Raises:
        ShapeError: no block has a resolution.
    """
    placed = [block for block in blocks if block[2]]
    if not placed:
        raise ShapeError("blocks: got none with a resolution, expected at least one")
    figure, ax = canvas_for(ax, (10.5, 3.6))
    total, left = sum(block[4] for block in blocks), 0.0
    levels = sorted({block[2] for block in placed})
    for _, kind, size, channels, parameters in placed:
        width = max(parameters / total, 0.018)
        colour = next(colour for word, colour in _KINDS if word in kind)
        ax.add_patch(Rectangle((left, levels.index(size) - 0.32), width, 0.64, facecolor=colour, edgecolor="white"))
        ink = INK if colour == "#BBBBBB" else "white"
        ax.text(left + width / 2, levels.index(size), str(channels), ha="center", va="center", rotation=90, fontsize=8,
                color=ink)  # fmt: skip
        left += width
    for (_, colour), name in zip(_KINDS, _NAMES, strict=True):
        ax.add_patch(Rectangle((0, 0), 0, 0, facecolor=colour, label=name))
    ax.set(xlim=(-0.01, left + 0.01), ylim=(-0.6, len(levels) - 0.4), xticks=[])
    ax.set_yticks(np.arange(len(levels)), [f"{size} x {size}" for size in levels])
    ax.grid(axis="x", visible=False)
    label_axes(ax, "blocks in the order of computation; width: share of the parameters", "map (places)", title)
    legend(ax, "below")
    return figure
