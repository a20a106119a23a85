"""From what an answer returned to a verdict that says why: the same words in a notebook and in a grader's report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lecture_lib.exercises.task import Case, Task

STUBS = ("", "yours")  # what a NotImplementedError says of an answer that is not written; PyTorch's say more
LONGEST = 60  # characters of the name of a type
TIGHT = 1e-4  # how closely a pattern must fit to be called one
NEARLY = 1e-3  # what is off by less is nobody's sign or factor


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and if not, what it says about itself.

    Attributes:
        task: name of the question.
        passed: all cases are right.
        hint: what is wrong, in words without a number of the answer; "" if nothing is.
        kind: for counting: "right", "empty", "error", "known", "pattern", "form", "limit".
        name: of the known mistake, for counting.
        numbers: for the student's own screen: where the first wrong number stands and what it was.
    """

    task: str
    passed: bool
    hint: str
    kind: str
    name: str = ""
    numbers: str = ""

    def __bool__(self) -> bool:
        return self.passed

    def _ipython_display_(self) -> None:
        """Show nothing below a cell that ends in ``check(...)``, which has printed what there is to say."""


def judge(task: Task, cases: list[Case], outcomes: list[dict[str, Any]]) -> Verdict:
    """Compare the outcomes of all cases with the right ones."""
    if len(outcomes) != len(cases):
        return Verdict(task.name, False, "Your answer did not return once for each call.", "form")
    for case, outcome in zip(cases, outcomes, strict=True):
        if "error" in outcome:
            known = _known(task, cases, outcomes) if _is_written(outcome) else None
            return _of_error(task, case, outcome) if known is None else known
    right = [task.expected(case) for case in cases]
    for case, outcome, wanted in zip(cases, outcomes, right, strict=True):
        if problem := _form(outcome.get("value"), wanted):
            known = _known(task, cases, outcomes)  # a verdict on a wrong answer is false: ask for None
            return Verdict(task.name, False, problem + _at(case), "form") if known is None else known
    close = [_close(o["value"], wanted, task.tol) for o, wanted in zip(outcomes, right, strict=True)]
    if all(close):
        return Verdict(task.name, True, "", "right")
    verdict = _known(task, cases, outcomes)
    if verdict is None:
        verdict = Verdict(task.name, False, _in_words(task, cases, outcomes, right, close), "pattern")
    return replace(verdict, numbers=_numbers(task, outcomes, right, close))


def limit(task: Task, kind: str, detail: str) -> Verdict:
    """The verdict on an answer that did not come back."""
    words = {
        "time": f"Your answer did not finish within {detail}: is there a loop without an end?",
        "memory": "Your answer needs more memory than it may use: is there a tensor of the wrong size?",
        "size": "Your answer returns far more numbers than were asked for, or something that is no number.",
        "request": "The code of your notebook is too large to be run: is there data in a cell?",
        "silent": "Your answer ended the process before it returned.",
        "reply": "Your answer wrote something else where its value belongs.",
        "judging": f"What your answer returns could not be judged ({detail}): show it to your instructor.",
    }
    return Verdict(task.name, False, words.get(kind, f"Your answer could not be run: {detail}"), "limit")


# Errors and form -----------------------------------------------------------------------------------------------------


def _is_written(outcome: dict[str, Any]) -> bool:
    """Whether an error is that of an answer, and not that there is none."""
    stub = outcome["error"] == "NotImplementedError" and outcome.get("message", "") in STUBS
    return not stub and outcome["error"] not in ("NothingHere", "SyntaxError")


def _of_error(task: Task, case: Case, outcome: dict[str, Any]) -> Verdict:
    kind, message, line = outcome["error"], outcome.get("message", ""), outcome.get("line", 0)
    if kind == "SyntaxError":
        return Verdict(
            task.name, False, f"Python cannot read the cell that defines `{task.function}`: {message}", "error"
        )
    if not _is_written(outcome):
        what, where = (
            ("is not defined yet", "") if kind == "NothingHere" else ("is still empty", ", where `raise` stands")
        )
        hint = f"`{task.function}` {what}: write it in the cell of question {task.name}{where}."
        return Verdict(task.name, False, hint, "empty")
    where = f" in line {line} of its cell" if line else ""
    said = f"`{task.function}` raised {kind}{where}: {message}{_at(case)}"
    if kind == "TypeError" and f"{task.function}() " in message and "unexpected keyword argument" in message:
        said += " Its parameters have to keep the names that they have in the cell you were given."
    return Verdict(task.name, False, said, "error")


