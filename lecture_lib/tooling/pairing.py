"""The two forms of a notebook: ``.py:percent`` text is the source, the ``.ipynb`` is generated from it.

Nothing flows back: an edit belongs into the ``.py``. :func:`drift` shows where the two have parted.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lecture_lib.tooling import headers
from lecture_lib.tooling.project import Notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode

FORMAT = "py:percent"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# The YAML on top of a source: it names versions of jupytext, and nothing in it is part of the text.
HEADER = re.compile(r"\A# ---\n.*?\n# ---\n", re.DOTALL)


def _config(path: Path) -> object:
    """The settings of ``jupytext.toml``, which jupytext's library functions do not look for by themselves."""
    from jupytext.config import load_jupytext_config

    return load_jupytext_config(str(path.resolve()))


def read_source(path: Path) -> NotebookNode:
    """The notebook that a ``.py`` source describes: no outputs, a kernel, and cell ids that stay the same."""
    import jupytext

    nb = jupytext.read(path, fmt=FORMAT, config=_config(path))
    nb.metadata["kernelspec"] = dict(KERNEL)
    for version in ("format_version", "jupytext_version"):  # jupytext's own, and no business of the notebook
        nb.metadata.get("jupytext", {}).get("text_representation", {}).pop(version, None)
    set_stable_ids(nb)
    return nb


def set_stable_ids(nb: NotebookNode) -> None:
    """Give each cell an id made from its text (measured time apart), so that a rebuild changes no ids (in place)."""
    seen: dict[str, int] = {}
    nb.nbformat, nb.nbformat_minor = 4, 5
    for cell in nb.cells:
        text = f"{cell.cell_type}\n{headers.LINE.sub('', cell.source)}"
        seen[text] = seen.get(text, 0) + 1
        cell["id"] = hashlib.sha1(f"{text}\n{seen[text]}".encode()).hexdigest()[:10]


def as_source(nb: NotebookNode, path: Path) -> str:
    """The ``.py`` text of a notebook that lies, or will lie, at ``path``."""
    import jupytext

    return jupytext.writes(nb, fmt=FORMAT, config=_config(path))


def normalise(path: Path) -> None:
    """Rewrite a source as jupytext would write it: blank lines between cells, header with the kernel."""
    text = as_source(read_source(path), path)
    if text != path.read_text(encoding="utf-8"):
        path.write_text(text, encoding="utf-8")


def drift(book: Notebook) -> str:
    """A diff from the source to what the ``.ipynb`` says; empty when they agree. Headers are not compared."""
    import jupytext

    if not book.paired.is_file():
        return f"{book.paired.name} is missing"
    paired = jupytext.read(book.paired, config=_config(book.paired))
    texts = [as_source(nb, book.source) for nb in (read_source(book.source), paired)]
    source, paired = [HEADER.sub("", text).splitlines() for text in texts]
    return "\n".join(difflib.unified_diff(source, paired, book.source.name, book.paired.name, lineterm="", n=1))
