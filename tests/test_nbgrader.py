"""The same exercises in nbgrader, and our marks in its gradebook. nbgrader itself runs here, nothing imitates it."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from lecture_lib.cli import app
from lecture_lib.errors import CourseError
from lecture_lib.exercises.catalogue import LECTURES, sheet
from lecture_lib.exercises.task import Sheet
from lecture_lib.grading import gradebook
from lecture_lib.grading.grade import Mark
from lecture_lib.tooling import exercises, marking, nbgrading, pairing, releasing

pytest.importorskip("nbgrader", reason="nbgrader is not installed (extra `grading`)")
# nbgrader's own way of adding submissions; ours is quiet, which test_a_gradebook_is_made_and_grows checks
pytestmark = pytest.mark.filterwarnings("ignore:Object of type .* not in session")
ROOT = Path(__file__).parents[1]
GUIDANCE = sheet(2)
FORGED = "def check(*args, **options):\n    open({spilled!r}, 'w').close()\n    return True"


@pytest.fixture(autouse=True, scope="module")
def programs():
    """nbgrader looks for alembic among the programs, as it finds it where the environment is activated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """nbgrader's folder."""
    return nbgrading.lay_out(tmp_path_factory.mktemp("nbgrader") / "course")


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gradebook") / "gradebook.db"
    gradebook.prepare(path, GUIDANCE)
    return path


@pytest.fixture
def book(sound, tmp_path) -> Path:
    """A gradebook that has Exercise 2 and nobody yet."""
    return Path(shutil.copy(sound, tmp_path / "book.db"))


@pytest.fixture(scope="module")
def api(course):
    return configured(course)


def configured(folder: Path):
    """nbgrader in this process, with the configuration that it reads on the command line."""
    from nbgrader.apps.api import NbGraderAPI
    from traitlets.config import PyFileConfigLoader

    config = PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config()
    config.CourseDirectory.root = str(folder)
    return NbGraderAPI(config=config)


def nbgrader(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "nbgrader", *arguments]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)


def hand_in(course: Path, student: str, lecture: int, nb: nbformat.NotebookNode) -> None:
    folder = course / "submitted" / student / f"E{lecture}"
    folder.mkdir(parents=True)
    nbformat.write(nb, folder / f"{sheet(lecture).notebook}.ipynb")


def solved(lecture: int) -> nbformat.NotebookNode:
    """The solutions as a student would hand them in: without what is hidden."""
    nb = pairing.read_source(ROOT / "solutions" / f"{sheet(lecture).notebook}.py")
    for cell in nb.cells:
        cell.source = exercises.HIDDEN.sub("", cell.source)
    return nb


def stub(lecture: int) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "exercises" / f"{sheet(lecture).notebook}.ipynb", as_version=4)


