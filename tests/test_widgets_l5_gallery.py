"""The gallery of families: what hangs there is what each family draws, and the record holds only while weights do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from widget_laws import (
    every_value_has_its_picture,
    one_thread,  # noqa: F401 - a fixture
    the_picture_goes_out_with_the_widget,
)

from lecture_lib import widgets
from lecture_lib.errors import DamagedFileError, NotDefined
from lecture_lib.families import GenerativeModel
from lecture_lib.viz import as_picture, to_pixels
from lecture_lib.widgets import exhibits, gallery
from lecture_lib.zoo import store
from lecture_lib.zoo.families import FAMILIES


class Bars(GenerativeModel):
    """Noise with a bright row for the label; counts how often it draws."""

    event, formula, source = (1, 8, 8), "x", "nobody 2026"

    def __init__(self, steps=3):
        super().__init__()
        self.weight, self.steps, self.calls = nn.Parameter(torch.zeros(1)), steps, 0

    def loss(self, batch, phase="all", *, generator):
        raise NotImplementedError

    def reverse_process(self, z, cond=None, *, steps=None, generator):
        self.calls += 1
        x = 0.3 * z + (0 if cond is None else cond[:, None, None, None] / 10)
        yield x

    @classmethod
    def small(cls):
        raise NotImplementedError


class Mute(Bars):
    """A representation."""

    def reverse_process(self, z, cond=None, *, steps=None, generator):
        raise NotDefined("reverse_process: a representation has none; expected a family that draws")


def missing():
    raise DamagedFileError("family-x: no weights are installed; train them")


def some():
    """Fresh exhibits: what is remembered belongs to them."""
    bars, plain = Bars(), Bars(1)
    return (
        widgets.Exhibit("bars", lambda: bars),
        widgets.Exhibit("no labels", lambda: plain, labelled=False),
        widgets.Exhibit("mute", Mute),
        widgets.Exhibit("lost", missing),
    )


def test_every_control_changes_the_picture_at_every_value():
    explorer = widgets.family_gallery(some())
    assert not explorer.failed and explorer.caption and explorer.alt
    for argument in explorer.controls:
        every_value_has_its_picture(explorer, argument)


def test_the_same_settings_give_the_same_picture_and_the_picture_goes_out_with_the_widget(monkeypatch):
    hung = some()
    the_picture_goes_out_with_the_widget(lambda: widgets.family_gallery(hung), monkeypatch)


def test_a_row_is_what_the_family_draws_with_these_labels_and_this_seed():
    """The pixels of the picture, at its scale of 4, are those of ``sample``."""
    hung = some()[:1]
    explorer = widgets.family_gallery(hung)
    model = hung[0].model()
    for label, seed in ((exhibits.EVERY, 0), (exhibits.EVERY, 7), (3, 0)):
        cond = torch.arange(10) if label == exhibits.EVERY else torch.full((10,), label)
        expected = model.sample(10, cond, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)
        explorer.set(label=label, seed=seed)
        picture = torch.from_numpy(np.array(as_picture(explorer.picture).convert("L")))
        wide = torch.from_numpy(to_pixels(expected, 4)[..., 0]).float()
        block = torch.cat([torch.nn.functional.pad(d, (0, 3), value=255) for d in wide], dim=1)[:, :-3]
        assert (picture[-8 - 32 : -8, -8 - block.shape[1] : -8].float() == block).all()
    plain = exhibits.draw(some()[1], 3, 5)
    assert torch.equal(plain, Bars(1).sample(10, generator=torch.Generator().manual_seed(5)).clamp(-1, 1))


def test_what_does_not_draw_says_why():
    explorer = widgets.family_gallery(some())
    assert explorer.note.startswith("2 of 4 families")
    assert explorer.note.endswith("With no samples: mute. With no weights: lost.")
    hung = some()
    prices = [exhibits.first(e).price for e in hung]
    assert prices[0].startswith("3 steps, ") and prices[1].startswith("1 step, ") and prices[0].endswith(" ms")
    assert prices[2:] == ["no samples", "no weights"]
    for family, why in (("mute", "(reverse_process: a repr"), ("lost", "(family-x: no weights are")):
        assert not explorer.set(family=family).failed and why in explorer.note


def test_milliseconds_are_measured_once_and_per_digit(monkeypatch):
    """A clock that says 2 s and then 1 s: slow enough to be believed the first time, so 200 ms per digit."""
    ticks = iter([0.0, 2.0])
    monkeypatch.setattr(exhibits.time, "process_time", lambda: next(ticks))
    hung = some()[:1]
    assert exhibits.first(hung[0]).milliseconds == 200.0 and exhibits.first(hung[0]).price == "3 steps, 200 ms"
    widgets.family_gallery(hung).set(seed=3)
    assert hung[0].model().calls == 2  # one measured draw that is also shown, one of seed 3
    ticks = iter([0.0, 0.04, 1.0, 1.001])  # a fast family: the second time counts
    assert exhibits.first(some()[0]).milliseconds == pytest.approx(0.1)


def test_rows_are_shown_before_all_of_them_are_there(monkeypatch):
    monkeypatch.setattr(gallery, "_PATIENCE", 0.0)
    scenes = list(gallery.Gallery(some()).scenes(gallery.ALL, exhibits.EVERY, 0))
    assert [scene.progress for scene in scenes] == [0.25, 0.5, 0.75, 1.0]
    assert len({scene.png for scene in scenes}) == 4
    sheet = list(gallery.Gallery(some()).scenes("bars", 4, 0))
    assert len(sheet) == gallery.SHEET and sheet[-1].progress == 1.0 and "Bars: nobody 2026" in sheet[-1].note


def test_the_first_row_of_one_family_is_its_row_among_all():
    hung = some()[0]
    gallery_of_one = gallery.Gallery([hung])
    list(gallery_of_one.scenes("bars", 2, 5))
    assert hung.model().calls == gallery.SHEET + 2  # and two for the price
    list(gallery_of_one.scenes(gallery.ALL, 2, 5))
    assert hung.model().calls == gallery.SHEET + 2


# The record ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A record of its own, a manifest of its own, and nothing remembered before and after."""
    sums = {"family-bars": {"sha256": "one"}}
    monkeypatch.setattr(store, "manifest", lambda folder=None: sums)
    path = tmp_path / "gallery.npz"
    remembered = exhibits.on_record
    remembered.cache_clear()
    yield path, sums
    remembered.cache_clear()


