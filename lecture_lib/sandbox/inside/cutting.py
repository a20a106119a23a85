"""Cuts a notebook down to what one answer needs, so that plots, downloads and long experiments are not run for a mark.

This file knows nothing of the course: it is read inside the sandbox.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

MAGIC = re.compile(r"^(\s*)[%!].*$", re.MULTILINE)
IMPORTS = (ast.Import, ast.ImportFrom)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class NothingHere(ValueError):
    """The notebook does not define the name that was asked for."""


def statements(cells: list[str]) -> Iterator[ast.stmt]:
    """The top-level statements of all cells that can be parsed; magics and shell lines are dropped."""
    for number, cell in enumerate(cells):
        if cell.lstrip().startswith("%%"):
            continue
        try:
            yield from ast.parse(MAGIC.sub(r"\1pass", cell), filename=f"cell {number + 1}").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue


def syntax_error(cells: list[str], name: str) -> str | None:
    """What is wrong in a cell that means to define ``name``; None if none does, or all can be read."""
    for cell in cells:
        if not re.search(rf"^\s*(def|class)\s+{re.escape(name)}\b", cell, re.MULTILINE):
            continue
        try:
            ast.parse(MAGIC.sub(r"\1pass", cell))
        except SyntaxError as error:
            line = (error.text or "").strip()[:80]
            return f"{error.msg}, line {error.lineno}: {line}"
        except (ValueError, RecursionError, MemoryError) as error:
            return type(error).__name__
    return None


def binds(node: ast.stmt) -> set[str]:
    """The names that a statement defines."""
    if isinstance(node, DEFINITIONS):
        return {node.name}
    if isinstance(node, IMPORTS):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}


def uses(node: ast.stmt) -> set[str]:
    """The names that a statement, or the body of what it defines, reads."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def slice_for(name: str, cells: list[str]) -> list[ast.stmt]:
    """All that ``name`` needs, directly or not, in the order of the notebook; imports first.

    Of what is defined twice the last counts, as it does in a notebook that is run from top to bottom; but a variable
    keeps all its statements, since one may build on the other.

    Raises:
        NothingHere: no statement defines the name.
    """
    nodes = list(statements(cells))
    makers: dict[str, list[int]] = {}
    for number, node in enumerate(nodes):
        for bound in binds(node):
            if isinstance(node, DEFINITIONS):
                makers[bound] = [number]
            else:
                makers.setdefault(bound, []).append(number)
    if name not in makers:
        raise NothingHere(name)
    needed, open_names, seen = set(), [name], set()
    while open_names:
        wanted = open_names.pop()
        if wanted in seen:
            continue
        seen.add(wanted)
        for number in makers.get(wanted, ()):
            if number not in needed:
                needed.add(number)
                open_names += uses(nodes[number])
    kept = [n for i, n in enumerate(nodes) if i in needed or _imports_all(n)]
    return [n for n in kept if isinstance(n, IMPORTS)] + [n for n in kept if not isinstance(n, IMPORTS)]


def _imports_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)


def run_slice(nodes: list[ast.stmt], namespace: dict) -> None:
    """Execute statements; one that needs a later one waits for it, so that the order of cells does not matter.

    Raises:
        Exception: whatever a statement raises that no order of statements cures.
    """
    waiting = nodes
    while waiting:
        still, first = [], None
        for node in waiting:
            try:
                exec(compile(ast.Module([node], []), "<submission>", "exec"), namespace)
            except NameError as error:
                still.append(node)
                first = first or error
        if len(still) == len(waiting):
            raise first
        waiting = still
