"""Each wrong version of the library must be noticed (see ``mutants.py``); all of them with ``course test --all``."""

from __future__ import annotations

import subprocess
import sys

import pytest
from mutants import HINTS, MUTANTS, ROOT


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_still_apply(name):
    mutant = MUTANTS[name]
    assert mutant.before in (ROOT / mutant.file).read_text()
    assert all((ROOT / "tests" / f"{suite}.py").is_file() for suite in mutant.suites)


def test_hints_belong_to_mutants():
    assert HINTS.keys() <= MUTANTS.keys()


@pytest.mark.slow
def test_every_mutant_is_killed():
    run = subprocess.run([sys.executable, ROOT / "tests" / "mutants.py"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
