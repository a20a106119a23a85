"""A lecture as slides: what the ``slideshow`` metadata of its cells means, and when each slide is due.

The types are those of nbconvert and of jupyterlab-slideshow: ``slide`` starts a slide, a cell without a type continues
it, a ``fragment`` appears at the next key press, ``skip`` is not shown in class, ``notes`` is for the speaker. A note
says how many minutes it covers, and holds for all slides up to the next one::

    <details><summary>Speaker · 7 min</summary>

    What to say, what to ask, which slider to move.
    </details>
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lecture_lib.errors import CourseError

if TYPE_CHECKING:
    from nbformat import NotebookNode

NOTE = re.compile(r"<details><summary>Speaker · (\d+) min</summary>\n\n(.+)\n</details>", re.DOTALL)
HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)
QUESTIONS = 5  # minutes at the end that no slide takes


@dataclass(frozen=True)
class Note:
    """What the speaker says, in Markdown, and in how many minutes."""

    minutes: int
    text: str


@dataclass
class Slide:
    """The cells of one slide, the note that begins on it, and the planned minute at which it is reached."""

    cells: list[NotebookNode]
    note: Note | None = None
    start: float = 0.0
    heading: str = field(default="", init=False)  # its own, in Markdown; "" if it has none
    section: str = field(default="", init=False)  # the nearest one of first or second level, its own included


def kind(cell: NotebookNode) -> str:
    """The slide type of a cell; "" for one that continues the slide above."""
    return cell.metadata.get("slideshow", {}).get("slide_type", "-").replace("-", "")


def without_notes(nb: NotebookNode) -> NotebookNode:
    """The notebook for everybody but the speaker (the one given is left as it is)."""
    from copy import copy

    nb = copy(nb)
    nb["cells"] = [cell for cell in nb.cells if kind(cell) != "notes"]
    return nb


def cut(nb: NotebookNode, name: str) -> list[Slide]:
    """The slides of a notebook, with their notes and planned minutes.

    Raises:
        CourseError: no cell starts a slide, a shown cell stands above the first one, a type is unknown, or a note has
            not the form that stands on top of this file; the message names the notebook and the cell.
    """
    if not any(kind(cell) == "slide" for cell in nb.cells):
        raise CourseError(f"{name} has no slides: no cell has the slide type 'slide'")
    slides: list[Slide] = []
    for number, cell in enumerate(nb.cells, 1):
        what, where = kind(cell), f"{name}, cell {number}"
        if what == "slide":
            slides.append(Slide([cell]))
        elif what == "skip":
            continue
        elif what not in {"", "fragment", "notes"}:
            raise CourseError(f"{where}: slide type {what!r}; expected slide, fragment, skip, notes or none")
        elif slides and what == "notes":
            _attach(slides[-1], cell, where)
        elif slides:
            slides[-1].cells.append(cell)
        else:
            raise CourseError(f"{where}: slide type {what!r} above the first slide; expected slide or skip")
    _name(slides)
    _plan(slides)
    return slides


def minutes(slides: list[Slide]) -> int:
    """The planned length of a lecture, without the questions at its end."""
    return sum(slide.note.minutes for slide in slides if slide.note)


def _attach(slide: Slide, cell: NotebookNode, where: str) -> None:
    match = NOTE.fullmatch(cell.source.strip())
    if cell.cell_type != "markdown" or match is None:
        first = cell.source.partition("\n")[0]
        raise CourseError(
            f"{where}: a note begins with {first!r}; expected <details><summary>Speaker · 7 min</summary>"
        )
    if slide.note:
        raise CourseError(f"{where}: a second note on one slide; expected one at most")
    slide.note = Note(int(match[1]), match[2])


def _name(slides: list[Slide]) -> None:
    """Find each slide's heading and section (in place)."""
    section = ""
    for slide in slides:
        text = "\n\n".join(cell.source for cell in slide.cells if cell.cell_type == "markdown")
        found = HEADING.findall(text)
        slide.heading = found[0][1] if found else ""
        section = next((words for marks, words in found if len(marks) <= 2), section)
        slide.section = section


def _plan(slides: list[Slide]) -> None:
    """Spread the minutes of each note evenly over the slides that it covers (in place)."""
    noted = [index for index, slide in enumerate(slides) if slide.note]
    begin = 0.0
    for first, end in zip(noted, [*noted[1:], len(slides)], strict=True):
        each = slides[first].note.minutes / (end - first)
        for index in range(first, end):
            slides[index].start = begin + each * (index - first)
        begin += slides[first].note.minutes
