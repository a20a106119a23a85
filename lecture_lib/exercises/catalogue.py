"""All exercises by number."""

from __future__ import annotations

from lecture_lib.errors import UnknownNameError
from lecture_lib.exercises.lecture2 import SHEET as GUIDANCE
from lecture_lib.exercises.lecture5 import SHEET as INTERPOLANTS
from lecture_lib.exercises.task import Sheet, Task

SHEETS: dict[int, Sheet] = {sheet.lecture: sheet for sheet in (GUIDANCE, INTERPOLANTS)}


def sheet(lecture: int) -> Sheet:
    """The exercise of a lecture.

    Raises:
        UnknownNameError: there is none.
    """
    if lecture not in SHEETS:
        raise UnknownNameError(f"lecture: got {lecture}, expected one of {', '.join(map(str, SHEETS))}")
    return SHEETS[lecture]


def find(name: str) -> Task:
    """The question "LECTURE.NUMBER".

    Raises:
        UnknownNameError: there is none.
    """
    head = name.split(".")[0]
    tasks = SHEETS[int(head)].by_name if head.isdecimal() and int(head) in SHEETS else {}
    if name not in tasks:
        known = ", ".join(tasks) or ", ".join(f"{k}.1" for k in SHEETS)
        raise UnknownNameError(f"question: got {name!r}, expected one of {known}")
    return tasks[name]
