"""``course release``: what students get of a lecture, as a folder or a zip, and a search for what they must not get."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from lecture_lib.errors import CourseError
from lecture_lib.exercises.catalogue import sheet
from lecture_lib.files import all_at_once
from lecture_lib.tooling import deck, exercises, project, publishing, running

SOLVED = re.compile(r"### BEGIN (?:SOLUTION|HIDDEN TESTS)\n(.*?)### END", re.DOTALL)
TELLING = 30  # characters from which on a line of a solution is no coincidence
LETTER = """Exercise {lecture} of the course on modern image generation: {title}.

1. Install the course once: its README says how, and docs/learning.md how to work with it.{colab}
2. Read and play: the notebooks of the lecture and its lab lie beside this file.
3. Answer: {notebook}.ipynb. Run the cell below each answer; it says at once what is right, and what is wrong and why.
4. Hand in {notebook}.ipynb under that name. Marks are given by the same checks on numbers that nobody has seen.
"""
COLAB = """
   On Colab there is nothing to install: upload a notebook, and its first cell fetches the course."""


def release(lecture: int, out: Path) -> Path:
    """Write the students' folder of one lecture, or with a name that ends in ``.zip`` the zip; no speaker's notes.

    Raises:
        CourseError: it exists already, or something of a solution would get out; then nothing is written.
    """
    import nbformat

    if out.exists():
        raise CourseError(f"release: {out} exists already; expected a new name")
    root, asked = project.root(), sheet(lecture)
    source = root / "solutions" / f"{asked.notebook}.py"
    with all_at_once(out) as place:
        zipped = out.suffix == ".zip"
        folder = place.with_suffix("") if zipped else place
        folder.mkdir()
        (folder / f"{asked.notebook}.ipynb").write_text(exercises.students_text(source), encoding="utf-8")
        colab = COLAB if publishing.address(root).published else ""
        letter = LETTER.format(lecture=lecture, title=asked.title, notebook=asked.notebook, colab=colab)
        (folder / "README.txt").write_text(letter, encoding="utf-8")
        for book in project.notebooks(root / "notebooks"):
            if book.name.startswith(f"L{lecture}_"):
                nbformat.write(deck.without_notes(running.saved(book)), folder / book.paired.name)
        leaks = leaking(folder, source.read_text(encoding="utf-8"))
        if leaks:
            raise CourseError(f"release: something of the solution would get out: {'; '.join(leaks)}")
        if zipped:
            shutil.make_archive(str(folder), "zip", place.parent, folder.name)
    return out


def leaking(folder: Path, source: str) -> list[str]:
    """Where marks of nbgrader, or telling lines of a solution or a hidden test, stand in the exercise of a folder."""
    secret = {line.strip() for part in SOLVED.findall(source) for line in part.splitlines()}
    secret = {line for line in secret if len(line) > TELLING}
    found = []
    for path in sorted(folder.rglob("E*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
        found += [f"{path.name}: {line}" for line in sorted(secret | {"### BEGIN", "### END"}) if line in text]
    return found
