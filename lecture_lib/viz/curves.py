"""Measurements: metrics against a knob, the fidelity-diversity plane, bars of cost, heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lecture_lib.errors import NonFiniteError, ShapeError
from lecture_lib.viz.style import GUIDED, INK, PAPER, W_LABEL, as_array, canvas_for, label_axes, legend, other, styled


@dataclass(frozen=True)
class Line:
    """One line of a comparison.

    ``y`` has the length of the knob; ``low``, ``high`` bound a band (both or neither); ``look`` holds matplotlib line
    properties: ``{"color": GUIDED}`` for a line with a meaning, leave it empty for the next free look.
    """

    label: str
    y: Any
    low: Any = None
    high: Any = None
    look: Mapping[str, Any] = field(default_factory=dict)


def _looks(lines: Sequence[Any]) -> list[dict[str, Any]]:
    """The look of each line; lines without one take the free looks in order."""
    free = iter(range(len(lines)))
    return [{"marker": "o", **line.look} if line.look else other(next(free)) for line in lines]


def _values(name: str, values: Any, length: int) -> np.ndarray:
    """NaN is allowed (a gap: not measured there), infinity and other lengths are not."""
    values = as_array(values)
    if values.shape != (length,):
        raise ShapeError(f"{name}: got shape {values.shape}, expected ({length},)")
    if np.isinf(values).any():
        raise NonFiniteError(f"{name}: contains infinity, expected finite numbers (NaN leaves a gap)")
    return values


@styled
def sweep(
    knob: Any,
    lines: Sequence[Line],
    *,
    xlabel: str = W_LABEL,
    ylabel: str,
    title: str = "",
    log_x: bool = False,
    log_y: bool = False,
    references: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Metrics against a knob, with bands where an interval was measured.

    Args:
        knob: ``(n,)`` positions, usually guidance scales. lines: see ``Line``.
        ylabel: with its unit, e.g. "judge accuracy (fraction)".
        references: named horizontal dashed lines, e.g. ``{"train against test": 16.5}``.

    Raises:
        ShapeError: a line of another length. NonFiniteError: infinite values.
    """
    figure, ax = canvas_for(ax)
    knob = as_array(knob)
    for line, look in zip(lines, _looks(lines), strict=True):
        ax.plot(knob, _values(line.label, line.y, len(knob)), label=line.label, **look)
        if line.low is not None and line.high is not None:
            low, high = (_values(f"band of {line.label}", v, len(knob)) for v in (line.low, line.high))
            ax.fill_between(knob, low, high, color=look.get("color"), alpha=0.15, linewidth=0)
    for name, value in (references or {}).items():
        ax.axhline(value, color=INK, linestyle="--", linewidth=1.3, label=name)
    ax.set(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
    label_axes(ax, xlabel, ylabel, title)
    legend(ax)
    return figure


@dataclass(frozen=True)
class Tradeoff:
    """One line in the fidelity-diversity plane: a point per knob value, the values written along the line."""

    label: str
    diversity: Any
    fidelity: Any
    knob: Sequence[Any] = ()
    look: Mapping[str, Any] = field(default_factory=dict)


@styled
def tradeoff(
    lines: Sequence[Tradeoff],
    *,
    xlabel: str = "diversity: coverage of the test set (fraction)",
    ylabel: str = "fidelity: judge accuracy (fraction)",
    knob_name: str = "w",
    title: str = "",
    annotate: Sequence[int] | None = None,
    size: tuple[float, float] = (7.6, 4.8),
    ax: Axes | None = None,
) -> Figure:
    """Fidelity against diversity, up and to the right is better.

    Args:
        lines: see ``Tradeoff``; the one named first is drawn thick, as the curve the others are compared with.
        annotate: which lines (by index) get the knob value written beside their points; by default only the first.
    """
    figure, ax = canvas_for(ax, size)
    annotate = (0,) if annotate is None else annotate
    for k, (line, look) in enumerate(zip(lines, _looks(lines), strict=True)):
        across, up = as_array(line.diversity), as_array(line.fidelity)
        first = {"linewidth": 2.8, "zorder": 4} if k == 0 else {"linewidth": 1.6}
        ax.plot(across, _values(line.label, up, len(across)), label=line.label, **{**first, **look})
    ax.margins(x=0.12, y=0.1)
    label_axes(ax, xlabel, ylabel, title)
    legend(ax, "right" if len(lines) > 4 else "inside")
    for k in annotate:
        _write_knob(ax, lines[k], knob_name, _looks(lines)[k].get("color", INK))
    return figure


def _write_knob(ax: Axes, line: Tradeoff, name: str, colour: str) -> None:
    """The knob beside its points, with a white halo; a point too close to the last one written stays silent."""
    ax.get_xlim()  # settles the automatic limits, on which pixel distances depend
    points = np.stack([as_array(line.diversity), as_array(line.fidelity)], axis=1)
    places, last = ax.transData.transform(points), np.full(2, -np.inf)
    for point, place, value in zip(points, places, line.knob, strict=False):
        if not np.isfinite(point).all() or (np.abs(place - last) < (58, 16)).all():
            continue
        last = place
        halo = [withStroke(linewidth=3, foreground=PAPER)]
        ax.annotate(f"{name} = {value:g}", point, xytext=(-7, -5), textcoords="offset points", ha="right", va="top",
                    fontsize=10, color=colour, path_effects=halo, zorder=6)  # fmt: skip


@styled
def bars(
    labels: Sequence[str],
    values: Any,
    *,
    xlabel: str,
    title: str = "",
    colours: Sequence[str] | None = None,
    form: str = "{:.3g}",
    errors: Any = None,
    ax: Axes | None = None,
) -> Figure:
    """Horizontal bars with the number at the end of each: costs, counts, times.

    Args:
        labels: one per bar, top to bottom. values: ``(n,)``, from zero. xlabel: quantity and unit.
        errors: half-widths ``(n,)`` of the measured spread, drawn as whiskers.
    """
    figure, ax = canvas_for(ax, (7.2, 0.9 + 0.42 * len(labels)))
    values = _values("values", values, len(labels))
    places = np.arange(len(labels))
    colours = list(colours) if colours is not None else [GUIDED] * len(labels)
    ax.barh(places, values, color=colours, height=0.62, xerr=errors, ecolor=INK)
    for place, value in zip(places, values, strict=True):
        ax.annotate(form.format(value), (value, place), xytext=(5, 0), textcoords="offset points", va="center")
    ax.set_yticks(places, labels)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.14)
    label_axes(ax, xlabel, "", title)
    return figure


