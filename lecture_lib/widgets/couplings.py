"""Who is joined to whom: noise and data as drawn, by optimal transport in batches, by entropy, and by a flow itself."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from lecture_lib.core import EntropicPairing, RectifiedFlow, optimal_pairing
from lecture_lib.metrics import crossings
from lecture_lib.viz import DATA, EXACT, NOISE, Backdrop, other, panels, square, styled
from lecture_lib.widgets.catalogue import START, WORLDS, flow_end, time_at
from lecture_lib.widgets.controls import choice, ladder, same_seed
from lecture_lib.widgets.explorer import Explorer, Scene

POINTS = 64
BATCHES = (1, 2, 4, 8, 16, 32, 64)
SIGMAS = (0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 2.4, 3.2)
INDEPENDENT, BATCHED, ENTROPIC, REFLOW = "independent", "optimal transport", "entropic (bridge)", "reflow"
COUPLINGS = (INDEPENDENT, BATCHED, ENTROPIC, REFLOW)
_LOOKS = {name: other(k) for k, name in enumerate(COUPLINGS)}
_EXTENT = (-3.2, 3.2, -3.2, 3.2)


class Pairs(NamedTuple):
    """Row by row the two ends of each line."""

    x0: Float[Tensor, " n 2"]
    x1: Float[Tensor, " n 2"]

    @property
    def cost(self) -> float:
        """Mean squared length of the lines."""
        return float((self.x0 - self.x1).square().sum(1).mean())

    @property
    def share(self) -> float:
        """Of all pairs of lines, those that cross."""
        return crossings(self.x0, self.x1)


@lru_cache(maxsize=32)
def drawn(world: str, seed: int) -> Pairs:
    """As many points of the data as of the noise, in no order."""
    generator = torch.Generator().manual_seed(seed)
    x0 = WORLDS[world]().sample(POINTS, generator=generator)
    return Pairs(x0, torch.randn(POINTS, 2, generator=generator, dtype=x0.dtype))


@lru_cache(maxsize=1024)
def coupled(world: str, seed: int, coupling: str, knob: float = 0) -> Pairs:
    """The points of ``drawn``, joined; reflow keeps the noise and puts in the data that its own flow makes.

    Args:
        coupling: one of ``COUPLINGS``.
        knob: size of a batch, or sigma; not looked at by the others.
    """
    x0, x1 = drawn(world, seed)
    if coupling == BATCHED:
        parts = zip(x0.split(int(knob)), x1.split(int(knob)), strict=True)
        return Pairs(x0, torch.cat([optimal_pairing(a, b) for a, b in parts]))
    if coupling == ENTROPIC:
        return Pairs(x0, EntropicPairing(knob, iterations=1000)(x0, x1, torch.Generator().manual_seed(seed)))
    if coupling == REFLOW:
        return Pairs(flow_end(WORLDS[world](), RectifiedFlow(), x1, time_at(RectifiedFlow(), START)), x1)
    return Pairs(x0, x1)


def line_of(world: str, seed: int, coupling: str) -> list[Pairs]:
    """The coupling at every setting of its knob."""
    knobs = {BATCHED: BATCHES, ENTROPIC: SIGMAS}.get(coupling, (0,))
    return [coupled(world, seed, coupling, knob) for knob in knobs]


# The picture ---------------------------------------------------------------------------------------------------------


@cache
@styled
def _stage() -> Backdrop:
    figure, (plane, cost) = panels(1, 2, size=(10.6, 5.6), width_ratios=(1.1, 1))
    square(plane, _EXTENT)
    plane.set_title(f"{POINTS} lines from noise to data")
    cost.set(xlim=(0, 8), ylim=(-1.5, 32))
    cost.set(
        xlabel="transport cost: mean $|x_0-x_1|^2$ (data units squared)", ylabel="lines that cross (% of all pairs)"
    )
    cost.set_title("What each coupling costs")
    _legend(plane, cost)
    return Backdrop(figure)


def _legend(plane: Axes, cost: Axes) -> None:
    ends = {"noise $x_1$": {"color": NOISE}, "data $x_0$": {"color": DATA}}
    handles = [plane.plot([], [], "o", label=label, **look)[0] for label, look in ends.items()]
    plane.legend(handles=handles, loc="upper left")
    words = {
        INDEPENDENT: INDEPENDENT,
        BATCHED: f"{BATCHED}, batches of 1 to {POINTS}",
        ENTROPIC: rf"{ENTROPIC}, $\sigma$ = {SIGMAS[0]:g} to {SIGMAS[-1]:g}",
        REFLOW: f"{REFLOW}: joined by the flow",
    }
    lines = [cost.plot([], [], label=words[name], **look)[0] for name, look in _LOOKS.items()]
    lines += cost.plot(
        [], [], "o", markersize=13, markerfacecolor="none", markeredgecolor=EXACT, label="shown on the left"
    )
    cost.legend(handles=lines, loc="lower right")


@styled
def coupling_scene(coupling: str, batch: int, sigma: float, world: str, seed: int) -> Scene:
    """Lines between the pairs, and where this coupling stands among the others."""
    knobs = {INDEPENDENT: 0, BATCHED: batch, ENTROPIC: sigma, REFLOW: 0}
    points = {name: coupled(world, seed, name, knob) for name, knob in knobs.items()}
    now, plain = points[coupling], points[INDEPENDENT]
    setting = {BATCHED: f" in batches of {batch}", ENTROPIC: f" with sigma = {sigma:g}"}.get(coupling, "")
    pairs = POINTS * (POINTS - 1) // 2
    note = (
        f"{coupling}{setting}: transport cost {now.cost:.2f} (independent: {plain.cost:.2f}); "
        f"{round(now.share * pairs)} of {pairs} pairs of lines cross, {now.share:.1%} (independent: {plain.share:.1%})."
    )
    if coupling == ENTROPIC:
        used = len(torch.unique(now.x1, dim=0))
        note += f" Each data point draws its partner, so that {used} of {POINTS} points of noise are taken."
    return Scene(_painted(world, seed, now, points), note)


def _painted(world: str, seed: int, now: Pairs, points: dict[str, Pairs]) -> Image.Image:
    stage = _stage()
    plane, cost = stage.figure.axes
    ends = torch.stack(now).numpy()
    artists = plane.plot(*ends.transpose(2, 0, 1), color=EXACT, linewidth=0.9, alpha=0.45)
    artists += plane.plot(*drawn(world, seed).x1.T.numpy(), "o", color=NOISE, markersize=5)
    artists += plane.plot(*now.x0.T.numpy(), "o", color=DATA, markersize=5)
    for name, look in _LOOKS.items():
        line = line_of(world, seed, name)
        place = [p.cost for p in line], [100 * p.share for p in line]
        artists += cost.plot(*place, **{**look, "linewidth": 1.4, "markersize": 4 if len(line) > 1 else 8})
        artists += cost.plot([points[name].cost], [100 * points[name].share], **{**look, "markersize": 8})
    artists += cost.plot([now.cost], [100 * now.share], "o", markersize=17, markerfacecolor="none",
                         markeredgecolor=EXACT, markeredgewidth=1.6)  # fmt: skip
    return stage.paint(artists)


def coupling_explorer() -> Explorer:
    """The same points joined in four ways, with what that costs and how many lines cross."""
    controls = {
        "coupling": choice("coupling", INDEPENDENT, COUPLINGS, "Who is joined to whom"),
        "batch": ladder("size of a batch", 8, BATCHES, "Optimal transport is solved within batches of this size"),
        "sigma": ladder("sigma (entropic)", 0.8, [(f"{v:g}", v) for v in SIGMAS], "Of the bridge, in data units"),
        "world": choice("data", "three classes", list(WORLDS), "The law of x0; x1 is white noise"),
        "seed": same_seed(),
    }
    return Explorer(
        coupling_scene,
        controls,
        caption="Where lines cross, a velocity network can only learn their mean, and its flow bends. Go from "
        "independent to optimal transport, and turn the batch from 1 (nothing changes) to 64. Then the entropic "
        "coupling: its sigma leads from transport to independent ends. Reflow keeps the noise and takes the data where "
        "the flow of the independent coupling itself arrives: shorter lines, hardly a crossing, and no problem of "
        "transport to solve.",
        alt="Left, sixty-four lines from grey points of noise to blue points of data. Right, share of crossing pairs "
        "against transport cost: a point for the independent coupling and for reflow, a line over batch sizes for "
        "optimal transport, a line over sigma for the entropic coupling; the one shown on the left has a ring.",
    )
