"""Values as bytes, without pickle: what comes back from a student's process is data, and never code.

Numbers, strings, None, lists, dicts and arrays. A frame is the length of a JSON text, that text, and after it the
arrays one behind the other; in the text an array is its dtype, its shape and its number.

This file knows nothing of the course: it is read inside the sandbox, too.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np

LARGEST = 16 << 20  # bytes of one frame
TEXT = 4 << 20  # bytes of its JSON
NAME, MESSAGE = 60, 300  # characters of the name of a type, and of what an error says
DTYPES = (
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
)


class WireError(ValueError):
    """Bytes that are no frame."""


def pack(value: Any) -> bytes:
    """One frame."""
    arrays: list[bytes] = []

    def plain(v: Any) -> Any:
        if v is None or type(v) in (bool, int, float, str):
            return v
        if isinstance(v, np.ndarray):
            if v.dtype.name not in DTYPES:
                raise WireError(f"array: got dtype {v.dtype}, expected one of {', '.join(DTYPES)}")
            arrays.append(v.astype(v.dtype.newbyteorder("="), copy=False).tobytes())
            return {"array": [v.dtype.name, list(v.shape)]}
        if isinstance(v, (list, tuple)):
            return [plain(x) for x in v]
        if isinstance(v, dict):
            return {"dict": [[str(k), plain(x)] for k, x in v.items()]}
        raise WireError(f"value: got {type(v).__name__}, expected numbers, strings, lists, dicts or arrays")

    text = json.dumps(plain(value)).encode()
    frame = b"".join([struct.pack("<Q", len(text)), text, *arrays])
    if len(frame) > LARGEST or len(text) > TEXT:
        raise WireError(f"value: got {len(frame):,} bytes, expected at most {LARGEST:,}")
    return frame


def unpack(frame: bytes) -> Any:
    """The value of one frame; a WireError, and nothing else, if it is none."""
    if not 8 <= len(frame) <= LARGEST:
        raise WireError(f"frame: got {len(frame):,} bytes, expected 8 to {LARGEST:,}")
    at = 8 + struct.unpack_from("<Q", frame)[0]
    if at > min(TEXT + 8, len(frame)):
        raise WireError("frame: it ends before its text does")
    try:
        tree = json.loads(frame[8:at])
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or a number with thousands of digits
        raise WireError(f"frame: {type(error).__name__}") from None

    def full(v: Any) -> Any:
        nonlocal at
        if isinstance(v, list):
            return [full(x) for x in v]
        if isinstance(v, str):
            return v.encode("utf-8", "replace").decode()  # halves of letters could not be written anywhere
        if not isinstance(v, dict):
            return v
        if list(v) == ["dict"]:
            return {full(str(k)): full(x) for k, x in v["dict"]}
        name, shape = v["array"]
        if name not in DTYPES or not all(type(n) is int and n >= 0 for n in shape):
            raise WireError("frame: an array of unknown kind")
        dtype, size = np.dtype(name), math.prod(shape)
        if size * dtype.itemsize > len(frame) - at:
            raise WireError("frame: it ends before its arrays do")
        array = np.frombuffer(frame, dtype, size, at).reshape(shape).copy()
        at += size * dtype.itemsize
        return array

    try:
        value = full(tree)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise error if isinstance(error, WireError) else WireError(f"frame: {type(error).__name__}") from None
    if at != len(frame):
        raise WireError(f"frame: {len(frame) - at} bytes too many")
    return value
