"""The frame of the widgets: what is shown, what is remembered, what wins, what is raised."""

from __future__ import annotations

import asyncio
import base64

import pytest
from PIL import Image

from lecture_lib.errors import RangeError, UnknownNameError
from lecture_lib.viz import as_picture
from lecture_lib.widgets.controls import choice, count, ladder, narrow, number, switch, text
from lecture_lib.widgets.explorer import WIDGET_MIME, Explorer, Scene


def card(w, steps=3, kind="a"):
    """A picture that tells its settings by colour and size."""
    return Scene(Image.new("RGB", (40 + steps, 20), (int(10 * w) % 256, 60, ord(kind))), note=f"w is {w:g}")


def make(draw=card, **words):
    controls = {
        "w": number("guidance scale w", 1.0, 0.0, 8.0, 0.5, "how far to extrapolate"),
        "steps": count("steps", 3, 1, 20, "sampler steps"),
        "kind": choice("kind", "a", ["a", "b"], "which one"),
    }
    return Explorer(draw, controls, alt="A coloured card.", **words)


def browser(control, value):
    """What ipywidgets does with a message from the front end."""
    control.set_state(value if isinstance(value, dict) else {"value": value})


def test_first_picture_is_there_at_once_and_every_control_changes_it():
    explorer = make()
    assert explorer.picture.startswith(b"\x89PNG") and explorer.image.value == explorer.picture
    for name, ends in {"w": (0.0, 8.0), "steps": (1, 20), "kind": ("b", "a")}.items():
        pictures = [explorer.set(**{name: value}).picture for value in ends]
        assert pictures[0] != pictures[1], name


def test_picture_is_shown_at_its_natural_width():
    explorer = make()
    assert explorer.image.width == "43" == str(as_picture(explorer.picture).width)
    explorer.set(steps=20)
    assert explorer.image.width == "60"


def test_values_are_remembered_and_not_drawn_twice():
    explorer = make(remember=2)
    explorer.set(w=2.0).set(w=1.0)
    assert explorer.draws == 2
    explorer.set(w=3.0).set(w=2.0)  # w = 2 was the least recently used, so it is drawn again
    assert explorer.draws == 4


def test_settings_that_are_refused_leave_all_controls_beside_their_picture():
    explorer = make()
    before, picture = explorer.values, explorer.picture
    with pytest.raises(RangeError, match="steps"):
        explorer.set(w=3.0, kind="b", steps=1000)
    assert explorer.values == before and explorer.picture == picture and explorer.draws == 1


def test_so_they_do_where_a_control_follows_another():
    explorer = make()
    w, steps = explorer.controls["w"], explorer.controls["steps"]
    w.observe(lambda change: setattr(steps, "max", int(change["new"])), names="value")
    before, picture = explorer.set(w=8.0, steps=5).values, explorer.picture
    with pytest.raises(RangeError, match="steps"):
        explorer.set(w=2.0, steps=5)
    assert explorer.values == before and explorer.picture == picture


def test_moving_a_control_by_code_draws_at_once():
    explorer = make()
    explorer.controls["w"].value = 4.0
    assert explorer.note == "w is 4" and explorer.draws == 2


@pytest.mark.parametrize("bad", [{"w": 100.0}, {"w": float("nan")}, {"steps": 0}, {"kind": "z"}, {"steps": 2.5}])
def test_values_that_no_control_offers_are_refused_and_nothing_moves(bad):
    explorer = make()
    before = explorer.values, explorer.picture
    with pytest.raises(RangeError, match=next(iter(bad))):
        explorer.set(**bad)
    assert (explorer.values, explorer.picture) == before


def test_unknown_control_is_named():
    with pytest.raises(UnknownNameError, match="scale"):
        make().set(scale=3)


def test_errors_of_the_library_are_shown_instead_of_a_stale_picture():
    def draw(w, **_):
        if w > 4:
            raise RangeError(f"w: got {w}, expected <b>at most 4</b>")
        return card(w)

    explorer = make(draw)
    good = explorer.picture
    explorer.set(w=5.0)
    assert explorer.failed and explorer.picture != good
    assert "expected &lt;b&gt;at most 4" in explorer.message.value  # escaped: a message is text, not markup
    explorer.set(w=1.0)
    assert not explorer.failed and explorer.picture == good


def picky(prompt, w):
    if prompt == "elephant":
        raise UnknownNameError("prompt: no such animal")
    return card(w, steps=len(prompt))


def test_a_kept_picture_stays_while_the_error_is_shown_below_it():
    controls = {"prompt": text("prompt", "cat", "what to draw"), "w": number("w", 1.0, 0.0, 8.0, 0.5, "how far")}
    explorer = Explorer(picky, controls, alt="A card.", keep=True)
    good = explorer.picture
    for _ in range(2):  # a second error does not replace the picture either
        explorer.set(prompt="elephant", w=explorer.values["w"] + 1)
        assert explorer.failed and explorer.picture == good == explorer.image.value
        assert "no such animal (The picture is the one before.)" in explorer.message.value
    explorer.set(prompt="tiger")
    assert not explorer.failed and explorer.picture != good and "before" not in explorer.note
    with pytest.raises(UnknownNameError):  # there is no picture yet that could stay
        Explorer(picky, {"prompt": text("prompt", "elephant", ""), "w": controls["w"]}, alt="A card.", keep=True)