def _form(got: Any, wanted: Any) -> str:
    """What is wrong with the kind of a value; "" if it is of the right kind."""
    if isinstance(wanted, list):
        if not isinstance(got, list) or len(got) != len(wanted):
            have = f"{len(got)} things" if isinstance(got, list) else "one thing"
            return f"It returns {have}, expected {len(wanted)}, one after the other: `return a, b`."
        problems = ((k, _form(a, b)) for k, (a, b) in enumerate(zip(got, wanted, strict=True), start=1))
        return next((f"{problem} (Number {k} of {len(got)}.)" for k, problem in problems if problem), "")
    if isinstance(got, dict):
        return f"It returns a {str(got.get('type'))[:LONGEST]}, expected a tensor."
    if got is None:
        return "It returns None: is there a `return`?"
    if isinstance(got, list):
        have = f"{len(got)} thing{'s' if len(got) != 1 else ''} in a list or tuple"
        return f"It returns {have}, expected one tensor or number: a list of numbers has to become a tensor."
    a, b = np.asarray(got), np.asarray(wanted)
    if a.dtype.kind not in "fiub":
        return f"It returns numbers of type {a.dtype}, expected real ones."
    if b.dtype.kind == "f" and a.dtype.kind != "f" and a.size:
        return f"It returns {a.dtype} numbers, expected floating point: is something rounded or compared?"
    if a.shape != b.shape:
        turned = " (they are each other's transpose)" if a.shape == b.shape[::-1] else ""
        return f"It returns the shape {a.shape}, expected {b.shape}{turned}."
    if not np.isfinite(a).all():
        return "It returns NaN or infinity: look for a division by zero, a root or a logarithm of a negative number."
    return ""


def _at(case: Case) -> str:
    return f" (At: {case.label}.)" if case.label else ""


# Known mistakes and patterns -----------------------------------------------------------------------------------------


def _flat(value: Any) -> np.ndarray:
    if isinstance(value, list):
        return np.concatenate([_flat(v) for v in value]) if value else np.zeros(0)
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"no real numbers: {array.dtype}")
    return array.astype(float).ravel()


def _close(got: Any, wanted: Any, tol: float) -> bool:
    """Whether a value is right; of several, each by its own scale."""
    if _form(got, wanted):
        return False
    if isinstance(wanted, list):
        return all(_close(a, b, tol) for a, b in zip(got, wanted, strict=True))
    a, b = _flat(got), _flat(wanted)
    return bool(np.abs(a - b).max(initial=0.0) <= tol * (1 + np.abs(b).max(initial=0.0)))


def _known(task: Task, cases: list[Case], outcomes: list[dict[str, Any]]) -> Verdict | None:
    """The verdict of the first mistake that does what was done, in every case."""
    for mistake in task.mistakes:
        if all(
            _same(said, task.outcome(mistake.answer, case), task.tol)
            for said, case in zip(outcomes, cases, strict=True)
        ):
            return Verdict(task.name, False, mistake.hint, "known", mistake.name)
    return None


def _same(said: dict[str, Any], wrong: dict[str, Any], tol: float) -> bool:
    """Whether two outcomes agree: the same kind of error, or the same value."""
    if "error" in said or "error" in wrong:
        return said.get("error") == wrong.get("error")
    return _same_value(said["value"], wrong["value"], tol)


def _same_value(got: Any, wrong: Any, tol: float) -> bool:
    """Whether two values agree in kind and number, NaN for NaN."""
    if isinstance(wrong, list) or isinstance(got, list):
        both = isinstance(wrong, list) and isinstance(got, list) and len(wrong) == len(got)
        return both and all(_same_value(a, b, tol) for a, b in zip(got, wrong, strict=True))
    if np.shape(got) != np.shape(wrong):
        return False
    try:
        a, b = _flat(got), _flat(wrong)
    except (TypeError, ValueError):
        return False
    scale = 1 + np.abs(b[np.isfinite(b)]).max(initial=0.0)
    return bool(np.allclose(a, b, rtol=0, atol=tol * scale, equal_nan=True))


def _in_words(
    task: Task, cases: list[Case], outcomes: list[dict[str, Any]], right: list[Any], close: list[bool]
) -> str:
    """What can be said of numbers that are wrong in an unknown way: which, how, and where."""
    got, said = [outcome["value"] for outcome in outcomes], ""
    if task.parts:
        ok = [
            all(_close(g[k], r[k], task.tol) for g, r in zip(got, right, strict=True)) for k in range(len(task.parts))
        ]
        fine, wrong = ([k for k, good in enumerate(ok) if good == value] for value in (True, False))
        got, right = ([[value[k] for k in wrong] for value in values] for values in (got, right))
        said = f"Right: {_listed(task, fine)}. Not right: {_listed(task, wrong)}. " if fine else ""
    return said + _pattern(got, right, close) + _labels(cases, close)


