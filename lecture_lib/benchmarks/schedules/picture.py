"""The picture of the schedules: one row of panels per world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lecture_lib.benchmarks.schedules.race import DATA, MANY, MARKS, OWN, STEPS
from lecture_lib.viz import EXACT, NOISE, Line, bars, legend, other, panels, style, sweep

Found = Mapping[str, Mapping[str, float]]
"""``schedule -> what -> value``, with the spread of a value under ``what, spread``."""


def picture(worlds: Mapping[str, Found], raced: Sequence[str], learned: Sequence[str]) -> Figure:
    """Schedules, energies, Euler off its own end, Euler off the data.

    Args:
        worlds: what was measured.
        raced: the schedules with networks; one look each.
        learned: those whose alpha and sigma are drawn.
    """
    with style():
        fig, axes = panels(len(worlds), 4, size=(17.0, 4.0 * len(worlds)), squeeze=False)
        for row, (place, found) in zip(axes, worlds.items(), strict=True):
            looks = {name: other(k) for k, name in enumerate(dict.fromkeys((*raced, *learned)))}
            _schedules(row[0], place, found, {name: looks[name] for name in learned})
            _energies(row[1], found, looks)
            shown = {name: looks[name] for name in raced}
            _misses(row[2], found, OWN, "RMS distance, same noise", shown)
            _misses(row[3], found, DATA, "sliced Wasserstein distance", shown)
            row[3].axhline(found["real"][f"{MANY} Heun, {DATA}"], color=EXACT, linestyle="--", label="real data")
            for ax in row[2:]:
                ax.get_legend().remove()  # one below serves all
        legend(axes[-1][3], "below")
    return fig


def _line(row: Mapping[str, float], keys: Sequence[str], label: str, look: Mapping) -> Line:
    """Means, and the spread over seeds as a band."""
    y = np.array([row[key] for key in keys])
    wide = np.array([row.get(f"{key}, spread", 0.0) for key in keys])
    return Line(label, y, y - wide, y + wide, look=look)


def _schedules(ax: Axes, place: str, found: Found, looks: Mapping[str, Mapping]) -> None:
    for ends, label in (([1, 0], "line"), ([0, 1], None)):
        ax.plot([0, 1], ends, color=NOISE, label=label)
    lines = [
        _line(found[name], [f"{what} at {mark:g}" for mark in MARKS], name if what == "alpha" else "", look)
        for name, look in looks.items()
        for what in ("alpha", "sigma")
    ]
    title = f"{place}: alpha falls, sigma rises"
    sweep(MARKS, lines, xlabel="time t (0 is data)", ylabel="alpha, sigma", title=title, ax=ax)


def _energies(ax: Axes, found: Found, looks: Mapping[str, Mapping]) -> None:
    names = [name for name in looks if "energy" in found[name]]
    values, spreads = ([found[n].get(key, 0.0) for n in names] for key in ("energy", "energy, spread"))
    colours = [looks[name]["color"] for name in names]
    title = "cost of the flow (dashed: of its pairs)"
    bars(names, values, errors=spreads, colours=colours, xlabel="energy (squared data units)", title=title, ax=ax)
    ax.axvline(found["pairs"]["energy, least of all schedules"], color=EXACT, linestyle="--")


def _misses(ax: Axes, found: Found, what: str, unit: str, looks: Mapping[str, Mapping]) -> None:
    lines = [_line(found[n], [f"{k} Euler, {what}" for k in STEPS], n, look) for n, look in looks.items()]
    sweep(STEPS, lines, xlabel="Euler steps", ylabel=unit, title=what, log_x=True, log_y=True, ax=ax)
    ax.set_xticks(STEPS, [str(k) for k in STEPS])
    ax.xaxis.set_minor_formatter("")
