"""Every family of Lecture 5 on the digits, by the same measures, in one table and one picture."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from matplotlib.figure import Figure

from lecture_lib import zoo
from lecture_lib.errors import NotDefined
from lecture_lib.families import GenerativeModel
from lecture_lib.metrics import fidelity_diversity, frechet_distance, inception_score
from lecture_lib.tensors import few_threads
from lecture_lib.tooling.benching import Measurement
from lecture_lib.zoo.evaluate_families import rows_of
from lecture_lib.zoo.families import FAMILIES
from lecture_lib.zoo.family_recipe import FamilyRecipe
from lecture_lib.zoo.library import features, judge, status_of
from lecture_lib.zoo.pictures import Pictures
from lecture_lib.zoo.recipe import trained

SEEDS = (0, 1, 2)
BATCH, ROUNDS = 64, 3
REAL = "real digits (training against test)"
DISTANCE, BITS = "Frechet distance to test digits", "bits per dimension of test digits"


def measure(families: Sequence[FamilyRecipe] = FAMILIES) -> Iterator[Measurement]:
    """Rows ``NAME | what`` of trained families of the same pictures; up to four minutes of one core per family."""
    with few_threads(1):
        yield from _real(families[0].data)
        for recipe in families:
            for row in rows_of(recipe, trained(recipe), SEEDS):
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


def _real(data: Pictures) -> Iterator[Measurement]:
    """What the measures say about the training digits themselves, as many as of each family."""
    train, test, scored, network = data.train(data.drawn), data.test(), data.test(data.scored), features(data)
    with torch.inference_mode():
        there, here = network.features(scored.images), network.features(train.images[: len(scored)])
        clear, kinds = inception_score(network(train.images)), fidelity_diversity(there, here)
    yield Measurement(f"{REAL} | {DISTANCE}", frechet_distance(train.images, test.images, network.features), "")
    yield Measurement(f"{REAL} | inception score of a digit classifier", clear, "")
    yield Measurement(f"{REAL} | precision, {len(scored)} of each", kinds.precision, "")
    yield Measurement(f"{REAL} | recall, {len(scored)} of each", kinds.recall, "")
    misread = 1 - judge(data).accuracy(test.images, test.labels)
    yield Measurement(f"{REAL} | share that the judge misreads", misread, "")


def _prices(recipe: FamilyRecipe) -> Iterator[Measurement]:
    """What a family costs: weights, seconds of training, steps of sampling, samples per second."""
    model, status = trained(recipe), status_of(recipe)
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
        [name.partition("-")[2].replace("-", " ") for name in names],
        [
            Column("likelihood", "bits/dim, test (hollow: not exact)", bits, looser=[k != "exact" for k in kinds]),
            column("distance", DISTANCE, "Fréchet, to test digits", log=True),
            column("clarity", "inception score of a digit classifier", "inception-style score", best="high"),
            column("fidelity", _spoken(rows, "precision, "), "precision", best="high"),
            column("diversity", _spoken(rows, "recall, "), "recall", best="high"),
            column("misread", "share that the judge misreads", "share, of labelled"),
            column(
                "speed", f"samples per second, {BATCH} at once, one core", "samples/s, one core", log=True, best="high"
            ),
        ],
        note="arrows: where numbers are good; dashed: real digits",
    )


def _spoken(rows: Mapping[str, Mapping[str, float]], start: str) -> str:
    """The name of the measure that starts like this; it also says how many pictures it is of."""
    return next((what for row in rows.values() for what in row if what.startswith(start)), start)
