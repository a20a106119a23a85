"""What a check in a notebook costs, one honest submission, and a class of thirty."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat

from lecture_lib.exercises.catalogue import LECTURES, sheet
from lecture_lib.exercises.judging import judge
from lecture_lib.exercises.task import Task
from lecture_lib.grading.grade import grade
from lecture_lib.tensors import few_threads
from lecture_lib.tooling import exercises, pairing, project
from lecture_lib.tooling.benching import Measurement

CLASS, AT_ONCE = 30, 2


def measure() -> Iterator[Measurement]:
    """About three minutes of two cores."""
    tasks = [task for lecture in LECTURES for task in sheet(lecture).tasks]
    with few_threads(1):
        for task in tasks:
            checked(task)  # what PyTorch loads at its first use is not a check's doing
        slowest = max(tasks, key=checked)
        yield Measurement(f"check({slowest.name!r}), the slowest of {len(tasks)}", checked(slowest), "s", 0.2)
    for source in exercises.sources(project.root()):
        yield Measurement(f"{source.stem}, one honest submission", graded(source, 1), "s", 6.0)
    source = exercises.sources(project.root())[1]
    yield Measurement(f"{source.stem}, {CLASS} submissions, {AT_ONCE} at once", graded(source, CLASS), "s", 120.0)


def checked(task: Task) -> float:
    """Seconds in which the right answer is judged."""
    began = time.perf_counter()
    cases = task.cases(0)
    judge(task, cases, [task.outcome(task.answer, case) for case in cases])
    return time.perf_counter() - began


def graded(source: Path, students: int) -> float:
    """Seconds in which as many copies of a solution are graded, the start of the sandboxes included."""
    book = nbformat.writes(pairing.read_source(source))
    with tempfile.TemporaryDirectory() as scratch:
        for k in range(students):
            folder = Path(scratch) / "in" / f"student{k:02d}"
            folder.mkdir(parents=True)
            (folder / f"{source.stem}.ipynb").write_text(book, encoding="utf-8")
        began = time.perf_counter()
        grade(
            Path(scratch) / "in", Path(scratch) / "out", sheet(int(source.stem[1])), seed=0, jobs=min(AT_ONCE, students)
        )
        return time.perf_counter() - began