def _listed(task: Task, parts: list[int]) -> str:
    return ", ".join(task.parts[k] for k in parts)


def _pattern(got: list[Any], right: list[Any], close: list[bool]) -> str:
    """In which way wrong numbers are wrong, if they are so in one way throughout."""
    pairs = [(_flat(g), _flat(r)) for g, r, ok in zip(got, right, close, strict=True) if not ok]
    return next(
        _patterns(pairs), "The numbers are not those of the formula, in no simple way: check one term after the other."
    )


def _patterns(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[str]:
    def all_fit(change) -> bool:
        return all(np.allclose(a, change(b), rtol=TIGHT, atol=TIGHT * (1 + np.abs(b).max(initial=0))) for a, b in pairs)

    varied = any(np.ptp(b) > 0 for _, b in pairs)  # one number is always another one times, or plus, something
    with np.errstate(all="ignore"):
        if all(not a.any() for a, _ in pairs):
            yield "It is 0 everywhere: is something stopped, or multiplied by 0?"
        if all(np.ptp(a) == 0 and np.ptp(b) > 0 for a, b in pairs):
            yield "All numbers of a call are the same: does it use all of its inputs?"
        if all(np.abs(a - b).max(initial=0) <= NEARLY * np.abs(b).max(initial=0) for a, b in pairs):
            yield "The numbers are nearly right: is something rounded, or a small constant off?"
        if all_fit(lambda b: -b):
            yield "Every number has the wrong sign."
        factors = [a @ b / (b @ b) if b @ b else 1.0 for a, b in pairs]
        scaled = all(_scaled(a, b, f) for (a, b), f in zip(pairs, factors, strict=True))
        alike = max(factors) - min(factors) < TIGHT * (1 + abs(factors[0]))
        if scaled and alike and (varied or len(pairs) > 1):
            yield f"Every number is {factors[0]:.5g} times what it should be."
        if scaled and varied:
            yield "All numbers of a call are wrong by one factor, which differs from call to call: a scale is missing."
        if all_fit(np.square):
            yield "Every number is the square of what it should be: a variance for a standard deviation?"
        if all_fit(lambda b: np.sqrt(np.abs(b)) * np.sign(b)):
            yield "Every number is the square root of what it should be: a standard deviation for a variance?"
        if all_fit(lambda b: 1 / b):
            yield "Every number is one over what it should be."
        if all_fit(lambda b: b[::-1]):
            yield "The numbers are right and in reverse order: what comes first?"
        if all_fit(lambda b: 1 - b):
            yield "Every number is one minus what it should be."
        offsets = [(a - b).mean() if a.size else 0.0 for a, b in pairs]
        if varied and all(
            np.allclose(a - b, o, atol=TIGHT * (1 + abs(o))) for (a, b), o in zip(pairs, offsets, strict=True)
        ):
            yield "All numbers of a call are wrong by the same amount: a constant term is missing or too many."
        if all(np.allclose(np.sort(a), np.sort(b), rtol=TIGHT, atol=TIGHT) for a, b in pairs):
            yield "The numbers are right, in the wrong order: of axes, of samples, or of what is returned?"


def _scaled(a: np.ndarray, b: np.ndarray, factor: float) -> bool:
    """Whether a factor is the whole difference: what it leaves is nothing, also beside the difference and ``a``."""
    left, off, size = (np.abs(x).max(initial=0.0) for x in (a - factor * b, a - b, a))
    return bool(left <= min(TIGHT * (1 + size), 0.01 * off, 0.01 * size))


def _labels(cases: list[Case], close: list[bool]) -> str:
    """Which of the fixed cases hold and which do not."""
    good = [case.label for case, ok in zip(cases, close, strict=True) if ok and case.label]
    bad = [case.label for case, ok in zip(cases, close, strict=True) if not ok and case.label]
    said = [
        f" {what}: {'; '.join(labels)}."
        for what, labels in (("What does not hold", bad), ("What does", good))
        if labels
    ]
    return "".join(said)


def _numbers(task: Task, outcomes: list[dict[str, Any]], right: list[Any], close: list[bool]) -> str:
    """The worst number of the first wrong case, or of the first wrong part of it."""
    k = close.index(False)
    got, wanted, where = outcomes[k]["value"], right[k], ""
    if task.parts:
        part = next(i for i, (g, r) in enumerate(zip(got, wanted, strict=True)) if not _close(g, r, task.tol))
        got, wanted, where = got[part], wanted[part], f"{task.parts[part]}, "
    a, b = _flat(got), _flat(wanted)
    if a.shape != b.shape:
        return ""
    worst = int(np.abs(a - b).argmax())
    return f"For instance, {where}number {worst + 1} of {len(b)}: yours {a[worst]:.6g}, right {b[worst]:.6g}."
