"""One colour per meaning, legible sizes, an opaque light card that reads the same on light and dark pages.

The seven meanings use Okabe and Ito's palette (Color Universal Design, 2008), which stays readable to colour-blind
readers; lines that share a picture also differ in line style or marker, so that a grey print still tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lecture_lib.errors import UnknownNameError

DATA = "#0072B2"  # what the world contains
NOISE = "#999999"
UNCOND = "#E69F00"  # the model without its condition; also the reference that guidance pushes away from
COND = "#009E73"  # the plain conditional model, w = 1
GUIDED = "#D55E00"  # what guidance samples, w > 1
EXACT = "#222222"  # closed forms and references, always dashed
STUDENT = "#CC79A7"  # distilled models

# Colours without a meaning of their own, for the further lines of a comparison (one per repair, say).
# Each comes with its own marker and line style, so that colour is never the only difference.
OTHERS: tuple[tuple[str, str, Any], ...] = (
    ("#332288", "s", (0, (5, 1.5))),
    ("#117733", "^", (0, (1, 1))),
    ("#882255", "D", (0, (5, 1, 1, 1))),
    ("#3B7EA1", "v", (0, (3, 1))),
    ("#8C5E00", "P", (0, (3, 1, 1, 1, 1, 1))),
    ("#555555", "X", (0, (7, 2))),
    ("#AA4466", "<", (0, (2, 1))),
    ("#44AA99", ">", (0, (4, 1, 2, 1))),
)

PAPER = "#FFFFFF"  # the card is opaque on purpose: the colours above were chosen against white
INK = "#222222"
GRID = "#E3E3E3"
DPI = 100

DATA_UNIT = "data units"
DENSITY_LABEL = "probability density (1 / data unit)"
W_LABEL = "guidance scale w (dimensionless)"

_RC = {
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.edgecolor": "#777777",
    "axes.labelcolor": INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "font.size": 11,
    "legend.fontsize": 10,
    "legend.frameon": True,
    "legend.framealpha": 0.9,
    "legend.edgecolor": GRID,
    "lines.linewidth": 2.0,
    "lines.markersize": 6,
    "text.color": INK,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "image.interpolation": "nearest",
}


def style() -> AbstractContextManager[None]:
    """The look of the course as a context: settings hold inside ``with style():`` and are put back afterwards."""
    return matplotlib.rc_context(_RC)


def styled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a drawing function inside ``style()``."""

    @wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with style():
            return function(*args, **kwargs)

    return inside


@styled
def panels(rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (7.2, 4.0), **kwargs: Any) -> tuple:
    """A new figure with ``rows`` x ``columns`` axes, outside pyplot: nothing global is remembered.

    Args:
        rows, columns: how many axes.
        size: width and height of the whole figure in inches, at 100 dots per inch.
        kwargs: handed to ``Figure.subplots`` (``sharex``, ``sharey``, ``width_ratios``, ...).

    Returns:
        ``(figure, axes)``; ``axes`` is one ``Axes`` for a single panel, else an array of them.
    """
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **kwargs)


def canvas_for(ax: Axes | None, size: tuple[float, float] = (7.2, 4.0)) -> tuple[Figure, Axes]:
    """The figure of ``ax``, or a new figure with one axes when ``ax`` is None."""
    return panels(size=size) if ax is None else (ax.figure, ax)


def as_array(values: Any) -> np.ndarray:
    """Tensor (any device, with or without gradient), array or sequence -> float64 array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()  # numpy knows no bfloat16
    return np.asarray(values, dtype=np.float64)


def other(index: int) -> dict[str, Any]:
    """Colour, marker and line style of the ``index``-th line without a fixed meaning (cyclic)."""
    colour, marker, linestyle = OTHERS[index % len(OTHERS)]
    return {"color": colour, "marker": marker, "linestyle": linestyle}


def label_axes(ax: Axes, xlabel: str, ylabel: str, title: str = "") -> None:
    """Both axis labels, each naming its unit, and an optional title that states the finding."""
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if title:
        ax.set_title(title)


LEGEND_PLACES = ("inside", "right", "below")


def legend(ax: Axes, place: str = "inside") -> None:
    """The legend at one of ``LEGEND_PLACES``: where it hides least, or outside the axes, where it can hide nothing.

    Raises:
        UnknownNameError: no such place.
    """
    if place not in LEGEND_PLACES:
        raise UnknownNameError(f"place: got {place!r}, expected one of {', '.join(LEGEND_PLACES)}")
    handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    if place == "inside":
        ax.legend(loc="best")
    elif place == "right":
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
    else:
        seen = [re.sub(r"\\[a-zA-Z]+|[${}_]", lambda tex: "x" * tex[0].startswith("\\"), label) for label in labels]
        pair = 2 * (max(map(len, seen)) * 7 + 55)  # pixels that two columns of this font need, formulas as they look
        ax.figure.legend(handles, labels, loc="outside lower center", ncols=2 if pair <= ax.figure.bbox.width else 1)
