"""The front: quality against evaluations or milliseconds, method by method, and what one gets for a given budget."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

import lecture_lib
from lecture_lib.errors import DamagedFileError
from lecture_lib.metrics import Price, pareto, read_prices
from lecture_lib.viz import EXACT, STUDENT, cost_front, legend, other, panels, styled
from lecture_lib.widgets.controls import choice, count, narrow, switch
from lecture_lib.widgets.explorer import Explorer, Scene

TABLE = Path(lecture_lib.__file__).parents[1] / "docs" / "front.csv"
AXES = {"nfe": "network evaluations per digit", "ms": "milliseconds of one core per digit"}
EVALUATIONS = (1, 2, 4, 8, 16, 32)
QUALITY = "Fréchet distance to the test digits"


def measured_front(table: Path = TABLE) -> list[Price]:
    """The front of the digits that the course was shipped with, as ``course bench front`` wrote it.

    Raises:
        DamagedFileError: the table is missing or has no points.
    """
    rows = list(csv.DictReader(table.open(encoding="utf-8"))) if table.is_file() else []
    if not (found := read_prices(rows)):
        raise DamagedFileError(f"{table}: no points found; `course bench front` measures them, some minutes")
    return found


def methods(points: Sequence[Price]) -> list[str]:
    """Their names in order of appearance."""
    return list(dict.fromkeys(point.method for point in points))


def on_front(points: Sequence[Price], axis: str) -> list[Price]:
    """The points that no other makes superfluous, from cheap to dear."""
    costs = [getattr(point, axis) for point in points]
    mask = pareto(costs, [point.quality for point in points])
    return sorted((p for p, on in zip(points, mask, strict=True) if on), key=lambda p: getattr(p, axis))


def within(points: Sequence[Price], axis: str, budget: float) -> list[Price]:
    """Of every method the best point that costs no more than the budget, best method first."""
    affordable = [p for p in points if getattr(p, axis) <= budget * (1 + 1e-9)]
    best = [min((p for p in affordable if p.method == name), key=lambda p: p.quality) for name in methods(affordable)]
    return sorted(best, key=lambda p: p.quality)


def budget_at(points: Sequence[Price], axis: str, share: float) -> float:
    """A place on the logarithmic axis: 0 is the cheapest point of all, 1 the dearest."""
    low, high = (f(math.log(getattr(p, axis)) for p in points) for f in (min, max))
    return math.exp(low + share * (high - low))


# The picture ----------------------------------------------------------------------------------------------------------


@styled
def front_picture(points: Sequence[Price], *, ylabel: str = QUALITY, floor: float | None = None) -> Figure:
    """Both axes of cost side by side.

    Args:
        points: of any methods.
        ylabel: what their quality is.
        floor: the quality of real data.
    """
    figure, axes = panels(1, 2, size=(11.0, 4.4), sharey=True)
    for ax, axis in zip(axes, AXES, strict=True):
        _lines(ax, points, points, axis, ylabel if axis == "nfe" else "", floor)
    legend(axes[1], "right")
    return figure


def _lines(
    ax: Axes, shown: Sequence[Price], everything: Sequence[Price], axis: str, ylabel: str, floor: float | None = None
) -> None:
    looks = {name: other(k) for k, name in enumerate(methods(everything))}
    for name in looks:
        if "student" in name:
            looks[name] = {"color": STUDENT, "marker": "o", "linestyle": "-", "markersize": 8}
    lines = {
        name: tuple(zip(*((getattr(p, axis), p.quality) for p in shown if p.method == name), strict=True))
        for name in methods(shown)
    }
    front = [(getattr(p, axis), p.quality) for p in on_front(shown, axis)]
    cost_front(lines, front, xlabel=AXES[axis], ylabel=ylabel, looks=looks, floor=floor, ax=ax)
    if axis == "nfe":
        ax.set_xticks(EVALUATIONS, [str(n) for n in EVALUATIONS])


@styled
def _drawn(shown: Sequence[Price], everything: Sequence[Price], axis: str, budget: float, best: list[Price]) -> Figure:
    figure, (plot, table) = panels(1, 2, size=(11.0, 4.6), width_ratios=(1.15, 1))
    _lines(plot, shown, everything, axis, QUALITY)
    plot.axvline(budget, color=EXACT, linewidth=1.0)
    if best:
        x, y = getattr(best[0], axis), best[0].quality
        plot.plot([x], [y], "*", markersize=15, color=EXACT, zorder=5, label="best within the budget")
    legend(plot)
    table.axis("off")
    table.set_title(f"Within {_said(axis, budget)}")
    rows = [(p.method, f"{p.nfe}", f"{p.ms:.3g}", f"{p.quality:.3g}") for p in best]
    if rows:
        cells = table.table(
            rows, colLabels=("method", "NFE", "ms", "distance"), colWidths=(0.55, 0.13, 0.15, 0.2),
            loc="upper left", edges="horizontal", cellLoc="right",
        )  # fmt: skip
        cells.auto_set_font_size(False)
        cells.set_fontsize(11)
        cells.scale(1, 1.6)
        for (_, column), cell in cells.get_celld().items():
            cell.set_edgecolor("#DDDDDD")
            if column == 0:
                cell.set_text_props(ha="left")
    return figure


def _said(axis: str, budget: float) -> str:
    return f"{budget:.3g} evaluations per digit" if axis == "nfe" else f"{budget:.3g} ms per digit"


class Front:
    """The points of a front, and what a reader asks of them."""

    def __init__(self, points: Sequence[Price]) -> None:
        self.points = list(points)

    def switches(self) -> dict[str, str]:
        """Name of the control that shows a method -> the method."""
        return {f"method{k}": name for k, name in enumerate(methods(self.points), start=1)}

    def scene(self, axis: str, place: int, **on: bool) -> Scene:
        """The methods switched on, and the best of each within the budget."""
        names = {name for control, name in self.switches().items() if on[control]}
        shown, budget = [p for p in self.points if p.method in names], budget_at(self.points, axis, place / 100)
        best = within(shown, axis, budget)
        return Scene(_drawn(shown, self.points, axis, budget, best), _note(shown, axis, budget, best))


def _note(shown: Sequence[Price], axis: str, budget: float, best: list[Price]) -> str:
    if not best:
        return f"Within {_said(axis, budget)} there is nothing to be had from the methods that are switched on."
    lead = best[0]
    words = f"Within {_said(axis, budget)}: {lead.method}, distance {lead.quality:.3g} at {lead.nfe} NFE and "
    words += f"{lead.ms:.3g} ms. On the front: "
    return words + "; ".join(f"{p.method} {p.nfe} NFE ({p.quality:.3g})" for p in on_front(shown, axis)) + "."


def front_explorer(points: Sequence[Price] | None = None) -> Explorer:
    """What does a budget buy, in evaluations and in milliseconds, and which methods are superfluous?

    Args:
        points: at least two; default ``measured_front()``, the digits.
    """
    front = Front(measured_front() if points is None else points)
    switches = {control: narrow(switch(name, True, f"Show {name}")) for control, name in front.switches().items()}
    for control in switches.values():
        control.layout.width = "19em"
    controls = {
        "axis": choice("cost in", "nfe", [("evaluations", "nfe"), ("milliseconds", "ms")], "What is counted"),
        "place": count("budget (% of axis)", 35, 0, 100, "From the cheapest point to the dearest, logarithmic"),
        **switches,
    }
    return Explorer(
        front.scene,
        controls,
        caption="The vertical line is what you are willing to pay; the table holds the best of each method within it. "
        "Rings mark the front: points that no other one beats in cost and quality. Switch the students off and see "
        "what solvers alone can do with four evaluations; then change the unit of cost, and watch who loses by it.",
        alt="Left, distance to data against cost, both axes logarithmic, one line per method with the Pareto front "
        "ringed and a vertical line at the budget. Right, a table of the best point of each method within the budget.",
    )
