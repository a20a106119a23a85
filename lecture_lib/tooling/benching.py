"""Finds and runs the benchmarks of :mod:`lecture_lib.benchmarks`."""

from __future__ import annotations

import csv
import os
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from lecture_lib import benchmarks
from lecture_lib.errors import UnknownNameError
from lecture_lib.tooling.execute import cores


@dataclass(frozen=True)
class Measurement:
    """One measured number and the bar it should stay under (``None``: for information)."""

    what: str
    value: float
    unit: str
    bar: float | None = None

    @property
    def within(self) -> bool:
        """Whether the bar holds."""
        return self.bar is None or self.value <= self.bar

    def __str__(self) -> str:
        bar = "" if self.bar is None else f"   bar {self.bar:g} {self.unit}: {'holds' if self.within else 'MISSED'}"
        return f"{self.what:<58} {self.value:>9.3g} {self.unit}{bar}"


def conditions() -> str:
    """One line on the machine; times taken while other programs run are upper bounds, and it says so."""
    load = os.getloadavg()[0]
    busy = " (busy with other programs: times are upper bounds)" if load > 0.7 else ""
    return f"{cores()} CPU cores, load {load:.1f}{busy}"


def names() -> list[str]:
    """The benchmarks there are: the modules of ``lecture_lib.benchmarks``."""
    return sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))


def save(name: str, measurements: Sequence[Measurement], directory: Path) -> list[Path]:
    """The measurements as ``NAME.csv``, and as ``NAME.png`` where the benchmark has a figure; what was written."""
    directory.mkdir(parents=True, exist_ok=True)
    table = directory / f"{name}.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["what", "value", "unit", "bar", "within"])
        rows.writerows(
            [m.what, f"{m.value:.6g}", m.unit, "" if m.bar is None else m.bar, m.within] for m in measurements
        )
    draw = getattr(import_module(f"lecture_lib.benchmarks.{name}"), "figure", None)
    if draw is None:
        return [table]
    picture = directory / f"{name}.png"
    draw(measurements).savefig(picture)
    return [table, picture]


def run(name: str) -> Iterator[Measurement]:
    """Run one benchmark: a module with ``measure()``, which yields measurements as they are made.

    Raises:
        UnknownNameError: there is no such benchmark.
    """
    if name not in names():
        raise UnknownNameError(f"No benchmark called {name}; there are: {', '.join(names())}.")
    return import_module(f"lecture_lib.benchmarks.{name}").measure()
