"""Pictures in a notebook: one PNG with its alternative text, one caption that says what to look for.

A picture goes out as ``image/png`` with ``text/plain`` beside it, not as HTML, because that is what every reader of a
notebook understands: JupyterLab, Colab, GitHub, nbconvert (which turns the metadata into a real ``alt=""``).
"""

from __future__ import annotations

import ast
import base64
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from lecture_lib.viz.images import as_picture, png_bytes


def bundle(picture: Any, alt: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Mime data and metadata of a picture: PNG for eyes, ``alt`` for screen readers and text consoles."""
    png = png_bytes(picture)
    width, height = as_picture(png).size
    data = {"image/png": base64.b64encode(png).decode("ascii"), "text/plain": alt}
    # Lab paints pictures on a light card in its dark theme when told that they need one.
    return data, {"image/png": {"alt": alt, "width": width, "height": height, "needs_background": "light"}}


def show_source(function: Callable[..., Any]) -> None:
    """Print a function as it stands in the library, without its docstring."""
    text = textwrap.dedent(inspect.getsource(function))
    lines, definition = text.splitlines(), ast.parse(text).body[0]
    if ast.get_docstring(definition) is not None:
        del lines[definition.body[0].lineno - 1 : definition.body[0].end_lineno]
    print(*lines, sep="\n")


def show(picture: Any, *, caption: str = "", alt: str) -> None:
    """Display a figure, Pillow image or PNG bytes in the running notebook.

    Args:
        picture: what a function of ``lecture_lib.viz`` returned.
        caption: one or two sentences in Markdown below the picture: what to look for.
        alt: the picture in words, for readers who do not see it; required.
    """
    from IPython.display import Markdown, display

    data, metadata = bundle(picture, alt)
    display(data, metadata=metadata, raw=True)
    if caption:
        display(Markdown(f"**Figure.** {caption}"))
