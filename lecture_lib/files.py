"""Files and folders that are there whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write so that the file is either the old one or the whole new one, even if the machine stops in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "nt":  # Windows opens no folders
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name is on the disk, too
    finally:
        os.close(folder)


@contextmanager
def all_at_once(out: Path) -> Iterator[Path]:
    """A place beside ``out`` to make it in, file or folder; it takes that name at the end, and after an error never.

    The folder of the place is there for scratch work, and goes.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        place = Path(scratch) / out.name
        yield place
        os.replace(place, out)
