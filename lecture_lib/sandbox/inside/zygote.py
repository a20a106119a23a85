"""A process that has PyTorch loaded and forks one keeper for each answer, whose child runs it behind walls.

    python -I -c "from inside.zygote import main; main()" FOLDER CONFIG  <  requests  >  replies

It imports nothing of the course, so no child can find an answer in its memory; and it neither runs a student's code nor
reads it, nor what comes of it, so the next child is as clean as the first: what a process has read and forgotten is
still in its memory, and would be in that of every later child. The keepers read frames (``wire``) from standard input
until that ends:

    request   {"cells": [source, ...], "name": function, "stage": source, "call": function,
               "calls": [{argument: value}, ...]}
    reply     {"outcomes": [{"value": ...} | {"error": type, "message": ..., "line": ...}, ...]}
              {"failed": "time" | "memory" | "silent" | "size" | ..., "detail": ...}
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import sys
import time
from pathlib import Path
from typing import BinaryIO, NoReturn

from . import wire
from .walls import (
    OWN,
    become_nobody,
    build_root,
    close_all_but,
    die_with_parent,
    leave_namespaces,
    map_users,
    python_paths,
    set_limits,
)

# torch.compile then leaves a function as it is: compiling takes longer than an answer may
ENVIRONMENT = {"HOME": OWN, "TMPDIR": "/tmp", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TORCHDYNAMO_DISABLE": "1"}
PATIENCE = 3.0  # times its seconds that an answer may take if it is kept from computing, perhaps by another one
WATCH = 0.05  # seconds between two looks at what a child uses


def main() -> None:
    """Answer requests until there are no more."""
    config = json.loads(sys.argv[-1])
    requests, replies = os.dup(0), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)
    die_with_parent_if_linux()
    import torch

    from . import answering

    sys.path.remove(sys.argv[1])  # where this file is: all of it is loaded, and a child has no business there
    torch.set_num_threads(1)
    answering.forbid(config["forbidden"])
    warm_up()
    send(replies, wire.pack({"ready": True}))
    while len(head := os.read(requests, 8)) == 8:
        keeper = os.fork()
        if keeper == 0:
            keep(requests, replies, *struct.unpack("<Q", head), config)
        if os.waitpid(keeper, 0)[1]:
            break  # it did not reply: this end of the pipes is all that says so


def keep(requests: int, replies: BinaryIO, length: int, config: dict) -> NoReturn:
    """In a fork: read one request, and reply to it."""
    try:
        die_with_parent_if_linux()
        with os.fdopen(requests, "rb") as stream:
            send(replies, answer(stream.read(length), config))
        os._exit(0)
    finally:
        os._exit(1)


def warm_up() -> None:
    """Load now what PyTorch loads at its first use, so that no child has to."""
    import torch

    eye = torch.eye(2)
    torch.linalg.eigvalsh(eye)
    torch.func.vmap(torch.func.jacrev(torch.sin))(eye)
    torch.func.jvp(torch.sin, (eye,), (eye,))
    torch.zeros(2, requires_grad=True).sum().backward()


def die_with_parent_if_linux() -> None:
    """Be killed with the grader, each of us by the one before, where the system can do that."""
    if sys.platform == "linux":
        die_with_parent()


def send(stream: BinaryIO, frame: bytes) -> None:
    """One frame after its length."""
    stream.write(struct.pack("<Q", len(frame)) + frame)
    stream.flush()


def answer(request: bytes, config: dict) -> bytes:
    """The frame that one child wrote, or why there is none."""
    reading, writing = os.pipe()
    pids_in, pids_out = os.pipe()
    go_in, go_out = os.pipe()
    first = os.fork()
    if first == 0:
        try:
            os.setsid()
            child(request, config, writing, pids_out, go_in)
        except BaseException as error:  # noqa: BLE001  (whatever happens here must end here)
            with contextlib.suppress(Exception):
                os.write(pids_out, f"!{type(error).__name__}: {error}\n".encode()[:500])
        os._exit(1)
    for end in (writing, pids_out, go_in):
        os.close(end)
    try:
        return wait_for(first, reading, pids_in, go_out, config)
    finally:
        for end in (reading, pids_in):
            os.close(end)


def child(request: bytes, config: dict, reply: int, pids: int, go: int) -> None:
    """In a fork: build the walls, and fork once more, into the new process namespace."""
    from . import answering

    die_with_parent_if_linux()
    with contextlib.suppress(OSError):  # where memory runs out, it is this process that has to go
        Path("/proc/self/oom_score_adj").write_text("1000")
    if config["isolated"]:
        root = os.getuid() == 0
        leave_namespaces()
        os.write(pids, b"?\n")  # the parent names our users
        if os.read(go, 1) != b"!":
            os._exit(1)
        inner = os.fork()
        if inner:
            os.write(pids, b"%d\n" % inner)
            os.waitpid(inner, 0)
            os._exit(0)
        build_root(config["mountpoint"], python_paths(), config["hidden"])
        become_nobody(second=root)
        os.chdir(OWN)
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    close_all_but(reply)
    set_limits(config["limits"])
    frame = answering.frame(wire.unpack(request))
    with os.fdopen(reply, "wb") as stream:
        stream.write(frame)
    os._exit(0)


def wait_for(first: int, reading: int, pids_in: int, go_out: int, config: dict) -> bytes:
    """The frame of one reply, or why there is none; afterwards nothing of the child is left."""
    watch = Watch(first, reading, pids_in, go_out, config)
    try:
        while watch.failed is None and reading in watch.open:
            watch.look()
    finally:
        os.close(go_out)
        watch.bury()
    return watch.frame()


class Watch:
    """Collects what a child writes, within its time, its memory and its size.

    Args:
        first: the process that builds the walls.
        reading, pids_in: pipes with the reply, and with what the building has to say.
        go_out: where the child waits for its users to be named.
        config: with "seconds", "memory" and "isolated".
    """

    def __init__(self, first: int, reading: int, pids_in: int, go_out: int, config: dict) -> None:
        self.first, self.reading, self.go_out, self.config = first, reading, go_out, config
        self.open, self.parts, self.size = [reading, pids_in], [], 0
        self.inner: int | None = None
        self.handle: int | None = None  # of inner: its number may be somebody else's by the time it is to be killed
        self.failed: tuple[str, str] | None = None
        patience = PATIENCE if config["isolated"] else 1.0  # without walls there is nothing to tell its processes by
        self.deadline, self.looked = time.monotonic() + patience * config["seconds"], 0.0

    def look(self) -> None:
        """Wait a moment for something to read, and see whether a limit is reached."""
        left, late = self.deadline - time.monotonic(), ("time", f"{self.config['seconds']:g} s")
        if left <= 0:
            self.failed = late
            return
        for end in select.select(self.open, [], [], min(left, WATCH))[0]:
            data = os.read(end, 1 << 16)
            if not data:
                self.open.remove(end)
            elif end == self.reading:
                self.parts.append(data)
                self.size += len(data)
                if self.size > wire.LARGEST:
                    self.failed = ("size", f"{wire.LARGEST:,} bytes")
            else:
                self.hear(data)
        if self.inner and self.config["isolated"] and time.monotonic() - self.looked > WATCH:
            self.looked = time.monotonic()
            memory, computing = used(self.inner)
            if memory > self.config["memory"]:
                self.failed = ("memory", f"{self.config['memory']:,} bytes")
            elif computing > self.config["seconds"]:
                self.failed = late

    def hear(self, data: bytes) -> None:
        """What the building of the walls says: that users are to be named, the first process, or what failed."""
        for line in data.splitlines():
            if line == b"?":
                map_users(self.first)
                os.write(self.go_out, b"!")
            elif line.startswith(b"!"):
                self.failed = ("walls", line[1:].decode(errors="replace"))
            else:
                self.inner = int(line)
                with contextlib.suppress(ProcessLookupError):  # it has ended already
                    self.handle = os.pidfd_open(self.inner)

    def bury(self) -> None:
        """Kill the child and all that it started: the first of a process namespace takes the others with it."""
        if self.handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)
            os.close(self.handle)
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(self.first, signal.SIGKILL)
        os.waitpid(self.first, 0)

    def frame(self) -> bytes:
        """The reply as it came, or a failure; only this process may say that something but the size failed."""
        failed = self.failed or (None if self.size else ("silent", "the process ended without a reply"))
        if failed is None:
            try:
                reply = wire.unpack(b"".join(self.parts))
                if isinstance(reply, dict) and "outcomes" in reply:
                    return wire.pack({"outcomes": reply["outcomes"]})  # and nothing else that it may claim
                is_size = isinstance(reply, dict) and reply.get("failed") == "size"
                failed = ("size", str(reply.get("detail"))) if is_size else ("reply", "no outcomes")
            except wire.WireError as error:
                failed = ("reply", str(error))
        return wire.pack({"failed": failed[0], "detail": failed[1]})


def used(first: int) -> tuple[int, float]:
    """What a process namespace uses.

    Returns:
        Bytes of memory that it holds, private and shared, without files that are only mapped; and seconds for which
        its processes, and those that they have waited for, have computed.
    """
    try:
        space = os.readlink(f"/proc/{first}/ns/pid")
    except OSError:
        return 0, 0.0
    memory = ticks = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError):
            if os.readlink(f"/proc/{name}/ns/pid") == space:
                lines = Path(f"/proc/{name}/status").read_text().splitlines()
                memory += sum(
                    int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon:", "RssShmem:"))
                )
                after_name = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
                ticks += sum(map(int, after_name[11:15]))
    return memory, ticks / os.sysconf("SC_CLK_TCK")