def totals(path: Path, assignment: str = "E2") -> dict[str, tuple[float, float, bool]]:
    """Score, largest score and whether a person must look, for each student, as nbgrader adds them up."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{path}") as book:
        rows = book.assignment_submissions(assignment)
        return {row.student.id: (row.score, row.max_score, row.needs_manual_grade) for row in rows}


def marks(*right: int, of: Sheet = GUIDANCE) -> list[Mark]:
    """Marks of which those with these numbers are full."""
    return [
        Mark(
            "any",
            task.name,
            "f",
            task.points * (k in right),
            task.points,
            "known",
            "m",
            "" if k in right else "Why.",
            0,
        )
        for k, task in enumerate(of.tasks, 1)
    ]


ALL = tuple(range(1, 13))


# The course in nbgrader ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lecture", LECTURES)
def test_nbgrader_releases_and_marks_the_same_exercise(lecture, course, api):
    name, book = f"E{lecture}", sheet(lecture).notebook
    made = api.generate_assignment(name)
    assert made["success"], made["log"]
    release = course / "release" / name
    given = nbformat.read(release / f"{book}.ipynb", as_version=4)
    assert [c.source.rstrip() for c in given.cells] == [c.source for c in stub(lecture).cells]
    assert sum(exercises.STUB in c.source for c in given.cells) == len(sheet(lecture).tasks)
    assert releasing.leaking(release, (ROOT / "solutions" / f"{book}.py").read_text(encoding="utf-8")) == []

    for student, nb in (("solved", solved(lecture)), ("stub", stub(lecture))):
        hand_in(course, student, lecture, nb)
        done = api.autograde(name, student)
        assert done["success"], done["log"]
    assert totals(course / "gradebook.db", name) == {"solved": (100, 100, False), "stub": (0, 100, False)}


def test_a_course_folder_is_not_overwritten(tmp_path):
    with pytest.raises(CourseError, match="exists already"):
        nbgrading.lay_out(tmp_path)


# Our marks in its gradebook ------------------------------------------------------------------------------------------


def test_marks_that_nbgrader_gives_away_are_replaced_by_those_that_are_due(tmp_path):
    """The whole way of an instructor, on the command lines; the forger's answer replaces `check`."""
    course, spilled = tmp_path / "course", tmp_path / "spilled"
    run = CliRunner().invoke(app, ["nbgrader", "-o", str(course)])
    assert run.exit_code == 0, run.output
    api, book = configured(course), course / "gradebook.db"
    assert api.generate_assignment("E2")["success"]
    forged = stub(2)
    next(c for c in forged.cells if exercises.STUB in c.source).source = FORGED.format(spilled=str(spilled))
    hand_in(course, "forger", 2, forged)
    assert api.autograde("E2", "forger")["success"] and spilled.exists()
    assert totals(book) == {"forger": (100, 100, False)}, "nbgrader can be fooled; if no longer, say so in README"

    spilled.unlink()
    shutil.rmtree(course / "autograded")
    late = solved(2)  # by now there is one more student, with one answer less
    late.cells = [c for c in late.cells if c.metadata.get("nbgrader", {}).get("grade_id") != "q2_1"]
    hand_in(course, "late", 2, late)
    run = nbgrader(course, "autograde", "E2", "--no-execute")
    assert run.returncode == 0 and not spilled.exists(), run.stderr
    due = {"forger": 0.0, "late": 95.0}
    line = [
        "grade",
        str(course / "submitted"),
        "--lecture",
        "2",
        "-o",
        str(course / "results"),
        "--gradebook",
        str(book),
    ]
    for _ in range(2):  # the second time everything is there already
        run = CliRunner().invoke(app, line)
        assert run.exit_code == 0 and "as assignment E2" in run.output, run.output
        assert totals(book) == {student: (score, 100, False) for student, score in due.items()}

    shown = {row["student"]: row for row in api.get_submissions("E2")}  # what the formgrader shows
    assert {student: (row["score"], row["needs_manual_grade"]) for student, row in shown.items()} == {
        student: (score, False) for student, score in due.items()
    }
    assert nbgrader(course, "export", "--to", "grades.csv").returncode == 0
    with (course / "grades.csv").open() as file:
        rows = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    assert rows == {student: (score, 100) for student, score in due.items()}


def test_answers_may_not_see_the_gradebook(book, tmp_path, monkeypatch):
    """It is handed to the walls (that they hide a file is tested with them)."""

    def graded(*_, hidden: tuple[Path, ...], **__):
        raise CourseError(f"hidden: {hidden}")

    monkeypatch.setattr(marking, "grade", graded)
    with pytest.raises(CourseError, match=re.escape(f"hidden: {(book,)}")):
        marking.mark(tmp_path, tmp_path / "out", 2, seed=1, jobs=1, isolated=True, book=book)


def test_cells_are_called_as_in_the_solutions():
    for lecture in LECTURES:
        found = [c.metadata.nbgrader.grade_id for c in solved(lecture).cells if "nbgrader" in c.metadata]
        assert found == [name for task in sheet(lecture).tasks for name in gradebook.cells_of(task.name)]


