"""One question of an exercise: how an answer is called, what it must return, and what known wrong answers say."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lecture_lib.errors import CourseError
from lecture_lib.grading.inside.answering import one

Inputs = dict[str, Any]
DRAWS = 3  # random cases beside the fixed ones


@dataclass(frozen=True)
class Case:
    """Inputs of one call.

    Attributes:
        inputs: by name.
        label: for a fixed case, what must hold there, in words that do not give the answer away; "" for a random one.
        expected: a closed form; default what the task's own answer says.
    """

    inputs: Inputs
    label: str = ""
    expected: Any = None


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people give.

    Attributes:
        hint: what it is called, why it is wrong here, what to look at; never the answer.
        answer: the wrong function, called as a right one is.
    """

    hint: str
    answer: Callable[..., Any]


@dataclass(frozen=True)
class Task:
    """A question.

    Attributes:
        name: lecture and number, "2.3".
        function: what the student defines.
        points: all or none.
        title: for tables.
        answer: what is right; the course's own function where it has one.
        draw: generator -> inputs; sizes random, all numbers different and none of them a default.
        edges: fixed cases.
        mistakes: known wrong answers, the commonest first.
        stage: a function of the lecture's ``stages`` module that calls an answer with the inputs; None calls it plainly.
        tol: largest allowed difference, relative to 1 + the largest right number.
    """

    name: str
    function: str
    points: int
    title: str
    answer: Callable[..., Any]
    draw: Callable[[torch.Generator], Inputs]
    edges: tuple[Case, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    stage: Callable[..., Any] | None = None
    tol: float = 1e-4

    def cases(self, seed: int) -> list[Case]:
        """The fixed cases, and ``DRAWS`` random ones of this seed."""
        generators = (torch.Generator().manual_seed(hash_of(self.name, seed, k)) for k in range(DRAWS))
        return [*self.edges, *(Case(self.draw(g)) for g in generators)]

    def outcome(self, answer: Callable[..., Any], case: Case) -> dict[str, Any]:
        """What ``answer`` makes of one case, as it would come out of the sandbox."""
        return one(self.stage or plainly, answer, as_arrays(case.inputs))

    def expected(self, case: Case) -> Any:
        """The right value of one case."""
        if case.expected is not None:
            return one(plainly, lambda: case.expected, {})["value"]
        found = self.outcome(self.answer, case)
        if "error" in found:
            raise CourseError(f"task {self.name}: its own answer fails: {found['error']}: {found['message']}")
        return found["value"]

    @property
    def stage_source(self) -> tuple[str, str]:
        """Source and name of the stage, for the sandbox."""
        if self.stage is None:
            return "", ""
        return inspect.getsource(inspect.getmodule(self.stage)), self.stage.__name__


@dataclass(frozen=True)
class Sheet:
    """The exercise of one lecture.

    Attributes:
        lecture: 1 to 5.
        title: of the lecture.
        notebook: stem of its notebooks in ``solutions/`` and ``exercises/``.
        tasks: in order; their points add up to 100.
    """

    lecture: int
    title: str
    notebook: str
    tasks: tuple[Task, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Task]:
        return {task.name: task for task in self.tasks}


def plainly(answer: Callable[..., Any], **inputs: Any) -> Any:
    """The stage of a task that needs none."""
    return answer(**inputs)


def as_arrays(inputs: Inputs) -> Inputs:
    """Tensors as arrays, as they travel to the sandbox."""
    return {k: v.numpy() if isinstance(v, Tensor) else v for k, v in inputs.items()}


def hash_of(*parts: Any) -> int:
    """A seed that depends on all parts, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")
