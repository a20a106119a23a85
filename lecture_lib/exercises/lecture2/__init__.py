"""Exercise 2: guidance."""

from __future__ import annotations

from lecture_lib.exercises.lecture2.meaning import COMPOSED, TABLE, TILTED
from lecture_lib.exercises.lecture2.repairs import INTERVAL, PROJECTED, RESCALED
from lecture_lib.exercises.lecture2.rule import CLASSIFIER, DROPOUT, RULE, TOLD
from lecture_lib.exercises.lecture2.sampling import EXPERTS, STEP
from lecture_lib.exercises.task import Sheet

SHEET = Sheet(
    2, "Guidance", "E2_guidance",
    (RULE, CLASSIFIER, DROPOUT, TOLD, TILTED, TABLE, COMPOSED, RESCALED, PROJECTED, INTERVAL, STEP, EXPERTS),
)  # fmt: skip
