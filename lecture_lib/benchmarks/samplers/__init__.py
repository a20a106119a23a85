"""Every sampler: its order against theory, its error on the ring at equal cost, and what a step costs by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from lecture_lib.benchmarks.samplers import convergence, orders, overhead
from lecture_lib.tooling.benching import Measurement


def measure() -> Iterator[Measurement]:
    """The table of orders, then error against evaluations, then overhead beside `diffusers` (some minutes in all)."""
    yield from orders.measure()
    yield from convergence.measure()
    yield from overhead.measure()


def figure(measurements: Sequence[Measurement]) -> Figure:
    """Error against evaluations on the ring, from the rows of ``measure``."""
    return convergence.figure(measurements)
