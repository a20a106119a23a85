"""Runs one answer on its inputs, inside the sandbox, and turns whatever happens into a value for ``wire``."""

from __future__ import annotations

import sys
import traceback
import types
from importlib.abc import MetaPathFinder
from typing import Any

import numpy as np
import torch

from . import wire
from .cutting import FILE, NothingHere, run_slice, slice_for, syntax_error


class Forbidden(MetaPathFinder):
    """Refuses packages that hold answers."""

    def __init__(self, names: list[str]) -> None:
        self.names = set(names)

    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] in self.names:
            raise ImportError(f"{fullname}: graded answers do without it; torch, numpy, scipy and math are there")


def forbid(names: list[str]) -> None:
    """From now on, importing any of these raises an ImportError that says so."""
    sys.meta_path.insert(0, Forbidden(names))


def frame(request: dict) -> bytes:
    """The reply to one request."""
    try:
        return wire.pack({"outcomes": outcomes(request)})
    except wire.WireError as error:
        return wire.pack({"failed": "size", "detail": str(error)[: wire.MESSAGE]})


def outcomes(request: dict) -> list[dict]:
    """One outcome per call: a value or an error."""
    name, cells, calls = request["name"], request["cells"], request["calls"]
    namespace = notebook()
    try:
        failed = run_slice(slice_for(name, cells), namespace)
    except NothingHere:
        failed = {}
    except BaseException as error:  # noqa: BLE001  (a student's code may raise anything, SystemExit too)
        return [told(error)] * len(calls)
    if name not in namespace:
        return [unwritten(name, cells, failed)] * len(calls)
    stage = stage_of(request["stage"], request["call"])
    return [traced(one(stage, namespace[name], inputs), failed) for inputs in calls]


def unwritten(name: str, cells: list[str], failed: dict[str, Exception]) -> dict:
    """Why there is no answer of this name."""
    if failed:
        return traced(told(failed.get(name) or next(iter(failed.values()))), failed)
    problem = syntax_error(cells, name)
    return {"error": "SyntaxError", "message": problem[: wire.MESSAGE]} if problem else {"error": "NothingHere"}


def traced(outcome: dict, failed: dict[str, Exception]) -> dict:
    """An outcome; if a name was missing, what should have defined it and failed says more."""
    if failed and outcome.get("error") == "NameError":
        causes = (error for name, error in failed.items() if f"'{name}'" in outcome["message"])
        cause = next(causes, failed.get("*"))
        return told(cause) if cause else outcome
    return outcome


def notebook() -> dict[str, Any]:
    """The names of a notebook in which no cell has been run: those of ``__main__``, with what IPython adds."""
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.display = lambda *things, **options: None
    return vars(module)


def stage_of(source: str, name: str):
    """How an answer is called: a function of a file of stages, or simply with its inputs."""
    if not name:
        return lambda answer, **inputs: answer(**inputs)
    namespace: dict[str, Any] = {"__name__": "stage"}
    exec(compile(source, "<stage>", "exec"), namespace)
    return namespace[name]


def one(stage, student, inputs: dict) -> dict:
    """The value of one call."""
    try:
        given = {k: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for k, v in inputs.items()}
        return {"value": plain(stage(student, **given))}
    except BaseException as error:  # noqa: BLE001
        return told(error)


def plain(value: Any) -> Any:
    """A tensor, an array, a number, or a list of these as data; anything else by the name of its type."""
    if isinstance(value, torch.Tensor):
        value = value.float() if value.dtype == torch.bfloat16 else value  # NumPy has none
        return np.array(value.detach().cpu().resolve_conj().resolve_neg().numpy())
    if type(value) is np.ndarray or isinstance(value, np.generic):
        return np.array(value)
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(x) for x in value[:64]]
    return {"type": type(value).__name__[: wire.NAME]}


def told(error: BaseException) -> dict:
    """An exception as data, with the line of the submission in which it was raised."""
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(FILE)]
    try:
        message = str(error)[: wire.MESSAGE]
    except BaseException:  # noqa: BLE001
        message = ""
    return {"error": type(error).__name__[: wire.NAME], "message": message, "line": lines[-1].lineno if lines else 0}
