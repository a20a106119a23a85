"""What a run says to the instructor and to each student: CSV, JSON, a page per student, a page for the class.

A student's page has hints and no right numbers. Everything that comes from a submission is escaped.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template

from lecture_lib.exercises.task import Sheet
from lecture_lib.grading.grade import Mark

TEMPLATES = Path(__file__).parent / "pages"
FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\uff1d",
    "\uff0b",
    "\uff0d",
    "\uff20",
)  # some spreadsheets know the wide ones
NOT_ISOLATED = "NOT ISOLATED: these answers ran with the rights of whoever graded them."
MEANING = {
    "right": "right",
    "empty": "empty",
    "error": "raised an error",
    "known": "known mistake",
    "pattern": "wrong numbers",
    "form": "wrong kind of value",
    "limit": "did not come back",
    "unreadable": "no notebook",
}


def write(folder: Path, sheet: Sheet, head: dict, marks: dict[str, list[Mark]]) -> Path:
    """All reports of one exercise; returns the page of the class."""
    totals = {student: sum(mark.points for mark in row) for student, row in marks.items()}
    _table(folder / f"{sheet.notebook}.csv", sheet, marks, totals)
    record = {**head, "marks": {student: [asdict(mark) for mark in row] for student, row in marks.items()}}
    (folder / f"{sheet.notebook}.json").write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")
    pages = folder / "feedback" / sheet.notebook
    pages.mkdir(parents=True, exist_ok=True)
    for student, row in marks.items():
        (pages / f"{_file_name(student)}.html").write_text(student_page(sheet, head, student, row), encoding="utf-8")
    overview = folder / f"{sheet.notebook}.html"
    overview.write_text(class_page(sheet, head, marks, totals), encoding="utf-8")
    return overview


def _table(path: Path, sheet: Sheet, marks: dict[str, list[Mark]], totals: dict[str, int]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["student", "total", *(task.name for task in sheet.tasks)])
        for student, row in marks.items():
            writer.writerow([_harmless(student), totals[student], *(mark.points for mark in row)])


def _harmless(cell: str) -> str:
    """A name that a spreadsheet will not take for a formula."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def _file_name(student: str) -> str:
    """A name that stays in its folder, is not too long, and belongs to this student alone."""
    plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in student)[:60].strip(".")
    return plain if plain == student else f"{plain}-{hashlib.sha256(student.encode()).hexdigest()[:8]}"


def _warning(head: dict) -> str:
    return "" if head["isolated"] else f'<p class="warning">{NOT_ISOLATED}</p>'


def student_page(sheet: Sheet, head: dict, student: str, marks: list[Mark]) -> str:
    """One student's feedback."""
    rows = "\n".join(
        f'<tr class="{"right" if mark.points else "wrong"}"><td>{task.name}</td><td>{escape(task.title)}</td>'
        f"<td>{mark.points} / {mark.possible}</td><td>{escape(mark.hint) or 'right'}</td></tr>"
        for task, mark in zip(sheet.tasks, marks, strict=True)
    )
    return _page(
        "student.html", title=f"Exercise {sheet.lecture} · {escape(sheet.title)}", student=escape(student), rows=rows,
        total=sum(m.points for m in marks), of=sum(m.possible for m in marks), warning=_warning(head),
    )  # fmt: skip


def class_page(sheet: Sheet, head: dict, marks: dict[str, list[Mark]], totals: dict[str, int]) -> str:
    """The class at a glance: totals, the share of right answers per question, and what goes wrong most often."""
    n = len(marks)
    questions = "\n".join(
        _question_row(task.name, task.title, [row[k] for row in marks.values()]) for k, task in enumerate(sheet.tasks)
    )
    students = "\n".join(
        f'<tr><td><a href="feedback/{escape(sheet.notebook)}/{escape(_file_name(s))}.html">{escape(s)}</a></td>'
        f"<td>{totals[s]}</td><td>{_cells(row)}</td></tr>"
        for s, row in sorted(marks.items(), key=lambda item: -totals[item[0]])
    )
    bins = Counter(min(total // 10, 9) for total in totals.values())
    top = max(bins.values(), default=1)
    bars = "".join(
        f'<div><em>{bins[k] or ""}</em><i style="height:{6.4 * bins[k] / top:.2f}rem"></i><b>{10 * k}</b></div>'
        for k in range(10)
    )
    mean = sum(totals.values()) / max(n, 1)
    return _page(
        "class.html", title=f"Exercise {sheet.lecture} · {escape(sheet.title)}", n=n, mean=f"{mean:.1f}", bars=bars,
        questions=questions, students=students, seed=head["seed"], warning=_warning(head),
    )  # fmt: skip


def _question_row(name: str, title: str, marks: list[Mark]) -> str:
    right = sum(mark.points > 0 for mark in marks)
    share = 100 * right / max(len(marks), 1)
    wrong = Counter(MEANING[m.kind] + (f": {m.hint}" if m.kind == "known" else "") for m in marks if not m.points)
    common = "".join(f"<li>{count} × {escape(what)}</li>" for what, count in wrong.most_common(4))
    bar = f'<div class="bar"><i style="width:{share:.0f}%"></i></div>{right} of {len(marks)}'
    return f"<tr><td>{name}</td><td>{escape(title)}</td><td>{bar}</td><td><ul>{common}</ul></td></tr>"


def _cells(marks: list[Mark]) -> str:
    return "".join(
        f'<i class="{"right" if mark.points else "wrong"}" title="{mark.question}: {escape(MEANING[mark.kind])}"></i>'
        for mark in marks
    )


def _page(name: str, **parts: object) -> str:
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return Template((TEMPLATES / name).read_text(encoding="utf-8")).substitute(style=style, **parts)
