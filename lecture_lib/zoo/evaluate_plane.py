"""How well students of the ring do in few steps: distance to the ring beside fresh data's, modes, straightness."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lecture_lib.core import Denoiser
from lecture_lib.metrics import count_modes, sliced_wasserstein, straightness
from lecture_lib.zoo.library import load, recipe
from lecture_lib.zoo.plane import STD, ring
from lecture_lib.zoo.ring_matching import FlowRecipe, ReflowRecipe, by_euler, noise
from lecture_lib.zoo.row import Row

POINTS = 20_000
FEWER = 2_000  # trajectories, for straightness


def plane_rows(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    """Distance (not squared) between ``POINTS`` points of the student and as many of the ring, per number of steps.

    Then how many of the eight modes its fewest steps cover and what share of the points lies between them; flows also
    say how straight they are.
    """
    student, kind = load(name), recipe(name)
    clouds = {
        steps: [kind.draw(student, POINTS, steps=steps, generator=generator(seed)) for seed in seeds]
        for steps in kind.few
    }
    for steps, drawn in clouds.items():
        apart = tuple(distance(points, generator(50 + seed)) for points, seed in zip(drawn, seeds, strict=True))
        yield Row(name, f"sliced Wasserstein distance, {_steps(steps)}", apart)
    fewest = min(kind.few)
    counts = [count_modes(points, ring().means, 3 * STD) for points in clouds[fewest]]
    yield Row(name, f"modes covered of 8, {_steps(fewest)}", tuple(float(c.covered) for c in counts))
    yield Row(name, f"share of points between modes, {_steps(fewest)}", tuple(c.between for c in counts))
    if isinstance(kind, FlowRecipe):
        yield from _flow_rows(kind, student, seeds)


def generator(seed: int) -> torch.Generator:
    """The generator of a seed's points."""
    return torch.Generator().manual_seed(1000 + seed)


def distance(points: torch.Tensor, generator: torch.Generator) -> float:
    """Sliced 2-Wasserstein distance of points to as many fresh ones of the ring; two fresh clouds are 0.01 to 0.02."""
    fresh = ring().sample(len(points), generator=generator)
    return sliced_wasserstein(points, fresh, generator=generator) ** 0.5


def _steps(steps: int) -> str:
    return f"{steps} step{'s' * (steps > 1)}"


def _flow_rows(kind: FlowRecipe, flow: Denoiser, seeds: tuple[int, ...]) -> Iterator[Row]:
    """Straightness, and how far one Euler step ends from 64; a reflowed flow must be below its first in both."""
    measures = ("straightness, 0 is straight", "distance of one Euler step from 64")
    bars = (
        [sum(v) / len(v) for v in _bends(load(kind.first.name), seeds)]
        if isinstance(kind, ReflowRecipe)
        else [None] * 2
    )
    for measure, values, bar in zip(measures, _bends(flow, seeds), bars, strict=True):
        yield Row(kind.name, measure, values, bar, at_least=False)


@torch.no_grad()
def _bends(flow: Denoiser, seeds: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per seed: mean straightness, and root mean square distance between the ends of one Euler step and of 64."""
    bends, misses = [], []
    for seed in seeds:
        eps = noise(FEWER, generator(seed))
        bends.append(float(straightness(lambda x, t: flow(x, t).velocity, eps).mean()))
        one, many = (by_euler(flow, eps, steps) for steps in (1, 64))
        misses.append(float((one - many).square().sum(1).mean() ** 0.5))
    return tuple(bends), tuple(misses)
