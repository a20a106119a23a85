"""Which schedule is best? Fixed ones against one that is learned, on worlds whose velocities are known exactly.

Every schedule alpha, sigma of the same ends has the same flow from noise to data, up to a scale and a clock that
are gone at the ends. So the energy of a schedule is the cost C of the flow's own pairs, which no schedule changes, and
how far its trajectories are from straight:

    E = int E|v|^2 dt = C + S,   C = E|x_1 - x_0|^2 >= W_2^2,   S = E int |v - (x_1 - x_0)|^2 dt

What a schedule can win is S, and what S is worth to a solver of few steps is measured here: with the exact velocity,
so that nothing but the schedule counts, and with small networks after equally many updates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from matplotlib.figure import Figure

from lecture_lib.benchmarks.schedules.race import (
    DATA,
    MANY,
    POINTS,
    Course,
    apart,
    balanced,
    best_line,
    exact_ends,
    heights,
    seeded,
    trained,
)
from lecture_lib.core import Path, RectifiedFlow, Trigonometric, VPLinear, optimal_pairing, rebase
from lecture_lib.families import LearnedLine
from lecture_lib.oracles import GaussianMixture, moons_mixture, ring_of_modes
from lecture_lib.tensors import few_threads
from lecture_lib.tooling.benching import Measurement
from lecture_lib.zoo.row import Row

WORLDS = {"two moons": moons_mixture(), "ring of 8": ring_of_modes()}
FIXED: dict[str, Path] = {"line": RectifiedFlow(), "quarter circle": Trigonometric(), "VP linear": VPLinear()}
LEARNED, REBASED, BEST = "learned", "line, sampled as learned", "learned, exact velocity"
SEEDS, UPDATES, PAIRED = (0, 1, 2), 1000, 1024


def contest(course: Course, seed: int = 0, updates: int = UPDATES) -> dict[str, dict[str, float]]:
    """One seed: ``schedule -> what -> value`` for the fixed schedules, the learned one, and the line's network on it.

    The last one has learned nothing about the schedule it is sampled on: ``rebase`` changes that after training.
    """
    found, line = {}, trained(course.world, FIXED["line"], seed, updates)
    for name, path in (FIXED | {LEARNED: LearnedLine()}).items():
        model = line if name == "line" else trained(course.world, path, seed, updates)
        found[name] = course.ran(model.given(None), model.path)
    learned = model.path
    found[LEARNED] |= course.exactly(learned) | heights(learned)
    found[REBASED] = course.ran(rebase(line.given(None), line.path, learned), learned)
    return found


def references(course: Course) -> dict[str, dict[str, float]]:
    """What no seed changes: schedules with the exact velocity, what the flow's pairs cost, two sets of real data."""
    best = best_line(course.world)
    found = {name: course.exactly(path) for name, path in FIXED.items()}
    found[BEST] = course.exactly(best) | heights(best)
    eps = torch.special.ndtri(balanced(PAIRED, 2)).float()
    ends = exact_ends(course.world, eps)
    real = {f"{MANY} Heun, {DATA}": course.far(course.world.sample(POINTS, generator=seeded(4)).float())}
    cost, least = apart(ends, eps) ** 2, apart(ends, optimal_pairing(ends, eps)) ** 2
    return found | {"real": real, "pairs": {"energy, least of all schedules": cost, "energy, W2^2": least}}


def measure(
    worlds: Mapping[str, GaussianMixture] = WORLDS, seeds: Sequence[int] = SEEDS, updates: int = UPDATES
) -> Iterator[Measurement]:
    """Rows ``WORLD | SCHEDULE | what`` and their spreads over seeds; about four minutes of one core."""
    with few_threads(1):
        for place, world in worlds.items():
            course, values = Course.of(world), defaultdict(list)
            for found in (references(course), *(contest(course, seed, updates) for seed in seeds)):
                for name, row in found.items():
                    for what, value in row.items():
                        values[f"{place} | {name} | {what}"].append(value)
            for key, several in values.items():
                row = Row(place, key, tuple(several))
                yield Measurement(key, row.mean, "")
                if len(several) > 1:
                    yield Measurement(f"{key}, spread", row.spread, "")
            cost = {name: max(values[f"{place} | {name} | energy"]) for name in (*FIXED, LEARNED)}
            ratio = cost.pop(LEARNED) / min(cost.values())
            yield Measurement(
                f"{place} | {LEARNED} | energy of its worst seed, in those of the best fixed", ratio, "", 1
            )


def table(measurements: Sequence[Measurement]) -> dict[str, dict[str, dict[str, float]]]:
    """``world -> schedule -> what -> value``."""
    rows: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for m in measurements:
        place, name, what = m.what.split(" | ")
        rows[place][name][what] = m.value
    return {place: dict(names) for place, names in rows.items()}


def figure(measurements: Sequence[Measurement]) -> Figure:
    """A row per world: the learned schedule, energies, and Euler's misses of the own end and of the data."""
    from lecture_lib.benchmarks.schedules.picture import picture

    return picture(table(measurements), (*FIXED, LEARNED, REBASED), (LEARNED, BEST))