def test_a_gradebook_is_made_and_grows(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # as where the environment is not activated
    book = tmp_path / "new?" / "100 %.db"  # a name that an address would have to quote
    gradebook.prepare(book, GUIDANCE)
    plain = shutil.copy(book, tmp_path / "plain.db")
    with warnings.catch_warnings(action="error"):
        for students in ({"a": marks(1, 2)}, {"a": marks(1, 2)}, {"a": marks(1), "b": marks(*ALL)}):
            assert gradebook.record(book, GUIDANCE, students, isolated=True) == "E2"
    assert totals(shutil.copy(book, tmp_path / "copy.db")) == {"a": (5, 100, False), "b": (100, 100, False)}
    assert gradebook.record(book, sheet(3), {"a": marks(3, of=sheet(3))}, isolated=True) == "E3"
    copy = shutil.copy(book, tmp_path / "copy.db")
    assert totals(copy, "E3") == {"a": (8, 100, False)} and totals(copy)["b"] == (100, 100, False)
    assert totals(plain) == {}


def test_nbgrader_takes_over_a_gradebook_that_we_made(tmp_path):
    """Its autograde stops before it knows the cells, and gives due marks once generate_assignment has told it."""
    folder = nbgrading.lay_out(tmp_path / "course")
    gradebook.record(folder / "gradebook.db", GUIDANCE, {"old": marks(1)}, isolated=True)
    hand_in(folder, "new", 2, solved(2))
    api = configured(folder)
    early = api.autograde("E2", "new")
    assert not early["success"] and "Inconsistent checksums" in early["log"]
    assert totals(folder / "gradebook.db")["new"][0] == 0
    assert api.generate_assignment("E2")["success"]
    assert api.autograde("E2", "new")["success"]
    assert totals(folder / "gradebook.db") == {"old": (5, 100, False), "new": (100, 100, False)}


def test_what_a_person_decided_stays_and_is_shown_again_when_the_mark_changes(book):
    from nbgrader.api import Gradebook

    gradebook.record(book, GUIDANCE, {"a": marks(1)}, isolated=True)
    with Gradebook(f"sqlite:///{book}") as opened:
        opened.find_grade("q2_2_check", GUIDANCE.notebook, "E2", "a").manual_score = 3
        opened.db.commit()
    gradebook.record(book, GUIDANCE, {"a": marks(1)}, isolated=True)
    assert totals(book) == {"a": (5 + 3, 100, False)}
    gradebook.record(book, GUIDANCE, {"a": marks(1, 2)}, isolated=True)
    assert totals(book) == {"a": (5 + 3, 100, True)}


def test_comments_have_the_hint_say_what_was_not_isolated_and_run_nothing(book):
    from nbconvert.filters import markdown2html
    from nbgrader.api import Gradebook

    row = marks(1)
    row[1] = replace(row[1], hint="a & b > 0: <script>alert(1)</script> \\<script> [x](javascript:f())")
    for isolated in (False, True):
        gradebook.record(book, GUIDANCE, {"a": row}, isolated=isolated)
        with Gradebook(f"sqlite:///{book}") as opened:
            said = [opened.find_comment(f"q2_{k}", GUIDANCE.notebook, "E2", "a").comment for k in (1, 2, 3)]
        start = "" if isolated else "NOT ISOLATED"
        assert (said[0] or "").startswith(start) and said[2].startswith(start) and said[2].endswith("Why.")
        assert "a & b > 0: &lt;script>alert" in said[1]
        assert "<script" not in markdown2html(said[1]) and "<a" not in markdown2html(said[1])
    assert said[0] is None


# What goes wrong -----------------------------------------------------------------------------------------------------


def sql(*lines: str) -> Callable[[Path], None]:
    """Something that is done to a file with SQLite."""

    def run(path: Path) -> None:
        with closing(sqlite3.connect(path)) as file, file:
            for line in lines:
                file.execute(line)

    return run


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: -8 * 4096])


def blotted(path: Path) -> None:
    """One page is lost, which is not read before marks are written."""
    with closing(sqlite3.connect(path)) as file:
        ((page,),) = file.execute("SELECT rootpage FROM sqlite_master WHERE name = 'grade'")
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = bytes(4096)
    path.write_bytes(data)


