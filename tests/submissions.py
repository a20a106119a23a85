"""Submissions to mark: three questions of exercise 2, right answers to them, and notebooks made of cells."""

from __future__ import annotations

from pathlib import Path

import nbformat

from lecture_lib.exercises.catalogue import sheet
from lecture_lib.exercises.task import Sheet
from lecture_lib.grading.grade import grade
from lecture_lib.sandbox.box import Limits

GUIDANCE = sheet(2)
MINI = Sheet(2, "Guidance", "E2_guidance", GUIDANCE.tasks[:3])  # 5, 8 and 8 points
SHORT = Limits(seconds=5.0, memory=1 << 30)
RIGHT = {
    "guided": "def guided(uncond, cond, w):\n    return uncond + w * (cond - uncond)",
    "classifier_guided": "def classifier_guided(eps, grad_log_prob, sigma, scale):\n"
    "    return eps - scale * sigma[:, None] * grad_log_prob",
    "drop_labels": "def drop_labels(labels, null, p, u):\n"
    "    return torch.where(u < p, torch.full_like(labels, null), labels)",
}


def notebook(path: Path, cells: list[str]) -> Path:
    """Write one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    path.write_text(nbformat.writes(nb))
    return path


def cells(**other: str) -> list[str]:
    """A right submission, with some of its answers replaced."""
    return ["import torch\nfrom lecture_lib.exercises import check", *{**RIGHT, **other}.values(), 'check("2.1")']


def marks_of(tmp_path, students: dict[str, list[str]], **options):
    """The points of each student, and all that is said."""
    for student, source in students.items():
        notebook(tmp_path / "in" / student / "E2_guidance.ipynb", source)
    _, marks = grade(tmp_path / "in", tmp_path / "out", MINI, seed=3, limits=SHORT, **options)
    return {student: [m.points for m in row] for student, row in marks.items()}, marks
