"""The Pareto explorer: every control matters, and what it says is what the points say."""

from __future__ import annotations

import base64
import csv

import pytest
import torch

from lecture_lib import widgets
from lecture_lib.benchmarks import front as bench
from lecture_lib.data import digits
from lecture_lib.errors import DamagedFileError
from lecture_lib.metrics import Price
from lecture_lib.viz import as_picture
from lecture_lib.widgets import front
from lecture_lib.widgets.explorer import WIDGET_MIME

POINTS = [
    *(Price("solver", 2 * k, 0.2 * k, 30 / k) for k in (1, 2, 4, 8)),
    *(Price("heavy solver", 2 * k, 0.9 * k, 40 / k**2) for k in (1, 2, 4, 8)),
    *(Price("one-step student", k, 0.25 * k, 3 / k) for k in (1, 2)),
]


def test_every_control_changes_the_picture():
    explorer = widgets.front_explorer(POINTS)
    assert not explorer.failed and explorer.caption and explorer.alt
    choices = {"axis": ("nfe", "ms"), "place": (0, 40, 100)} | {f"method{k}": (True, False) for k in (1, 2, 3)}
    assert set(choices) == set(explorer.controls)
    for argument, values in choices.items():
        home, pictures = explorer.values[argument], set()
        for value in values:
            explorer.set(**{argument: value})
            assert not explorer.failed, explorer.note
            pictures.add(explorer.picture)
        explorer.set(**{argument: home})
        assert len(pictures) == len(values), argument


def test_the_note_is_the_best_affordable_point_and_the_front_of_what_is_shown():
    explorer = widgets.front_explorer(POINTS).set(place=100)
    assert explorer.note.startswith(
        "Within 16 evaluations per digit: heavy solver, distance 0.625 at 16 NFE and 7.2 ms"
    )
    assert "On the front: one-step student 1 NFE (3); one-step student 2 NFE (1.5); heavy solver 16" in explorer.note
    explorer.set(method2=False)
    assert "one-step student, distance 1.5 at 2 NFE" in explorer.note and "heavy" not in explorer.note
    explorer.set(method3=False, place=0)  # 1 evaluation: no guided solver has so few
    assert "nothing to be had" in explorer.note


def test_the_unit_of_cost_changes_who_is_on_the_front():
    """2 evaluations of the plain solver take 0.2 ms, one of the student 0.25: cheaper in time, and so on the front."""
    names = {axis: [(p.method, p.nfe) for p in front.on_front(POINTS, axis)] for axis in front.AXES}
    assert ("solver", 2) not in names["nfe"] and ("solver", 2) in names["ms"]
    assert [p.nfe for p in front.within(POINTS, "ms", 0.5)] == [2, 4]  # the heavy one needs 0.9
    assert front.budget_at(POINTS, "nfe", 0.5) == pytest.approx(4)  # halfway from 1 to 16 on a logarithmic axis


def test_the_picture_goes_out_with_the_widget(monkeypatch):
    sent = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: sent.append((a, k)))
    explorer = widgets.front_explorer(POINTS)
    explorer._ipython_display_()
    data = sent[0][0][0]
    assert base64.b64decode(data["image/png"]) == explorer.picture and WIDGET_MIME in data
    assert as_picture(explorer.picture).width <= 1100 and len(explorer.picture) < 250_000


def test_without_points_the_shipped_table_is_read(tmp_path):
    with pytest.raises(DamagedFileError, match="course bench front"):
        widgets.measured_front(tmp_path / "front.csv")
    shipped = widgets.measured_front()
    rows = list(csv.DictReader(front.TABLE.open(encoding="utf-8")))
    assert len(rows) == 2 * len(shipped) and {p.method for p in shipped} >= set(bench.SOLVERS)
    assert set(widgets.front_explorer().controls) > {"axis", "place", "method1"}


def test_a_point_of_the_benchmark_counts_both_passes_of_guidance():
    all_of_them = {c.method: c for c in bench.contestants()}
    plain, guided = all_of_them["Heun"], all_of_them["guided, w = 1.5, (2M)"]
    assert [bench.price(c, digits("train").labels[:80]).nfe for c in (plain, guided)] == [15, 16]  # 8 steps each
    again, _ = guided.draw(torch.arange(3), torch.Generator().manual_seed(0))
    same, _ = guided.draw(torch.arange(3), torch.Generator().manual_seed(0))
    assert torch.equal(again, same) and again.shape == (3, 1, 8, 8)
