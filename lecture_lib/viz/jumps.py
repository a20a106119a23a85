"""Pictures of flow maps: the square of all jumps with their errors, and the tree of progressive distillation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Arc

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.viz.maps import SEQUENTIAL
from lecture_lib.viz.style import INK, NOISE, STUDENT, as_array, label_axes, panels, styled


@styled
def jump_squares(
    times: Any,
    errors: Mapping[str, Any],
    *,
    value_label: str = "distance to the exact end (data units)",
    title: str = "",
) -> Figure:
    """The error of every jump from t to s of several maps: one square each, one logarithmic scale of colours for all.

    The diagonal holds jumps of no length, the bottom row those to the data; nothing is drawn above the diagonal.

    Args:
        times: ``(n,)``, rising.
        errors: name of the map -> ``(n, n)``, entry [j, i] for the jump from ``times[i]`` to ``times[j]``; entries with
            j >= i are not looked at, the others are at least 0.

    Raises:
        ShapeError: an array of another shape.
    """
    times = as_array(times)
    n, squares = len(times), {name: as_array(values) for name, values in errors.items()}
    for name, values in squares.items():
        if values.shape != (n, n):
            raise ShapeError(f"errors[{name!r}]: got shape {values.shape}, expected ({n}, {n})")
    below = np.triu(np.ones((n, n), dtype=bool), k=1)
    seen = np.concatenate([values[below] for values in squares.values()])
    scale = LogNorm(max(seen[seen > 0].min(), seen.max() / 1e4), seen.max(), clip=True)
    figure, axes = panels(1, len(squares), size=(1.6 + 3.1 * len(squares), 3.6), sharey=True, squeeze=False)
    for ax, (name, values) in zip(axes[0], squares.items(), strict=True):
        image = ax.imshow(np.where(below, values, np.nan), origin="lower", cmap=SEQUENTIAL, norm=scale)
        _tick(ax, times)
        label_axes(ax, "from time t", "to time s" if ax is axes[0, 0] else "", name)
    figure.colorbar(image, ax=axes, label=value_label)
    if title:
        figure.suptitle(title)
    return figure


def _tick(ax: Axes, times: np.ndarray) -> None:
    """At most five times written along each side, and the diagonal drawn."""
    shown = np.unique(np.linspace(0, len(times) - 1, min(len(times), 5)).round().astype(int))
    words = [f"{times[k]:.2g}" for k in shown]
    ax.set_xticks(shown, words)
    ax.set_yticks(shown, words)
    ax.grid(visible=False)
    ax.plot([0, len(times) - 1], [0, len(times) - 1], color=INK, linewidth=1)


@styled
def halving_tree(steps: Sequence[int], notes: Sequence[str] | None = None, *, title: str = "") -> Figure:
    """Progressive distillation: a row per sampler, from noise on the left to data, an arc per step.

    Each arc spans two of the row above: what these two do is its target.

    Args:
        steps: of each row from the top, each half of the one before, such as ``(16, 8, 4, 2, 1)``.
        notes: what to write at the right of each row, such as measured distances.

    Raises:
        RangeError: a row that is not half of the one before.
        ShapeError: notes for another number of rows.
    """
    notes = [""] * len(steps) if notes is None else list(notes)
    if any(2 * low != high for high, low in pairwise(steps)):
        raise RangeError(f"steps: got {tuple(steps)}, expected each to be half of the one before")
    if len(notes) != len(steps):
        raise ShapeError(f"notes: got {len(notes)}, expected {len(steps)}, one per row")
    figure, ax = panels(size=(8.2, 0.9 + 0.82 * len(steps)))
    for row, (n, note) in enumerate(zip(steps, notes, strict=True)):
        colour, times = NOISE if row == 0 else STUDENT, np.linspace(1, 0, n + 1)
        ax.plot(times, np.full(n + 1, -row), color=colour, marker="o", markersize=5, linewidth=0.8)
        for t, s in pairwise(times):
            ax.add_patch(Arc(((t + s) / 2, -row), t - s, 1.1, theta1=0, theta2=180, color=colour, linewidth=1.8))
        word = "step" if n == 1 else "steps"
        ax.text(1.03, -row + 0.1, f"{n} {word}", ha="right", va="bottom", color=INK)
        ax.text(-0.03, -row + 0.1, note, ha="left", va="bottom", color=INK)
    ax.set(xlim=(1.16, -0.3), ylim=(-len(steps) + 0.7, 0.75), yticks=[], xticks=[1, 0.75, 0.5, 0.25, 0])
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)
    label_axes(ax, "time t (1: noise, 0: data)", "", title)
    return figure
