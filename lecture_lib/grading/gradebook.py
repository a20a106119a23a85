"""Marks in nbgrader's gradebook, where its formgrader and ``nbgrader export`` find them.

nbgrader's own autograde runs answers beside its tests, and can be talked into full marks. Here it only keeps what
``grade`` found out behind walls.
"""

from __future__ import annotations

import os
import sqlite3
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lecture_lib.errors import CourseError, MissingPackageError
from lecture_lib.exercises.task import Sheet
from lecture_lib.files import all_at_once
from lecture_lib.grading.grade import Mark
from lecture_lib.grading.report import NOT_ISOLATED

if TYPE_CHECKING:
    from nbgrader.api import Gradebook

TABLES = {"assignment", "notebook", "base_cell", "grade_cells", "source_cell", "student", "grade", "comment"}


def cells_of(question: str) -> tuple[str, str]:
    """Names of the cell to solve and of the cell to check, as in the solution notebooks: "q2_1" and "q2_1_check"."""
    solved = f"q{question.replace('.', '_')}"
    return solved, f"{solved}_check"


def prepare(path: Path, sheet: Sheet) -> None:
    """Make sure, before anything is graded, that marks can be written: a gradebook in which the exercise is.

    Args:
        path: of the gradebook, an SQLite file; made if it is missing.
        sheet: entered as an assignment if ``nbgrader generate_assignment`` has not done so.

    Raises:
        MissingPackageError: nbgrader is not installed.
        CourseError: the file is no gradebook, or is damaged, or its exercise has other questions or points.
    """
    with _opened(path) as book:
        _assignment(book, path, sheet)


def record(path: Path, sheet: Sheet, marks: Mapping[str, Sequence[Mark]], *, isolated: bool) -> str:
    """Write all marks at once or, if anything goes wrong, none; returns the assignment's name.

    Students and submissions are added where they are missing; what was there of an earlier run is replaced. A score
    that a person has given stays and counts, and is put up for review if the mark below it changes.

    Args:
        path, sheet: of ``prepare``.
        marks: by student.
        isolated: False is said in a comment on each answer.

    Raises:
        MissingPackageError, CourseError: as ``prepare`` does.
    """
    with _opened(path) as book:
        name = _assignment(book, path, sheet)
        for student, row in marks.items():
            book.update_or_create_student(student)
            book.update_or_create_submission(name, student)
            notebook = book.find_submission_notebook(sheet.notebook, name, student)
            grades, comments = ({part.name: part for part in parts} for parts in (notebook.grades, notebook.comments))
            for mark in row:
                solved, checked = cells_of(mark.question)
                grade = grades[checked]
                if grade.auto_score != mark.points:
                    grade.auto_score, grade.needs_manual_grade = mark.points, grade.manual_score is not None
                comments[solved].auto_comment = _comment(mark, isolated=isolated)
    return name


def _comment(mark: Mark, *, isolated: bool) -> str | None:
    """What the gradebook says of a mark; nbgrader shows it as Markdown, and a student's words make no HTML, no link."""
    words = [*([] if isolated else [NOT_ISOLATED]), *mark.hint.split()]
    return " ".join(words).replace("<", "&lt;").replace("](", "] (") or None


def _assignment(book: Gradebook, path: Path, sheet: Sheet) -> str:
    """The name of the assignment that has the sheet's notebook, with the same points."""
    names = [a.name for a in book.assignments for notebook in a.notebooks if notebook.name == sheet.notebook]
    if len(names) > 1:
        raise CourseError(f"gradebook: {path} has {sheet.notebook} in {', '.join(names)}; expected one assignment")
    name = names[0] if names else _add_assignment(book, path, sheet)
    there = {cell.name: cell.max_score for cell in book.find_notebook(sheet.notebook, name).grade_cells}
    for task in sheet.tasks:
        _, checked = cells_of(task.name)
        if there.get(checked) != task.points:
            found = f"{there[checked]:g} points" if checked in there else "no cell"
            raise CourseError(
                f"gradebook: {path} has {found} for {checked} in {name}, expected {task.points} points; it is of "
                "another version of the exercise"
            )
    return name


def _add_assignment(book: Gradebook, path: Path, sheet: Sheet) -> str:
    """Enter the exercise, as far as marks need it; ``nbgrader generate_assignment`` completes it.

    The source of each cell stays empty and has no checksum: nbgrader's autograde, which would put it in the place of
    the student's, stops at that until it is completed.
    """
    name = f"E{sheet.lecture}"
    if book.update_or_create_assignment(name).submissions:
        raise CourseError(f"gradebook: {path} has an assignment {name} without {sheet.notebook}, and submissions of it")
    book.add_notebook(sheet.notebook, name)
    for task in sheet.tasks:
        solved, checked = cells_of(task.name)
        book.add_solution_cell(solved, sheet.notebook, name)
        book.add_grade_cell(checked, sheet.notebook, name, max_score=task.points, cell_type="code")
        for cell in (solved, checked):
            book.add_source_cell(cell, sheet.notebook, name, cell_type="code", locked=cell == checked, source="")
    return name


@contextmanager
def _opened(path: Path) -> Iterator[Gradebook]:
    """A gradebook within one transaction: what is done with it is in the file at the end, or none of it."""
    try:
        from nbgrader.api import InvalidEntry
        from sqlalchemy.exc import SQLAlchemyError
    except ModuleNotFoundError as error:
        raise MissingPackageError('a gradebook needs nbgrader: pip install -e ".[grading]"') from error
    try:
        _check(path) if path.exists() else _make(path)
        with closing(_connect(path)) as book, book.engine.connect() as connection, connection.begin():
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # now, and not after grading, it shows whether one may write
            book.db.remove()
            # A commit of nbgrader's now stays within this transaction; and nothing is written before one, since the
            # classes of nbgrader cannot be written half-made.
            book.db.configure(bind=connection, autoflush=False)
            yield book
            book.db.commit()
    except (sqlite3.Error, SQLAlchemyError, InvalidEntry, OSError) as error:
        what = getattr(error, "orig", None) or error
        raise CourseError(
            f"gradebook: {path} cannot be used ({what}). Expected a gradebook of nbgrader that nobody else is "
            "writing to; `nbgrader db upgrade` brings an old one up to date"
        ) from error


def _connect(path: Path) -> Gradebook:
    from nbgrader.api import Gradebook
    from sqlalchemy import URL

    return Gradebook(URL.create("sqlite", database=str(path)))


def _check(path: Path) -> None:
    """Look into a file before nbgrader does, which would add its tables to any database."""
    address = f"{path.resolve().as_uri()}?mode=rw"  # rw: a run that was killed while writing is undone here
    with closing(sqlite3.connect(address, uri=True)) as file:
        tables = {name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        (state,) = file.execute("PRAGMA quick_check(1)").fetchone()
    if not tables >= TABLES:
        raise CourseError(f"gradebook: {path} is no gradebook of nbgrader; expected one, or the name of a new file")
    if state != "ok":
        raise CourseError(f"gradebook: {path} is damaged ({state}); expected a whole file")


def _make(path: Path) -> None:
    """An empty gradebook, there at once and whole."""
    from nbgrader.utils import setenv

    programs = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}"  # nbgrader calls alembic
    with all_at_once(path) as whole, setenv(PATH=programs):
        _connect(whole).close()
