"""The notebooks of the exercises: generated, without a leak, worth 100 points when solved and 0 when not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest

from lecture_lib.errors import CourseError
from lecture_lib.exercises.catalogue import LECTURES, sheet
from lecture_lib.grading.grade import grade
from lecture_lib.tooling import exercises, pairing

ROOT = Path(__file__).parents[1]
SOURCES = exercises.sources(ROOT)
each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
SOLVED = re.compile(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", re.DOTALL)


def test_every_lecture_has_one():
    assert [path.stem for path in SOURCES] == [sheet(lecture).notebook for lecture in LECTURES]


def test_students_notebooks_are_what_their_solutions_give():
    assert exercises.drifted(ROOT) == [], "rebuild with `course exercises`"


@each_source
def test_nothing_of_a_solution_stays(source):
    given = exercises.students_text(source)
    for solution in SOLVED.findall(source.read_text(encoding="utf-8")):
        lines = [line.strip() for line in solution.splitlines() if len(line.strip()) > 30]
        assert not [line for line in lines if line in given]
    assert "### " not in given and "HIDDEN" not in given


def test_a_mark_without_its_partner_is_refused():
    cell = nbformat.v4.new_code_cell("def f():\n    ### BEGIN SOLUTION\n    return 1")
    with pytest.raises(CourseError, match="partner"):
        exercises.stripped(nbformat.v4.new_notebook(cells=[cell]))


@each_source
def test_every_question_has_a_cell_to_solve_and_a_cell_to_check(source):
    nb = pairing.read_source(source)
    asked = sheet(int(source.stem[1]))
    marks = [cell.metadata.get("nbgrader", {}) for cell in nb.cells]
    assert [m["points"] for m in marks if m.get("grade")] == [task.points for task in asked.tasks]
    solved = [cell.source for cell, m in zip(nb.cells, marks, strict=True) if m.get("solution")]
    for task, text in zip(asked.tasks, solved, strict=True):
        assert re.search(rf"^(def|class) {task.function}\b", text, re.MULTILINE)
        assert '"""' in text.split("### BEGIN SOLUTION")[0], f"{task.name}: the stub says what it returns"
    assert len({m["grade_id"] for m in marks if m}) == 2 * len(asked.tasks)


@each_source
def test_a_solution_has_100_points_and_a_stub_none(source, tmp_path):
    lecture = sheet(int(source.stem[1]))
    for student in ("solved", "stub"):
        (tmp_path / "in" / student).mkdir(parents=True)
    nbformat.write(pairing.read_source(source), tmp_path / "in" / "solved" / f"{source.stem}.ipynb")
    shutil.copy(exercises.target(source), tmp_path / "in" / "stub")
    _, marks = grade(tmp_path / "in", tmp_path / "out", lecture, seed=20261128, jobs=1)
    assert sum(m.points for m in marks["solved"]) == 100, [m for m in marks["solved"] if not m.points]
    assert sum(m.points for m in marks["stub"]) == 0
    assert {m.kind for m in marks["stub"]} == {"empty"}
