"""Cuts a notebook down to what one answer needs, so that plots, downloads and long experiments are not run for a mark.

What is left does what it did in the notebook: a cell that fails there stops no other one, here neither.

This file knows nothing of the course: it is read inside the sandbox.
"""

from __future__ import annotations
import __future__

import ast
import linecache
import re
import symtable
from collections.abc import Iterator
from typing import NamedTuple

# What IPython understands and Python does not: %magic, !shell, help? and names = !shell
ASIDE = re.compile(r"\s*[%!?]|[\s\w.%*]+\?{1,2}\s*$|[\w\s.,\[\]]+=\s*[%!]")
RUNS_ITS_CELL = re.compile(r"\s*%%(time|capture|prun)\b")
IMPORTS = (ast.Import, ast.ImportFrom)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
SCOPES = (*DEFINITIONS, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FILE = "<submission"  # how the file name of every cell starts


class NothingHere(ValueError):
    """The notebook does not define the name that was asked for."""


class Statement(NamedTuple):
    """A top-level statement, and the name under which ``linecache`` has its cell."""

    node: ast.stmt
    file: str


# Cells ---------------------------------------------------------------------------------------------------------------


def parsed(cell: str) -> ast.Module:
    """A cell without the lines that only a notebook understands; their numbers stay.

    Such a line is looked for where Python stumbles, and nowhere else: in a text or a long formula a line may well begin
    with a percent sign.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: Python cannot read it.
    """
    if cell.lstrip().startswith("%%") and not RUNS_ITS_CELL.match(cell):
        return ast.Module([], [])
    indent = re.match(r"[ \t]*", cell.lstrip("\r\n")).group()  # a cell may be indented as a whole
    lines = [line.removeprefix(indent) for line in re.split(r"\r\n|\r|\n", cell)]
    while True:
        try:
            return ast.parse("\n".join(lines))
        except SyntaxError as error:
            at = (error.lineno or 0) - 1
            if not 0 <= at < len(lines) or not ASIDE.match(lines[at]):
                raise
            _set_aside(lines, at)


def _set_aside(lines: list[str], at: int) -> None:
    """A line, and those on which it goes on."""
    longer = lines[at].endswith("\\")
    lines[at] = lines[at][: len(lines[at]) - len(lines[at].lstrip())] + "pass"
    while longer and (at := at + 1) < len(lines):
        longer, lines[at] = lines[at].endswith("\\"), ""


def statements(cells: list[str]) -> Iterator[Statement]:
    """The top-level statements of all cells that can be parsed."""
    for number, cell in enumerate(cells):
        file = f"{FILE} {number + 1}>"
        linecache.cache[file] = len(cell), None, cell.splitlines(keepends=True), file  # for what reads its own source
        try:
            yield from (Statement(node, file) for node in parsed(cell).body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue


def syntax_error(cells: list[str], name: str) -> str | None:
    """What is wrong in a cell that means to define ``name``; None if none does, or all can be read."""
    for cell in cells:
        if not re.search(rf"^\s*(def|class)\s+{re.escape(name)}\b", cell, re.MULTILINE):
            continue
        try:
            parsed(cell)
        except SyntaxError as error:
            line = (error.text or "").strip()[:80]
            return f"{error.msg}, line {error.lineno}: {line}"
        except (ValueError, RecursionError, MemoryError) as error:
            return type(error).__name__
    return None


# Names ---------------------------------------------------------------------------------------------------------------


def binds(node: ast.stmt) -> set[str]:
    """The names that a statement defines, or whose content it changes."""
    found = set()
    for part in _run_at_once(node):
        if isinstance(part, DEFINITIONS):
            found.add(part.name)
        elif isinstance(part, IMPORTS):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in part.names}
        elif isinstance(part, (ast.Name, ast.Subscript, ast.Attribute)) and isinstance(part.ctx, ast.Store):
            found |= _root(part)
        elif isinstance(part, ast.Expr) and isinstance(part.value, ast.Call):  # table.append(3), not show(table)
            found |= _root(part.value.func) if isinstance(part.value.func, ast.Attribute) else set()
    return found


def _run_at_once(node: ast.AST) -> Iterator[ast.AST]:
    """A statement's parts without what belongs to a function or a comprehension alone."""
    waiting = [node]
    while waiting:
        yield (part := waiting.pop())
        if not isinstance(part, SCOPES):
            waiting += ast.iter_child_nodes(part)


def _root(target: ast.expr) -> set[str]:
    """``table`` for table.rows[3]."""
    while isinstance(target, (ast.Subscript, ast.Attribute)):
        target = target.value
    return {target.id} if isinstance(target, ast.Name) else set()


def uses(node: ast.stmt) -> set[str]:
    """The names of the notebook that a statement, or the body of what it defines, reads; what is local is not one."""
    found, tables = set(), [symtable.symtable(ast.unparse(node), FILE, "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        outermost = table.get_type() == "module"
        found |= {s.get_name() for s in table.get_symbols() if (s.is_referenced() if outermost else s.is_global())}
    return found


# The slice -----------------------------------------------------------------------------------------------------------


def slice_for(name: str, cells: list[str]) -> list[Statement]:
    """All that ``name`` needs, directly or not, in the order of the notebook; imports first.

    Of what is defined twice the last counts, as it does in a notebook that is run from top to bottom; but a variable
    keeps all its statements, since one may build on the other.

    Raises:
        NothingHere: no statement defines the name.
    """
    found = list(statements(cells))
    imported = {bound for s in found if isinstance(s.node, IMPORTS) for bound in binds(s.node)}
    makers: dict[str, list[int]] = {}
    for number, (node, _) in enumerate(found):
        for bound in binds(node):
            if isinstance(node, DEFINITIONS):
                makers[bound] = [number]
            elif isinstance(node, IMPORTS) or bound not in imported:  # np.random.seed(0) does not make np
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
                open_names += uses(found[number].node)
    unknown = seen - makers.keys()  # which may be a builtin, or may hide one: numpy has a sum, too
    kept = [s for i, s in enumerate(found) if i in needed or (unknown and _imports_all(s.node))]
    return [s for s in kept if isinstance(s.node, IMPORTS)] + [s for s in kept if not isinstance(s.node, IMPORTS)]


def _imports_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)


def run_slice(pieces: list[Statement], namespace: dict) -> dict[str, Exception]:
    """Execute statements; one that needs a later one waits for it, so that the order of cells does not matter.

    Returns:
        For each name that a statement should have defined what it raised instead, and no order of statements cures;
        the others were executed all the same.
    """
    failed: dict[str, Exception] = {}
    waiting = pieces
    while waiting:
        still, missed = [], {}
        for piece in waiting:
            try:
                module = ast.Module([piece.node], [])
                exec(compile(module, piece.file, "exec", __future__.annotations.compiler_flag), namespace)
            except NameError as error:
                still.append(piece)
                missed |= dict.fromkeys(binds(piece.node), error)
            except Exception as error:  # noqa: BLE001  (a student's code may raise anything)
                failed |= dict.fromkeys(binds(piece.node), error)
        if len(still) == len(waiting):
            return missed | failed
        waiting = still
    return failed
