"""``check("2.3")``: the answer that stands in the notebook, judged at once and in words."""

from __future__ import annotations

import dis
import inspect
import sys
from itertools import chain
from types import CodeType
from typing import Any

from lecture_lib.exercises.catalogue import find
from lecture_lib.exercises.judging import Verdict, judge
from lecture_lib.exercises.task import Task

SEED = 0
NAMING = ("LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME")  # instructions
TICK, CROSS = "\N{CHECK MARK}", "\N{BALLOT X}"


def check(name: str, *, seed: int = SEED) -> Verdict:
    """Judge the answer to question ``name`` that is defined where this is called, and print what there is to say.

    The verdict is true if the answer is right, so that ``assert check("2.3")`` works, too.

    Raises:
        UnknownNameError: there is no such question.
    """
    task, frame = find(name), sys._getframe(1)
    verdict = _verdict(task, {**frame.f_globals, **frame.f_locals}, seed)
    lines = [verdict.hint, verdict.numbers] if not verdict else []
    points = f": {task.points} points" if verdict else ""
    print(f"{CROSS if lines else TICK} {name} {task.title}{points}", *filter(None, lines), sep="\n  ")
    return verdict


def _verdict(task: Task, names: dict[str, Any], seed: int) -> Verdict:
    cases = task.cases(seed)
    if task.function not in names:
        return judge(task, cases, [{"error": "NothingHere"}] * len(cases))
    student = names[task.function]
    if borrowed := _borrowed(student):
        hint = f"It leans on {borrowed}: graded answers use torch, numpy, scipy and math alone, so write it out."
        return Verdict(task.name, False, hint, "form")
    return judge(task, cases, [task.outcome(student, case) for case in cases])


def _borrowed(student: Any) -> str:
    """A name from the course that an answer uses, directly or by a function beside it; "" if there is none."""
    seen, open_things = set(), [student]
    while open_things:
        thing = open_things.pop()
        module = getattr(thing, "__module__", None) or getattr(thing, "__name__", "")
        if isinstance(module, str) and module.split(".")[0] == "lecture_lib":
            return f"`{getattr(thing, '__qualname__', getattr(thing, '__name__', thing))}` of the course"
        parts = list(vars(thing).values()) if inspect.isclass(thing) else [thing]
        for code in filter(inspect.isfunction, parts):
            if id(code) not in seen:
                seen.add(id(code))
                names = _names(code.__code__)
                if imported := next((n for n in names if n.split(".")[0] == "lecture_lib"), ""):
                    return f"`{imported}`"
                open_things += [code.__globals__[n] for n in names if n in code.__globals__]
    return ""


def _names(code: CodeType) -> list[str]:
    """Globals and imported modules of a function, and of the functions and generators inside it; no attributes."""
    here = [str(step.argval) for step in dis.get_instructions(code) if step.opname in NAMING]
    inner = (_names(part) for part in code.co_consts if isinstance(part, CodeType))
    return [*here, *chain.from_iterable(inner)]
