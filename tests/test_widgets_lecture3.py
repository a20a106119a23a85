"""The widgets of Lecture 3: every control matters, and what is shown is what the functions return."""

from __future__ import annotations

import base64

import ipywidgets
import pytest
import torch

from lecture_lib import widgets
from lecture_lib.nets import dit_cost
from lecture_lib.viz import as_picture, to_pixels
from lecture_lib.widgets import patches
from lecture_lib.widgets.explorer import WIDGET_MIME


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def make():
    return {"patch_explorer": widgets.patch_explorer}


NAMES = ("patch_explorer",)


def some_values(control: ipywidgets.Widget) -> list:
    """Both ends and the middle of a slider, options of a list."""
    if isinstance(control, ipywidgets.Dropdown | ipywidgets.SelectionSlider):
        return [value for _, value in control._options_full][:6]
    if isinstance(control, ipywidgets.Checkbox):
        return [False, True]
    middle = control.min + control.step * round((control.max - control.min) / control.step / 2)
    return sorted({control.min, type(control.value)(middle), control.max})


@pytest.mark.parametrize("name", NAMES)
def test_every_control_changes_the_picture_at_every_value(name, make):
    explorer = make[name]()
    assert not explorer.failed and explorer.caption and explorer.alt
    for argument, control in explorer.controls.items():
        home, pictures = explorer.values[argument], {}
        for value in some_values(control):
            explorer.set(**{argument: value})
            assert not explorer.failed, explorer.note
            pictures[value] = explorer.picture
        explorer.set(**{argument: home})
        assert len(set(pictures.values())) == len(pictures), (argument, list(pictures))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_settings_give_the_same_picture_and_the_picture_goes_out_with_the_widget(name, make, monkeypatch):
    sent = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: sent.append((a, k)))
    explorer = make[name]()
    assert explorer.picture == make[name]().picture
    explorer._ipython_display_()
    data = sent[0][0][0]
    assert base64.b64decode(data["image/png"]) == explorer.picture and WIDGET_MIME in data
    assert data["text/plain"].startswith(explorer.alt) and explorer.note in data["text/plain"]
    assert as_picture(explorer.picture).width <= 1100 and len(explorer.picture) < 250_000


# Patches ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [2, 4, 8])
def test_tokens_are_the_squares_of_the_picture_row_by_row(patch):
    x = patches.pictures()[list(patches.pictures())[1]]
    tokens = patches.tokens_as_pictures(x, patch)
    k = 32 // patch + 2  # second row, third column
    assert torch.equal(tokens[k], x[0, :, patch : 2 * patch, 2 * patch : 3 * patch])
    shown = to_pixels(tokens[k : k + 1], 10)[0]
    assert shown.shape == (10 * patch, 10 * patch, 3) and len(tokens) == (32 // patch) ** 2


def test_the_bill_is_the_papers_and_quadratic_cost_is_found_where_it_is():
    explorer = widgets.patch_explorer().set(network="XL", patch=2)
    assert "256 tokens, 118.6 billion" in explorer.note and "3.6% of them for pairs" in explorer.note
    assert "table says 118.64" in explorer.note
    explorer.set(side=128, network="S")
    cost = dit_cost("S/2", size=128)
    assert cost.pairs > cost.tokens and "4096 tokens" in explorer.note and "table" not in explorer.note
