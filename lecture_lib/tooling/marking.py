"""``course grade``: progress on the screen, and at the end the reports and the gradebook."""

from __future__ import annotations

from pathlib import Path

from lecture_lib.exercises.catalogue import sheet
from lecture_lib.grading import gradebook, report
from lecture_lib.grading.grade import grade


def mark(
    submissions: Path, out: Path, lecture: int, *, seed: int | None, jobs: int, isolated: bool, book: Path | None
) -> None:
    """Grade one exercise and write its reports and, if there is to be one, nbgrader's gradebook."""
    from tqdm.auto import tqdm

    exercise = sheet(lecture)
    if book:
        gradebook.prepare(book, exercise)
    if not isolated:
        print(report.NOT_ISOLATED, flush=True)
    with tqdm(desc=exercise.notebook, unit="student") as bar:
        head, marks = grade(
            submissions, out, exercise, seed=seed, jobs=jobs, isolated=isolated,
            hidden=(book,) if book else (), on_student=lambda _: bar.update(),
        )  # fmt: skip
    totals = [sum(m.points for m in row) for row in marks.values()]
    overview = report.write(out, exercise, head, marks)
    print(
        f"{len(totals)} students, {sum(totals) / len(totals):.1f} points in the mean; seed {head['seed']}; {overview}"
    )
    if book:
        name = gradebook.record(book, exercise, marks, isolated=isolated)
        print(f"{book} has these marks as assignment {name}")
