"""Curricula of consistency training: how fine the grid is, which pairs are drawn, and how far off their targets are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lecture_lib.core import EDM
from lecture_lib.distill import (
    LogNormalPairs,
    NeighbourPairs,
    Pairs,
    RatioPairs,
    ct_points,
    ect_stage,
    ict_points,
)
from lecture_lib.distill.exact import ct_slopes, flow_slopes
from lecture_lib.viz import EXACT, STUDENT, Backdrop, other, panels, styled
from lecture_lib.widgets.controls import choice, number
from lecture_lib.widgets.explorer import Explorer, Scene

PATH, STD = EDM(), 0.5
TOTAL = 1000  # updates of the training that is looked at; curricula depend on the share that is done
DRAWS = 400
CUT = 0.002
HALF, PUBLISHED, DOUBLE = 0.5, 1.0, 2.0  # how fine the end of a curriculum is


@dataclass(frozen=True)
class Curriculum:
    """A method: updates done and fineness -> the pairs of the next update, and in words what has changed."""

    pairs: Callable[[int, float], Pairs]
    words: Callable[[int, float], str]


def _ct(done: int, fine: float) -> int:
    return ct_points(done, TOTAL, last=int(150 * fine))


def _ict(done: int, fine: float) -> int:
    return ict_points(done, TOTAL, last=int(1280 * fine))


def _ect(done: int, fine: float) -> int:
    return ect_stage(done, TOTAL, stages=8 + round(math.log2(fine)))


CURRICULA = {
    "CT": Curriculum(lambda k, f: NeighbourPairs(PATH, _ct(k, f)), lambda k, f: f"N = {_ct(k, f)} points"),
    "iCT": Curriculum(lambda k, f: LogNormalPairs(PATH, _ict(k, f)), lambda k, f: f"N = {_ict(k, f)} points"),
    "ECT": Curriculum(lambda k, f: RatioPairs(PATH, _ect(k, f)), lambda k, f: f"stage a = {_ect(k, f)}"),
}


@lru_cache(maxsize=512)
def chain(pairs: Pairs) -> Float[Tensor, " n"]:
    """The times, rising, through which a value at the data end reaches t = 80, one target after the other.

    ECT's come closer and closer to 0 without an end; the chain is cut where t falls below 0.002, and 0 put there.
    """
    if isinstance(pairs, NeighbourPairs):
        return pairs.grid
    times = [torch.tensor([80.0], dtype=torch.float64)]
    while times[-1] > CUT:
        times.append(pairs.lower(times[-1]))
    return torch.cat([torch.zeros(1, dtype=torch.float64), *times[-2::-1]])


@cache
def growth(method: str, fine: float) -> tuple[np.ndarray, np.ndarray]:
    """Share of training done, and how many jumps the chain has then."""
    done = np.linspace(0, TOTAL, 41).round().astype(int)
    return done / TOTAL, np.array([len(chain(CURRICULA[method].pairs(int(k), fine))) - 1 for k in done])


def short(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """``(t, 1 - a_t / exact)``: by how much f falls short on N(0, 0.5^2), if every target were learned to the end."""
    grid = chain(pairs)
    return grid[1:].numpy(), (1 - ct_slopes(PATH, grid, STD) / flow_slopes(PATH, grid, STD))[1:].numpy()


# The picture --------------------------------------------------------------------------------------------------------


@cache
@styled
def _stage(fine: float) -> Backdrop:
    figure, (grown, drawn, bias) = panels(1, 3, size=(10.8, 4.1))
    for k, method in enumerate(CURRICULA):
        look = other(k)
        grown.plot(*growth(method, fine), color=look["color"], linestyle=look["linestyle"], label=method)
    grown.set(yscale="log", ylim=(0.8, 6000), xlabel="share of training done", ylabel="jumps from t = 80 to the data")
    grown.set_title("Finer and finer")
    grown.legend(loc="lower right")
    drawn.set(xscale="log", yscale="log", xlim=(1e-3, 130), ylim=(1e-3, 1.4))
    drawn.set(xlabel="t (noise level, data units)", ylabel=r"$1-u/t$ (1: the target is clean)")
    drawn.set_title(f"{DRAWS} pairs as drawn")
    bias.set(xscale="log", yscale="log", xlim=(1e-3, 130), ylim=(1e-5, 1.4))
    bias.set(xlabel="t (noise level, data units)", ylabel="f falls short by (share of the exact f)")
    bias.set_title("Were training to stay here")
    return Backdrop(figure)


@styled
def curriculum_scene(method: str, done: float, fine: float) -> Scene:
    """The curriculum so far, the pairs of the next update, and the error of f if this were the last grid."""
    k = round(done * TOTAL)
    mine = CURRICULA[method]
    pairs, words = mine.pairs(k, fine), mine.words(k, fine)
    t, u = pairs.sample(DRAWS, generator=torch.Generator().manual_seed(0))
    place, error = short(pairs)
    clean = float((u <= CUT * (1 + 1e-6)).double().mean())
    note = (
        f"{method} with {done:.0%} of its updates made: {words}, {len(place)} jumps from t = 80 to the data. "
        f"In {clean:.0%} of the pairs drawn the target is clean data. On a Gaussian of standard deviation {STD}, "
        f"f(x, 80) would fall short by {error[-1]:.1%} if training stayed here until it converged."
    )
    return Scene(_painted(fine, (done, len(place)), (t, 1 - u / t), (place, error)), note)


def _painted(fine: float, now: tuple[float, int], pairs: tuple, error: tuple) -> Image.Image:
    stage = _stage(fine)
    grown, drawn, bias = stage.figure.axes
    artists = grown.plot(*now, "o", color=STUDENT, markersize=10)
    artists += drawn.plot(*(v.numpy() for v in pairs), "o", color=STUDENT, markersize=3.5, alpha=0.5)
    artists += bias.plot(*error, "-o", color=STUDENT, markersize=3)
    artists += [bias.axhline(error[1][-1], color=EXACT, linestyle="--", linewidth=1.0)]
    return stage.paint(artists)


def curriculum_explorer() -> Explorer:
    """How a curriculum of CT, iCT or ECT trades the bias of its targets for many small jumps."""
    controls = {
        "method": choice("method", "iCT", list(CURRICULA), "Whose pairs are drawn"),
        "done": number("share of training", 0.3, 0.0, 1.0, 0.02, "Updates made, of all"),
        "fine": choice(
            "fineness of the end",
            PUBLISHED,
            [("half as fine", HALF), ("as published", PUBLISHED), ("twice as fine", DOUBLE)],
            "CT ends with 151 points, iCT with 1281, ECT in its eighth stage",
        ),
    }
    return Explorer(
        curriculum_scene,
        controls,
        caption="Move the share of training. Early grids have few jumps: what is known at the data end arrives at "
        "t = 80 soon, but every target is biased, and the right panel says what that sums to. Late grids are nearly "
        "unbiased, and a value takes a thousand jumps to arrive. Then compare the pairs: which method trains where? "
        "And how does ECT begin, whose targets are clean data at first?",
        alt="Left, number of jumps from pure noise to the data against the share of training, for CT, iCT and ECT. "
        "Middle, four hundred drawn pairs: their relative gap against their time. Right, the share by which the "
        "consistency function would fall short, against time.",
    )
