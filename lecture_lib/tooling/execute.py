"""Runs a notebook from top to bottom in a fresh kernel and measures what it took."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lecture_lib.errors import CourseError
from lecture_lib.tooling import pairing
from lecture_lib.tooling.headers import Cost
from lecture_lib.tooling.project import Notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode

# Asked of the kernel after the last cell. On Linux the high-water mark of /proc is taken, because ru_maxrss also
# counts the process that started the kernel; elsewhere ru_maxrss is all there is (bytes on macOS).
PEAK_BYTES = """
import pathlib as _p, resource as _r, sys as _s
_status = _p.Path("/proc/self/status")
if _status.exists():
    _peak = [int(line.split()[1]) * 1024 for line in _status.read_text().splitlines() if line.startswith("VmHWM")][0]
else:
    _peak = _r.getrusage(_r.RUSAGE_SELF).ru_maxrss * (1 if _s.platform == "darwin" else 1024)
print(_peak)
"""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # tracebacks of notebooks come with colours, also where nobody can see them


class CellFailedError(CourseError):
    """A cell of a notebook raised; the message names the notebook and shows the cell and the error."""


@dataclass(frozen=True)
class Execution:
    """An executed notebook and what it cost."""

    notebook: NotebookNode
    cost: Cost


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def execute(book: Notebook, *, timeout: float = 600, on_cell: Callable[[int, int], None] | None = None) -> Execution:
    """Run the source of ``book`` in a fresh kernel, from its own folder.

    Args:
        timeout: seconds that one cell may take.
        on_cell: called with (cells done, cells in all) after each cell.
    Raises:
        CellFailedError: a cell raised, ran out of time, or the kernel died.
    """
    import nbclient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    from nbformat.v4 import new_code_cell

    nb = pairing.read_source(book.source)
    count = len(nb.cells)
    nb.cells.append(new_code_cell(PEAK_BYTES))
    client = nbclient.NotebookClient(
        nb,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--log-level=40"],  # ipykernel warns about local TCP at each start
        resources={"metadata": {"path": str(book.source.parent)}},
    )
    start = time.perf_counter()
    try:
        with client.setup_kernel():
            for index, cell in enumerate(nb.cells):
                if index == count:
                    seconds = time.perf_counter() - start
                client.execute_cell(cell, index)
                if on_cell and index < count:
                    on_cell(index + 1, count)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise CellFailedError(f"{book.name}, cell {index + 1} of {count}: {COLOUR.sub('', str(error))}") from error
    peak = int(nb.cells.pop().outputs[0].text)
    return Execution(nb, Cost(seconds, peak / 1e9, cores()))
