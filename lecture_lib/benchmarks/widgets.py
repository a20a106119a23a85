"""From a slider's new value to the new picture: the real widgets, drawing and PNG included, on the CPU, no browser."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

from lecture_lib.tooling.benching import Measurement

BAR = 150.0  # milliseconds, median
SCALES = [2.25 + 0.25 * index for index in range(20)]  # each one new, so that no picture comes from memory
SHARES = [0.01 + 0.05 * index for index in range(12)]
WARM_UP = 3


def measure() -> Iterator[Measurement]:
    """The sweep of Lecture 2 with each of its samplers, sixteen digits of one class, ten steps; then the other widgets.

    The bar is for samplers with one evaluation per step (two with guidance), which the widget starts with.
    """
    from lecture_lib.widgets import guidance_sweep

    sweep = guidance_sweep()
    for sampler in sweep.controls["sampler"].options:
        sweep.set(w=SCALES[0] - 0.25, label=7, steps=10, sampler=sampler)
        bar = BAR if sampler != "Heun" else None
        yield Measurement(f"sweep: 16 digits, 10 {sampler} steps", _median(sweep, "w", SCALES), "ms", bar)
    yield from _others()


def _others() -> Iterator[Measurement]:
    """Every other widget of the lecture, moved by the slider that matters most; for information."""
    from lecture_lib import widgets

    yield Measurement("interval: a new row of 10, 16 steps", _median(widgets.interval_explorer(), "low", SHARES), "ms")
    yield Measurement(
        "repairs: a new row of 10, 16 steps", _median(widgets.repairs_explorer(), "strength", SHARES), "ms"
    )
    conventions = widgets.two_conventions()
    yield Measurement(
        "conventions: 3 new rows of 10", _median(conventions, "w", [0.25 + 0.5 * k for k in range(8)]), "ms"
    )
    yield Measurement("mixture playground: 2 x 3000 samples", _median(widgets.mixture_playground(), "w", SCALES), "ms")
    yield Measurement("negative prompt: 3000 samples", _median(widgets.negative_prompt(), "w", SCALES), "ms")
    yield Measurement("parallelogram", _median(widgets.parallelogram_explorer(), "w", SCALES), "ms")
    yield from _samplers()


def _samplers() -> Iterator[Measurement]:
    """The widgets of sampling in the plane: a walk through one run, new runs, and new lines of errors."""
    from lecture_lib import widgets

    films, few = widgets.trajectories_explorer(), list(range(1, 20))
    films.set(steps=50)
    yield Measurement("trajectories: a step of the same run", _median(films, "step", list(range(10, 30))), "ms", BAR)
    films.set(step=5, steps=10)
    yield Measurement("trajectories: another seed, 10 steps", _median(films, "seed", few), "ms", BAR)
    names = list(films.controls["sampler"].options)
    yield Measurement("trajectories: another sampler, 10 steps", _median(films, "sampler", names), "ms", BAR)
    errors = widgets.error_nfe_explorer()
    yield Measurement("error against NFE: a new line", _median(errors, "more", errors.controls["more"].options), "ms")
    errors.set(pp3m=True)
    lines = [_milliseconds(errors, name, not errors.values[name]) for name in ("ddim", "heun", "pp2m", "unipc3")]
    yield Measurement("error against NFE: a known line on or off", statistics.median(lines), "ms", BAR)


def _median(explorer: Any, name: str, values: list[float]) -> float:
    """Median milliseconds over the values not yet drawn, the first few left out: they also pay for lazy imports."""
    fresh = [value for value in values if value != explorer.values[name]]
    return statistics.median([_milliseconds(explorer, name, value) for value in fresh][WARM_UP:])


def _milliseconds(explorer: Any, name: str, value: float) -> float:
    draws = explorer.draws
    start = time.perf_counter()
    explorer.set(**{name: value})
    elapsed = 1000 * (time.perf_counter() - start)
    assert explorer.draws > draws, "a picture from memory measures nothing"
    return elapsed
