"""Prices as rows and back, and the Pareto front against its definition."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from lecture_lib.errors import NonFiniteError, RangeError, ShapeError
from lecture_lib.metrics import Price, pareto, read_prices


def test_the_front_is_what_no_other_point_dominates():
    """Against the definition, pair by pair, on small integers so that ties are frequent."""
    draw = random.Random(0)
    for _ in range(300):
        points = [(draw.randint(0, 4), draw.randint(0, 4)) for _ in range(draw.randint(1, 9))]
        costs, losses = zip(*points, strict=True)
        dominated = {
            i
            for (i, a), (j, b) in itertools.permutations(enumerate(points), 2)
            if i != j and b[0] <= a[0] and b[1] <= a[1] and b != a
        }
        assert pareto(costs, losses) == [i not in dominated for i in range(len(points))], points


def test_prices_come_back_from_a_table_whatever_else_is_in_it():
    prices = [Price("DPM-Solver++(2M), guided", 16, 1.25, 2.5), Price("one-step student", 1, 0.125, 1.75)]
    rows = [{"what": what, "value": str(value)} for p in prices for what, value in p.rows().items()]
    rows += [{"what": "something else, 3 apples", "value": "1"}, {"what": "half, 2 NFE: quality", "value": "1"}]
    assert read_prices(rows) == prices


def test_bad_input_is_named():
    with pytest.raises(ShapeError, match="losses: got 1 for 2 costs"):
        pareto([1, 2], [1])
    with pytest.raises(RangeError, match="nfe"):
        Price("none", 0, 1.0, 1.0)


def test_nan_is_named_where_it_would_upset_the_order():
    """Sorted with a NaN in between, (2, 1) was on the front and (1, 1) was not."""
    with pytest.raises(NonFiniteError, match="costs"):
        pareto([2.0, math.nan, 1.0], [1.0, 0.5, 1.0])
    with pytest.raises(NonFiniteError, match="losses"):
        pareto([1.0], [math.nan])
    assert pareto([1.0, math.inf], [1.0, 0.5]) == [True, True]  # what no money buys


def test_evaluations_are_whole_or_they_would_not_be_read_back():
    with pytest.raises(RangeError, match="nfe"):
        Price("euler", 1.5, 1.0, 1.0)
