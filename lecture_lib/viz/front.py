"""Quality against cost: one line per method, and a ring around each point that no other makes superfluous."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lecture_lib.viz.style import EXACT, as_array, canvas_for, label_axes, other, styled


@styled
def cost_front(
    lines: Mapping[str, tuple[Any, Any]],
    front: Sequence[tuple[float, float]] = (),
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    looks: Mapping[str, Mapping[str, Any]] | None = None,
    floor: float | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Losses against costs, both axes logarithmic; down and to the left is better.

    Args:
        lines: method -> (costs, losses).
        front: the points to be ringed; they are joined by a dashed staircase.
        looks: method -> look of its line; the others take the free looks in order.
        floor: a loss that nothing should fall below, such as that of real data.
    """
    figure, ax = canvas_for(ax)
    for k, (name, (costs, losses)) in enumerate(lines.items()):
        look = dict((looks or {}).get(name, other(k)))
        ax.plot(as_array(costs), as_array(losses), label=name, **{"markersize": 6, "linewidth": 1.5, **look})
    if front:
        across, up = zip(*sorted(front), strict=True)
        ax.step(across, up, where="post", color=EXACT, linestyle="--", linewidth=1.0)
        ring = {"markersize": 12, "markerfacecolor": "none", "markeredgecolor": EXACT}
        ax.plot(across, up, "o", label="on the front", linestyle="none", **ring)
    if floor is not None:
        ax.axhline(floor, color=EXACT, linestyle=":", linewidth=1.2, label="real digits")
    ax.set(xscale="log", yscale="log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    label_axes(ax, xlabel, ylabel, title)
    return figure
