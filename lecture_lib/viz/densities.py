"""Densities and samples: curves with histograms in one dimension, contours with points in two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lecture_lib.errors import NonFiniteError, ShapeError
from lecture_lib.viz.style import DATA, DATA_UNIT, DENSITY_LABEL, as_array, canvas_for, label_axes, legend, styled


@dataclass(frozen=True)
class Curve:
    """One line over the shared abscissa: values, name, colour of its meaning; ``dashed`` marks exact references."""

    y: Any
    label: str
    colour: str
    dashed: bool = False
    fill: bool = False
    linewidth: float = 2.0


@dataclass(frozen=True)
class Histogram:
    """One-dimensional samples as a normalised histogram; ``hollow`` draws only its outline, to tell two apart."""

    samples: Any
    label: str
    colour: str
    hollow: bool = False


def _finite(name: str, values: Any) -> np.ndarray:
    values = as_array(values)
    if not np.isfinite(values).all():
        raise NonFiniteError(f"{name}: contains NaN or infinity, expected finite numbers")
    return values


def _draw_histogram(ax: Axes, histogram: Histogram, edges: np.ndarray, top: float | None) -> None:
    """Counts divided by *all* samples, also those beyond the axis: a histogram cut off is not rescaled to one."""
    samples = _finite(f"histogram {histogram.label!r}", histogram.samples).ravel()
    if not len(samples):
        raise ShapeError(f"histogram {histogram.label!r}: got no samples, expected at least one")
    counts, _ = np.histogram(samples, edges)
    height = counts / (len(samples) * np.diff(edges))
    if histogram.hollow:
        ax.stairs(height, edges, color=histogram.colour, linewidth=1.6, label=histogram.label)
    else:
        ax.stairs(height, edges, fill=True, color=histogram.colour, alpha=0.4, label=histogram.label)
    if top is not None and height.max() > top:
        peak = edges[height.argmax() : height.argmax() + 2].mean()
        ax.annotate(f"up to {height.max():.3g}", (peak, top), xytext=(8, -6), textcoords="offset points", va="top",
                    color=histogram.colour)  # fmt: skip


@styled
def density_curves(
    x: Any,
    curves: Sequence[Curve],
    *,
    histograms: Sequence[Histogram] = (),
    bins: int = 80,
    xlabel: str = f"x ({DATA_UNIT})",
    ylabel: str = DENSITY_LABEL,
    title: str = "",
    top: float | None = None,
    legend_place: str = "inside",
    ax: Axes | None = None,
) -> Figure:
    """Closed-form densities as lines, samples as histograms, on shared axes.

    Args:
        x: ``(n,)`` increasing positions. curves: each with ``y`` of shape ``(n,)``.
        histograms: samples ``(m,)`` each; bins span the range of ``x``.
        top: fixed upper end of the density axis, so that pictures of a sweep can be compared; free when None.
            A histogram that is cut off there says how far it would reach.
        legend_place: "inside", "right" or "below".
        ax: draw into this axes instead of a new figure.

    Raises:
        ShapeError: a curve of another length than ``x``, or no samples. NonFiniteError: NaN or infinity in either.
    """
    figure, ax = canvas_for(ax)
    x = _finite("x", x)
    for histogram in histograms:
        _draw_histogram(ax, histogram, np.linspace(x[0], x[-1], bins + 1), top)
    for curve in curves:
        y = _finite(f"curve {curve.label!r}", curve.y)
        if y.shape != x.shape:
            raise ShapeError(f"curve {curve.label!r}: got shape {y.shape}, expected {x.shape} like x")
        ax.plot(
            x,
            y,
            color=curve.colour,
            linestyle="--" if curve.dashed else "-",
            label=curve.label,
            linewidth=curve.linewidth,
        )
        if curve.fill:
            ax.fill_between(x, y, color=curve.colour, alpha=0.12, linewidth=0)
    ax.set(xlim=(x[0], x[-1]), ylim=(0.0, top))
    label_axes(ax, xlabel, ylabel, title)
    legend(ax, legend_place)
    return figure


def lattice(extent: tuple[float, float, float, float], points: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A square lattice over ``(left, right, bottom, top)``: the two axes ``(n,)`` and all points ``(n * n, 2)``."""
    left, right, bottom, top = extent
    across, up = np.linspace(left, right, points), np.linspace(bottom, top, points)
    gx, gy = np.meshgrid(across, up)
    return across, up, np.stack([gx.ravel(), gy.ravel()], axis=1)


@styled
def density_contours(
    log_density: Callable[[np.ndarray], Any],
    extent: tuple[float, float, float, float],
    *,
    colour: str = DATA,
    label: str = "",
    dashed: bool = False,
    filled: bool = False,
    levels: Sequence[float] = (0.02, 0.1, 0.3, 0.6, 0.9),
    points: int = 120,
    ax: Axes | None = None,
) -> Figure:
    """Contours of a two-dimensional density at fixed fractions of its highest value in the window.

    Args:
        log_density: ``(n, 2)`` float64 array of positions -> ``(n,)`` log density (any normalisation, tensors welcome).
        extent: ``(left, right, bottom, top)`` in data units.
        levels: fractions of the maximum, increasing, in (0, 1).

    Returns:
        the figure; axes have equal scale, so circles are circles.

    Raises:
        NonFiniteError: NaN, or no finite highest value in the window.
    """
    figure, ax = canvas_for(ax, (5.6, 5.2))
    across, up, positions = lattice(extent, points)
    logs = as_array(log_density(positions)).reshape(points, points)
    if np.isnan(logs).any():
        raise NonFiniteError("log_density: returned NaN inside the window, expected log densities")
    if not np.isfinite(logs.max()):  # -inf alone is a place without any density; everywhere it leaves nothing to draw
        raise NonFiniteError(f"log_density: its highest value inside the window is {logs.max():g}, expected a number")
    relative = np.exp(logs - logs.max())
    if filled:
        ax.contourf(across, up, relative, levels=[*levels, 1.0001], colors=[colour], alpha=0.12)
    ax.contour(
        across, up, relative, levels=list(levels), colors=[colour], linestyles="--" if dashed else "-", linewidths=1.2
    )
    if label:
        ax.plot([], [], color=colour, linestyle="--" if dashed else "-", label=label)
    square(ax, extent)
    return figure


def square(ax: Axes, extent: tuple[float, float, float, float]) -> None:
    """Equal scales, the window ``extent``, and both axes labelled with their unit."""
    ax.set_aspect("equal", adjustable="box")
    ax.set(xlim=extent[:2], ylim=extent[2:])
    label_axes(ax, f"$x_1$ ({DATA_UNIT})", f"$x_2$ ({DATA_UNIT})")


@styled
def scatter(samples: Any, *, colour: str = DATA, label: str = "", size: float = 6.0, ax: Axes | None = None) -> Figure:
    """Two-dimensional samples ``(n, 2)`` as small translucent dots.

    Raises:
        ShapeError: not ``(n, 2)``. NonFiniteError: NaN or infinity.
    """
    figure, ax = canvas_for(ax, (5.6, 5.2))
    samples = _finite("samples", samples)
    if samples.ndim != 2 or samples.shape[1] != 2:
        raise ShapeError(f"samples: got shape {samples.shape}, expected (n, 2)")
    ax.scatter(*samples.T, s=size, color=colour, alpha=0.45, linewidths=0, label=label or None)
    return figure
