"""``course slides``: lectures as HTML decks of one file each, which need neither a network nor a kernel.

A deck is made from the outputs that are saved in the notebook, like the reading version and with its means: formulas
are MathML, widgets are their pictures. Beside it lies the speaker's sheet: when what is due, and what to say.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from lecture_lib.tooling import deck, project, reading, running
from lecture_lib.tooling.deck import QUESTIONS, Slide
from lecture_lib.tooling.mathml import font_css
from lecture_lib.tooling.project import Notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLD_ABOVE = 12  # lines of code; fewer stand open
PLAIN_UP_TO = 3  # lines of code that are not worth a line that folds them


@dataclass
class Deck:
    """A lecture's slides and its speaker's sheet as HTML; ``problems`` lists formulas that had to be shown as LaTeX."""

    name: str
    slides: list[Slide] = field(repr=False)
    html: str = field(repr=False)
    sheet: str = field(repr=False)
    problems: list[str] = field(default_factory=list)


def lectures() -> list[Notebook]:
    """The notebooks that are given as lectures."""
    return [book for book in project.notebooks() if book.name.endswith("_lecture")]


def render(nb: NotebookNode, name: str, pages: Path) -> Deck:
    """The deck of an executed notebook (which is left as it is).

    Args:
        pages: the folder of the reading version; a deck links to the pages that lie there, and to no others.
    Raises:
        CourseError: the notebook's slide types make no deck; see :func:`lecture_lib.tooling.deck.cut`.
    """
    cells, slides = _Cells(pages), deck.cut(reading.standing_alone(nb), name)
    sections = "\n".join(_section(number, slide, cells) for number, slide in enumerate(slides, 1))
    notes = list(_notes(slides, cells))
    style = reading.style() + _page("slides.css")
    blanks = {
        "title": escape(_title(slides)),
        "name": escape(name),
        "total": deck.minutes(slides) + QUESTIONS,
        "reading": f'<a href="../{escape(name)}.html">reading version</a> ·' if _lies(pages, name) else "",
    }
    html = reading.template("slides.html").substitute(
        blanks,
        style=style + font_css(sections + "".join(notes)),
        slides=sections,
        notes="\n".join(notes),
        starts=[*(round(slide.start, 1) for slide in slides), deck.minutes(slides)],
        script=_page("slides.js"),
    )
    rows = "\n".join(_rows(slides, cells))
    sheet = reading.template("slides_sheet.html").substitute(blanks, style=style + font_css(rows), rows=rows)
    return Deck(name, slides, html, sheet, cells.problems)


def write(decks: list[Deck], folder: Path) -> Path:
    """Write the decks, their sheets, and an index, also of the lectures that lie there already; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    for made in decks:
        (folder / f"{made.name}.html").write_text(made.html, encoding="utf-8")
        (folder / f"{made.name}_notes.html").write_text(made.sheet, encoding="utf-8")
    index, shown = folder / "index.html", {made.name: made.slides for made in decks}
    for book in lectures():
        if book.name not in shown and _lies(folder, book.name):
            shown[book.name] = deck.cut(running.saved(book), book.name)
    entries = "\n".join(_entry(name, shown[name]) for name in sorted(shown))
    html = reading.template("slides_index.html").substitute(style=reading.style(), entries=entries)
    index.write_text(html, encoding="utf-8")
    return index


def write_all(books: list[Notebook], folder: Path) -> Path:
    """Make the decks of notebooks from their saved outputs, with a line each; returns the index's path."""
    decks = []
    for book in books:
        decks.append(made := render(running.saved(book), book.name, folder.parent))
        print(f"{made.name:<34} {len(made.slides)} slides, {deck.minutes(made.slides)} min", flush=True)
        for problem in made.problems:
            print(f"{made.name}: shown as LaTeX. {problem}", file=sys.stderr)
    return write(decks, folder)