def test_helpers_move_controls_and_never_reach_the_drawing_function():
    field, helper = text("prompt", "cat", "what to draw"), narrow(choice("animal", "cat", ["cat", "tiger"], "which"))
    helper.observe(lambda change: setattr(field, "value", change["new"]), names="value")
    explorer = Explorer(
        lambda prompt: card(1.0, steps=len(prompt)), {"prompt": field}, alt="A card.", helpers={"animal": helper}
    )
    assert helper in explorer.box.children[0].children and field in explorer.box.children[1].children
    before = explorer.picture

    async def choose():
        browser(helper, {"index": 1})
        assert explorer.picture == before  # drawn soon, in the event loop, not inside the message
        await explorer._task

    asyncio.run(choose())
    assert explorer.values == {"prompt": "tiger"} and explorer.picture != before and explorer.draws == 2


def test_any_other_exception_is_raised():
    def draw(w, **_):
        return card(1 / (w - 2))

    explorer = make(draw)
    with pytest.raises(ZeroDivisionError):
        explorer.set(w=2.0)
    with pytest.raises(ZeroDivisionError):
        explorer.controls["w"].value = 1.0
        explorer.controls["w"].value = 2.0


def test_settings_that_fail_from_the_start_are_raised_not_shown():
    def draw(**_):
        raise RangeError("weights: none")

    with pytest.raises(RangeError, match="weights"):
        make(draw)


def test_a_bug_behind_a_slider_reaches_the_notebook(monkeypatch):
    class Shell:
        shown = ()

        def showtraceback(self, error):
            Shell.shown = error

    monkeypatch.setattr("IPython.get_ipython", Shell)
    explorer = make(lambda w, **_: card(1 / (w - 2)))

    async def move():
        browser(explorer.controls["w"], 2.0)
        await asyncio.wait([explorer._task])
        await asyncio.sleep(0)
        browser(explorer.controls["w"], 3.0)  # and the widget goes on working
        await explorer._task

    asyncio.run(move())
    assert Shell.shown[0] is ZeroDivisionError and explorer.note == "w is 1"


def test_latest_value_wins():
    explorer = make()

    async def hold_the_key_down():
        for step in range(1, 15):
            browser(explorer.controls["w"], step / 2)
        await explorer._task

    asyncio.run(hold_the_key_down())
    assert explorer.note == "w is 7" and explorer.draws == 2


def progressive(w, **_):
    for k in range(1, 6):
        yield Scene(Image.new("RGB", (30, 20), (0, 0, 40 * k)), note=f"{k} of 5 at w = {w:g}", progress=k / 5)


def test_progressive_work_ends_at_its_last_picture_and_is_remembered():
    explorer = make(progressive)
    assert explorer.note == "5 of 5 at w = 1" and explorer._work.layout.display == "none"
    explorer.set(w=2.0).set(w=1.0)
    assert explorer.draws == 2 and explorer.note == "5 of 5 at w = 1"


def test_stop_button_keeps_the_picture_so_far_and_is_not_remembered():
    explorer = make(progressive)

    async def stop_early():
        browser(explorer.controls["w"], 3.0)
        while "2 of 5 at w = 3" not in explorer.note:
            await asyncio.sleep(0)
        explorer.stop.click()
        await explorer._task

    asyncio.run(stop_early())
    assert explorer.note.startswith("Stopped. 2 of 5") or explorer.note.startswith("Stopped. 3 of 5")
    explorer.redraw()
    assert explorer.note == "5 of 5 at w = 3"


def test_newer_settings_interrupt_long_work():
    explorer = make(progressive)
    notes = []
    explorer.message.observe(lambda _: notes.append(explorer.note), names="value")

    async def change_one_s_mind():
        browser(explorer.controls["w"], 3.0)
        while "1 of 5 at w = 3" not in explorer.note:
            await asyncio.sleep(0)
        browser(explorer.controls["w"], 4.0)
        await explorer._task

    asyncio.run(change_one_s_mind())
    assert explorer.note == "5 of 5 at w = 4" and "5 of 5 at w = 3" not in notes


def test_bundle_has_widget_picture_and_words(monkeypatch):
    sent = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: sent.append((a, k)))
    explorer = make(caption="Move *w*.")
    explorer.set(w=3.0)
    explorer._ipython_display_()
    data, metadata = sent[0][0][0], sent[0][1]["metadata"]
    assert data[WIDGET_MIME] == {"version_major": 2, "version_minor": 0, "model_id": explorer.box.model_id}
    assert base64.b64decode(data["image/png"]) == explorer.picture
    assert data["text/plain"].startswith("A coloured card.") and "guidance scale w = 3.0" in data["text/plain"]
    assert metadata["image/png"]["alt"] == data["text/plain"]
    assert "Move *w*." in sent[1][0][0].data


def test_controls_are_labelled_explained_and_wait_for_release():
    for control in [
        *make().controls.values(),
        switch("on", True, "on or off"),
        ladder("factor", 1.0, [("one half", 0.5), ("one", 1.0)], "one of a few"),
        text("prompt", "", "what to draw"),
    ]:
        tip = getattr(control, "tooltip", None) or getattr(control, "description_tooltip", None)
        assert control.description and tip
        assert not getattr(control, "continuous_update", False)
    assert make().controls["w"].readout and make().controls["w"].readout_format == ".1f"
