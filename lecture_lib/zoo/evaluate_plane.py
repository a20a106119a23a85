"""How well students of the ring do in few steps: sliced Wasserstein distance to the ring, beside that of fresh data."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lecture_lib.metrics import sliced_wasserstein
from lecture_lib.zoo.library import load, recipe
from lecture_lib.zoo.plane import ring
from lecture_lib.zoo.row import Row

POINTS = 20_000


def plane_rows(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    """Distance (not squared) between ``POINTS`` points of the student and as many of the ring, per number of steps."""
    student, kind = load(name), recipe(name)
    for steps in kind.few:
        apart = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(1000 + seed)
            drawn = kind.draw(student, POINTS, steps=steps, generator=generator)
            apart.append(distance(drawn, generator))
        yield Row(name, f"sliced Wasserstein distance, {steps} step{'s' * (steps > 1)}", tuple(apart))


def distance(points: torch.Tensor, generator: torch.Generator) -> float:
    """Sliced 2-Wasserstein distance of points to as many fresh ones of the ring; two fresh clouds are about 0.01."""
    fresh = ring().sample(len(points), generator=generator)
    return sliced_wasserstein(points, fresh, generator=generator) ** 0.5
