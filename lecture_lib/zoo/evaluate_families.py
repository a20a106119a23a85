"""Every family on the digits by the same measures: likelihood, distance, clarity, fidelity, diversity, obedience."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.errors import NotDefined, NotTractable
from lecture_lib.families import GenerativeModel, JointEmbedding, LogProb
from lecture_lib.metrics import bits_per_dim, fidelity_diversity, frechet_distance, inception_score
from lecture_lib.zoo.evaluate_patches import representation_rows
from lecture_lib.zoo.family_recipe import FamilyRecipe
from lecture_lib.zoo.library import features, judge, load, recipe
from lecture_lib.zoo.pictures import DIGITS, Pictures
from lecture_lib.zoo.row import Row

STEP = 1 / 8  # between two grey levels of the digits
DEQUANTISED = 4  # draws of the noise within cells per picture: their mean is what the bound is about
CHUNK = 256
OBEDIENT = 0.95  # share of a conditional family's digits that the judge must read as asked


def family_rows(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    """``rows_of`` a family of the zoo."""
    return rows_of(recipe(name), load(name), seeds)


def rows_of(family: FamilyRecipe, model: GenerativeModel, seeds: tuple[int, ...]) -> Iterator[Row]:
    """As many digits per seed as its pictures ask for, with labels of the training split; compared with the test split.

    A family that draws nothing is asked what its features are worth. A likelihood that does not exist has no row:
    the family's own error says why.
    """
    name, asked, data = family.name, family.labelled, family.data
    if isinstance(model, JointEmbedding):
        yield from representation_rows(name, model, data)
        return
    labels, test, seen = data.train(data.drawn).labels, data.test(), features(data)
    try:
        bits = held_out_bits(model, labelled=asked, data=data)
        yield Row(name, f"bits per dimension of test digits, {bits.kind}", (bits.mean,))
    except (NotDefined, NotTractable):
        pass
    try:
        pools = [draw(model, labels, labelled=asked, generator=torch.Generator().manual_seed(s)) for s in seeds]
    except NotDefined:
        return
    apart = tuple(frechet_distance(pool, test.images, seen.features) for pool in pools)
    yield Row(name, "Frechet distance to test digits", apart)
    with torch.inference_mode():
        yield Row(name, "inception score of a digit classifier", tuple(inception_score(seen(p)) for p in pools))
        real = seen.features(data.test(data.scored).images)
        kinds = [fidelity_diversity(real, seen.features(pool[: len(real)])) for pool in pools]
    yield Row(name, f"precision, {len(real)} of each", tuple(k.precision for k in kinds))
    yield Row(name, f"recall, {len(real)} of each", tuple(k.recall for k in kinds))
    if asked:
        accuracy = tuple(judge(data).accuracy(pool, labels) for pool in pools)
        yield Row(name, "judge accuracy", accuracy, OBEDIENT)


@torch.no_grad()
def draw(
    model: GenerativeModel, labels: Int[Tensor, " n"], *, labelled: bool, generator: torch.Generator
) -> Float[Tensor, " n 1 8 8"]:
    """Digits of these labels (or as many of any), clipped to [-1, 1] as they are shown."""
    parts = [model.sample(len(c), c if labelled else None, generator=generator) for c in labels.split(CHUNK)]
    return torch.cat(parts).clamp(-1, 1)


@dataclass(frozen=True)
class Bits:
    """Bits per dimension of a set of pictures.

    Attributes:
        mean: over pictures; of grey levels, so that 17 equally likely ones would be log2 17 = 4.09.
        error: standard error of the mean.
        kind: "exact", "lower bound" or "estimate" *of the log-probability*; a lower bound of it is an upper one here.
    """

    mean: float
    error: float
    kind: str


def held_out_bits(model: GenerativeModel, *, labelled: bool, seed: int = 0, data: Pictures = DIGITS) -> Bits:
    """Bits per dimension of the test digits that are scored.

    A density is asked about pictures whose levels are spread over their cells; by Jensen the mean over those draws
    is a lower bound of ``log P``, whatever the density itself is.

    Raises:
        NotDefined, NotTractable: the family has no likelihood; the message says why.
    """
    test, generator = data.test(data.scored), torch.Generator().manual_seed(seed)
    cond = test.labels if labelled else None
    found = _log_prob(model, test.images[:1], None if cond is None else cond[:1], generator)
    draws = DEQUANTISED if found.of == "density" else 1
    totals = []
    for _ in range(draws):
        x = test.images
        if found.of == "density":
            x = x + STEP * (torch.rand(x.shape, generator=generator) - 0.5)
        totals.append(_log_prob(model, x, cond, generator).nats)
    bits = bits_per_dim(torch.stack(totals).mean(0), 64, STEP if found.of == "density" else None)
    kind = "lower bound" if found.of == "density" and found.kind == "exact" else found.kind
    return Bits(float(bits.mean()), float(bits.std() / len(bits) ** 0.5), kind)


def _log_prob(model: GenerativeModel, x: Tensor, cond: Tensor | None, generator: torch.Generator) -> LogProb:
    parts = x.split(CHUNK)
    conds = [None] * len(parts) if cond is None else cond.split(CHUNK)
    found = [model.log_prob(part, c, generator=generator) for part, c in zip(parts, conds, strict=True)]
    return LogProb(torch.cat([f.nats for f in found]), found[0].kind, found[0].of)
