"""Runs notebooks one after the other, saves what was asked for, and writes the reading version."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lecture_lib.errors import CourseError, MissingPackageError
from lecture_lib.tooling import execute, headers, outputs, pairing, project, reading
from lecture_lib.tooling.project import Notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode


def run_all(books: list[Notebook], site: Path, *, write: bool, html_only: bool, timeout: float) -> list[str]:
    """Run (or with ``html_only`` just read) each notebook and write its page; returns the names that failed.

    The index lists every notebook of the course: those not run now with the page of their saved outputs.
    """
    failed = []
    pages = {}
    for book in books:
        try:
            nb = saved(book) if html_only else run_one(book, write=write, timeout=timeout)
            pages[book.name] = reading.render(nb, book.name)
        except MissingPackageError:
            raise
        except CourseError as error:
            failed.append(book.name)
            print(f"FAILED {error}\n", file=sys.stderr, flush=True)
    for book in project.notebooks():
        if book.name not in pages and book.name not in failed and book.paired.is_file():
            pages[book.name] = reading.render(saved(book), book.name)
    index = reading.write([pages[book.name] for book in project.notebooks() if book.name in pages], site)
    for page in pages.values():
        for problem in page.problems:
            print(f"{page.name}: shown as LaTeX. {problem}", file=sys.stderr)
    print(f"{len(books) - len(failed)} of {len(books)} notebooks {'read' if html_only else 'ran'}; pages: {index}")
    return failed


def run_one(book: Notebook, *, write: bool, timeout: float) -> NotebookNode:
    """Execute one notebook with a line of progress; with ``write`` save outputs and measured cost."""
    with _progress(book.name) as on_cell:
        execution = execute.execute(book, timeout=timeout, on_cell=on_cell)
    nb, cost = execution.notebook, execution.cost
    remarks = [*cost.over(headers.budget(book.name)), *_widgets_without_picture(nb)]
    print(f"{book.name:<28} {cost.seconds:6.1f} s  {cost.gigabytes:4.1f} GB", *remarks, sep="   ", flush=True)
    outputs.tidy(nb)
    if write:
        save(book, nb, cost)
    return nb


def save(book: Notebook, nb: NotebookNode, cost: headers.Cost) -> None:
    """Write the executed notebook, and the measured cost into both of its forms."""
    import nbformat

    headers.record(book.source, cost)
    pairing.normalise(book.source)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell["source"] = headers.with_cost(cell.source, cost)
    nbformat.write(nb, book.paired)


def saved(book: Notebook) -> NotebookNode:
    """The notebook with the outputs that are saved in it.

    Raises:
        CourseError: it has not been built yet.
    """
    import nbformat

    if not book.paired.is_file():
        raise CourseError(f"{book.paired.name} is not built yet; run `course run --write {book.name}`.")
    return nbformat.read(book.paired, as_version=4)


def _widgets_without_picture(nb: NotebookNode) -> list[str]:
    cells = outputs.bare_widgets(nb)
    return [f"widgets without a static picture in cells {', '.join(map(str, cells))}"] if cells else []


class _progress:
    """On a terminal, a counter of cells on the current line, which the result then overwrites."""

    def __init__(self, name: str):
        self.name, self.live = name, sys.stdout.isatty()

    def __enter__(self) -> Callable[[int, int], None]:
        self._show("starting")
        return lambda done, count: self._show(f"cell {done} of {count}")

    def __exit__(self, *_: object) -> None:
        if self.live:
            print("\r\033[K", end="", flush=True)

    def _show(self, text: str) -> None:
        if self.live:
            print(f"\r\033[K{self.name:<28} {text}", end="", flush=True)
