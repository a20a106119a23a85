"""Each notebook: same as its source, executed, small, within its budget, in cells that a person can read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lecture_lib.tooling import headers, pairing, project

ROOT = Path(__file__).parents[1]
BOOKS = project.notebooks(ROOT / "notebooks")
EXPECTED = [
    "00_start_here",
    "L1_latent_diffusion_lecture",
    "L1_latent_diffusion_lab",
    "L2_guidance_lecture",
    "L2_guidance_lab",
]
LARGEST = 900_000  # bytes of an executed notebook
LONGEST_CELL = 25  # lines of code
CHECK = re.compile(r"^# NBVAL_CHECK_OUTPUT\s*$", re.MULTILINE)

each_book = pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)


def load(book):
    return json.loads(book.paired.read_text(encoding="utf-8"))


def code_cells(book):
    return [cell for cell in load(book)["cells"] if cell["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


def code_lines(text):
    """Lines of code proper: without blank lines, comments and magics."""
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "%"))]


def test_all_notebooks_are_found_in_reading_order():
    assert [book.name for book in BOOKS][: len(EXPECTED)] == EXPECTED


def test_every_ipynb_has_a_source():
    stray = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} - {book.name for book in BOOKS}
    assert not stray, f"notebooks without a .py source: {sorted(stray)}"


@each_book
def test_source_and_notebook_agree(book):
    difference = pairing.drift(book)
    assert not difference, f"rebuild with `course run --write {book.name}`\n{difference}"


@each_book
def test_metadata_is_what_jupyterlab_needs_and_no_more(book):
    metadata = load(book)["metadata"]
    assert metadata["kernelspec"]["name"] == "python3", "without it JupyterLab opens with a dialog"
    assert "widgets" not in metadata, "saved widget state is large and dead"


@each_book
def test_cells_were_run_in_order_and_none_failed(book):
    cells = [cell for cell in code_cells(book) if source(cell).strip()]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]


@each_book
def test_checked_cells_have_an_output_to_compare_with(book):
    """nbval compares nothing where a cell was saved without execution count or output."""
    for cell in filter(lambda cell: CHECK.search(source(cell)), code_cells(book)):
        assert cell["execution_count"] is not None and cell["outputs"], source(cell)
        for output in cell["outputs"]:
            text_only = output["output_type"] == "stream" or set(output["data"]) <= {"text/plain", "text/markdown"}
            assert text_only, f"a checked cell prints rounded numbers, no pictures or widgets:\n{source(cell)}"


@each_book
def test_some_cells_are_checked(book):
    assert any(CHECK.search(source(cell)) for cell in code_cells(book))


@each_book
def test_stated_cost_is_within_the_budget(book):
    text = book.source.read_text(encoding="utf-8")
    first = next(cell for cell in load(book)["cells"] if cell["cell_type"] == "markdown")
    assert headers.LINE.search(source(first)), "the Time line stands in the first text cell"
    assert headers.recorded(text, book.name).over(headers.budget(book.name)) == []


@each_book
def test_outputs_are_small_and_readable_without_a_kernel(book):
    assert book.paired.stat().st_size < LARGEST
    for cell in code_cells(book):
        for output in cell["outputs"]:
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {}), source(cell)


@each_book
def test_pictures_have_a_description(book):
    for cell in code_cells(book):
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}):
                described = output.get("metadata", {}).get("image/png", {}).get("alt") or cell["metadata"].get("alt")
                assert described, f"a picture without alt text:\n{source(cell)}"


@each_book
def test_cells_fit_on_a_screen(book):
    for cell in code_cells(book):
        assert len(code_lines(source(cell))) <= LONGEST_CELL, source(cell)
