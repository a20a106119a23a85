"""The frame of every widget: controls above, a picture below, and nothing in between but a pure drawing function.

Latest value wins: settings that arrive while a picture is drawn replace one another, so that a slider held down never
piles up work. Errors of the library appear as text in place of the picture; any other exception is a bug and is raised.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import ipywidgets
from traitlets import TraitError

from lecture_lib.errors import CourseError, RangeError, UnknownNameError
from lecture_lib.tensors import few_threads
from lecture_lib.viz.display import bundle
from lecture_lib.viz.images import as_picture, png_bytes, text_card

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
_GATHER = 0.01  # seconds: the front end's queued events are all read before a picture is started
_BREATH = 0.002  # seconds between two progressive pictures: the stop button and newer settings get through


@dataclass(frozen=True)
class Scene:
    """A picture with the numbers that belong to it.

    ``picture`` is a figure, a Pillow image or PNG bytes; ``note`` is plain text shown below; ``progress`` in [0, 1] is
    set by drawing functions that yield one scene after another.
    """

    picture: Any
    note: str = ""
    progress: float | None = None
    error: CourseError | None = None

    @property
    def png(self) -> bytes:
        return png_bytes(self.picture)


def _as_scene(drawn: Any) -> Scene:
    """Whatever a drawing function returned, with its picture encoded once."""
    scene = drawn if isinstance(drawn, Scene) else Scene(drawn)
    return replace(scene, picture=scene.png)


def _sorry(error: CourseError) -> Scene:
    """An error of the library, readable by a person: a neutral card instead of a stale (hence wrong) picture."""
    return Scene(text_card(str(error), title="No picture for these settings"), str(error), error=error)


class Explorer:
    """Controls and the picture they determine.

    Attributes:
        values: the current settings by name. picture: PNG bytes now shown. note: the text below it.
        draws: how many times the drawing function was really called (cached pictures do not count).
    """

    def __init__(
        self,
        draw: Callable[..., Any],
        controls: Mapping[str, ipywidgets.Widget],
        *,
        caption: str = "",
        alt: str,
        remember: int = 64,
        threads: int = 1,
        helpers: Mapping[str, ipywidgets.Widget] | None = None,
        keep: bool = False,
    ):
        """Draw the first picture and listen to the controls.

        Args:
            draw: called with one keyword per control. Returns a ``Scene``, figure, Pillow image or PNG bytes; or yields
                several of them (long work), which adds a progress bar and a stop button.
            controls: name of the argument -> ipywidgets control (see ``lecture_lib.widgets.controls``).
            caption: Markdown below the widget: what to try and what to look for.
            alt: the picture in words.
            remember: how many finished pictures are kept.
            threads: CPU threads while drawing. One by default: on a busy machine two threads that wait for each
                other at every small layer cost ten times what they save (measured: 0.5 s against 0.08 s).
            helpers: further widgets, which only move controls (they compose a text, say); shown first, in a row.
            keep: leave the last good picture where it is while an error is shown; for texts, which pass through many
                wrong states while they are typed.

        Raises:
            CourseError: the very first picture cannot be drawn. Later on such errors are shown in place of the picture.
        """
        self.draw, self.controls, self.caption, self.alt = draw, dict(controls), caption, alt
        self.draws, self._seen, self._room, self.threads = 0, OrderedDict(), remember, threads
        self.helpers, self._keep = dict(helpers or {}), keep
        self._scene, self._task, self._stale, self._stopped = Scene(b""), None, False, False
        self._build(progressive=inspect.isgeneratorfunction(inspect.unwrap(draw)))
        for control in self.controls.values():
            control.observe(self._on_change, names="value")
        self.redraw()
        if self._scene.error is not None:  # settings nobody has touched yet must work: a card would hide a bug
            raise self._scene.error

    # What the reader sees -------------------------------------------------------------------------------------------

    def _build(self, *, progressive: bool) -> None:
        layout = ipywidgets.Layout
        self.image = ipywidgets.Image(format="png", layout=layout(align_self="flex-start", max_width="100%"))
        self.message = ipywidgets.HTML()
        self.bar = ipywidgets.FloatProgress(min=0.0, max=1.0, description="progress")
        self.stop = ipywidgets.Button(description="Stop", icon="stop")
        self.stop.on_click(lambda _: setattr(self, "_stopped", True))
        self._work = ipywidgets.HBox([self.bar, self.stop], layout=layout(display="none"))
        rows = [
            ipywidgets.Box(list(some.values()), layout=layout(display="flex", flex_flow="row wrap"))
            for some in (self.helpers, self.controls)
            if some
        ]
        parts = [*rows, self.image, self.message, *([self._work] if progressive else [])]
        self.box = ipywidgets.VBox(parts)

    def _show(self, scene: Scene) -> None:
        self._scene = scene
        self.image.width = str(as_picture(scene.picture).width)  # natural size: no rescaling, no blur
        self.image.value = scene.picture
        # ``aria-live`` makes screen readers speak the numbers; the hidden span is the picture in words.
        hidden = f'<span style="position:absolute;left:-99999px">{escape(self.alt)}</span>'
        tag = "strong" if scene.error else "span"
        self.message.value = f'<div role="status" aria-live="polite">{hidden}<{tag}>{escape(scene.note)}</{tag}></div>'
        busy = scene.progress is not None and scene.progress < 1.0
        self.bar.value = scene.progress or 0.0
        self._work.layout.display = "flex" if busy else "none"

    def described(self) -> str:
        """The current picture in words: alternative text, settings and numbers."""
        # A drop-down list carries the words of its value as ``label``; other controls show the value itself.
        shown = {c.description: getattr(c, "label", c.value) for c in self.controls.values()}
        settings = ", ".join(f"{name} = {value}" for name, value in shown.items())
        return f"{self.alt} Settings: {settings}. {self.note}".strip()

    def _ipython_display_(self) -> None:
        """One bundle: the live widget, its current picture for readers without a kernel, and words."""
        from IPython.display import Markdown, display

        data, metadata = bundle(self.picture, self.described())
        data[WIDGET_MIME] = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        display(data, metadata=metadata, raw=True)
        if self.caption:
            display(Markdown(f"**Try it.** {self.caption}"))

    # Settings -------------------------------------------------------------------------------------------------------

    @property
    def values(self) -> dict[str, Any]:
        return {name: control.value for name, control in self.controls.items()}

    @property
    def picture(self) -> bytes:
        return self._scene.picture

    @property
    def note(self) -> str:
        return self._scene.note

    @property
    def failed(self) -> bool:
        """True while an error message stands in place of a picture."""
        return self._scene.error is not None

    def set(self, **values: Any) -> Explorer:
        """Move controls as a reader would, and draw once.

        Raises:
            UnknownNameError: no such control. RangeError: a value that the control does not offer. Then none has moved.
        """
        for name in values:
            if name not in self.controls:
                raise UnknownNameError(f"control: got {name!r}, expected one of {', '.join(self.controls)}")
        before = self.values
        try:
            for name, value in values.items():
                self._move(name, value)
        except RangeError:  # else some controls would stand beside the picture of others
            for name, value in before.items():
                self._move(name, value)
            self.redraw()  # controls that follow others have drawn on the way
            raise
        self.redraw()
        return self

    def _move(self, name: str, value: Any) -> None:
        control = self.controls[name]
        before = control.value
        control.unobserve(self._on_change, names="value")
        try:
            control.value = value
            if control.value != value:  # sliders clamp in silence
                control.value, got = before, control.value
                raise RangeError(f"{name}: got {value!r}, the nearest value this control offers is {got!r}")
        except TraitError as error:  # an option that a drop-down list does not have
            raise RangeError(f"{name}: got {value!r}, not among the options of this control: {error}") from error
        finally:
            control.observe(self._on_change, names="value")

    # Drawing --------------------------------------------------------------------------------------------------------

    def redraw(self) -> None:
        """Draw the current settings now, to the end."""
        for scene in self._scenes(self.values):
            self._show(scene)

    def _scenes(self, values: Mapping[str, Any]) -> Generator[Scene, None, None]:
        """The pictures for these settings: from memory, or drawn; the last one is remembered."""
        key = tuple(values.items())
        if key in self._seen:
            self._seen.move_to_end(key)
            yield self._seen[key]
            return
        try:
            scene = None
            for scene in self._drawn(values):
                yield scene
            self._remember(key, scene)
        except CourseError as error:
            yield self._sorry(error)

    def _sorry(self, error: CourseError) -> Scene:
        """The last good picture with the message below it, or else the message as a picture."""
        if self._keep and self._scene.picture:
            return replace(self._scene, note=f"{error} (The picture is the one before.)", progress=None, error=error)
        return _as_scene(_sorry(error))

    def _drawn(self, values: Mapping[str, Any]) -> Iterator[Scene]:
        """Call the drawing function, on few threads, picture by picture; between two pictures nothing is held."""
        self.draws += 1
        with few_threads(self.threads):
            drawn = self.draw(**values)
        frames = drawn if inspect.isgenerator(drawn) else iter([drawn])
        while (scene := self._next(frames)) is not None:
            yield scene

    def _next(self, frames: Iterator[Any]) -> Scene | None:
        with few_threads(self.threads):
            drawn = next(frames, None)
            return None if drawn is None else _as_scene(drawn)

    def _remember(self, key: tuple, scene: Scene) -> None:
        self._seen[key] = scene
        while len(self._seen) > self._room:
            self._seen.popitem(last=False)

    # Events ---------------------------------------------------------------------------------------------------------

    def _on_change(self, _: Any) -> None:
        """From the browser: draw soon, in the kernel's event loop. From code: draw at once, so that errors surface."""
        if not self._from_browser():
            self.redraw()
            return
        self._stale = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._follow())
            self._task.add_done_callback(_report)

    def _from_browser(self) -> bool:
        """ipywidgets holds a property lock exactly while it applies a message of the front end."""
        everything = [*self.controls.values(), *self.helpers.values()]
        held = any(getattr(control, "_property_lock", None) for control in everything)
        return held and _loop_is_running()

    async def _follow(self) -> None:
        """Draw until the picture belongs to the latest settings."""
        while self._stale:
            await asyncio.sleep(_GATHER)
            self._stale = self._stopped = False
            scenes = self._scenes(self.values)
            for scene in scenes:
                self._show(scene)
                await asyncio.sleep(_BREATH)
                if self._stale or self._stopped:
                    break
            scenes.close()
            if self._stopped:
                self._show(replace(self._scene, note=f"Stopped. {self._scene.note}", progress=None))


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _report(task: asyncio.Task) -> None:
    """An exception in the background belongs into the notebook, where a reader and nbval see it."""
    if task.cancelled() or task.exception() is None:
        return
    error = task.exception()
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        raise error
    shell.showtraceback((type(error), error, error.__traceback__))


def explore(draw: Callable[..., Any], controls: Mapping[str, ipywidgets.Widget], **words: Any) -> Explorer:
    """An ``Explorer`` in one call: ``explore(draw, {"w": number(...)}, caption="...", alt="...")``."""
    return Explorer(draw, controls, **words)
