"""Controls that behave the same under ipywidgets 7.7 (Colab) and 8.1: labelled, explained, operable by keyboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets

_LABEL_WIDTH = "9.5em"


def _explained(control: ipywidgets.Widget, tip: str) -> Any:
    """Attach the tooltip under the name that the installed ipywidgets gives it."""
    name = "description_tooltip" if control.has_trait("description_tooltip") else "tooltip"
    setattr(control, name, tip)
    return control


def _common(name: str) -> dict[str, Any]:
    return {
        "description": name,
        "style": {"description_width": _LABEL_WIDTH},
        "layout": ipywidgets.Layout(width="28em", max_width="100%"),
    }


def number(name: str, value: float, low: float, high: float, step: float, tip: str) -> ipywidgets.FloatSlider:
    """A slider for a real number; it reports when released or when a key is pressed, not on the way."""
    digits = max(0, len(f"{step:.6f}".rstrip("0").split(".")[1]))
    slider = ipywidgets.FloatSlider(
        value=value,
        min=low,
        max=high,
        step=step,
        continuous_update=False,
        readout_format=f".{digits}f",
        **_common(name),
    )
    return _explained(slider, tip)


def count(name: str, value: int, low: int, high: int, tip: str) -> ipywidgets.IntSlider:
    """A slider for a whole number."""
    slider = ipywidgets.IntSlider(value=value, min=low, max=high, continuous_update=False, **_common(name))
    return _explained(slider, tip)


def choice(name: str, value: Any, options: Sequence[Any], tip: str) -> ipywidgets.Dropdown:
    """A drop-down list; an option is a value, or a ``(text, value)`` pair."""
    return _explained(ipywidgets.Dropdown(value=value, options=list(options), **_common(name)), tip)


def ladder(name: str, value: Any, options: Sequence[Any], tip: str) -> ipywidgets.SelectionSlider:
    """A slider over a few values in their order; an option is a value, or a ``(text, value)`` pair."""
    slider = ipywidgets.SelectionSlider(value=value, options=list(options), continuous_update=False, **_common(name))
    return _explained(slider, tip)


def text(name: str, value: str, tip: str, *, hint: str = "") -> ipywidgets.Text:
    """A line of text; it reports when Enter is pressed or the field is left, not at every key."""
    field = ipywidgets.Text(value=value, placeholder=hint, continuous_update=False, **_common(name))
    field.layout.width = "57em"  # two columns of sliders
    return _explained(field, tip)


def narrow(control: Any) -> Any:
    """The same control at a third of its width, label included: several of them make a row."""
    control.layout.width, control.style.description_width = "14.5em", "6em"
    return control


def switch(name: str, value: bool, tip: str) -> ipywidgets.Checkbox:
    """A check box."""
    box = ipywidgets.Checkbox(value=value, indent=True, **_common(name))
    return _explained(box, tip)


def same_seed(value: int = 0) -> ipywidgets.IntSlider:
    """The seed of the starting noise; equal seeds make pictures comparable."""
    return count("seed", value, 0, 99, "Starting noise. Keep it fixed while you move another slider.")
