"""Every family of Lecture 5 on the digits, by the same measures, in one table and one picture."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from matplotlib.figure import Figure

from lecture_lib import zoo
from lecture_lib.data import digits
from lecture_lib.errors import NotDefined
from lecture_lib.families import GenerativeModel
from lecture_lib.metrics import fidelity_diversity, frechet_distance, inception_score
from lecture_lib.tensors import few_threads
from lecture_lib.tooling.benching import Measurement
from lecture_lib.zoo.evaluate_families import family_rows
from lecture_lib.zoo.families import FAMILIES
from lecture_lib.zoo.family_recipe import FamilyRecipe

SEEDS = (0, 1, 2)
BATCH, ROUNDS = 64, 3
REAL = "real digits (training against test)"
DISTANCE, BITS = "Frechet distance to test digits", "bits per dimension of test digits"


def measure() -> Iterator[Measurement]:
    """Rows ``NAME | what``; up to four minutes of one core per family."""
    with few_threads(1):
        yield from _real()
        for recipe in FAMILIES:
            for row in family_rows(recipe.name, SEEDS):
                yield from _rows(row)
            yield from _prices(recipe)


def _rows(row: zoo.Row) -> Iterator[Measurement]:
    """A row of the zoo; of accuracy what is missing, since bars here are upper limits."""
    what, value, bar = row.measure, row.mean, None
    if row.measure == "judge accuracy":
        what, value, bar = "share that the judge misreads", 1 - row.mean, 1 - row.bar
    yield Measurement(f"{row.name} | {what}", value, "", bar)
    if len(row.values) > 1:
        yield Measurement(f"{row.name} | {what}, spread", row.spread, "")


def _real() -> Iterator[Measurement]:
    """What the measures say about the training digits themselves, as many as of each family."""
    train, test, features = digits("train"), digits("test"), zoo.load("digits-features")
    with torch.inference_mode():
        seen = features.features(train.images[: len(test)]), features.features(test.images)
        clear, kinds = inception_score(features(train.images)), fidelity_diversity(*seen[::-1])
    yield Measurement(f"{REAL} | {DISTANCE}", frechet_distance(train.images, test.images, features.features), "")
    yield Measurement(f"{REAL} | inception score of a digit classifier", clear, "")
    yield Measurement(f"{REAL} | precision, 355 of each", kinds.precision, "")
    yield Measurement(f"{REAL} | recall, 355 of each", kinds.recall, "")
    yield Measurement(f"{REAL} | share that the judge misreads", 1 - zoo.judge().accuracy(test.images, test.labels), "")


def _prices(recipe: FamilyRecipe) -> Iterator[Measurement]:
    """What a family costs: weights, seconds of training, steps of sampling, samples per second."""
    model = zoo.load(recipe.name)
    status = next(line for line in zoo.status() if line.name == recipe.name)
    yield Measurement(f"{recipe.name} | weights", status.parameters, "")
    yield Measurement(f"{recipe.name} | training", status.seconds, "s")
    yield Measurement(f"{recipe.name} | steps per sample", model.steps, "")
    try:
        rate = BATCH / statistics.median(_seconds(model, recipe.labelled, k) for k in range(ROUNDS + 1))
    except NotDefined:
        return
    yield Measurement(f"{recipe.name} | samples per second, {BATCH} at once, one core", rate, "1/s")


def _seconds(model: GenerativeModel, labelled: bool, seed: int) -> float:
    """Seconds of the core for one batch."""
    labels = torch.arange(BATCH) % 10 if labelled else None
    began = time.process_time()
    model.sample(BATCH, labels, generator=torch.Generator().manual_seed(seed))
    return time.process_time() - began


def table(measurements: Sequence[Measurement]) -> dict[str, dict[str, float]]:
    """``name -> what -> value``."""
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for m in measurements:
        name, what = m.what.split(" | ")
        rows[name][what] = m.value
    return dict(rows)


def figure(measurements: Sequence[Measurement]) -> Figure:
    """The table as points: likelihood, distance, clarity, fidelity and diversity, obedience, speed."""
    from lecture_lib.viz.league import Column, league

    rows = table(measurements)
    names = [name for name in rows if name != REAL]
    kinds = [next((w.rsplit(", ", 1)[1] for w in rows[n] if w.startswith(BITS)), None) for n in names]
    bits = [None if k is None else rows[n][f"{BITS}, {k}"] for n, k in zip(names, kinds, strict=True)]

    def column(title: str, what: str, unit: str, **look) -> Column:
        values, spreads = ([rows[n].get(key) for n in names] for key in (what, f"{what}, spread"))
        return Column(title, unit, values, [s or 0.0 for s in spreads], reference=rows[REAL].get(what), **look)

    return league(
        [name.removeprefix("family-").replace("-", " ") for name in names],
        [
            Column("likelihood", "bits/dim, test (hollow: not exact)", bits, looser=[k != "exact" for k in kinds]),
            column("distance", DISTANCE, "Fréchet, to test digits", log=True),
            column("clarity", "inception score of a digit classifier", "inception-style score", best="high"),
            column("fidelity", "precision, 355 of each", "precision", best="high"),
            column("diversity", "recall, 355 of each", "recall", best="high"),
            column("misread", "share that the judge misreads", "share, of labelled"),
            column(
                "speed", f"samples per second, {BATCH} at once, one core", "samples/s, one core", log=True, best="high"
            ),
        ],
        note="arrows: where numbers are good; dashed: real digits",
    )
