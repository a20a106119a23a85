"""Makes executed outputs fit for a repository: no widget state, no timings, small pictures."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbformat import NotebookNode

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
QUANTIZE_ABOVE = 20_000  # bytes; below that, a picture keeps every colour it has


def tidy(nb: NotebookNode) -> NotebookNode:
    """Drop what changes from run to run and shrink the pictures (in place); returns ``nb``."""
    nb.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell["outputs"] = merge_streams([output for output in cell.outputs if keep(output)])
    return nb


def keep(output: NotebookNode) -> bool:
    """Tidy one output in place; False when nothing of it is left that a reader could see."""
    data = output.get("data")
    if data is None:
        return True
    if WIDGET_VIEW in data:
        # A saved widget is dead: readers get the picture that was sent along with it, in the same bundle.
        del data[WIDGET_VIEW]
        if len(data) > 1:
            data.pop("text/plain", None)
        elif set(data) <= {"text/plain"}:
            return False
    if "image/png" in data:
        data["image/png"] = shrink_png(data["image/png"])
        data.pop("text/plain", None)
    return True


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of the same stream; where a kernel cuts its text is an accident of timing."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == "stream" == last.output_type and output.name == last.name:
            last["text"] += output.text
        else:
            merged.append(output)
    return merged


def shrink_png(encoded: str) -> str:
    """A base64 PNG, losslessly repacked, or in 256 colours when large; never bigger than what came."""
    from PIL import Image

    raw = base64.b64decode(encoded)
    image = Image.open(io.BytesIO(raw))
    smallest = min(raw, _packed(image), key=len)
    if len(smallest) > QUANTIZE_ABOVE and image.mode in {"RGB", "RGBA"}:
        smallest = min(smallest, _packed(_in_256_colours(image)), key=len)
    return base64.b64encode(smallest).decode("ascii")


def _packed(image: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _in_256_colours(image: object) -> object:
    from PIL import Image

    if image.mode == "RGBA" and image.getchannel("A").getextrema()[0] < 255:
        return image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    # Each colour near one of the 256, rather than the frequent ones exactly: a rare gradient must not fall apart.
    return image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=5, dither=Image.Dither.NONE)


def bare_widgets(nb: NotebookNode) -> list[int]:
    """Numbers (from 1) of the cells that show a widget without a picture or text for readers, before :func:`tidy`."""
    return [
        number
        for number, cell in enumerate(nb.cells, 1)
        for output in cell.get("outputs", ())
        if WIDGET_VIEW in output.get("data", {}) and set(output.data) <= {WIDGET_VIEW, "text/plain"}
    ]
