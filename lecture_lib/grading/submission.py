"""What students handed in, found and read with suspicion: a file may be anything."""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass
from pathlib import Path

from lecture_lib.errors import CourseError
from lecture_lib.exercises.task import Sheet

LARGEST = 1 << 30  # bytes of a notebook, its outputs included


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


def found(folder: Path, sheet: Sheet) -> list[Submission]:
    """Every student's notebook of one exercise, in the order of names.

    Either a folder per student, with the notebook somewhere in it, or a file per student, ``NAME.ipynb``.

    Raises:
        CourseError: the folder does not exist, or nothing is in it.
    """
    if not folder.is_dir():
        raise CourseError(f"submissions: {folder} is no folder; expected one with a folder or a notebook per student")
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    students = [_of_folder(p, sheet) for p in entries if p.is_dir() and not p.is_symlink()]
    taken = {submission.student for submission in students}
    for p in entries:
        if p.suffix == ".ipynb" and _is_plain(p):
            students.append(Submission(_legible(p.name if _legible(p.stem) in taken else p.stem), p))
    if not students:
        raise CourseError(f"submissions: {folder} has neither folders nor notebooks in it")
    return students


def _of_folder(folder: Path, sheet: Sheet) -> Submission:
    """The notebook of the exercise; or, under another name, the only one there is."""
    student = _legible(folder.name)
    books = sorted(p for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts and _is_plain(p))
    right = [p for p in books if p.stem == sheet.notebook]
    if len(right) == 1:
        return Submission(student, right[0])
    if len(books) == 1:
        return Submission(student, books[0])
    if not books:
        return Submission(student, None, "There is no notebook in your folder.")
    names = _legible(", ".join(str(p.relative_to(folder)) for p in books[:5]))
    return Submission(student, None, f"There is not one notebook called {sheet.notebook}.ipynb, but several: {names}.")


def _legible(name: str) -> str:
    """A file's name as text that can be written: bytes that are no UTF-8 are spelled out."""
    return name.encode("utf-8", "backslashreplace").decode()


def _is_plain(path: Path) -> bool:
    """An ordinary file: no link to somebody else's, no pipe that would make its reader wait."""
    return stat.S_ISREG(path.lstat().st_mode)


def read(path: Path) -> tuple[list[str], str]:
    """Sources of the code cells, and a fingerprint of the file.

    Raises:
        Unreadable: the file is too large or damaged.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise Unreadable(f"The notebook has {size / 1e9:.1f} GB. Clear its outputs and hand it in again.")
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"The file cannot be opened ({error.strerror}). Hand it in again.") from None
    fingerprint = hashlib.sha256(data).hexdigest()[:16]
    try:
        cells = json.loads(_text(data))["cells"]
        sources = [_source(cell) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        end = " It seems to end too early." if isinstance(error, json.JSONDecodeError) else ""
        raise Unreadable(
            f"The file is no notebook that can be read ({type(error).__name__}).{end} Hand it in again."
        ) from None
    return sources, fingerprint


def _text(data: bytes) -> str:
    """UTF-8 as notebooks are written, or what an editor made of it; letters that are none become question marks."""
    for bom, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig")):
        if data.startswith(bom):
            return data.decode(encoding, errors="replace")
    return data.decode("utf-8", errors="replace")


def _source(cell: dict) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)
