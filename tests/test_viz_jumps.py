"""The square of jumps and the tree of halvings: every number at its place, nothing where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Arc

from lecture_lib import viz
from lecture_lib.errors import RangeError, ShapeError


def test_squares_share_one_scale_and_show_what_lies_below_the_diagonal():
    times = np.linspace(0, 1, 4)
    errors = {name: a * np.arange(1.0, 17).reshape(4, 4) for name, a in (("CTM", 1.0), ("MeanFlow", 10.0))}
    figure = viz.jump_squares(times, errors)
    squares = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in squares] == ["CTM", "MeanFlow"]
    for ax, values in zip(squares, errors.values(), strict=True):
        shown = np.ma.filled(ax.images[0].get_array(), np.nan)
        assert np.array_equal(np.isnan(shown), np.tri(4, dtype=bool))  # s >= t: no such jump
        assert shown[0, 3] == values[0, 3] and ax.images[0].origin == "lower"  # from the last time to the first
    scales = {(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for ax in squares}
    assert scales == {(2.0, 120.0)}
    with pytest.raises(ShapeError, match="CTM"):
        viz.jump_squares(times, {"CTM": np.ones((3, 4))})


def test_each_arc_of_a_tree_spans_two_of_the_row_above():
    figure = viz.halving_tree((4, 2, 1), ["a", "b", "c"])
    ax = figure.axes[0]
    rows = {}
    for arc in (patch for patch in ax.patches if isinstance(patch, Arc)):
        (middle, height), width = arc.center, arc.width
        rows.setdefault(-height, set()).update({(round(middle + width / 2, 6), round(middle - width / 2, 6))})
    assert {row: len(arcs) for row, arcs in rows.items()} == {0: 4, 1: 2, 2: 1}
    for row in (1, 2):
        for t, s in rows[row]:
            assert {(t, (t + s) / 2), ((t + s) / 2, s)} <= rows[row - 1]
    assert ax.get_xlim()[0] > ax.get_xlim()[1]  # noise on the left
    assert [text.get_text() for text in ax.texts] == ["4 steps", "a", "2 steps", "b", "1 step", "c"]
    with pytest.raises(RangeError, match="half"):
        viz.halving_tree((4, 3))
    with pytest.raises(ShapeError, match="notes"):
        viz.halving_tree((4, 2), ["a"])
