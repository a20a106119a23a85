"""What students handed in, found and read with suspicion: a file may be anything."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unicodedata import bidirectional, category

from lecture_lib.errors import CourseError
from lecture_lib.exercises.task import Sheet

OPENING = Path(__file__).with_name("opening.py")
READING = 120.0  # seconds that reading a notebook may take
TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # marks that change the direction of writing
LISTED = 300  # characters of the names of several notebooks
DEEPEST = 8  # folders within each other in which a notebook is looked for
NO_NOTEBOOKS = (".zip", ".7z", ".rar", ".py", ".html", ".pdf")  # handed in all the same


class Unreadable(CourseError):
    """A file that is no notebook; the message is for the student."""


@dataclass(frozen=True)
class Submission:
    """One student's answer to one exercise.

    Attributes:
        student: name of the folder, or of the file where there are no folders.
        path: of the notebook; None if there is none.
        problem: why there is none, for the student.
    """

    student: str
    path: Path | None
    problem: str = ""


def found(folder: Path, sheet: Sheet, results: Path | None = None) -> list[Submission]:
    """Every student's notebook of one exercise, in the order of names.

    Either a folder per student, with the notebook somewhere in it, or a file per student, ``NAME.ipynb``.

    Args:
        folder: where they are.
        sheet: the exercise.
        results: a folder that is no student's, if it lies beside those.

    Raises:
        CourseError: the folder does not exist, or nothing is in it.
    """
    if not folder.is_dir():
        raise CourseError(f"submissions: {folder} is no folder; expected one with a folder or a notebook per student")
    here, own = folder.resolve(), results and results.resolve()
    entries = sorted(p for p in folder.iterdir() if _is_visible(p.name) and here / p.name != own)
    students = [_of_folder(p, sheet) for p in entries if p.is_dir() and not p.is_symlink()]
    files = [p for p in entries if p.is_symlink() or not p.is_dir()]
    books = [p for p in files if p.suffix.lower() == ".ipynb"]
    others = [p for p in files if p.suffix.lower() in NO_NOTEBOOKS] if books else []
    links = [p for p in files if p.is_symlink() and p.is_dir() and p not in books]
    taken = {submission.student for submission in students}
    students += [_of_file(p, taken) for p in books + links]
    taken = {submission.student for submission in students}
    students += [_of_file(p, taken) for p in others if _legible(p.stem) not in taken]
    if not students:
        raise CourseError(f"submissions: {folder} has neither folders nor notebooks in it")
    return students


def _of_file(path: Path, taken: set[str]) -> Submission:
    """A notebook beside the folders, or what somebody took for one."""
    student = _legible(path.name if _legible(path.stem) in taken else path.stem)
    if not _is_plain(path):
        return Submission(student, None, "This is no file but a link or the like. Hand in the notebook itself.")
    if path.suffix.lower() in NO_NOTEBOOKS:
        return Submission(student, None, f"A file {path.suffix} is no notebook. Hand in the one that ends in .ipynb.")
    return Submission(student, path)


def _of_folder(folder: Path, sheet: Sheet) -> Submission:
    """The notebook of the exercise; or one whose name has its name in it, as of a second download; or the only one."""
    student, books = _legible(folder.name), list(_books(folder))
    named = [p for p in books if p.stem == sheet.notebook]
    alike = [p for p in books if sheet.notebook.lower() in p.stem.lower()]
    right = named or alike or books
    if len(right) == 1:
        return Submission(student, right[0])
    if not books:
        return Submission(student, None, "There is no notebook in your folder.")
    names = _legible(", ".join(str(p.relative_to(folder)) for p in books[:5]))[:LISTED]
    return Submission(student, None, f"There is not one notebook called {sheet.notebook}.ipynb, but several: {names}.")


def _books(folder: Path) -> Iterator[Path]:
    """The notebooks in a folder, without the copies that editors, git and a Mac keep."""
    for here, folders, files in os.walk(folder):
        depth = len(Path(here).relative_to(folder).parts)
        folders[:] = sorted(filter(_is_visible, folders)) if depth < DEEPEST else []
        for path in (Path(here, name) for name in sorted(filter(_is_visible, files))):
            if path.suffix.lower() == ".ipynb" and _is_plain(path):
                yield path


def _is_visible(name: str) -> bool:
    return not name.startswith((".", "__MACOSX"))


def _legible(name: str) -> str:
    """A file's name as text that can be shown, no two alike: what is no letter of its own is spelled out."""
    plain = (c if _is_shown(c) else c.encode("unicode_escape").decode() for c in name.replace("\\", "\\\\"))
    return "".join(plain)


def _is_shown(char: str) -> bool:
    """Neither half a letter nor an order: to begin a line, to colour a terminal, to turn round what follows."""
    return category(char) not in ("Cc", "Cs", "Zl", "Zp") and bidirectional(char) not in TURNS


def _is_plain(path: Path) -> bool:
    """An ordinary file: no link to somebody else's, no pipe that would make its reader wait."""
    return stat.S_ISREG(path.lstat().st_mode)


def read(path: Path) -> tuple[list[str], str]:
    """Sources of the code cells, and a fingerprint of the file.

    Raises:
        Unreadable: the file is too large or damaged.
    """
    try:
        line = [sys.executable, "-I", "-S", str(OPENING), str(path)]
        said = json.loads(subprocess.run(line, capture_output=True, timeout=READING, check=False).stdout)
    except (subprocess.TimeoutExpired, ValueError):  # it was killed
        said = {"problem": "The notebook cannot be read. Clear its outputs and hand it in again."}
    if "problem" in said:
        raise Unreadable(said["problem"])
    return said["sources"], said["fingerprint"]