class _Cells:
    """Turns cells into HTML, with the exporter of the reading version."""

    def __init__(self, pages: Path):
        from nbconvert.filters.highlight import Highlight2HTML

        self.exporter = reading.make_exporter()
        self.exporter.exclude_input = True  # code is set here, so that it can be folded
        self.highlight = Highlight2HTML(pygments_lexer="ipython3")
        self.pages = pages

    @property
    def problems(self) -> list[str]:
        return self.exporter.problems

    def html(self, cell: NotebookNode) -> str:
        return (self.code(cell.source) if cell.cell_type == "code" else "") + self._export(cell)

    def code(self, source: str) -> str:
        lines = source.strip().count("\n") + 1 if source.strip() else 0
        block = f'<div class="input_area">{self.highlight(source.strip())}</div>' if lines else ""
        if lines <= PLAIN_UP_TO:
            return block
        state = "" if lines > FOLD_ABOVE else " open"
        return f'<details class="code"{state}><summary>Code, {lines} lines</summary>{block}</details>'

    def markdown(self, text: str) -> str:
        from nbformat.v4 import new_markdown_cell

        return self._export(new_markdown_cell(text))

    def _export(self, cell: NotebookNode) -> str:
        from nbformat.v4 import new_notebook

        body, _ = self.exporter.from_notebook_node(new_notebook(cells=[cell]))
        return reading.LINK.sub(self._link, body)

    def _link(self, match: re.Match[str]) -> str:
        name, anchor = match[1], match[2] or ""
        return f'href="../{name}.html{anchor}"' if _lies(self.pages, name) else ""


def _section(number: int, slide: Slide, cells: _Cells) -> str:
    parts = []
    for cell in slide.cells:
        part = cells.html(cell)
        parts.append(f'<div class="fragment">{part}</div>' if deck.kind(cell) == "fragment" else part)
    where = "" if slide.heading == slide.section else cells.markdown(slide.section)
    return f'<section id="{number}"><header>{where}</header><div class="body">{"".join(parts)}</div></section>'


def _stretches(slides: list[Slide]) -> list[tuple[int, int]]:
    """For each note the numbers (from 1) of the first and the last slide that it covers."""
    first = [number for number, slide in enumerate(slides, 1) if slide.note]
    last = [number - 1 for number in first[1:]] + [len(slides)]
    return list(zip(first, last, strict=True))


def _notes(slides: list[Slide], cells: _Cells) -> list[str]:
    """What the deck shows of each note beside the slides that it covers."""
    made = []
    for first, last in _stretches(slides):
        slide = slides[first - 1]
        when = f"minute {slide.start:.0f} to {slide.start + slide.note.minutes:.0f} · {_numbers(first, last)}"
        made.append(f'<div data-from="{first}"><h2>{when}</h2>{cells.markdown(slide.note.text)}</div>')
    return made


def _rows(slides: list[Slide], cells: _Cells) -> list[str]:
    """The rows of the speaker's sheet."""
    made = []
    for first, last in _stretches(slides):
        slide = slides[first - 1]
        headings = dict.fromkeys(slide.heading for slide in slides[first - 1 : last] if slide.heading)
        what = "".join(cells.markdown(words) for words in headings or [slide.section])
        made.append(
            f"<tr><td><b>{slide.start:.0f}</b><br>{slide.note.minutes} min</td>"
            f"<td>{_numbers(first, last)}{what}</td><td>{cells.markdown(slide.note.text)}</td></tr>"
        )
    end = deck.minutes(slides)
    made.append(f"<tr><td><b>{end}</b><br>{QUESTIONS} min</td><td></td><td>Questions.</td></tr>")
    return made


def _numbers(first: int, last: int) -> str:
    return f"slide {first}" if first == last else f"slides {first} to {last}"


def _title(slides: list[Slide]) -> str:
    return reading.plain(slides[0].heading)


def _entry(name: str, slides: list[Slide]) -> str:
    return (
        f'<div class="card"><h2><a href="{escape(name)}.html">{escape(_title(slides))}</a></h2>'
        f"<p>{len(slides)} slides, {deck.minutes(slides)} minutes and {QUESTIONS} for questions</p>"
        f'<p class="time"><a href="{escape(name)}_notes.html">Timetable and what to say</a></p></div>'
    )


def _lies(pages: Path, name: str) -> bool:
    return (pages / f"{name}.html").is_file()


def _page(name: str) -> str:
    return resources.files("lecture_lib.tooling").joinpath("pages", name).read_text(encoding="utf-8")
