"""Vector fields, trajectories, and the parallelogram of guidance in two dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lecture_lib.errors import NonFiniteError, ShapeError
from lecture_lib.viz.style import COND, DATA_UNIT, GUIDED, INK, UNCOND, as_array, canvas_for, label_axes, legend, styled


def _pairs(name: str, values: Any) -> np.ndarray:
    values = as_array(values)
    if values.ndim != 2 or values.shape[1] != 2 or not len(values):
        raise ShapeError(f"{name}: got shape {values.shape}, expected (n, 2) with n >= 1")
    if not np.isfinite(values).all():
        raise NonFiniteError(f"{name}: contains NaN or infinity, expected finite numbers")
    return values


@styled
def vector_field(
    points: Any, vectors: Any, *, colour: str = GUIDED, label: str = "", longest: float = 0.0, ax: Axes | None = None
) -> Figure:
    """Arrows at ``points``, with their true direction; lengths are scaled together.

    Args:
        points, vectors: ``(n, 2)`` each.
        longest: length in data units of the longest arrow; 0 takes the spacing of a square lattice of n points (1 for
            a single place). Give the same ``longest`` times a ratio to compare two fields.

    Raises:
        ShapeError, NonFiniteError: not two ``(n, 2)`` arrays of finite numbers.
    """
    figure, ax = canvas_for(ax, (5.6, 5.2))
    points, vectors = _pairs("points", points), _pairs("vectors", vectors)
    if points.shape != vectors.shape:
        raise ShapeError(f"vectors: got shape {vectors.shape}, expected {points.shape} like points")
    peak = float(np.linalg.norm(vectors, axis=1).max())
    longest = longest or float(np.ptp(points, axis=0).max()) / max(np.sqrt(len(points)) - 1.0, 1.0) or 1.0
    ax.quiver(*points.T, *vectors.T, color=colour, angles="xy", scale_units="xy", scale=(peak or 1.0) / longest,
              width=0.004, label=label or None)  # fmt: skip
    label_axes(ax, f"$x_1$ ({DATA_UNIT})", f"$x_2$ ({DATA_UNIT})")
    return figure


@styled
def trajectories(
    paths: Any, *, colour: str = GUIDED, label: str = "", ends: bool = True, ax: Axes | None = None
) -> Figure:
    """Sampling paths: thin lines from the noise, a dot where each one ends.

    Args:
        paths: ``(steps + 1, n, 2)``, first entry at the noise end (as ``torch.stack([f.x for f in frames])`` gives it).
    """
    figure, ax = canvas_for(ax, (5.6, 5.2))
    paths = as_array(paths)
    if paths.ndim != 3 or paths.shape[2] != 2:
        raise ShapeError(f"paths: got shape {paths.shape}, expected (steps + 1, n, 2)")
    if not np.isfinite(paths).all():
        raise NonFiniteError("paths: contains NaN or infinity, expected finite numbers")
    ax.plot(paths[:, :, 0], paths[:, :, 1], color=colour, alpha=0.35, linewidth=0.9)
    if ends:
        ax.scatter(*paths[-1].T, s=12, color=colour, linewidths=0, zorder=3)
    ax.plot([], [], color=colour, label=label or None)
    label_axes(ax, f"$x_1$ ({DATA_UNIT})", f"$x_2$ ({DATA_UNIT})")
    return figure


def _arrow(ax: Axes, tail: np.ndarray, head: np.ndarray, colour: str, label: str) -> None:
    """An arrow drawn in data coordinates; the invisible line gives it a place in the legend."""
    shape = {"arrowstyle": "-|>", "color": colour, "lw": 2.4, "mutation_scale": 16, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", xy=head, xytext=tail, zorder=4, arrowprops=shape)
    ax.plot([], [], color=colour, linewidth=2.4, label=label)


@styled
def parallelogram(
    point: Any,
    uncond: Any,
    cond: Any,
    w: float,
    *,
    length: float = 1.0,
    quantity: str = "score",
    legend_place: str = "inside",
    ax: Axes | None = None,
) -> Figure:
    """Guidance as a lever: from the tip of the unconditional score along the difference, w times as far.

    Args:
        point, uncond, cond: ``(2,)`` each: where we stand and the two scores there.
        w: guidance scale; the guided arrow ends at ``point + length * (uncond + w * (cond - uncond))``.
        length: data units drawn per unit of score, the same for all three arrows.
        quantity: what the arrows show, for the legend at ``legend_place`` ("inside", "right" or "below").
    """
    figure, ax = canvas_for(ax, (5.6, 5.2))
    point, uncond, cond = _pairs("point, uncond, cond", np.stack([as_array(v) for v in (point, uncond, cond)]))
    guided = uncond + w * (cond - uncond)
    tips = [point + length * v for v in (uncond, cond, guided)]
    # The lever: the straight line through the two tips, on which every guided score lies.
    ax.plot(*np.stack([tips[0], tips[1], tips[2]]).T, color=INK, linewidth=1.0, linestyle=":", zorder=3)
    _arrow(ax, point, tips[0], UNCOND, f"unconditional {quantity} (w = 0)")
    _arrow(ax, point, tips[1], COND, f"conditional {quantity} (w = 1)")
    _arrow(ax, point, tips[2], GUIDED, f"guided {quantity} (w = {w:g})")
    ax.plot(*point, "o", color=INK, zorder=5)
    label_axes(ax, f"$x_1$ ({DATA_UNIT})", f"$x_2$ ({DATA_UNIT})")
    legend(ax, legend_place)
    return figure
