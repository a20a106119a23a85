"""Networks: what attention needs in memory, and how fast diffusion transformers train here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from lecture_lib.benchmarks.nets import gpu, memory, throughput
from lecture_lib.tooling.benching import Measurement

PARTS = (memory.measure, gpu.measure, throughput.measure)  # the last one needs `diffusers`


def measure() -> Iterator[Measurement]:
    """One part after the other; without a large GPU its part only says so (three minutes in all on a CPU)."""
    for part in PARTS:
        yield from part()


def figure(measurements: Sequence[Measurement]) -> Figure:
    """Memory of attention against tokens, from the rows of ``measure``."""
    return memory.figure(measurements)
