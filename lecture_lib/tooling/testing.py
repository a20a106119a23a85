"""Runs the tests and then every notebook through nbval, and adds up the counts."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from lecture_lib.errors import MissingPackageError

CELL_TIMEOUT = 600  # seconds; a guard against hanging, not a budget: that one is checked in the notebooks' headers
NBVAL = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", str(CELL_TIMEOUT), "-p", "no:cacheprovider"]
NOTHING_COLLECTED = 5  # pytest's exit code


@dataclass(frozen=True)
class Counts:
    """How many tests ended how; an error counts as a failure."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def read_counts(report: Path) -> Counts:
    """The counts of a JUnit report."""
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    totals = [[int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")] for suite in suites]
    tests, failures, errors, skipped = map(sum, zip(*totals, strict=True))
    return Counts(tests - failures - errors - skipped, failures + errors, skipped)


def pytest(folder: Path, arguments: list[str]) -> Counts:
    """Run pytest in ``folder`` with its output going to the terminal, and count.

    A run that ends badly without a failed test (a crash, a mistake in an option) counts as one failure.
    """
    if find_spec("pytest") is None or find_spec("nbval") is None:
        raise MissingPackageError('The tests need pytest and nbval: run `make test`, or pip install -e ".[lab,dev]".')
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        line = [sys.executable, "-m", "pytest", *arguments, f"--junit-xml={report}", "-o", "junit_family=xunit2"]
        code = subprocess.run(line, cwd=folder, check=False).returncode
        counts = read_counts(report) if report.is_file() else Counts()
    if code not in (0, NOTHING_COLLECTED) and not counts.failed:
        counts += Counts(failed=1)
    return counts


def marks(*, quick: bool, everything: bool) -> list[str]:
    """The pytest option that leaves out slow tests and, when quick, those with a browser."""
    out = [f"not {name}" for name, unwanted in (("slow", not everything), ("browser", quick)) if unwanted]
    return ["-m", " and ".join(out)] if out else []


def run(folder: Path, *, quick: bool, everything: bool, extra: list[str]) -> Counts:
    """The whole proof: the tests of ``tests/``, then each notebook in a fresh kernel.

    Args:
        quick: without the notebooks and the browser.
        everything: with the tests marked ``slow``.
        extra: passed on to the pytest run over ``tests/``.
    """
    print("== tests", flush=True)
    counts = pytest(folder, ["tests", *marks(quick=quick, everything=everything), *extra])
    if not quick and list((folder / "notebooks").glob("*.ipynb")):
        print("== notebooks, each in a fresh kernel", flush=True)
        counts += pytest(folder, [*NBVAL, "-q", "notebooks"])
    return counts
