"""How long ``import lecture_lib`` and its core rooms take beyond ``import torch``, in fresh interpreters."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator

from lecture_lib.tooling.benching import Measurement

BAR = 0.3  # seconds
REPEATS = 5
TIMED = """
import time
import torch
start = time.perf_counter()
{line}
print(time.perf_counter() - start)
"""


def seconds(line: str) -> float:
    """Median time of an import statement in a fresh interpreter that has torch loaded."""
    command = [sys.executable, "-c", TIMED.format(line=line)]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(REPEATS)]
    return statistics.median(map(float, runs))


def measure() -> Iterator[Measurement]:
    """The package by itself, then with the rooms that every notebook imports."""
    yield Measurement("import lecture_lib, after torch", seconds("import lecture_lib"), "s", BAR)
    rooms = "import lecture_lib.core, lecture_lib.samplers, lecture_lib.guidance, lecture_lib.oracles"
    yield Measurement("import core, samplers, guidance and oracles, after torch", seconds(rooms), "s", BAR)
