"""Checkpoints from which training goes on exactly: kill it anywhere, resume, and the final weights are the same bits.

A file is one line that names the format, the SHA-256 of the rest, and the rest: a pickle-free torch archive. It
appears under its name only when it is complete and on the disk, so a kill during saving leaves the previous one.
"""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Protocol

import torch

from lecture_lib.errors import CourseError, DamagedFileError
from lecture_lib.files import write_atomically

MAGIC = b"lecture_lib checkpoint 1\n"
DIGEST = hashlib.sha256().digest_size
UNREADABLE = (RuntimeError, UnpicklingError, LookupError, EOFError)  # what ``torch.load`` raises


class Stateful(Protocol):
    """Models, optimizers and averages: whatever can describe its state and take it up again."""

    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: dict) -> object: ...


def save(
    path: Path | str,
    step: int,
    parts: Mapping[str, Stateful],
    generator: torch.Generator,
    *,
    about: Mapping[str, object] | None = None,
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: file to write; its folder is created.
        step: updates made so far.
        parts: everything with a state, e.g. ``{"model": model, "optimizer": optimizer, "ema": ema}``.
        generator: the source of randomness of the training.
        about: plain values that say whose training this is; ``restore`` compares them.

    Raises:
        CourseError: something in it is neither a tensor nor a plain value, a NumPy number for example, so that
            ``restore`` could not read it. The file is as it was.
    """
    content = {
        "step": step,
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "generator": generator.get_state(),
        "dropout": torch.get_rng_state(),  # nn.Dropout on the CPU draws from the global generator
        "dropout_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "about": dict(about or {}),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    try:
        _parsed(payload)
    except UNREADABLE as error:
        raise CourseError(
            f"{path}: got something that could not be restored, expected tensors and plain values in parts and about "
            f"({error})"
        ) from error
    write_atomically(Path(path), MAGIC + hashlib.sha256(payload).digest() + payload)


def restore(
    path: Path | str,
    parts: Mapping[str, Stateful],
    generator: torch.Generator,
    *,
    about: Mapping[str, object] | None = None,
) -> int:
    """Bring ``parts`` and ``generator`` into the state of the checkpoint and return the updates made until then.

    The global generators, from which dropout layers draw, are restored as well.

    Raises:
        DamagedFileError: the file is truncated, altered, no checkpoint of this course, of another training
            (``about`` differs), or holds other parts. Nothing is changed then.
        FileNotFoundError: there is no such file.
    """
    content = read(path)
    if content["about"] != dict(about or {}):
        raise DamagedFileError(f"{path}: checkpoint of another training: got {content['about']}, expected {about}")
    if content["parts"].keys() != parts.keys():
        raise DamagedFileError(f"{path}: got parts {sorted(content['parts'])}, expected {sorted(parts)}")
    _load_parts(Path(path), parts, content["parts"])
    generator.set_state(content["generator"])
    torch.set_rng_state(content["dropout"])
    if content["dropout_cuda"] and len(content["dropout_cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(content["dropout_cuda"])
    return content["step"]


def read(path: Path | str) -> dict:
    """The checked content of a checkpoint, on the CPU.

    Raises:
        DamagedFileError: the file is truncated, altered, or no checkpoint of this course.
    """
    data = Path(path).read_bytes()
    if not data.startswith(MAGIC):
        raise DamagedFileError(f"{path}: got {data[:24]!r} at the beginning, expected {MAGIC!r}: no checkpoint of ours")
    digest, payload = data[len(MAGIC) :][:DIGEST], data[len(MAGIC) + DIGEST :]
    if hashlib.sha256(payload).digest() != digest:
        raise DamagedFileError(f"{path}: the {len(payload)} bytes do not match their SHA-256: truncated or altered")
    try:
        return _parsed(payload)
    except UNREADABLE as error:
        raise DamagedFileError(f"{path}: intact, but this torch cannot read it ({error})") from error


def _parsed(payload: bytes) -> dict:
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)


def _load_parts(path: Path, parts: Mapping[str, Stateful], states: Mapping[str, dict]) -> None:
    """Load every part, or none: if one does not fit, those already loaded get their old state back."""
    before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    try:
        for name, part in parts.items():
            part.load_state_dict(states[name])
    except (RuntimeError, ValueError, KeyError) as error:
        for name, part in parts.items():
            part.load_state_dict(before[name])
        raise DamagedFileError(f"{path}: does not fit what it was to be loaded into: {error}") from error
