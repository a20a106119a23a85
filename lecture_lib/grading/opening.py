"""Takes the code out of a notebook, in a process of its own: a file may be made so that its reader runs out of memory.

    python -I -S opening.py FILE  >  {"sources": [...], "fingerprint": ...}  or  {"problem": ...}

Each pair of brackets, three bytes of a file, takes a hundred when it is read. This file imports nothing but the
standard library, which keeps the process small and its start short.
"""

import hashlib
import json
import os
import resource
import sys

LARGEST = 1 << 30  # bytes of a notebook, its outputs included
CODE = 16 << 20  # characters of its code
MEMORY = 4 << 30  # bytes for all of it


def opened(path: str) -> dict:
    """Sources of the code cells, and a fingerprint of the file; or what is wrong with it, for the student."""
    try:
        size = os.stat(path).st_size
        if size > LARGEST:
            return {"problem": f"The notebook has {size / 1e9:.1f} GB. Clear its outputs and hand it in again."}
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        return {"problem": f"The file cannot be opened ({error.strerror}). Hand it in again."}
    try:
        sources = [source(cell) for cell in cells_of(json.loads(text(data))) if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        end = " It seems to end too early." if isinstance(error, json.JSONDecodeError) else ""
        what = type(error).__name__
        return {"problem": f"The file is no notebook that can be read ({what}).{end} Hand it in again."}
    except MemoryError:
        return {"problem": "The notebook is too large to be read. Clear its outputs and hand it in again."}
    if sum(map(len, sources)) > CODE:
        return {"problem": "The code of your notebook is too large to be run: is there data in a cell?"}
    return {"sources": sources, "fingerprint": hashlib.sha256(data).hexdigest()[:16]}


def text(data: bytes) -> str:
    """UTF-8 as notebooks are written, or what an editor made of it; letters that are none become question marks."""
    for bom, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig")):
        if data.startswith(bom):
            return data.decode(encoding, errors="replace")
    return data.decode("utf-8", errors="replace")


def cells_of(book: dict) -> list:
    """The cells; up to version 3 of the format they lay on sheets."""
    return book["cells"] if "cells" in book else [cell for sheet in book["worksheets"] for cell in sheet["cells"]]


def source(cell: dict) -> str:
    """The code of a cell, which is a text or a list of lines."""
    found = cell["source"] if "source" in cell else cell["input"]
    return found if isinstance(found, str) else "".join(found)


if __name__ == "__main__":
    if sys.platform == "linux":  # elsewhere the system refuses or ignores it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    json.dump(opened(sys.argv[1]), sys.stdout)