@styled
def heat_map(
    values: Any,
    columns: Sequence[Any],
    rows: Sequence[Any],
    *,
    xlabel: str,
    ylabel: str,
    value_label: str,
    title: str = "",
    form: str = "{:.2f}",
    ax: Axes | None = None,
) -> Figure:
    """A table as colours, with the number in each cell; NaN leaves an empty cell.

    Args:
        values: ``(rows, columns)``; row 0 is drawn at the bottom, as on a graph.
        columns, rows: the tick of each column and row. value_label: quantity and unit on the colour bar.
    """
    figure, ax = canvas_for(ax, (1.9 + 0.62 * len(columns), 1.5 + 0.5 * len(rows)))
    values = as_array(values)
    if values.shape != (len(rows), len(columns)):
        raise ShapeError(f"values: got shape {values.shape}, expected ({len(rows)}, {len(columns)})")
    image = ax.imshow(values, origin="lower", cmap="cividis", aspect="auto")
    ax.grid(visible=False)
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            ink = INK if value > middle else "#FFFFFF"
            ax.text(column, row, form.format(value), ha="center", va="center", color=ink, fontsize=9)
    ax.set_xticks(range(len(columns)), [f"{c:g}" if isinstance(c, float) else str(c) for c in columns])
    ax.set_yticks(range(len(rows)), [f"{r:g}" if isinstance(r, float) else str(r) for r in rows])
    figure.colorbar(image, ax=ax, label=value_label)
    label_axes(ax, xlabel, ylabel, title)
    return figure
