"""Students' notebooks from solution notebooks: the same cells without solutions and without hidden tests.

The marks in the source are those of nbgrader, so that ``nbgrader generate_assignment`` reads it as well::

    ### BEGIN SOLUTION ... ### END SOLUTION             becomes one line that says what is missing
    ### BEGIN HIDDEN TESTS ... ### END HIDDEN TESTS     goes
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lecture_lib.errors import CourseError
from lecture_lib.tooling import pairing

if TYPE_CHECKING:
    from nbformat import NotebookNode

SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION[ \t]*$", re.DOTALL | re.MULTILINE)
HIDDEN = re.compile(r"^[ \t]*### BEGIN HIDDEN TESTS\n.*?^[ \t]*### END HIDDEN TESTS[ \t]*\n?", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"^[ \t]*### (BEGIN|END) ", re.MULTILINE)
STUB = 'raise NotImplementedError("yours")'


def stripped(nb: NotebookNode) -> NotebookNode:
    """The students' form of a solution notebook (in place).

    Raises:
        CourseError: a mark has no partner, so that a solution would stay.
    """
    for cell in nb.cells:
        cell.source = HIDDEN.sub("", SOLUTION.sub(rf"\1{STUB}", cell.source)).rstrip("\n")
        if MARK.search(cell.source):
            raise CourseError(f"a mark without its partner in the cell:\n{cell.source}")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    pairing.set_stable_ids(nb)
    return nb


def sources(root: Path) -> list[Path]:
    """The solution notebooks."""
    return sorted((root / "solutions").glob("E*.py"))


def as_text(nb: NotebookNode) -> str:
    """The text of the ``.ipynb`` that students get for a solution notebook (which is stripped in place)."""
    import nbformat

    return nbformat.writes(stripped(nb)) + "\n"


def students_text(source: Path) -> str:
    """The same for the solution notebook in a file."""
    return as_text(pairing.read_source(source))


def target(source: Path) -> Path:
    """Where the students' form of a solution notebook lies."""
    return source.parents[1] / "exercises" / f"{source.stem}.ipynb"


def write_all(root: Path) -> list[Path]:
    """Write the students' notebooks; returns their paths."""
    written = []
    for source in sources(root):
        path = target(source)
        path.write_text(students_text(source), encoding="utf-8")
        written.append(path)
    return written


def drifted(root: Path) -> list[Path]:
    """Students' notebooks that are not what their solutions give, missing ones and strays included."""
    wanted = {target(source): students_text(source) for source in sources(root)}
    there = set((root / "exercises").glob("*.ipynb"))
    wrong = [path for path, text in wanted.items() if path not in there or path.read_text(encoding="utf-8") != text]
    return wrong + sorted(there - set(wanted))
