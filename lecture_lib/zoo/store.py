"""Weights on disk: safetensors with embedded metadata, and a manifest of their SHA-256 sums.

Nothing is unpickled, and nothing is believed: a file that is missing, truncated, altered or foreign is refused with
a ``DamagedFileError`` that says which of these it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as parse
from safetensors.torch import save as serialise
from torch import Tensor, nn

from lecture_lib.errors import DamagedFileError, NonFiniteError
from lecture_lib.files import write_atomically

WEIGHTS = Path(__file__).parent / "weights"
FORMAT = "lecture_lib zoo 1"


def write(name: str, state: Mapping[str, Tensor], metadata: Mapping[str, object], folder: Path | None = None) -> Path:
    """Store weights, floating ones as float16, and enter them in the manifest.

    Args:
        name: file name without its suffix.
        state: a state_dict.
        metadata: plain values to embed.
        folder: where to; default: the package's own weights.

    Raises (before anything is written):
        NonFiniteError: weights that are NaN, infinite, or too large for float16.
        DamagedFileError: the folder's manifest cannot be read.
    """
    folder = WEIGHTS if folder is None else Path(folder)
    half = {key: (v.half() if v.is_floating_point() else v).contiguous().cpu() for key, v in state.items()}
    for key, value in half.items():
        if not torch.isfinite(value).all():
            raise NonFiniteError(f"state: {name}'s {key} is not finite in half precision, expected numbers below 65520")
    entries = manifest(folder)  # before anything is written: a broken one raises
    header = {"format": FORMAT, "name": name} | {key: json.dumps(value) for key, value in metadata.items()}
    data = serialise(half, metadata=header)
    write_atomically(folder / f"{name}.safetensors", data)
    entries |= {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}}
    text = json.dumps({"format": FORMAT, "files": dict(sorted(entries.items()))}, indent=2) + "\n"
    write_atomically(folder / "manifest.json", text.encode())
    return folder / f"{name}.safetensors"


def manifest(folder: Path | None = None) -> dict[str, dict[str, object]]:
    """Name -> {"sha256", "bytes"} of all installed weights; empty if nothing is installed.

    Raises:
        DamagedFileError: the manifest cannot be read.
    """
    path = (WEIGHTS if folder is None else Path(folder)) / "manifest.json"
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise DamagedFileError(f"{path}: got format {content['format']!r}, expected {FORMAT!r}")
        return {name: {"sha256": str(of["sha256"]), "bytes": int(of["bytes"])} for name, of in content["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DamagedFileError):
            raise
        raise DamagedFileError(f"{path}: not the manifest of a zoo ({error!r})") from error


def read(name: str, folder: Path | None = None) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The weights of that name in float32, and their metadata.

    Raises:
        DamagedFileError: the file is missing, truncated, altered, foreign, or bears another name.
    """
    folder = WEIGHTS if folder is None else Path(folder)
    path, entry = folder / f"{name}.safetensors", manifest(folder).get(name)
    if entry is None or not path.exists():
        raise DamagedFileError(
            f"{path}: no weights of {name!r} are installed; train them with `course train {name}` or restore the file"
        )
    data = path.read_bytes()
    _check_sum(path, data, entry)
    return _parse(path, name, data)


def fill(module: nn.Module, name: str, folder: Path | None = None) -> nn.Module:
    """Put the stored weights of that name into ``module`` and return it.

    Raises:
        DamagedFileError: as in ``read``, or the weights belong to another architecture.
    """
    state, _ = read(name, folder)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise DamagedFileError(f"{name}: weights of another architecture than its recipe builds: {error}") from error
    return module


def _check_sum(path: Path, data: bytes, entry: Mapping[str, object]) -> None:
    if len(data) != entry["bytes"]:
        raise DamagedFileError(f"{path}: truncated or foreign: got {len(data)} bytes, expected {entry['bytes']}")
    got = hashlib.sha256(data).hexdigest()
    if got != entry["sha256"]:
        raise DamagedFileError(f"{path}: altered: got SHA-256 {got[:16]}..., expected {entry['sha256'][:16]}...")


def _parse(path: Path, name: str, data: bytes) -> tuple[dict[str, Tensor], dict[str, object]]:
    try:
        state = parse(data)
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except SafetensorError as error:
        raise DamagedFileError(f"{path}: no safetensors file ({error})") from error
    if header.pop("format", None) != FORMAT or header.pop("name", None) != name:
        raise DamagedFileError(f"{path}: foreign: not written as {name!r} by this course's zoo")
    state = {key: value.float() if value.dtype == torch.float16 else value for key, value in state.items()}
    return state, {key: json.loads(value) for key, value in header.items()}