def replaced(how: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.unlink()
        how(path)

    return spoil


FIRST = "(SELECT id FROM base_cell WHERE name = 'q2_1_check')"
UNUSABLE = {  # what is done to a gradebook, and what is said then
    "text": (replaced(lambda path: path.write_text("student,points\n" * 100)), "not a database"),
    "nothing in it": (replaced(Path.touch), "is no gradebook"),
    "foreign": (replaced(sql("CREATE TABLE student (id TEXT)")), "is no gradebook"),
    "folder": (replaced(Path.mkdir), "cannot be used"),
    "torn": (torn, "malformed"),
    "blotted": (blotted, "is damaged"),
    "other points": (
        sql(f"UPDATE grade_cells SET max_score = 7 WHERE id = {FIRST}"),
        "7 points for q2_1_check in E2, expected 5",
    ),
    "no such cell": (sql(f"UPDATE base_cell SET name = 'q2_0' WHERE id = {FIRST}"), "no cell for q2_1_check"),
    "old": (sql("ALTER TABLE assignment DROP COLUMN duedate"), "nbgrader db upgrade"),
    "submissions of other questions": (
        sql(
            "UPDATE notebook SET name = 'another'",
            "INSERT INTO student (id, email) VALUES ('a', '')",
            "INSERT INTO submitted_assignment (id, assignment_id, student_id) SELECT 'x', id, 'a' FROM assignment",
        ),
        "without E2_guidance",
    ),
    "twice": (
        sql(
            "INSERT INTO assignment (id, name, course_id) VALUES ('x', 'retake', 'default_course')",
            f"INSERT INTO notebook (id, name, assignment_id) VALUES ('y', '{GUIDANCE.notebook}', 'x')",
        ),
        "E2, retake",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_file_that_cannot_take_the_marks_is_refused_before_anything_is_graded(spoil, message, book, tmp_path):
    spoil(book)
    before = book.is_file() and book.read_bytes()
    hand_in(tmp_path, "a", 2, stub(2))
    with pytest.raises(CourseError, match=message):
        marking.mark(tmp_path / "submitted", tmp_path / "out", 2, seed=1, jobs=1, isolated=True, book=book)
    assert not (tmp_path / "out").exists()
    assert before == (book.is_file() and book.read_bytes())


KILLED = """
import os, signal, sys
from pathlib import Path
from nbgrader.api import Gradebook
sys.path.insert(0, {tests!r})
from test_nbgrader import ALL, GUIDANCE, gradebook, marks
add = Gradebook.update_or_create_student
def dying(book, student):
    if student == "s0":
        book.db.connection().exec_driver_sql("PRAGMA cache_size = 1")  # all but one page goes to the file at once
    if student == "s30":
        os.kill(os.getpid(), signal.SIGKILL)
    return add(book, student)
Gradebook.update_or_create_student = dying
gradebook.record(Path({path!r}), GUIDANCE, {{f"s{{k}}": marks(*ALL) for k in range(40)}}, isolated=True)
"""


def test_a_kill_leaves_the_gradebook_as_it_was_and_the_next_run_completes_it(book, tmp_path):
    gradebook.record(book, GUIDANCE, {"before": marks(1)}, isolated=True)
    before = book.read_bytes()
    script = KILLED.format(tests=str(Path(__file__).parent), path=str(book))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert list(tmp_path.glob("book.db-journal")) and book.read_bytes() != before, "the kill came within the writing"
    gradebook.prepare(book, GUIDANCE)
    assert totals(book) == {"before": (5, 100, False)}
    students = {f"s{k}": marks(*ALL) for k in range(40)}
    gradebook.record(book, GUIDANCE, students, isolated=True)
    assert totals(book) == {"before": (5, 100, False), **dict.fromkeys(students, (100, 100, False))}


def test_a_gradebook_that_nbgrader_began_without_alembic_is_one(book):
    """As where its environment was not activated: it stops at that once, and goes on the next time."""
    sql("DROP TABLE alembic_version")(book)
    gradebook.record(book, GUIDANCE, {"a": marks(1)}, isolated=True)
    assert totals(book) == {"a": (5, 100, False)}


def test_somebody_else_is_writing(book, monkeypatch):
    from nbgrader.api import Gradebook

    monkeypatch.setattr(gradebook, "_connect", lambda path: Gradebook(f"sqlite:///{path}?timeout=0.1"))  # not 5 s
    with closing(sqlite3.connect(book)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CourseError, match="locked"):  # also before grading
            gradebook.prepare(book, GUIDANCE)
    gradebook.record(book, GUIDANCE, {"a": marks(1)}, isolated=True)
    assert totals(book) == {"a": (5, 100, False)}
