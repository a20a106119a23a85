"""Which learning rate is best at which width: small diffusion transformers on the digits, SP beside μP.

All networks are widened by more heads of 32, so attention keeps its 1 / sqrt(d). At the base width the two
parameterizations are one and the same. Everything but the width and the rate is shared: batches, times and noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from matplotlib.figure import Figure
from torch import nn

from lecture_lib.core import VELOCITY, Denoiser, RectifiedFlow, UniformTimes
from lecture_lib.data import Batches, digits
from lecture_lib.errors import NonFiniteError, RangeError
from lecture_lib.nets import DiT, LabelEmbedding
from lecture_lib.tensors import few_threads
from lecture_lib.tooling.benching import Measurement
from lecture_lib.training import train, warmup_cosine
from lecture_lib.training.mup import mup_adamw, mup_init

WIDTHS = (64, 128, 256, 512)
BASE, HEAD = 64, 32
POWERS = range(-12, -3)  # learning rates 2^-12 ... 2^-4
UPDATES, BATCH, SEEDS = 100, 32, 2
CLASSES = 10
SP, MUP = "SP", "μP"

Curve = dict[int, float]
"""Test loss by the power of two of the learning rate."""


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What ``build`` returns, with initial weights that are a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.set_state(torch.Generator().manual_seed(seed).get_state())
        return build()


def transformer(width: int) -> DiT:
    """Two blocks on the 4 patches of a digit."""
    return DiT(8, 1, patch=4, dim=width, depth=2, heads=width // HEAD, condition=LabelEmbedding(CLASSES, width))


def denoiser(network: nn.Module) -> Denoiser:
    """The network as a flow-matching model of digits."""
    return Denoiser(network, RectifiedFlow(), VELOCITY, null=torch.tensor(CLASSES))


def run(model: Denoiser, optimizer: torch.optim.Optimizer, updates: int, seed: int) -> float:
    """Train with warm-up and cosine, and return the test loss; NaN where training broke down."""
    seen = digits("train")
    steps = train(
        model,
        lambda model, batch, g: model.loss(*batch, times=UniformTimes(), p_uncond=0.1, generator=g),
        Batches((seen.images, seen.labels), BATCH),
        steps=updates,
        optimizer=optimizer,
        generator=torch.Generator().manual_seed(1000 + seed),
        schedule=warmup_cosine(updates, warmup=updates // 10),
    )
    try:
        for _ in steps:
            pass
    except NonFiniteError:
        return math.nan
    return judge(model)


@torch.no_grad()
def judge(model: Denoiser) -> float:
    """Loss on the test digits, each at two times, with times and noise that are the same for every model."""
    unseen = digits("test")
    x0, labels = unseen.images.repeat(2, 1, 1, 1), unseen.labels.repeat(2)
    generator = torch.Generator().manual_seed(99)
    return model.eval().loss(x0, labels, times=UniformTimes(), generator=generator).mean().item()


def trained(kind: str, width: int, rate: float, seed: int) -> float:
    """Test loss at one point of one curve. Under SP the network is its own base: one rate for all weights."""
    network = seeded(partial(transformer, width), seed)
    base = network if kind == SP else seeded(partial(transformer, BASE), seed)
    return run(denoiser(mup_init(network, base)), mup_adamw(network, base, rate), UPDATES, seed)


def best(curve: Mapping[int, float]) -> int:
    """The power of two of the best rate.

    Raises:
        RangeError: it lies at an end of the grid, or every rate diverged: the grid has to be moved.
    """
    power = min((power for power in curve if not math.isnan(curve[power])), key=curve.__getitem__, default=None)
    if power is None or power in (min(curve), max(curve)):
        raise RangeError(f"rates: the best of 2^{min(curve)}..2^{max(curve)} is 2^{power}, expected one inside")
    return power


def name(kind: str, width: int) -> str:
    """SP and μP are one at the base width."""
    return f"{SP} = {MUP}, width {width}" if width == BASE else f"{kind}, width {width}"


def measure() -> Iterator[Measurement]:
    """Test loss over learning rate for every width; about ten minutes of one core."""
    at_best: dict[tuple[str, int], int] = {}
    with few_threads(1):
        for width in WIDTHS:
            for kind in (SP, MUP):
                if kind == MUP and width == BASE:
                    at_best[kind, width] = at_best[SP, width]
                    continue
                curve = {}
                for power in POWERS:
                    losses = [trained(kind, width, 2.0**power, seed) for seed in range(SEEDS)]
                    curve[power] = sum(losses) / SEEDS
                    yield Measurement(f"{name(kind, width)}, rate 2^{power}: test loss", curve[power], "")
                at_best[kind, width] = best(curve)
                yield Measurement(f"{name(kind, width)}: best rate is 2 to the power", at_best[kind, width], "")
    moves = {kind: abs(at_best[kind, WIDTHS[-1]] - at_best[kind, BASE]) for kind in (SP, MUP)}
    span = f"best rate from width {BASE} to {WIDTHS[-1]} moves by factors of 2"
    yield Measurement(f"{SP}: {span}", moves[SP], "")
    yield Measurement(f"{MUP}: {span}", moves[MUP], "", 1)
    yield Measurement(f"{MUP} beyond {SP}: moves by factors of 2", moves[MUP] - moves[SP], "", -1)


def curves(measurements: Sequence[Measurement]) -> dict[tuple[str, int], Curve]:
    """The measured losses as (kind, width) -> curve; the base width belongs to both kinds."""
    found: dict[tuple[str, int], Curve] = {}
    for m in measurements:
        if ", rate 2^" not in m.what:
            continue
        label, _, rest = m.what.partition(", rate 2^")
        kinds, _, width = label.partition(", width ")
        for kind in kinds.split(" = "):
            found.setdefault((kind, int(width)), {})[int(rest.split(":")[0])] = m.value
    return found


def figure(measurements: Sequence[Measurement]) -> Figure:
    """Two panels with the same axes; a ring around the best rate of each width."""
    from lecture_lib.viz import Line, other, panels, style, sweep

    found = curves(measurements)
    titles = {SP: "Standard parameterization (SP)", MUP: "Maximal update (μP)"}
    with style():
        fig, axes = panels(1, 2, size=(9.6, 4.2), sharey=True)
        for ax, kind in zip(axes, titles, strict=True):
            lines = [
                Line(f"width {width}", list(curve.values()), look=other(k))
                for k, (width, curve) in enumerate((w, found[kind, w]) for w in WIDTHS)
            ]
            rates = [2.0**power for power in found[kind, BASE]]
            ylabel = "loss on test digits (velocity, mean square)" if kind == SP else ""
            xlabel = "learning rate" if kind == SP else f"learning rate at the base width, {BASE}"
            sweep(rates, lines, xlabel=xlabel, ylabel=ylabel, title=titles[kind], ax=ax)
            for k, width in enumerate(WIDTHS):
                power = best(found[kind, width])
                ring = {"markerfacecolor": "none", "markersize": 14, "markeredgewidth": 1.8, "linestyle": ""}
                ax.plot(2.0**power, found[kind, width][power], "o", color=other(k)["color"], **ring)
            ax.set_xscale("log", base=2)
    return fig
