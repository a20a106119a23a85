"""What quality costs: measured generators as points, and those of them that no other makes superfluous."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lecture_lib.errors import NonFiniteError, ShapeError
from lecture_lib.tensors import check_count, check_number

_ROW = re.compile(r"(.+), (\d+) NFE: (quality|milliseconds)")


@dataclass(frozen=True, order=True)
class Price:
    """What one way of making a sample costs, and what comes of it.

    Attributes:
        method: its name; the points of one method make a line.
        nfe: evaluations of the network per sample; a guided step has two.
        ms: milliseconds per sample.
        quality: a distance to data: less is better.
    """

    method: str
    nfe: int
    ms: float
    quality: float

    def __post_init__(self):
        check_count("nfe", self.nfe), check_number("ms", self.ms, 0), check_number("quality", self.quality, 0)

    def rows(self) -> dict[str, float]:
        """As two rows of a table, ``what -> value``; ``read_prices`` reads them back."""
        return {f"{self.method}, {self.nfe} NFE: {what}": getattr(self, name) for what, name in _KEYS.items()}


_KEYS = {"quality": "quality", "milliseconds": "ms"}


def read_prices(rows: Iterable[Mapping[str, str]]) -> list[Price]:
    """The prices in a table with the columns ``what`` and ``value`` (``csv.DictReader``); other rows are skipped."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        if match := _ROW.fullmatch(row["what"]):
            found.setdefault((match[1], int(match[2])), {})[_KEYS[match[3]]] = float(row["value"])
    return [Price(method, nfe, **both) for (method, nfe), both in found.items() if len(both) == len(_KEYS)]


def pareto(costs: Sequence[float], losses: Sequence[float]) -> list[bool]:
    """For each point whether it lies on the front: no other is at least as good in both and better in one.

    Raises:
        ShapeError: not as many costs as losses.
        NonFiniteError: a NaN, which has no place in any order.
    """
    if len(costs) != len(losses):
        raise ShapeError(f"losses: got {len(losses)} for {len(costs)} costs, expected as many")
    for name, values in (("costs", costs), ("losses", losses)):
        if any(math.isnan(value) for value in values):
            raise NonFiniteError(f"{name}: got NaN among {len(values)} numbers, expected numbers that can be compared")
    on, best, best_cost = [False] * len(costs), float("inf"), float("nan")
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], losses[i])):  # from cheap to dear
        if losses[i] < best or (losses[i] == best and costs[i] == best_cost):  # twins stand or fall together
            on[i], best, best_cost = True, losses[i], costs[i]
    return on
