"""Maps of networks and tables of words: everything is drawn, in its place, and nothing that does not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lecture_lib import viz
from lecture_lib.errors import ShapeError

BLOCKS = [
    ("time", "MLP", None, 16, 100),
    ("enter", "conv", 8, 4, 10),
    ("down[0].stages[0]", "res + transformer x 1", 8, 4, 200),
    ("down[0].shrink", "conv", 4, 4, 10),
    ("middle.stages[0]", "res", 4, 8, 600),
    ("up[0].grow", "conv", 8, 8, 80),
]


def boxes(figure):
    return [patch for patch in figure.axes[0].patches if patch.get_width() > 0]


def test_every_block_with_a_resolution_stands_at_its_height_and_none_overlap():
    figure = viz.network_map(BLOCKS, title="small")
    drawn = boxes(figure)
    assert len(drawn) == 5
    heights = [round(box.get_y() + box.get_height() / 2) for box in drawn]
    assert heights == [1, 1, 0, 0, 1]  # 8 x 8 stands above 4 x 4
    ends = np.cumsum([box.get_width() for box in drawn])
    assert np.allclose([box.get_x() for box in drawn], [0, *ends[:-1]])
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["4 x 4", "8 x 8"]


def test_width_is_the_share_of_all_parameters_the_unplaced_ones_included():
    drawn = boxes(viz.network_map(BLOCKS))
    assert drawn[3].get_width() == pytest.approx(0.6)
    assert drawn[1].get_width() == pytest.approx(0.2)
    assert min(box.get_width() for box in drawn) > 0.01  # ten parameters of a thousand are still seen


def test_kinds_differ_in_colour():
    conv, both, _, res, last = (box.get_facecolor() for box in boxes(viz.network_map(BLOCKS)))
    assert len({conv, both, res}) == 3 and conv == last


def test_a_map_of_nothing_is_refused():
    with pytest.raises(ShapeError, match="blocks"):
        viz.network_map(BLOCKS[:1])


def test_tables_share_their_scale_and_write_every_number():
    values = torch.tensor([[[0.0, 0.5], [0.25, 1.0]], [[0.1, 0.2], [0.3, 0.4]]])
    figure = viz.similarity_matrix(
        values, torch.zeros(2, 3, 8, 8), ["one", "two"], value_label="cosine", titles=("before", "after")
    )
    tables = [ax for ax in figure.axes if ax.images and len(ax.texts) == 4]
    assert [ax.get_title(loc="left") for ax in tables] == ["before", "after"]
    assert {ax.images[0].get_clim() for ax in tables} == {(0.0, 1.0)}
    assert [t.get_text() for t in tables[0].texts] == ["0.00", "0.50", "0.25", "1.00"]
    assert [t.get_text() for t in tables[0].get_yticklabels()] == ["one", "two"]
    assert viz.as_picture(figure).size[0] > 300


@pytest.mark.parametrize("captions", [["one"], ["one", "two", "three"]])
def test_tables_that_do_not_fit_are_refused(captions):
    with pytest.raises(ShapeError, match="values"):
        viz.similarity_matrix(torch.zeros(2, 2), torch.zeros(2, 3, 8, 8), captions, value_label="cosine")
