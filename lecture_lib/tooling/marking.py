"""``course grade``: progress on the screen, and the reports at the end."""

from __future__ import annotations

from pathlib import Path

from lecture_lib.exercises.catalogue import sheet
from lecture_lib.grading import report
from lecture_lib.grading.grade import grade


def mark(submissions: Path, out: Path, lecture: int, *, seed: int | None, jobs: int, isolated: bool) -> None:
    """Grade one exercise and write its reports."""
    from tqdm.auto import tqdm

    exercise = sheet(lecture)
    if not isolated:
        print(report.NOT_ISOLATED, flush=True)
    with tqdm(desc=exercise.notebook, unit="student") as bar:
        head, marks = grade(
            submissions, out, exercise, seed=seed, jobs=jobs, isolated=isolated, on_student=lambda _: bar.update()
        )
    totals = [sum(m.points for m in row) for row in marks.values()]
    overview = report.write(out, exercise, head, marks)
    print(
        f"{len(totals)} students, {sum(totals) / len(totals):.1f} points in the mean; seed {head['seed']}; {overview}"
    )
