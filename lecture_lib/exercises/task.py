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
from lecture_lib.sandbox.inside.answering import one, plain

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
        name: for counting.
        hint: what it is called, why it is wrong here, what to look at; never the answer.
        answer: the wrong function, called as a right one is.
    """

    name: str
    hint: str
    answer: Callable[..., Any]


class Task:
    """A question; made by ``question`` from the right answer, and completed by its methods.

    Attributes:
        name: lecture and number, "2.3".
        points: all or none.
        title: for tables.
        answer: what is right.
        tol: largest allowed difference, relative to 1 + the largest right number.
        edges: fixed cases.
        mistakes: known wrong answers, the commonest first.
        parts: names of what is compared, in order, where that is more than one thing.
    """

    def __init__(self, name: str, points: int, title: str, answer: Callable[..., Any], tol: float) -> None:
        self.name, self.points, self.title, self.answer, self.tol = name, points, title, answer, tol
        self.edges: list[Case] = []
        self.mistakes: list[Mistake] = []
        self.draw: Callable[[torch.Generator], Inputs] | None = None
        self.calling: Callable[..., Any] | None = None
        self.parts: tuple[str, ...] = ()

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """The right answer itself."""
        return self.answer(*args, **inputs)

    # How a question is written -------------------------------------------------------------------------------------

    def inputs(self, draw: Callable[[torch.Generator], Inputs]) -> Callable[[torch.Generator], Inputs]:
        """Decorator: how a random case is drawn; sizes random, all numbers different and none of them a default."""
        self.draw = draw
        return draw

    def edge(self, label: str, expected: Any, **inputs: Any) -> None:
        """Add a fixed case: an end point, or inputs whose answer is known in closed form."""
        self.edges.append(Case(inputs, label, expected))

    def mistake(self, wrong: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: a wrong answer; its docstring is the hint."""
        self.mistakes.append(Mistake(wrong.__name__, " ".join((wrong.__doc__ or "").split()), wrong))
        return wrong

    def stage(self, calling: Callable[..., Any]) -> Callable[..., Any]:
        """Use ``calling(answer, **inputs)``, a function of the lecture's ``stages`` module, to call answers."""
        self.calling = calling
        return calling

    def compares(self, *parts: str) -> None:
        """Name what an answer returns, or what its stage reads off it, so that a hint can say which part is wrong."""
        self.parts = parts

    # How it is used ------------------------------------------------------------------------------------------------

    @property
    def function(self) -> str:
        """What the student defines."""
        return self.answer.__name__

    def cases(self, seed: int) -> list[Case]:
        """The fixed cases, and ``DRAWS`` random ones of this seed."""
        generators = (torch.Generator().manual_seed(hash_of(self.name, seed, k)) for k in range(DRAWS))
        return [*self.edges, *(Case(self.draw(g)) for g in generators)]

    def outcome(self, answer: Callable[..., Any], case: Case) -> dict[str, Any]:
        """What ``answer`` makes of one case, as it would come out of the sandbox."""
        return one(self.calling or plainly, answer, as_arrays(case.inputs))

    def expected(self, case: Case) -> Any:
        """The right value of one case."""
        if case.expected is not None:
            return plain(case.expected)
        found = self.outcome(self.answer, case)
        if "error" in found:
            raise CourseError(f"question {self.name}: its own answer fails: {found['error']}: {found['message']}")
        return found["value"]

    @property
    def stage_source(self) -> tuple[str, str]:
        """Source and name of what calls an answer, for the sandbox."""
        if self.calling is None:
            return "", ""
        return inspect.getsource(inspect.getmodule(self.calling)), self.calling.__name__


def question(name: str, points: int, title: str, *, tol: float = 1e-4) -> Callable[[Callable[..., Any]], Task]:
    """Decorator: the function below is the right answer to question ``name``; its own name is what students define."""
    return lambda answer: Task(name, points, title, answer, tol)


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
