"""House style that a linter does not know: sizes, docstrings, and where randomness may come from."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "lecture_lib"
FILES = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(text) for name, text in FILES.items()}
LONGEST_FILE = 350
LONGEST_FUNCTION = 40
LONGEST_INIT = 60
MEDIAN_FUNCTION = 8
PLAIN_METHOD = 3  # lines up to which a method may go without a docstring
GLOBAL_SEEDS = {"torch.manual_seed", "torch.seed", "np.random.seed", "numpy.random.seed", "random.seed"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def nodes(kind: type | tuple):
    """Pairs of (file, node) for all nodes of a kind in the package."""
    return [(name, node) for name, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, kind)]


def code_lines(function: ast.FunctionDef) -> int:
    """Lines of the body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None and len(function.body) > 1 else function.body
    return body[-1].end_lineno - body[0].lineno + 1


def public():
    """Pairs of (file, node) for what needs a docstring: public functions, classes, and methods that do something."""
    for name, tree in TREES.items():
        if any(part.startswith("_") and part != "__init__.py" for part in Path(name).parts):
            continue
        for node in tree.body:
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_") and not is_question(node):
                yield name, node
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not node.bases:
                for item in node.body:
                    if isinstance(item, Function) and item.name[0] != "_" and code_lines(item) > PLAIN_METHOD:
                        yield name, item


def is_question(node: Function | ast.ClassDef) -> bool:
    """The right answer to an exercise, whose ``question`` stands above it and says what it is."""
    return any(ast.unparse(decorator).startswith("question(") for decorator in node.decorator_list)


def test_files_are_short():
    long = {name: lines for name, text in FILES.items() if (lines := len(text.splitlines())) > LONGEST_FILE}
    assert not long


def test_files_say_what_they_are():
    silent = [name for name, tree in TREES.items() if not ast.get_docstring(tree)]
    assert not silent


def test_functions_fit_on_a_screen():
    most = {True: LONGEST_INIT, False: LONGEST_FUNCTION}
    long = [
        f"{name}: {node.name} has {code_lines(node)} lines"
        for name, node in nodes(Function)
        if code_lines(node) > most[node.name == "__init__"]
    ]
    assert not long


def test_the_median_function_is_small():
    assert statistics.median(code_lines(node) for _, node in nodes(Function)) <= MEDIAN_FUNCTION


def test_what_is_public_has_a_docstring():
    missing = [f"{name}: {node.name}" for name, node in public() if not ast.get_docstring(node)]
    assert not missing


def test_randomness_comes_only_through_generators():
    """Global seeds change what the caller's own code draws next."""
    calls = [(name, ast.unparse(node.func), node.lineno) for name, node in nodes(ast.Call)]
    assert not [call for call in calls if call[1] in GLOBAL_SEEDS]


def test_no_error_is_swallowed_whole():
    """Except where whatever a student's code raises is the result, and where everything is undone and raised again."""
    broad = [
        f"{name}:{node.lineno}"
        for name, node in nodes(ast.ExceptHandler)
        if (node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"})
        and not name.startswith("sandbox/inside/")
        and not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None)
    ]
    assert not broad


def test_nothing_is_left_for_later():
    words = ("TODO", "FIXME", "XXX", "NotImplementedError")
    students = {"exercises/judging.py", "tooling/exercises.py"}  # who write and read the stubs that students fill in
    texts = {name: text for name, text in FILES.items() if name not in students}
    assert not [(name, word) for name, text in texts.items() for word in words if word in text]


def test_ruff_is_content():
    for command in (["check"], ["format", "--check"]):
        line = [sys.executable, "-m", "ruff", *command, "--no-cache", str(PACKAGE.parent)]
        result = subprocess.run(line, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout
