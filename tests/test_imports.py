"""The plan of the house: a room imports only from the rooms to its left, and importing the package is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lecture_lib"
BASE = {"errors", "tensors"}
CORE = BASE | {"core"}
MODELS = CORE | {"oracles", "guidance", "samplers", "nets", "data", "metrics"}
# room -> rooms that it may import from, itself apart
ALLOWED = {
    "errors": set(),
    "files": set(),
    "tensors": {"errors"},
    "core": BASE,
    "oracles": CORE,
    "guidance": CORE,
    "samplers": CORE,
    "nets": BASE,
    "data": BASE,
    "metrics": BASE,
    "distill": CORE | {"oracles", "guidance", "samplers", "nets"},
    "training": MODELS | {"files"},
    "families": MODELS | {"distill", "training"},
    "zoo": MODELS | {"files", "distill", "families", "training"},
    "checks": CORE | {"oracles"},
    "viz": CORE | {"oracles"},
    "widgets": MODELS | {"files", "distill", "families", "training", "zoo", "viz", "checks"},
    "sandbox": {"errors"},
    "exercises": {"errors", "sandbox"},
    "grading": {"errors", "files", "sandbox", "exercises"},
    "tooling": {"errors", "files", "zoo", "benchmarks", "exercises", "grading"},
    "benchmarks": MODELS
    | {"distill", "families", "training", "zoo", "viz", "widgets", "checks", "tooling", "exercises", "grading"},
    "cli": {"errors", "tooling"},
}
LAZY = ("matplotlib", "ipywidgets", "scipy", "sklearn", "IPython", "torch")
ONLY_WIDGETS = "ipywidgets"
POSIX = {"fcntl", "grp", "pty", "pwd", "resource", "termios"}


def rooms() -> list[str]:
    """The rooms there are on disk."""
    files = [path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"]
    return sorted(files + [path.parent.name for path in PACKAGE.glob("*/__init__.py")])


def files_of(room: str) -> list[Path]:
    single = PACKAGE / f"{room}.py"
    return [single] if single.is_file() else sorted((PACKAGE / room).rglob("*.py"))


def imported(path: Path) -> list[str]:
    """Dotted names of everything that a file imports, wherever the statement stands (relative ones resolved)."""
    names = []
    package = ["lecture_lib", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


def rooms_imported(path: Path) -> set[str]:
    parts = [name.split(".") for name in imported(path)]
    return {part[1] for part in parts if part[0] == "lecture_lib" and len(part) > 1} & set(rooms())


@pytest.mark.parametrize("room", rooms())
def test_room_imports_only_to_its_left(room):
    assert room in ALLOWED, f"{room} is a new room: give it a place in this test, in ARCHITECTURE.md and in __init__.py"
    for path in files_of(room):
        wrong = rooms_imported(path) - ALLOWED[room] - {room}
        assert not wrong, (
            f"{path.relative_to(PACKAGE)} imports from {sorted(wrong)}; {room} may use {sorted(ALLOWED[room])}"
        )


def test_the_plan_has_no_cycles():
    below = {room: set(allowed) for room, allowed in ALLOWED.items() if room not in {"tooling", "benchmarks"}}
    while below:
        free = [room for room, allowed in below.items() if not allowed & set(below)]
        assert free, f"these rooms may import one another in a circle: {sorted(below)}"
        below = {room: allowed for room, allowed in below.items() if room not in free}


@pytest.mark.parametrize("room", [room for room in rooms() if room not in {"widgets", "benchmarks"}])
def test_only_widgets_imports_ipywidgets(room):
    for path in files_of(room):
        assert not any(name.split(".")[0] == ONLY_WIDGETS for name in imported(path)), path


def test_what_a_student_runs_imports_nothing_that_windows_lacks():
    # Marks are given on Linux; notebooks, `check` and the command are for every laptop.
    code = f"""
import builtins, sys
real = builtins.__import__
def without(name, *rest, **named):
    if name in {POSIX} and sys._getframe(1).f_globals.get("__name__", "").startswith("lecture_lib"):
        raise ModuleNotFoundError("No module named " + name)
    return real(name, *rest, **named)
builtins.__import__ = without
import lecture_lib.checks, lecture_lib.cli, lecture_lib.exercises.checking, lecture_lib.families, lecture_lib.widgets
import lecture_lib.tooling.execute, lecture_lib.tooling.server, lecture_lib.training, lecture_lib.viz, lecture_lib.zoo
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_relative_imports_are_resolved(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "a.py").write_text("from ..zoo import names\nfrom . import b\nfrom .c import d\n")
    assert imported(tmp_path / "core" / "a.py") == [
        "lecture_lib.zoo.names",
        "lecture_lib.core.b",
        "lecture_lib.core.c.d",
    ]


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return {name.split(".")[0] for name in out.split()}


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_after("import lecture_lib") & set(LAZY)


def test_the_command_line_starts_without_torch():
    assert not loaded_after("import lecture_lib.cli") & set(LAZY)


def test_the_rooms_of_every_notebook_load_no_plotting_and_no_science_stack():
    rooms = "import lecture_lib.core, lecture_lib.samplers, lecture_lib.guidance, lecture_lib.oracles, lecture_lib.nets"
    # torch itself may pull in some of them (it does not in 2.13): only what comes beyond it is ours.
    assert not (loaded_after(rooms) - loaded_after("import torch")) & (set(LAZY) - {"torch"})
