"""From a caption to a picture: seconds on one core, guided, twenty evaluations."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch

from lecture_lib.tensors import few_threads
from lecture_lib.tooling.benching import Measurement

BAR = 1.0  # seconds
PROMPT = "a small red circle left of a large blue square"
RUNS = 20


def measure() -> Iterator[Measurement]:
    """One picture (text encoders and decoder included), then sixteen at once, per picture."""
    from lecture_lib import zoo

    with few_threads(1):
        model = zoo.text_to_image()
        for n, bar in ((1, BAR), (16, None)):
            seconds = [_seconds(model, n, seed) for seed in range(RUNS if n == 1 else 3)]
            yield Measurement(
                f"32x32 picture, 20 NFE, guided, {n} at once", statistics.median(seconds[1:]) / n, "s", bar
            )


def _seconds(model, n: int, seed: int) -> float:
    began = time.perf_counter()
    model.generate([PROMPT] * n, steps=10, generator=torch.Generator().manual_seed(seed))
    return time.perf_counter() - began
