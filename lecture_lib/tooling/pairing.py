"""The two forms of a notebook: ``.py:percent`` text is the source, the ``.ipynb`` is generated from it.

Nothing flows back: an edit belongs into the ``.py``. :func:`drift` shows where the two have parted.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lecture_lib.tooling.project import Notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode

FORMAT = "py:percent"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# Lines of the header that differ between versions of jupytext and say nothing about the notebook.
VOLATILE = re.compile(r"^#\s+(jupytext_version|format_version): .*\n", re.MULTILINE)


def _config(path: Path) -> object:
    """The settings of ``jupytext.toml``, which jupytext's library functions do not look for by themselves."""
    from jupytext.config import load_jupytext_config

    return load_jupytext_config(str(path.resolve()))


def read_source(path: Path) -> NotebookNode:
    """The notebook that a ``.py`` source describes: no outputs, a kernel, and cell ids that stay the same."""
    import jupytext

    nb = jupytext.read(path, fmt=FORMAT, config=_config(path))
    nb.metadata["kernelspec"] = dict(KERNEL)
    set_stable_ids(nb)
    return nb


def set_stable_ids(nb: NotebookNode) -> None:
    """Give each cell an id made from its text, so that rebuilding a notebook changes no ids (in place)."""
    seen: dict[str, int] = {}
    nb.nbformat, nb.nbformat_minor = 4, 5
    for cell in nb.cells:
        text = f"{cell.cell_type}\n{cell.source}"
        seen[text] = seen.get(text, 0) + 1
        cell["id"] = hashlib.sha1(f"{text}\n{seen[text]}".encode()).hexdigest()[:10]


def as_source(path: Path) -> str:
    """The ``.py`` text of an ``.ipynb`` file."""
    import jupytext

    config = _config(path)
    return jupytext.writes(jupytext.read(path, config=config), fmt=FORMAT, config=config)


def drift(book: Notebook) -> str:
    """A diff from the source to what the ``.ipynb`` says; empty when they agree."""
    if not book.paired.is_file():
        return f"{book.paired.name} is missing"
    source = VOLATILE.sub("", book.source.read_text(encoding="utf-8"))
    paired = VOLATILE.sub("", as_source(book.paired))
    lines = difflib.unified_diff(
        source.splitlines(), paired.splitlines(), book.source.name, book.paired.name, lineterm="", n=1
    )
    return "\n".join(lines)
