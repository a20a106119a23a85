"""Scaling laws: choose which budgets are fitted, and see how far beyond them the fit may be believed."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import lecture_lib
from lecture_lib.errors import DamagedFileError, ShapeError
from lecture_lib.training.forecast import Forecast, Run, forecast, read_runs
from lecture_lib.training.scaling import Valley, isoflop_valleys
from lecture_lib.viz import DATA, legend, other, panels, styled
from lecture_lib.widgets.controls import choice, ladder, narrow, switch
from lecture_lib.widgets.explorer import Explorer, Scene

TABLE = Path(lecture_lib.__file__).parents[1] / "docs" / "scaling.csv"
RESAMPLES, LEAST = 60, 3
GIGA = 1e9
REACHES = (("as far as measured", 1), ("10 x", 10), ("100 x", 100), ("1000 x", 1000))
EVERY = -1  # "all seeds"
FLOORED, FLOORLESS = other(0) | {"marker": ""}, other(2) | {"marker": ""}


def giga(compute: float) -> str:
    """ "12 GFLOP": 10^9 floating-point operations, products and sums counted apart."""
    return f"{compute / GIGA:.3g} GFLOP"


def measured_runs(table: Path = TABLE) -> list[Run]:
    """The sweep that the course was shipped with, as ``course bench scaling`` wrote it.

    Raises:
        DamagedFileError: the table is missing or has no runs.
    """
    rows = list(csv.DictReader(table.open(encoding="utf-8"))) if table.is_file() else []
    if not (runs := read_runs(rows)):
        raise DamagedFileError(f"{table}: no runs found; `course bench scaling` measures them, about six minutes")
    return runs


class Sweep:
    """The runs of a sweep and what subsets of its budgets foretell, remembered."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = list(runs)
        self.budgets = sorted({run.compute for run in runs})
        self.foretold = lru_cache(maxsize=256)(self._foretold)

    def of(self, seed: int) -> list[Run]:
        return [run for run in self.runs if seed in (EVERY, run.seed)]

    def _foretold(self, fitted: tuple[float, ...], seed: int, resamples: int) -> Forecast:
        chosen = [run for run in self.of(seed) if run.compute in fitted]
        return forecast(chosen, resamples=resamples, generator=torch.Generator().manual_seed(0))

    def valleys(self, seed: int) -> list[Valley]:
        """The lowest point of every budget."""
        return isoflop_valleys(*zip(*((run.compute, run.size, run.loss) for run in self.of(seed)), strict=True))

    def names(self) -> dict[str, float]:
        """Name of the control that switches a budget on -> the budget."""
        return {f"budget{k}": compute for k, compute in enumerate(self.budgets, start=1)}

    def scenes(self, seed: int, reach: int, **on: bool) -> Iterator[Scene]:
        """The laws through the budgets that are switched on; their band follows when it is ready.

        Raises:
            ShapeError: fewer than three budgets.
        """
        fitted = tuple(compute for name, compute in self.names().items() if on[name])
        if len(fitted) < LEAST:
            raise ShapeError(f"budgets: got {len(fitted)} to fit, expected at least {LEAST}: the law has three numbers")
        for resamples in (1, RESAMPLES):
            found = self.foretold(fitted, seed, resamples)
            band = resamples == RESAMPLES
            note = _note(self, found, seed, band=band)
            yield Scene(_drawn(self, found, seed, reach, band=band), note, progress=1.0 if band else 0.3)


# The picture ----------------------------------------------------------------------------------------------------------