def kept(path, exhibit):
    """What ``first`` would find in the file."""
    exhibits.on_record.cache_clear()
    return exhibits.on_record(path).get((exhibit.weights, exhibits._checksum(exhibit.weights)))


def test_a_record_gives_back_the_picture_and_the_price_until_the_weights_change(shelf):
    path, sums = shelf
    model = Bars()
    bars = widgets.Exhibit("bars", lambda: model, weights="family-bars")
    assert kept(path, bars) is None  # no file yet
    exhibits.record([bars, *some()[2:]], path)
    found, fresh = kept(path, bars), exhibits.measured(bars)
    assert found.recorded and found.steps == 3 and found.milliseconds > 0
    assert (to_pixels(found.row.images) == to_pixels(fresh.row.images)).all()
    sums["family-bars"]["sha256"] = "two"
    assert kept(path, bars) is None


def test_with_a_record_nothing_is_loaded_for_the_first_picture(shelf, monkeypatch):
    path, _ = shelf
    bars = widgets.Exhibit("bars", Bars, weights="family-bars")
    exhibits.record([bars], path)
    rows = exhibits.on_record(path)
    monkeypatch.setattr(exhibits, "on_record", lambda: rows)
    sealed = widgets.Exhibit("bars", missing, weights="family-bars")
    explorer = widgets.family_gallery([sealed])
    assert explorer.note.startswith("1 of 1 families") and "as recorded with the weights" in explorer.note


def test_the_zoo_is_offered_whole_and_not_opened():
    offered = exhibits.zoo_exhibits()
    assert [e.weights for e in offered] == [f.name for f in FAMILIES]
    assert [e.labelled for e in offered] == [f.labelled for f in FAMILIES]


@pytest.mark.skipif(not exhibits.RECORD.exists(), reason="no record yet: widgets.exhibits.record() makes one")
def test_the_shipped_record_belongs_to_the_shipped_weights():
    """If this fails, weights are new: run ``python -c "from lecture_lib.widgets.exhibits import record; record()"``."""
    stale = [w for w, c in exhibits.on_record() if c != exhibits._checksum(w)]
    assert not stale
