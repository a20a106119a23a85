"""What every widget of the course keeps to, shared by their tests."""

from __future__ import annotations

import base64
from collections.abc import Callable

import ipywidgets
import pytest
import torch

from lecture_lib.viz import as_picture
from lecture_lib.widgets.explorer import WIDGET_MIME, Explorer

TEXTS = ["a small red circle", "a large blue ring left of a small pink cross", "a red"]


def some_values(control: ipywidgets.Widget) -> list:
    """Both ends and the middle of a slider, options of a list, other texts."""
    if isinstance(control, ipywidgets.Dropdown | ipywidgets.SelectionSlider):
        return [value for _, value in control._options_full][:8]
    if isinstance(control, ipywidgets.Checkbox):
        return [False, True]
    if isinstance(control, ipywidgets.Text):
        return TEXTS
    middle = control.min + control.step * round((control.max - control.min) / control.step / 2)
    return sorted({control.min, type(control.value)(middle), control.max})


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small tensors lose more to waiting for a second thread than they gain; import it into a file of tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def every_value_has_its_picture(explorer: Explorer, argument: str) -> None:
    """No two values of one control show the same; afterwards it is where it was."""
    home, pictures = explorer.values[argument], {}
    for value in some_values(explorer.controls[argument]):
        explorer.set(**{argument: value})
        assert not explorer.failed, explorer.note
        pictures[value] = explorer.picture
    explorer.set(**{argument: home})
    assert len(set(pictures.values())) == len(pictures), (argument, list(pictures))


def the_picture_goes_out_with_the_widget(make: Callable[[], Explorer], monkeypatch, width: int = 1100) -> None:
    """Same settings, same picture; and a small one stands beside the widget for whoever only reads."""
    sent = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: sent.append((a, k)))
    explorer = make()
    assert explorer.picture == make().picture
    explorer._ipython_display_()
    data = sent[0][0][0]
    assert base64.b64decode(data["image/png"]) == explorer.picture and WIDGET_MIME in data
    assert data["text/plain"].startswith(explorer.alt) and explorer.note in data["text/plain"]
    assert as_picture(explorer.picture).width <= width and len(explorer.picture) < 250_000