@styled
def _drawn(sweep: Sweep, found: Forecast, seed: int, reach: int, *, band: bool) -> Figure:
    figure, (left, right) = panels(1, 2, size=(10.4, 4.6), width_ratios=(1.0, 1.1))
    valleys = sweep.valleys(seed)
    fitted = {valley.compute for valley in found.valleys}
    for k, valley in enumerate(valleys):
        runs = [run for run in sweep.of(seed) if run.compute == valley.compute]
        _curve(left, runs, valley, k, valley.compute in fitted)
    left.set(xscale="log", xlabel="trainable parameters", ylabel="test loss (velocity, mean square)")
    left.set_title("One curve per budget")
    legend(left)

    dense = np.geomspace(sweep.budgets[0] / 1.5, reach * sweep.budgets[-1] * 1.5, 120)
    if band:
        low, high = found.band(dense)
        right.fill_between(
            dense / GIGA, low, high, color=FLOORED["color"], alpha=0.18, linewidth=0, label="90 % of resamples"
        )
    right.plot(dense / GIGA, found.law(dense), label="with a floor", **FLOORED)
    right.plot(dense / GIGA, found.straight(dense), label="without a floor", **FLOORLESS)
    for inside, fill in ((True, DATA), (False, "white")):
        points = [(v.compute / GIGA, v.loss) for v in valleys if (v.compute in fitted) == inside]
        if points:
            label = "fitted" if inside else "left out"
            right.plot(*zip(*points, strict=True), "o", color=DATA, markerfacecolor=fill, markersize=8, label=label)
    right.set(xscale="log", yscale="log", xlabel="compute of one run (GFLOP)")
    right.yaxis.set_minor_formatter("{x:.1f}")
    right.set_ylabel("lowest loss of a budget")
    right.set_title("What the fitted budgets foretell")
    legend(right)
    return figure


def _curve(ax: Axes, runs: list[Run], valley: Valley, k: int, fitted: bool) -> None:
    """The runs of one budget and their parabola; pale if they are left out."""
    look, sizes = other(k), np.array([run.size for run in runs], dtype=float)
    alpha = 1.0 if fitted else 0.25
    ax.plot(sizes, [run.loss for run in runs], look["marker"], color=look["color"], markersize=5, alpha=alpha)
    dense = np.geomspace(sizes.min(), sizes.max(), 60)
    shown = {"color": look["color"], "linestyle": look["linestyle"], "alpha": alpha}
    ax.plot(dense, valley(dense), label=giga(valley.compute), **shown)


def _note(sweep: Sweep, found: Forecast, seed: int, *, band: bool) -> str:
    """The exponents, and for the largest budget left out, what was foretold and what was measured."""
    words = f"With a floor: L = {found.law.floor:.3g} + {found.law.scale:.3g} C^-{found.law.exponent:.3g}; without: "
    words += f"{found.straight.scale:.3g} C^-{found.straight.exponent:.3g}. "
    fitted = {valley.compute for valley in found.valleys}
    missing = [valley for valley in sweep.valleys(seed) if valley.compute not in fitted]
    if not missing:
        return words + "Every budget is fitted: leave the largest out, and something can be checked."
    at, measured = missing[-1].compute, missing[-1].loss
    low, high = (float(end) for end in found.band(at))
    ends = f" (90 % of resamples: {low:.4f} to {high:.4f})" if band else ""
    return words + (
        f"At {giga(at)}, which were left out, {measured:.4f} was measured; foretold {float(found.law(at)):.4f} with a "
        f"floor{ends}, {float(found.straight(at)):.4f} without."
    )


def scaling_explorer(runs: Sequence[Run] | None = None) -> Explorer:
    """Fit some budgets of a sweep and look at the others.

    Args:
        runs: at least three budgets with three sizes each; default ``measured_runs()``.
    """
    sweep = Sweep(measured_runs() if runs is None else runs)
    seeds = sorted({run.seed for run in sweep.runs})
    switches = {}
    for k, (name, compute) in enumerate(sweep.names().items(), start=1):
        chosen = k < len(sweep.budgets) or k <= LEAST  # all but the largest
        switches[name] = narrow(switch(giga(compute), chosen, f"Fit the runs of {compute:g} operations"))
    controls = {
        "reach": ladder("foretell up to", 10, REACHES, "In units of the largest budget that was measured"),
        "seed": choice("runs", EVERY, [("all", EVERY), *((f"seed {s}", s) for s in seeds)], "Which runs are looked at"),
        **switches,
    }
    return Explorer(
        sweep.scenes,
        controls,
        caption="The largest budget is left out: do the smaller ones foretell it, with a floor and without? Leave out "
        "one more, and watch the band. Then foretell a thousand times as much compute: the band says what repeated "
        "runs disagree on, not whether the law still holds there, and nothing on this laptop can say that.",
        alt="Left, test loss against parameters, one parabola per budget of compute, those left out pale. Right, the "
        "lowest loss of each budget against compute with two fitted laws, one with a floor and its band of resampled "
        "fits, one without, both continued beyond the measurements.",
    )
