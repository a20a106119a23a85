"""Digits in few steps against sixteen of the teacher's: same w, same labels, equally many pictures, in one run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.core import Denoiser, uniform_grid
from lecture_lib.data import digits
from lecture_lib.metrics import frechet_distance
from lecture_lib.samplers import ConsistencyMultistep, DPMSolverPP2M, Sampler, last, sample
from lecture_lib.zoo.library import judge, load, recipe
from lecture_lib.zoo.row import Row

CHUNK = 128  # images in one pass of the network: more do not fit the cache, and are slower per image
SETS = 7  # sets of the training split's size and labels in one pool: 10,094 digits, few enough for a laptop
NFE = 16  # of the teacher, by the better of DPM-Solver++(2M) and Heun
LEAST = 0.97  # share that the judge reads as asked
FRECHET_BARS = {1: 1.5, 2: 1.25}  # steps -> largest distance over the teacher's, each at its best w
BEST = (
    1.2,
    1.0,
)  # w of the student and of the teacher: of 1, 1.1, ..., 1.5 the least distance, on noise of other seeds
# Chosen on noise of another seed. Late returns are the good ones: they repair strokes and leave the digit alone.
GRIDS = {1: (1.0, 0.0), 2: (1.0, 0.2, 0.0), 4: (1.0, 0.3, 0.2, 0.1, 0.0)}


def student_digits(
    student: Denoiser, labels: Int[Tensor, " n"], w: float, steps: int, *, generator: torch.Generator
) -> Float[Tensor, " n 1 8 8"]:
    """Digits in 1, 2 or 4 evaluations: jump to the data, re-noise, jump again."""
    grid = torch.tensor(GRIDS[steps], dtype=torch.float64) * student.path.t_max
    return _drawn(student, labels, w, ConsistencyMultistep(), grid, generator)


def teacher_digits(
    teacher: Denoiser, labels: Int[Tensor, " n"], w: float, *, generator: torch.Generator
) -> Float[Tensor, " n 1 8 8"]:
    """What the students are measured by: ``NFE`` evaluations of the guided teacher, one per step."""
    return _drawn(teacher, labels, w, DPMSolverPP2M(), uniform_grid(teacher.path, NFE), generator)


@torch.inference_mode()
def _drawn(
    model: Denoiser, labels: Tensor, w: float, sampler: Sampler, grid: Tensor, generator: torch.Generator
) -> Tensor:
    drawn = []
    for part in labels.split(CHUNK):
        noise = torch.randn(len(part), 1, 8, 8, generator=generator)
        denoise = model.given({"label": part, "w": torch.full((len(part),), float(w))})
        drawn.append(last(sample(denoise, model.path, sampler, grid, noise, generator=generator)))
    return torch.cat(drawn)


def student_rows(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    """Per number of steps: the judge's verdict, and the Frechet distance over that of the teacher.

    Distances are to the test split, in the features of ``digits-features``; a ratio compares pools of one seed, which
    start from the same noise. The bars are for each at its ``BEST`` w; the same w for both says how well the student
    obeys it. Below 1 is possible: a teacher is no limit where its own steps are few.
    """
    student, teacher = load(name), load(recipe(name).teacher.name)
    labels = digits("train").labels.repeat(SETS)
    for w, w_teacher in (BEST, (1.0, 1.0), (1.5, 1.5)):
        pools = [teacher_digits(teacher, labels, w_teacher, generator=torch.Generator().manual_seed(s)) for s in seeds]
        base = tuple(distance(pool) for pool in pools)
        if w == w_teacher:
            yield Row(name, f"Frechet distance of the teacher, w = {w:g}, {NFE} steps", base)
        for steps in GRIDS:
            pools = [
                student_digits(student, labels, w, steps, generator=torch.Generator().manual_seed(s)) for s in seeds
            ]
            ratios = tuple(distance(pool) / b for pool, b in zip(pools, base, strict=True))
            what = f"w = {w:g}, {steps} step{'s' * (steps > 1)}"
            over = f"Frechet distance over the teacher's at w = {w_teacher:g}, {what}"
            yield Row(name, over, ratios, FRECHET_BARS.get(steps) if (w, w_teacher) == BEST else None, False)
            accuracy = tuple(judge().accuracy(pool, labels) for pool in pools)
            yield Row(name, f"judge accuracy, {what}", accuracy, LEAST)


def distance(images: Float[Tensor, " n 1 8 8"]) -> float:
    """Frechet distance to the test digits."""
    return frechet_distance(images, digits("test").images, load("digits-features").features)
