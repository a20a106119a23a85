"""The table of all families, and its picture."""

from __future__ import annotations

import pytest

from lecture_lib.benchmarks import families
from lecture_lib.benchmarks.families import BITS, DISTANCE, REAL, figure, table
from lecture_lib.tooling.benching import Measurement
from lecture_lib.viz.league import Column, league
from lecture_lib.zoo.row import Row


def test_accuracy_becomes_what_is_missing_so_that_bars_are_upper_limits():
    lines = list(families._rows(Row("family-x", "judge accuracy", (0.9, 0.98), 0.95)))
    assert lines[0].what == "family-x | share that the judge misreads"
    assert lines[0].value == pytest.approx(0.06) and lines[0].bar == pytest.approx(0.05) and not lines[0].within
    assert lines[1].what == "family-x | share that the judge misreads, spread" and lines[1].value == pytest.approx(0.04)


def measurements():
    rows = {
        REAL: {DISTANCE: 2.0, "precision, 355 of each": 0.8, "share that the judge misreads": 0.01},
        "family-one": {
            f"{BITS}, exact": 2.5,
            DISTANCE: 9.0,
            f"{DISTANCE}, spread": 0.5,
            "share that the judge misreads": 0.02,
            "samples per second, 64 at once, one core": 100.0,
        },
        "family-two": {DISTANCE: 30.0, "samples per second, 64 at once, one core": 5000.0},
    }
    return [Measurement(f"{name} | {what}", value, "") for name, row in rows.items() for what, value in row.items()]


def test_the_table_and_its_picture():
    found = table(measurements())
    assert found["family-one"][DISTANCE] == 9.0 and set(found) == {REAL, "family-one", "family-two"}
    fig = figure(measurements())
    names = [tick.get_text() for tick in fig.axes[0].get_yticklabels()]
    assert names == ["one", "two"]  # real digits are lines, no contestant
    likelihood, distance = fig.axes[:2]
    assert [text.get_text() for text in likelihood.texts] == ["none"]
    reference = [line for line in distance.get_lines() if line.get_linestyle() == "--"]
    assert list(reference[0].get_xdata()) == [2.0, 2.0]


def test_bounds_are_hollow_and_spreads_are_drawn():
    fig = league(["a", "b"], [Column("m", "unit", [1.0, 2.0], [0.0, 0.5], [False, True])], groups=[1])
    points = list(fig.axes[0].containers)
    faces = [p[0].get_markerfacecolor() for p in points]
    assert faces[1] == "white" and faces[0] != "white"
    low, high = points[1][2][0].get_segments()[0][:, 0]
    assert (low, high) == (1.5, 2.5)
    assert fig.axes[0].get_ylim() == (1.5, -0.5)  # the first on top
