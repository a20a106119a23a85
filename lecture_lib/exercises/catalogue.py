"""All exercises by number."""

from __future__ import annotations

from importlib import import_module

from lecture_lib.errors import UnknownNameError
from lecture_lib.exercises.task import Sheet, Task

LECTURES = (1, 2, 3, 4, 5)


def sheet(lecture: int) -> Sheet:
    """The exercise of a lecture, which alone is imported.

    Raises:
        UnknownNameError: there is none.
    """
    if lecture not in LECTURES:
        raise UnknownNameError(f"lecture: got {lecture}, expected one of {', '.join(map(str, LECTURES))}")
    return import_module(f"lecture_lib.exercises.lecture{lecture}").SHEET


def find(name: str) -> Task:
    """The question "LECTURE.NUMBER".

    Raises:
        UnknownNameError: there is none.
    """
    head = name.split(".")[0]
    if not head.isdecimal() or int(head) not in LECTURES:
        raise UnknownNameError(f"question: got {name!r}, expected a lecture and a number, such as '2.1'")
    tasks = sheet(int(head)).by_name
    if name not in tasks:
        raise UnknownNameError(f"question: got {name!r}, expected one of {', '.join(tasks)}")
    return tasks[name]
