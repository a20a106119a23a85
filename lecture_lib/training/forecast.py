"""What a sweep of training runs predicts beyond itself, and how much of that is noise: resampled fits and their bands.

Pure functions on measured runs; a notebook or a widget reads the runs from a table and calls ``forecast``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.tensors import check_count, check_number
from lecture_lib.training.scaling import (
    Numbers,
    PowerLaw,
    Valley,
    fit_straight_line,
    frontier,
    growth_exponent,
    isoflop_valleys,
)

Fit = TypeVar("Fit")
_RUN = re.compile(r"([\d.e+]+) FLOP, (\d+) parameters, (\d+) samples, seed (\d+): test loss")


@dataclass(frozen=True)
class Run:
    """One training run of a sweep.

    Attributes:
        compute: floating-point operations spent, forward and backward; equal for all runs of one budget.
        size: trainable parameters.
        samples: samples seen, repetitions included.
        seed: of the initial weights and the batches.
        loss: test loss at the end.
    """

    compute: float
    size: int
    samples: int
    seed: int
    loss: float

    @property
    def what(self) -> str:
        """The run in words, as in the table of the benchmark; ``read_runs`` is its inverse (six digits of compute)."""
        return f"{self.compute:g} FLOP, {self.size} parameters, {self.samples} samples, seed {self.seed}: test loss"


def read_runs(rows: Iterable[Mapping[str, str]]) -> list[Run]:
    """The runs in a table with the columns ``what`` and ``value`` (``csv.DictReader``); other rows are skipped."""
    found = [(_RUN.fullmatch(row["what"]), row["value"]) for row in rows]
    return [
        Run(float(run[1]), int(run[2]), int(run[3]), int(run[4]), float(value))
        for run, value in found
        if run is not None
    ]


def bootstrap(
    refit: Callable[[Float[np.ndarray, " n"]], Fit],
    predicted: Numbers,
    losses: Numbers,
    *,
    degrees: int,
    resamples: int = 200,
    generator: torch.Generator,
) -> list[Fit]:
    """Fits to losses as they might have come out: log L = log predicted + s ε, with s the spread of the residuals.

    What the fits disagree on is what the measurements do not determine. Take it as the least one has to doubt: it is
    the noise of repeated runs only (that the law might be the wrong one shows nowhere in it), and of few runs. With 21
    losses and the three constants of ``PowerLaw``, intervals meant to hold the truth in 90 % of all cases held it in
    80 to 85 % (140 synthetic tables). Rows are not redrawn, because a planned sweep has too few to lose some: a budget
    whose sizes were not all drawn has no parabola.

    Args:
        refit: losses (n,) -> fit, such as ``partial(fit_power_law, compute)``.
        predicted, losses: (n,), by the fit and as measured.
        degrees: constants in the fit: s^2 = sum of squares / (n - degrees).

    Raises:
        ShapeError: lengths differ. RangeError: not fewer constants than losses.

    Source: Efron & Tibshirani 1993, section 6.5 (the parametric bootstrap).
    """
    predicted, losses = np.asarray(predicted, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if predicted.shape != losses.shape or losses.ndim != 1:
        raise ShapeError(f"predicted, losses: got shapes {predicted.shape}, {losses.shape}, expected (n,) for both")
    n = len(losses)
    if not 0 <= degrees < n:
        raise RangeError(f"degrees: got {degrees}, expected fewer than the {n} losses")
    spread = (np.log(losses / predicted) ** 2).sum() / (n - degrees)
    shape = check_count("resamples", resamples), n
    noise = torch.randn(shape, generator=generator, dtype=torch.float64).numpy() * spread**0.5
    return [refit(predicted * np.exp(each)) for each in noise]


def interval(values: Sequence[float] | Float[np.ndarray, " r *n"], level: float = 0.9) -> Float[np.ndarray, " 2 *n"]:
    """Lower and upper end of the middle ``level`` of resampled values, along the first axis."""
    check_number("level", level, 0.0, 1.0)
    return np.quantile(np.asarray(values, dtype=np.float64), [(1 - level) / 2, (1 + level) / 2], axis=0)


@dataclass(frozen=True)
class Forecast:
    """What a sweep says about compute that it was not made with.

    Attributes:
        valleys: the lowest points of its isoFLOP curves.
        law: E + A C^-α through them.
        straight: A C^-α through them.
        resampled: ``law`` on losses as they might have come out; those in which some budget has no best size are left
            out.
        growth: exponents a of the best size N* ∝ C^a, on the same losses.
    """

    valleys: list[Valley]
    law: PowerLaw
    straight: PowerLaw
    resampled: list[PowerLaw]
    growth: list[float]

    def band(self, compute: Numbers | float, level: float = 0.9) -> Float[np.ndarray, " 2 *n"]:
        """Lower and upper loss that the resampled laws predict at ``compute``."""
        return interval([law(compute) for law in self.resampled], level)


def forecast(runs: Sequence[Run], *, resamples: int = 200, generator: torch.Generator) -> Forecast:
    """Fit the best losses of ``runs``; to see how far that can be trusted, leave the largest budgets out and compare.

    Raises:
        ShapeError: fewer than three budgets, or fewer than three sizes at one of them, or only three runs at each.
        RangeError: a budget at which no size is best, in the runs or in more than half of the resamples.
    """
    compute, size, losses = (np.array([getattr(run, name) for run in runs]) for name in ("compute", "size", "loss"))
    valleys = isoflop_valleys(compute, size, losses)
    if len(runs) <= 3 * len(valleys):
        raise ShapeError(
            f"runs: got {len(runs)} for {len(valleys)} budgets, expected more than {3 * len(valleys)}: "
            "a parabola through three runs leaves no residual"
        )
    straight = fit_straight_line([valley.compute for valley in valleys], [valley.loss for valley in valleys])
    predicted = np.select([compute == valley.compute for valley in valleys], [valley(size) for valley in valleys])
    resampled = bootstrap(
        partial(_valleys_if_any, compute, size),
        predicted,
        losses,
        degrees=3 * len(valleys),
        resamples=resamples,
        generator=generator,
    )
    kept = [each for each in resampled if each is not None]
    if 2 * len(kept) < resamples:
        raise RangeError(f"runs: in {resamples - len(kept)} of {resamples} resamples a budget has no best size")
    laws = [frontier(each) for each in kept]
    return Forecast(valleys, frontier(valleys), straight, laws, [growth_exponent(each) for each in kept])


def _valleys_if_any(compute: Numbers, size: Numbers, losses: Numbers) -> list[Valley] | None:
    try:
        return isoflop_valleys(compute, size, losses)
    except RangeError:
        return None
