"""Exercise 2: guidance."""

from __future__ import annotations

from lecture_lib.exercises.lecture2.meaning import composed, tilted_gaussian, tilted_table
from lecture_lib.exercises.lecture2.repairs import projected, rescaled, scale_in
from lecture_lib.exercises.lecture2.rule import classifier_guided, drop_labels, guided, guided_data
from lecture_lib.exercises.lecture2.sampling import expert_precision, guided_step
from lecture_lib.exercises.task import Sheet

SHEET = Sheet(
    2,
    "Guidance",
    "E2_guidance",
    (
        *(guided, classifier_guided, drop_labels, guided_data),
        *(tilted_gaussian, tilted_table, composed),
        *(rescaled, projected, scale_in),
        *(guided_step, expert_precision),
    ),
)
