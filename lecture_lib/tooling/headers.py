"""The line in which each notebook says how long it takes, and the budget it must keep.

It stands in the first text cell, and ``course run --write`` fills in what it measured::

    **Time** 90 min reading · runs in 74 s · peak memory 0.9 GB (2 CPU cores)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lecture_lib.errors import CourseError

LINE = re.compile(
    r"\*\*Time\*\* (?P<reading>.+?) · runs in (?P<seconds>[\d?]+) s · "
    r"peak memory (?P<gigabytes>[\d.?]+) GB \((?P<cores>[\d?]+) CPU cores\)"
)


@dataclass(frozen=True)
class Cost:
    """What running a notebook takes: seconds in a fresh kernel, peak memory in GB (1e9 bytes), on that many cores."""

    seconds: float
    gigabytes: float
    cores: int

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s, {self.gigabytes:.1f} GB"

    def over(self, budget: Cost) -> list[str]:
        """What is above the budget, in words; empty when nothing is."""
        complaints = []
        if self.seconds > budget.seconds:
            complaints.append(f"{self.seconds:.0f} s is over the {budget.seconds:.0f} s that are allowed")
        if self.gigabytes > budget.gigabytes:
            complaints.append(f"{self.gigabytes:.1f} GB is over the {budget.gigabytes:.1f} GB that are allowed")
        return complaints


def budget(name: str) -> Cost:
    """What a notebook may take on two cores: six minutes for a lab, three for any other, and 2 GB."""
    return Cost(seconds=360 if name.endswith("_lab") else 180, gigabytes=2.0, cores=2)


def recorded(text: str, name: str) -> Cost:
    """The cost that a notebook's text states.

    Raises:
        CourseError: the line is missing, or nothing has been measured yet.
    """
    match = LINE.search(text)
    if match is None:
        raise CourseError(f"{name}: no '**Time** ... · runs in ... s · peak memory ... GB (... CPU cores)' line.")
    if "?" in match[0]:
        raise CourseError(f"{name}: the Time line is not measured yet; run `course run --write {name}`.")
    return Cost(float(match["seconds"]), float(match["gigabytes"]), int(match["cores"]))


def with_cost(text: str, cost: Cost) -> str:
    """``text`` with the measured cost in its Time line; text without such a line comes back unchanged."""
    line = rf"**Time** \g<reading> · runs in {max(cost.seconds, 1):.0f} s · "
    line += f"peak memory {cost.gigabytes:.1f} GB ({cost.cores} CPU cores)"
    return LINE.sub(line, text, count=1)


def record(source: Path, cost: Cost) -> None:
    """Write a measured cost into the Time line of a ``.py`` source."""
    source.write_text(with_cost(source.read_text(encoding="utf-8"), cost), encoding="utf-8")
