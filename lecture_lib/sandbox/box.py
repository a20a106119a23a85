"""The parent's side of the walls: starts a zygote, hands it answers, and never trusts what comes back."""

from __future__ import annotations

import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lecture_lib.errors import CourseError
from lecture_lib.sandbox.inside import wire
from lecture_lib.sandbox.inside.zygote import PATIENCE

START_UP = "import sys; sys.path.insert(0, sys.argv[1]); from inside.zygote import main; main()"
FORBIDDEN = ("lecture_lib",)
PROBE = "import os\ndef seen(paths): return sum(map(os.path.exists, paths))"
PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = {"solutions": "README.md", "tests": "exercise_answers", ".git": "HEAD"}  # folders beside the package
LINES = 1 << 20  # of a cell, at most
START, GRACE = 60.0, 10.0  # seconds that a zygote may take to start, and to answer after its own limit


class NotIsolated(CourseError):
    """This machine has no namespaces for an unprivileged process: an answer could read and write what you can."""


def answer_folders() -> list[tuple[Path, str]]:
    """Folders with the course's answers, and what would be seen in them.

    They are covered where they lie within what an answer must read (Python's own folders, /usr), and are not there at
    all elsewhere. The course may be installed there, too, beside the copy that grades.
    """
    places = {Path(folder) for folder in (*sys.path, PACKAGE.parent) if folder}
    for root in {sys.prefix, sys.base_prefix, "/usr", "/usr/local"}:
        places.update(Path(root).glob("lib/python*/*-packages"))
    installed = [(place / PACKAGE.name, "exercises") for place in sorted(places)]
    checkout = ((PACKAGE.parent / name, inside) for name, inside in CHECKOUT.items())
    return [(folder.resolve(), inside) for folder, inside in (*installed, *checkout) if (folder / inside).exists()]


@dataclass(frozen=True)
class Limits:
    """What one answer may use.

    Attributes:
        seconds: of computing, all calls and all its processes together; a rest counts a third.
        memory: bytes that its processes hold together; in address space, twice as much and 4 GB for PyTorch.
        processes: at one time.
    """

    seconds: float = 10.0
    memory: int = 2 << 30
    processes: int = 64

    def as_resources(self, *, isolated: bool) -> dict[str, int]:
        """For ``resource.setrlimit``; without walls the processes of its user would count, not those of an answer."""
        limits = {"CPU": int(self.seconds) + 1, "NOFILE": 64, "FSIZE": 64 << 20, "CORE": 0}
        if sys.platform == "linux":
            limits["AS"] = (4 << 30) + 2 * self.memory
        return limits | {"NPROC": self.processes} if isolated else limits


@dataclass(frozen=True)
class Failure:
    """Why there is no outcome.

    Attributes:
        kind: "time", "memory", "size", "silent", "reply" or "walls".
        detail: for the log.
    """

    kind: str
    detail: str


@dataclass
class Sandbox:
    """One zygote; ``ask`` runs one answer in a child of it. Use it in a ``with``.

    Args:
        limits: of each answer.
        isolated: False runs answers with your own rights; for submissions that you wrote yourself.
        hidden: folders and files that no answer may see, wherever they are: beside the course's own answers the
            submissions.

    Raises:
        NotIsolated: walls were asked for, and this machine has none.
        CourseError: the zygote does not start.
    """

    limits: Limits = field(default_factory=Limits)
    isolated: bool = True
    hidden: tuple[Path, ...] = ()

    def __enter__(self) -> Sandbox:
        self._place = tempfile.mkdtemp(prefix="course-walls-")
        self._process: subprocess.Popen | None = None
        try:
            if self.isolated:
                tried = self.ask(
                    [PROBE], "seen", calls=[{"paths": [f"{folder}/{name}" for folder, name in answer_folders()]}]
                )
                if tried != [{"value": 0}]:
                    raise NotIsolated(
                        f"no walls for answers on this machine: {tried}. Use --trust for answers of your own, or run "
                        "`course grade` in a container of its own"
                    )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()
        with contextlib.suppress(OSError):
            os.rmdir(self._place)

    def ask(
        self, cells: list[str], name: str, *, calls: list[dict[str, Any]], stage: str = "", call: str = ""
    ) -> list[dict[str, Any]] | Failure:
        """The outcomes of ``name`` on each of ``calls``, or why there are none.

        Args:
            cells: sources of the submission's code cells.
            name: the function or class that is the answer.
            calls: arguments by name, numbers or arrays; the child sees tensors.
            stage: the source of functions that call an answer, without an answer in it.
            call: which of them; without it the answer is called with the arguments.
        """
        request = {"cells": cells, "name": name, "stage": stage, "call": call, "calls": calls}
        try:
            frame = wire.pack(request)
        except wire.WireError as error:
            return Failure("request", str(error))
        process = self._running()
        try:
            process.stdin.write(struct.pack("<Q", len(frame)) + frame)
            process.stdin.flush()
            reply = self._receive(PATIENCE * self.limits.seconds + GRACE)
        except (OSError, TimeoutError, wire.WireError) as error:
            self._stop()  # a zygote that is in trouble is replaced, not asked again
            return Failure("silent", f"{type(error).__name__}: {error}")
        if "failed" in reply:
            return Failure(str(reply["failed"]), str(reply.get("detail", "")))
        outcomes = reply["outcomes"] if isinstance(reply["outcomes"], list) else [None]
        outcomes = list(map(heard, outcomes))
        return outcomes if None not in outcomes else Failure("reply", "no list of values and errors")

    def _running(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None:
            hidden = [*(folder for folder, _ in answer_folders()), *(path.resolve() for path in self.hidden)]
            config = {"isolated": self.isolated, "mountpoint": self._place, "hidden": list(map(str, hidden)),
                      "forbidden": FORBIDDEN, "seconds": self.limits.seconds, "memory": self.limits.memory,
                      "limits": self.limits.as_resources(isolated=self.isolated)}  # fmt: skip
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", START_UP, str(Path(__file__).parent), json.dumps(config)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", ""), "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            try:
                self._receive(START)
            except (OSError, TimeoutError, wire.WireError) as error:
                self._stop()
                raise CourseError(f"sandbox: its first process does not start ({error})") from None
        return self._process

    def _receive(self, seconds: float) -> dict[str, Any]:
        deadline, stream = time.monotonic() + seconds, self._process.stdout
        (length,) = struct.unpack("<Q", self._read(stream, 8, deadline))
        if length > wire.LARGEST:
            raise wire.WireError(f"frame: got {length:,} bytes")
        return wire.unpack(self._read(stream, length, deadline))

    @staticmethod
    def _read(stream, count: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < count:
            if not select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the zygote does not answer")
            part = os.read(stream.fileno(), count - len(data))
            if not part:
                raise OSError("the zygote has ended")
            data += part
        return bytes(data)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


def heard(thing: Any) -> dict[str, Any] | None:
    """A value, or an error as the rest of the course knows it; None if it is neither: a child may forge anything."""
    if not isinstance(thing, dict) or not isinstance(thing.get("error", ""), str):
        return None
    if "error" not in thing:
        return {"value": thing["value"]} if "value" in thing else None
    message, line = thing.get("message"), thing.get("line")
    return {
        "error": _printable(thing["error"][: wire.NAME]),
        "message": _printable(message[: wire.MESSAGE]) if isinstance(message, str) else "",
        "line": line if type(line) is int and 0 <= line < LINES else 0,
    }


def _printable(text: str) -> str:
    """Without what a terminal would obey: other colours, another direction, another line."""
    return "".join(c if c.isprintable() else " " for c in text)
