"""A table as a picture: one line per contestant, one panel per measure, points with their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterMathtext, LogLocator

from lecture_lib.viz.style import DATA, EXACT, GRID, STUDENT, panels, style


@dataclass(frozen=True)
class Column:
    """One measure of all contestants.

    Attributes:
        title, unit: what stands above the panel and below it.
        values: one per contestant; None where there is none.
        spreads: half widths of the whiskers; default none.
        looser: contestants whose number is only a bound or an estimate, drawn hollow.
        log: whether the axis is logarithmic.
        reference: a dashed line, such as that of real data.
        best: "low" or "high": the end at which numbers are good, marked by an arrow in the title.
    """

    title: str
    unit: str
    values: Sequence[float | None]
    spreads: Sequence[float] | None = None
    looser: Sequence[bool] | None = None
    log: bool = False
    reference: float | None = None
    best: str = "low"


def league(names: Sequence[str], columns: Sequence[Column], *, groups: Sequence[int] = (), note: str = "") -> Figure:
    """Contestants from top to bottom in the order given.

    Args:
        names: of the contestants.
        columns: from left to right.
        groups: indices before which a thin line separates groups.
        note: a line below all panels, such as what is dashed.
    """
    n = len(names)
    with style():
        size = (2.1 * len(columns) + 2.2, 0.27 * n + 1.5)
        fig, axes = panels(1, len(columns), size=size, sharey=True, squeeze=False)
        axes = axes[0]
        for ax, column in zip(axes, columns, strict=True):
            _column(ax, column, n)
            for at in groups:
                ax.axhline(at - 0.5, color="#777777", linewidth=0.8)
        axes[0].set_yticks(range(n), names)
        axes[0].set_ylim(n - 0.5, -0.5)
        fig.supxlabel(note, fontsize=9)
    return fig


def _column(ax, column: Column, n: int) -> None:
    looser = column.looser or [False] * n
    spreads = column.spreads or [0.0] * n
    for i, (value, spread, hollow) in enumerate(zip(column.values, spreads, looser, strict=True)):
        if value is None:
            ax.text(0.5, i, "none", transform=ax.get_yaxis_transform(), ha="center", va="center", color="#777777")
            continue
        look = {"markerfacecolor": "white"} if hollow else {}
        ax.errorbar(value, i, xerr=spread, fmt="o", color=STUDENT if hollow else DATA, markersize=6, capsize=2, **look)
    if column.reference is not None:
        ax.axvline(column.reference, color=EXACT, linestyle="--", linewidth=1.2)
    if column.log:
        ax.set_xscale("log")
        given = [value for value in column.values if value is not None]
        wide = max(given, default=1) > 300 * min(given, default=1)  # then a label for every decade is enough
        ax.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 3), numticks=4 if wide else 8))
        ax.xaxis.set_major_formatter(LogFormatterMathtext() if wide else "{x:g}")
        ax.xaxis.set_minor_formatter("")
    arrow = {"low": "←", "high": "→"}[column.best]
    ax.set_title(f"{arrow} {column.title}" if column.best == "low" else f"{column.title} {arrow}", fontsize=10)
    ax.set_xlabel(column.unit, fontsize=9)
    ax.tick_params(labelsize=9)
    ax.grid(axis="y", color=GRID)
    ax.margins(x=0.12)
