"""From a slider's new value to the new picture: sixteen guided digits of one class, ten steps, on the CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from lecture_lib.tooling.benching import Measurement

BAR = 150.0  # milliseconds, median
SCALES = [2.25 + 0.25 * index for index in range(20)]  # each one new, so that no picture comes from memory
WARM_UP = 3


def measure() -> Iterator[Measurement]:
    """The sweep of Lecture 2 with each of its samplers: the real widget, drawing and PNG included, no browser.

    The bar is for samplers with one evaluation per step (two with guidance), which the widget starts with.
    """
    from lecture_lib.widgets import guidance_sweep

    sweep = guidance_sweep()
    for sampler in sweep.controls["sampler"].options:
        sweep.set(w=SCALES[0] - 0.25, label=7, steps=10, sampler=sampler)
        times = [_milliseconds(sweep, w) for w in SCALES][WARM_UP:]
        bar = BAR if sampler != "Heun" else None
        yield Measurement(f"slider to new picture, 16 digits, 10 {sampler} steps", statistics.median(times), "ms", bar)


def _milliseconds(sweep: object, w: float) -> float:
    draws = sweep.draws
    start = time.perf_counter()
    sweep.set(w=w)
    elapsed = 1000 * (time.perf_counter() - start)
    assert sweep.draws == draws + 1, "a picture from memory measures nothing"
    return elapsed
