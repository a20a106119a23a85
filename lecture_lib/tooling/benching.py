"""Finds and runs the benchmarks of :mod:`lecture_lib.benchmarks`."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

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


def run(name: str) -> Iterator[Measurement]:
    """Run one benchmark: a module with ``measure()``, which yields measurements as they are made.

    Raises:
        UnknownNameError: there is no such benchmark.
    """
    if name not in names():
        raise UnknownNameError(f"No benchmark called {name}; there are: {', '.join(names())}.")
    return import_module(f"lecture_lib.benchmarks.{name}").measure()
