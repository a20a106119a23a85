"""Lectures as slides: every lecture fits 90 minutes and a screen, and its deck shows the class what is meant for it."""

from __future__ import annotations

import copy
import math
import re
from html.parser import HTMLParser

import nbformat
import pytest
import small_deck
from typer.testing import CliRunner

from lecture_lib import cli
from lecture_lib.errors import CourseError
from lecture_lib.tooling import deck, pairing, reading, running, slides
from lecture_lib.tooling.project import Notebook

LINE, MOST_LINES = 100, 16  # characters of prose in a line, and lines on a slide
WIDGET = re.compile(r"^widgets\.\w+\(", re.MULTILINE)
BOOKS = slides.lectures()

each_lecture = pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)


class Page(HTMLParser):
    """What a page loads, where it links, and the text of its sections."""

    def __init__(self, html: str):
        super().__init__()
        self.loads, self.links, self.tags, self.sections, self.inside = [], [], [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.loads += [found[name] for name in ("src", "srcset", "data") if found.get(name)]
        if "href" in found:
            (self.links if tag == "a" else self.loads).append(found["href"])
        if tag == "section":
            self.sections.append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "section"

    def handle_data(self, data):
        if self.inside:
            self.sections[-1] += data


def loads_nothing(html: str) -> bool:
    """Whether a page needs nothing but itself: pictures and fonts are data, scripts and styles stand in it."""
    inner = re.findall(r"url\(\s*[\"']?([^\"')]*)|@import\s+([^;]+)", html)
    addresses = Page(html).loads + [address or rule for address, rule in inner]
    return all(address.startswith("data:") for address in addresses)


# --- the lectures, as their sources have them ----------------------------------------------------------------------


def prose_lines(slide) -> int:
    """Lines of text on a slide, headings, folded answers, tables and displayed formulas apart."""
    text = "\n\n".join(cell.source for cell in slide.cells if cell.cell_type == "markdown")
    text = re.sub(r"<details>.*?</details>|\$\$.*?\$\$|^[|#].*$", "", text, flags=re.DOTALL | re.MULTILINE)
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n|\n(?=[-*>#]|\d+\.)", text)]
    return sum(math.ceil(len(block) / LINE) for block in blocks)


def widget_cells(cells) -> int:
    return sum(bool(WIDGET.search(cell.source)) for cell in cells if cell.cell_type == "code")


@each_lecture
def test_a_lecture_fits_ninety_minutes(book):
    made = deck.cut(pairing.read_source(book.source), book.name)
    assert 28 <= len(made) <= 45
    assert deck.minutes(made) + deck.QUESTIONS == 90
    assert made[0].note, "the timetable begins with the first slide"
    assert 10 <= sum(slide.note is not None for slide in made) <= 16


@each_lecture
def test_a_lecture_begins_with_its_title_and_ends_with_its_summary(book):
    made = deck.cut(pairing.read_source(book.source), book.name)
    assert made[0].cells[0].source.startswith(f"# Lecture {book.name[1]} ·")
    assert re.search("summary|quiz", made[-1].section, re.IGNORECASE)


@each_lecture
def test_a_slide_fits_a_screen(book):
    for number, slide in enumerate(deck.cut(pairing.read_source(book.source), book.name), 1):
        assert prose_lines(slide) <= MOST_LINES, f"slide {number}: {slide.heading or slide.section}"


@each_lecture
def test_each_widget_is_shown_and_has_a_slide_of_its_own(book):
    nb = pairing.read_source(book.source)
    shown = [widget_cells(slide.cells) for slide in deck.cut(nb, book.name)]
    assert sum(shown) == widget_cells(nb.cells) >= 4
    assert max(shown) == 1


def with_outputs(book):
    """The notebook of a source, with the outputs that are saved for its code."""
    nb = pairing.read_source(book.source)
    saved = iter([cell.outputs for cell in running.saved(book).cells if cell.cell_type == "code"])
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell["outputs"] = next(saved)
    return nb


@each_lecture
def test_the_deck_of_a_lecture_stands_alone(book, tmp_path):
    nb = with_outputs(book)
    made = slides.render(nb, book.name, tmp_path)
    page = Page(made.html)
    assert made.problems == []
    assert len(page.sections) == len(made.slides) == len(deck.cut(nb, book.name))
    assert loads_nothing(made.html) and loads_nothing(made.sheet)
    assert not any("Speaker ·" in text for text in page.sections)
    assert len(made.html) < 2_000_000, "two megabytes are read at once, also from a stick"


# --- cutting ---------------------------------------------------------------------------------------------------------


def test_a_notebook_is_cut_at_its_slides():
    made = deck.cut(small_deck.notebook(), "small")
    assert [len(slide.cells) for slide in made] == [1, 4, 2, 1]
    assert [slide.heading for slide in made] == ["Lecture 9 · Small", "1 · Play", "", "Summary"]
    assert [slide.section for slide in made] == ["Lecture 9 · Small", "1 · Play", "1 · Play", "Summary"]


def test_minutes_are_spread_over_the_slides_of_a_note():
    made = deck.cut(small_deck.notebook(), "small")
    assert [slide.start for slide in made] == [0, 3, 6, 8]
    assert deck.minutes(made) == 10


@pytest.mark.parametrize(
    ("index", "change", "says"),
    [
        (0, {"kind": ""}, r"small, cell 1: slide type '' above the first slide"),
        (3, {"kind": "subslide"}, r"small, cell 4: slide type 'subslide'; expected"),
        (1, {"source": "<details><summary>Speaker, 6 min</summary>\n\nText\n</details>"}, r"cell 2: .*Speaker, 6 min"),
        (1, {"source": "<details><summary>Speaker · 6 min</summary>\n\nText"}, r"cell 2: a note"),
        (2, {"kind": "notes", "source": small_deck.note(1, "Text")}, r"cell 3: a note"),
        (6, {"kind": "notes", "source": small_deck.note(1, "x")}, None),
    ],
)
def test_what_makes_no_deck_is_an_error_that_names_the_cell(index, change, says):
    nb = small_deck.notebook()
    nb.cells[index].source = change.get("source", nb.cells[index].source)
    if "kind" in change:
        nb.cells[index].metadata["slideshow"] = {"slide_type": change["kind"]}
    if says is None:
        assert deck.cut(nb, "small")
        return
    with pytest.raises(CourseError, match=says):
        deck.cut(nb, "small")


def test_two_notes_on_a_slide_and_no_slides_at_all_are_errors():
    nb = small_deck.notebook()
    nb.cells.insert(2, nb.cells[1])
    with pytest.raises(CourseError, match="small, cell 3: a second note"):
        deck.cut(nb, "small")
    with pytest.raises(CourseError, match="small has no slides"):
        deck.cut(nbformat.v4.new_notebook(), "small")


# --- the deck ----------------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path):
    return slides.render(small_deck.notebook(), "L9_small_lecture", tmp_path)


def test_the_class_sees_the_slides_and_nothing_else(made):
    sections = Page(made.html).sections
    everything = " ".join(sections)
    assert len(sections) == len(made.slides) == 4
    assert "<title>Lecture 9 · Small</title>" in made.html
    assert "Is it so?" in sections[2] and small_deck.ANSWER in sections[2]
    for hidden in (small_deck.NOTE, small_deck.SECOND_NOTE, small_deck.SKIPPED, "import torch"):
        assert hidden not in everything
    assert small_deck.SKIPPED not in made.html


def test_the_deck_is_one_file_with_formulas_and_pictures(made):
    assert loads_nothing(made.html) and loads_nothing(made.sheet)
    assert made.html.count("<math") == 2, "one on a slide, one in a note"
    assert 'alt="A blue one"' in made.html and "font/woff;base64" in made.html


def test_long_code_is_folded_short_code_stands_open(made):
    folds = [found for tag, found in Page(made.html).tags if tag == "details" and found.get("class") == "code"]
    assert ["open" in found for found in folds] == [True, False], "and one line stands without a fold"
    assert "Code, 12 lines" in made.html and "Code, 13 lines" in made.html


def test_an_answer_waits(made):
    fragments = re.findall(r'<div class="fragment">(.*?)</section>', made.html, re.DOTALL)
    assert len(fragments) == 1 and small_deck.ANSWER in fragments[0]


def test_links_lead_to_reading_pages_that_are_there(tmp_path, made):
    assert not [link for link in Page(made.html).links if "small_lab" in link or "ipynb" in link]
    (tmp_path / "L9_small_lab.html").touch()
    (tmp_path / "L9_small_lecture.html").touch()
    links = Page(slides.render(small_deck.notebook(), "L9_small_lecture", tmp_path).html).links
    assert "../L9_small_lab.html#part" in links and "../L9_small_lecture.html" in links


def test_the_sheet_has_the_timetable(made):
    rows = re.findall(r"<tr><td><b>(\d+)</b><br>(\d+) min</td><td>(slides? [\d to]*)?", made.sheet)
    assert rows == [("0", "6", "slides 1 to 2"), ("6", "4", "slides 3 to 4"), ("10", "5", "")]
    assert small_deck.NOTE in made.sheet and small_deck.SECOND_NOTE in made.sheet


def test_decks_are_written_with_an_index(tmp_path, capsys):
    book = Notebook(tmp_path / "L9_small_lecture.py")
    nbformat.write(small_deck.notebook(), book.paired)
    index = slides.write_all([book], tmp_path / "site" / "slides")
    assert "4 slides, 10 min" in capsys.readouterr().out
    links = Page(index.read_text(encoding="utf-8")).links
    assert links == ["L9_small_lecture.html", "L9_small_lecture_notes.html"]
    for link in links:
        page = Page((index.parent / link).read_text(encoding="utf-8"))
        assert all((index.parent / there).is_file() for there in page.links)


def test_a_deck_that_lies_there_stays_in_the_index(tmp_path, monkeypatch):
    books = [Notebook(tmp_path / f"L{number}_lecture.py") for number in (1, 2, 3)]
    for book in books:
        nbformat.write(small_deck.notebook(), book.paired)
    monkeypatch.setattr(slides, "lectures", lambda: books)
    slides.write_all(books[:1], tmp_path / "slides")
    index = slides.write_all(books[1:2], tmp_path / "slides")
    decks = [link for link in Page(index.read_text(encoding="utf-8")).links if "notes" not in link]
    assert decks == ["L1_lecture.html", "L2_lecture.html"], "the third one was never written"


def test_a_notebook_without_slides_is_an_error(tmp_path):
    result = CliRunner().invoke(cli.app, ["slides", "00_start_here", "-o", str(tmp_path / "slides")])
    assert isinstance(result.exception, CourseError) and "00_start_here has no slides" in str(result.exception)
    assert not (tmp_path / "slides").exists()


# --- everybody else ----------------------------------------------------------------------------------------------


def test_the_reading_version_has_no_notes_and_is_otherwise_the_same(tmp_path):
    nb = small_deck.notebook()
    before = copy.deepcopy(nb)
    html = reading.render(nb, "small").html
    assert nb == before
    assert small_deck.NOTE not in html and "Speaker" not in html and small_deck.SKIPPED in html
    nb.cells = [cell for cell in nb.cells if "Speaker" not in cell.source]
    assert reading.render(nb, "small").html == html
    index = reading.write([], tmp_path)
    assert "slides" not in index.read_text(encoding="utf-8")
    slides.write([], tmp_path / "slides")
    assert "slides/index.html" in reading.write([], tmp_path).read_text(encoding="utf-8")
