"""Marks for a folder of submissions: question by question, each behind walls, each result kept at once."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

from lecture_lib.errors import CourseError, DamagedFileError
from lecture_lib.exercises.judging import Verdict, judge, limit
from lecture_lib.exercises.task import Sheet, Task, as_arrays
from lecture_lib.grading.submission import Submission, Unreadable, found, read
from lecture_lib.sandbox.box import Failure, Limits, NotIsolated, Sandbox

# What comparing may raise at a value that nobody has thought of; it must not stop a class.
UNTHOUGHT = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True)
class Mark:
    """The result of one question of one student.

    Attributes:
        student, question: names.
        fingerprint: of the file that was judged.
        points, possible: got, and to be had.
        kind, mistake, hint: of the ``Verdict``.
        seconds: that judging took.
    """

    student: str
    question: str
    fingerprint: str
    points: int
    possible: int
    kind: str
    mistake: str
    hint: str
    seconds: float

    @classmethod
    def of(cls, student: str, task: Task, fingerprint: str, verdict: Verdict, seconds: float) -> Mark:
        """The mark that a verdict is worth."""
        points = task.points if verdict.passed else 0
        said = verdict.kind, verdict.name, verdict.hint
        return cls(student, task.name, fingerprint, points, task.points, *said, seconds)


class Ledger:
    """The marks of one run, one line of JSON each, on the disk before the next question is asked.

    A run that was killed is taken up where it stopped: a line that was being written is cut off, and what has a line
    is not judged again. The seed stays that of the first start, so that all answers face the same numbers.
    """

    def __init__(self, folder: Path, sheet: Sheet, *, seed: int | None, isolated: bool) -> None:
        self.path, self._lock = folder / f"{sheet.notebook}.jsonl", threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise CourseError(f"results: {folder} cannot be written to ({error.strerror})") from None
        self._take()
        head, marks = self._resume()
        wanted = {
            "exercise": sheet.notebook,
            "seed": secrets.randbelow(1 << 32) if seed is None else seed,
            "isolated": isolated,
        }
        if head is not None and (seed not in (None, head["seed"]) or head["isolated"] != isolated):
            self.close()
            raise CourseError(f"results: {self.path} is of another run ({head}); expected an empty folder for this one")
        self.head = head or wanted
        self.marks: dict[tuple[str, str, str], Mark] = {(m.student, m.question, m.fingerprint): m for m in marks}
        if head is None:
            self._write(self.head)

    def _take(self) -> None:
        """The file is this run's alone, until it ends in whatever way."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise CourseError(f"results: another run is writing {self.path}; wait for it or end it") from None
        except OSError:  # a file system without locks
            pass

    def _resume(self) -> tuple[dict | None, list[Mark]]:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):  # a kill in the middle of a line
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
            return (lines[0], [Mark(**line) for line in lines[1:]]) if lines else (None, [])
        except (ValueError, TypeError):
            self.close()
            raise DamagedFileError(f"results: {self.path} was changed by something else; move it away") from None

    def _write(self, line: dict) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def add(self, mark: Mark) -> None:
        """Keep a mark; from any thread."""
        with self._lock:
            self.marks[mark.student, mark.question, mark.fingerprint] = mark
            self._write(asdict(mark))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def grade(
    folder: Path,
    results: Path,
    sheet: Sheet,
    *,
    seed: int | None = None,
    jobs: int = 2,
    isolated: bool = True,
    limits: Limits | None = None,
    hidden: tuple[Path, ...] = (),
    on_student: Callable[[str], None] = lambda student: None,
) -> tuple[dict, dict[str, list[Mark]]]:
    """Judge all submissions of one exercise; returns the run's head and the marks by student.

    Args:
        folder: with a folder or a notebook per student.
        results: where the ledger is, or will be.
        seed: of the random inputs; default a new one, kept in the ledger.
        jobs: submissions that are judged at the same time.
        isolated: False trusts the answers: for your own, and where there are no namespaces.
        limits: of one question.
        hidden: what no answer may see, beside the submissions and the results.
        on_student: called when a student is done.

    Raises:
        NotIsolated: this machine has no walls and they were asked for.
        CourseError: the folders are not what they should be.
    """
    if results.resolve() == folder.resolve():
        raise CourseError(f"results: {results} is the folder of the submissions; expected another one")
    students, here = found(folder, sheet, results), threading.local()
    hidden = (folder, results, *hidden)
    with closing(Ledger(results, sheet, seed=seed, isolated=isolated)) as ledger, ExitStack() as boxes:

        def work(submission: Submission) -> tuple[str, list[Mark]]:
            if not hasattr(here, "box"):  # one per thread, for all its submissions
                here.box = boxes.enter_context(Sandbox(limits or Limits(), isolated=isolated, hidden=hidden))
            marks = list(_marks(submission, sheet, here.box, ledger))
            on_student(submission.student)
            return submission.student, marks

        with ThreadPoolExecutor(jobs) as pool:
            return ledger.head, dict(pool.map(work, students))


def _marks(submission: Submission, sheet: Sheet, box: Sandbox, ledger: Ledger) -> Iterator[Mark]:
    """The marks of one student, old ones from the ledger."""
    try:
        if submission.path is None:
            raise Unreadable(submission.problem)
        cells, fingerprint = read(submission.path)
        problem = ""
    except Unreadable as error:
        cells, fingerprint, problem = [], "none", str(error)
    for task in sheet.tasks:
        if (submission.student, task.name, fingerprint) not in ledger.marks:
            began = time.monotonic()
            unread = Verdict(task.name, False, problem, "unreadable")
            verdict = unread if problem else _verdict(task, cells, box, ledger.head["seed"])
            seconds = round(time.monotonic() - began, 3)
            ledger.add(Mark.of(submission.student, task, fingerprint, verdict, seconds))
        yield ledger.marks[submission.student, task.name, fingerprint]


def _verdict(task: Task, cells: list[str], box: Sandbox, seed: int) -> Verdict:
    """Ask the sandbox, and judge what comes back."""
    cases = task.cases(seed)
    stage, call = task.stage_source
    said = box.ask(cells, task.function, calls=[as_arrays(case.inputs) for case in cases], stage=stage, call=call)
    if isinstance(said, Failure):
        if said.kind == "walls":
            raise NotIsolated(f"question {task.name}: {said.detail}")
        return limit(task, said.kind, said.detail)
    try:
        return judge(task, cases, said)
    except CourseError:  # we are wrong ourselves
        raise
    except UNTHOUGHT as error:
        return limit(task, "judging", f"{type(error).__name__}: {error}")
