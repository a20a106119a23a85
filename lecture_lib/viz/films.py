"""Pictures of sampling: one moment of a run in the plane, and error against cost.

What stays the same from picture to picture (axes, data, legend) is drawn once; only what moves is painted over a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from PIL import Image

from lecture_lib.viz.densities import density_contours
from lecture_lib.viz.style import DATA, EXACT, NOISE, OTHERS, as_array, label_axes, panels, styled

SAMPLED = OTHERS[2][0]  # what a sampler makes, whichever it is; the colours with a meaning stay with their meanings
FAR = 50.0  # data units: runaway points are drawn from here on, well outside any window
_THIN, _PALE = 1.3, 0.30  # line width in points; opacity


class Backdrop:
    """A figure drawn once; every picture paints its moving parts over a copy of those pixels, in a few milliseconds."""

    def __init__(self, figure: Figure):
        figure.canvas.draw()
        figure.set_layout_engine("none")
        self.figure, self._pixels = figure, figure.canvas.copy_from_bbox(figure.bbox)

    @styled
    def paint(self, artists: Iterable[Artist]) -> Image.Image:
        """The still picture with ``artists`` (already added to axes of the figure) on top; they are removed again."""
        canvas, artists = self.figure.canvas, list(artists)
        canvas.restore_region(self._pixels)
        for artist in artists:
            artist.axes.draw_artist(artist)
            artist.remove()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


@dataclass(frozen=True)
class Shot:
    """One moment of a sampling run; positions ``(b, 2)``, in the coordinates of the picture.

    Attributes:
        past: ``(i + 1, b, 2)``, from the starting noise to now.
        levels: noise levels sigma/alpha of all times of the grid, ``(n + 1,)``; the last may be 0.
        predicted: clean data as predicted at the start of the step that led here; None before the first step.
        exact: ``(m, b, 2)`` exact trajectories, whole; exact_now: where they are now. None for stochastic samplers.
        field: positions and directions ``(k, 2)`` of the flow now; None on clean data.
    """

    past: Any
    levels: Sequence[float]
    title: str
    predicted: Any = None
    exact: Any = None
    exact_now: Any = None
    field: tuple[Any, Any] | None = None


@styled
def film_stage(
    log_density: Callable[[np.ndarray], Any], extent: tuple[float, float, float, float], levels: tuple[float, float]
) -> Backdrop:
    """The still parts of a film: the data as contours, a ladder of noise levels beside it, a legend for what will move.

    Args:
        log_density: of the data, ``(n, 2) -> (n,)``. extent: window in data units.
        levels: lowest and highest noise level on the ladder; noise level 0 is drawn at its foot.
    """
    figure, (ax, ladder) = panels(1, 2, size=(7.4, 7.0), width_ratios=(1.0, 0.07))
    density_contours(log_density, extent, colour=DATA, filled=True, levels=(0.05, 0.3, 0.7), points=140, ax=ax)
    label_axes(ax, r"$x_1/(\alpha_t+\sigma_t)$ (data units)", r"$x_2/(\alpha_t+\sigma_t)$ (data units)", "reserved")
    ladder.set(yscale="log", ylim=levels, xlim=(-1, 1), xticks=[])
    ladder.yaxis.tick_right()
    ladder.yaxis.set_label_position("right")
    ladder.set_ylabel(r"times of the grid, as noise level $\sigma_t/\alpha_t$ (dimensionless)")
    ladder.spines[["left", "bottom"]].set_visible(False)
    ladder.axvline(0, color="#BBBBBB", linewidth=1.0)
    figure.legend(handles=_legend_of_a_film(ax), loc="outside lower center", ncols=3)
    figure.canvas.draw()  # the layout is settled with a title in place, then the title goes
    figure.set_layout_engine("none")
    ax.set_title("")
    return Backdrop(figure)


def _legend_of_a_film(ax: Axes) -> list[Artist]:
    """Stand-ins for the moving artists, in the order in which a reader meets them."""
    looks = {
        "starting noise": {"color": NOISE, "marker": "o", "linestyle": "none"},
        "sampler, one dot per step": {"color": SAMPLED, "marker": "o", "markersize": 3.5, "linewidth": _THIN},
        "sampler now": {"color": SAMPLED, "marker": "o", "markersize": 8, "linestyle": "none"},
        "exact flow (+ now)": {"color": EXACT, "linestyle": "--", "linewidth": _THIN},
        "predicted $x_0$": {"color": DATA, "marker": "D", "markerfacecolor": "white", "linewidth": 0.9},
        "flow direction now": {"color": EXACT, "alpha": _PALE, "marker": r"$\rightarrow$",
                                            "markersize": 13, "linestyle": "none"},
    }  # fmt: skip
    lines = [ax.plot([], [], label=label, **look)[0] for label, look in looks.items()]
    for line in lines:
        line.remove()  # the legend keeps them
    return lines


@styled
def film_shot(stage: Backdrop, shot: Shot) -> Image.Image:
    """The picture of one moment."""
    ax, ladder = stage.figure.axes[:2]
    past = np.clip(as_array(shot.past), -FAR, FAR)
    now = len(past) - 1
    artists = [*_field(ax, shot.field), *_references(ax, shot)]
    tangled = shot.exact is None  # fresh noise in every step makes a thicket: paler lines, so that the points show
    artists.append(_threads(ax, past, color=SAMPLED, linewidth=_THIN, alpha=0.4 if tangled else 1.0))
    artists += ax.plot(*past[0].T, "o", color=NOISE, markersize=5)
    artists += ax.plot(*past[1:].reshape(-1, 2).T, "o", color=SAMPLED, markersize=3.2)
    if shot.predicted is not None:
        predicted = np.clip(as_array(shot.predicted), -FAR, FAR)
        artists.append(_threads(ax, np.stack([past[now - 1], predicted]), color=DATA, linewidth=0.9))
        artists += ax.plot(*predicted.T, "D", color=DATA, markerfacecolor="white", markersize=5.5)
    artists += ax.plot(*past[now].T, "o", color=SAMPLED, markersize=8, markeredgecolor="white", markeredgewidth=0.8)
    if shot.exact_now is not None:
        artists += ax.plot(*as_array(shot.exact_now).T, "+", color=EXACT, markersize=8, markeredgewidth=1.4)
    artists.append(ax.text(0, 1.02, shot.title, transform=ax.transAxes, fontsize=12, fontweight="bold"))
    return stage.paint([*artists, *_rungs(ladder, shot.levels, now)])


def _threads(ax: Axes, lines: np.ndarray, **look: Any) -> Artist:
    """``(m, b, 2)`` as b polylines, in one artist."""
    return ax.add_collection(LineCollection(list(lines.transpose(1, 0, 2)), **look), autolim=False)


def _field(ax: Axes, field: tuple[Any, Any] | None) -> list[Artist]:
    """Pale arrows, the longest as long as their spacing; behind everything."""
    if field is None:
        return []
    points, vectors = as_array(field[0]), as_array(field[1])
    spacing = np.ptp(points[:, 0]) / (np.sqrt(len(points)) - 1)
    scale = np.linalg.norm(vectors, axis=1).max() / spacing
    return [ax.quiver(*points.T, *vectors.T, color=EXACT, alpha=_PALE, angles="xy", scale_units="xy", scale=scale,
                      width=0.0032)]  # fmt: skip


def _references(ax: Axes, shot: Shot) -> list[Artist]:
    if shot.exact is None:
        return []
    return [_threads(ax, as_array(shot.exact), color=EXACT, linewidth=_THIN, linestyle=(0, (4, 2.5)))]


def _rungs(ladder: Axes, levels: Sequence[float], now: int) -> list[Artist]:
    """Every time of the grid as a rung; noise level 0, infinitely far down, at the foot."""
    low, high = ladder.get_ylim()
    heights = np.clip(as_array(levels), low, high)
    look = {"linestyle": "none", "color": SAMPLED, "clip_on": False}
    artists = ladder.plot(np.zeros(len(heights)), heights, marker="_", markersize=13, markeredgewidth=1.6, **look)
    artists += ladder.plot([0], heights[now : now + 1], marker="o", markersize=8, **look)
    if levels[-1] == 0:
        artists.append(ladder.annotate("0", (0, low), xytext=(0, -9), textcoords="offset points", ha="center",
                                       va="top", fontsize=10, annotation_clip=False))  # fmt: skip
    return artists


@dataclass(frozen=True)
class CostLine:
    """One sampler, its error at several costs; ``look`` as from ``style.other``, whatever others are shown."""

    label: str
    nfe: Sequence[int]
    error: Sequence[float]
    look: dict[str, Any]


@styled
def cost_stage(*, nfe: tuple[float, float], error: tuple[float, float], orders: Sequence[int], title: str) -> Backdrop:
    """Empty axes for error against cost, both logarithmic, with a guide of each slope.

    Args:
        nfe, error: lowest and highest value of each axis. orders: the guides fall like NFE to the minus this power.
    """
    figure, ax = panels(size=(7.6, 5.4))
    ax.set(xscale="log", yscale="log", xlim=nfe, ylim=error)
    ax.set_xticks([v for v in (1, 2, 3, 5, 10, 20, 30, 50) if v <= nfe[1]])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    corner = 3.0, error[1] / 3
    for order in orders:
        end = corner[1] * (corner[0] / nfe[1]) ** order
        ax.plot([corner[0], nfe[1]], [corner[1], end], color=NOISE, linewidth=0.9, linestyle=":", zorder=1)
        ax.annotate(f"order {order}", (nfe[1], end), xytext=(5, 0), textcoords="offset points", va="center",
                    fontsize=10, color="#666666", annotation_clip=False)  # fmt: skip
    label_axes(ax, "network evaluations per sample, NFE (count)", "median error at the end (data units)", title)
    return Backdrop(figure)


@styled
def cost_shot(stage: Backdrop, lines: Sequence[CostLine]) -> Image.Image:
    """The lines over their axes, with a legend in the lower left corner, which errors reach last."""
    (ax,) = stage.figure.axes
    artists = [ax.plot(v.nfe, v.error, label=v.label, linewidth=1.7, markersize=5, **v.look)[0] for v in lines]
    legend = [ax.legend(handles=artists, loc="lower left")] if lines else []
    return stage.paint([*artists, *legend])
