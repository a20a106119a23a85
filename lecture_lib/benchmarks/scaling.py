"""A scaling sweep that fits on a laptop: transformers of several sizes on digits, at several budgets of compute.

Every run has its own schedule, which ends when its budget is spent (a run that is only cut short would look worse than
it is). The learning rate is carried by μP from one width to the others. There are 1442 digits, so the longer runs see
each of them up to 250 times; the losses are those of test digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from lecture_lib.benchmarks.widths import BATCH, CLASSES, denoiser, run, seeded
from lecture_lib.nets import DiT, LabelEmbedding, explicit_attention, parameter_count, with_kernel
from lecture_lib.tensors import few_threads
from lecture_lib.tooling.benching import Measurement
from lecture_lib.training import (
    Run,
    bootstrap,
    fit_parametric,
    forecast,
    growth_exponent,
    interval,
    isoflop_valleys,
    mup_adamw,
    mup_attention,
    mup_init,
    read_runs,
)

# Budgets in floating-point operations, and the widths trained with each: on both sides of the best one.
SWEEP = {
    4e9: (8, 12, 16, 20, 24, 32),
    10e9: (8, 12, 16, 20, 24, 32),
    25e9: (8, 12, 16, 20, 24, 32),
    62.5e9: (12, 16, 20, 24, 32, 48),
    156.25e9: (12, 16, 20, 24, 32, 48),
}
BASE, HEADS = 64, 4
RATE, SHORT = 2.0**-6, 400  # the best rate of short runs (benchmark `widths`), and how many updates are still short
SEEDS, RESAMPLES = 2, 200


def transformer(width: int) -> DiT:
    """Two blocks on the 16 patches of a digit; the heads grow with the width, so their logits are divided by it."""
    network = DiT(8, 1, patch=2, dim=width, depth=2, heads=HEADS, condition=LabelEmbedding(CLASSES, width))
    return with_kernel(network, mup_attention(BASE // HEADS))


@cache
def cost(width: int) -> tuple[int, int]:
    """Trainable parameters, and operations of one training sample, forward and backward, as torch counts them.

    With the softmax written out: torch does not count the fused kernel of CPUs, a quarter of the work at width 8.
    """
    network = with_kernel(seeded(partial(transformer, width), 0), explicit_attention)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.long)).sum().backward()
    return parameter_count(network, trainable_only=True), counter.get_total_flops()


def rate(updates: int) -> float:
    """Best learning rate at the base width: it falls with the square root of the number of updates.

    Half of it and twice of it were both worse at widths 8 to 32 and 88 to 4691 updates (seven pairs tried).
    """
    return RATE * min(1.0, (SHORT / updates) ** 0.5)


def trained(compute: float, width: int, seed: int) -> Run:
    """One run of the sweep: as many updates as the budget pays for."""
    network, base = (seeded(partial(transformer, w), seed) for w in (width, BASE))
    size, operations = cost(width)
    updates = round(compute / (operations * BATCH))
    loss = run(denoiser(mup_init(network, base)), mup_adamw(network, base, rate(updates)), updates, seed)
    return Run(compute, size, updates * BATCH, seed, loss)


def measure() -> Iterator[Measurement]:
    """The sweep, then what the laws make of it; about six minutes of one core."""
    runs = []
    with few_threads(1):
        for compute, widths in SWEEP.items():
            for width in widths:
                for seed in range(SEEDS):
                    runs.append(trained(compute, width, seed))
                    yield Measurement(runs[-1].what, runs[-1].loss, "")
    yield from findings(runs)


def findings(runs: Sequence[Run]) -> Iterator[Measurement]:
    """The exponents, and the largest budget as the smaller ones foretell it."""
    generator = torch.Generator().manual_seed(0)
    found = forecast(runs, resamples=RESAMPLES, generator=generator)
    yield from spread("L(C): exponent α", found.law.exponent, [law.exponent for law in found.resampled])
    yield from spread("L(C): floor E", found.law.floor, [law.floor for law in found.resampled])
    yield Measurement("L(C) without a floor: exponent α", found.straight.exponent, "")
    yield from spread("isoFLOP: best size ∝ C to the power", growth_exponent(found.valleys), found.growth)

    size, samples, losses = ([getattr(run, name) for run in runs] for name in ("size", "samples", "loss"))
    law = fit_parametric(size, samples, losses)
    refit = partial(fit_parametric, size, samples)
    laws = bootstrap(refit, law(size, samples), losses, degrees=5, resamples=RESAMPLES, generator=generator)
    for what, name in (
        ("exponent α of parameters", "size_exponent"),
        ("exponent β of samples", "data_exponent"),
        ("floor E", "floor"),
        ("best size ∝ C to the power", "growth"),
    ):
        yield from spread(f"L(N, D): {what}", getattr(law, name), [getattr(one, name) for one in laws])

    at, last = found.valleys[-1].compute, found.valleys[-1].loss
    earlier = forecast([run for run in runs if run.compute < at], resamples=RESAMPLES, generator=generator)
    yield Measurement(f"best loss at {at:g} FLOP, measured", last, "")
    foretold = f"best loss at {at:g} FLOP, foretold from smaller budgets"
    yield from spread(
        f"{foretold}: with a floor", float(earlier.law(at)), [float(law(at)) for law in earlier.resampled]
    )
    yield Measurement(f"{foretold}: without", float(earlier.straight(at)), "")


def spread(what: str, value: float, resampled: Sequence[float]) -> Iterator[Measurement]:
    """A fitted number and the middle 90 % of its resampled values."""
    low, high = interval(resampled)
    yield Measurement(what, value, "")
    yield Measurement(f"{what}, 5 % of resamples below", low, "")
    yield Measurement(f"{what}, 95 % of resamples below", high, "")


def figure(measurements: Sequence[Measurement]) -> Figure:
    """Left the isoFLOP curves, right their lowest points with the laws that the smaller budgets give."""
    from lecture_lib.viz import panels, style

    runs = read_runs({"what": m.what, "value": str(m.value)} for m in measurements)
    with style():
        fig, (left, right) = panels(1, 2, size=(10.4, 4.4))
        draw_curves(left, runs)
        draw_forecast(right, runs)
    return fig


def draw_curves(ax: Axes, runs: Sequence[Run]) -> None:
    """Loss over size for every budget, its parabola, and a ring at the lowest point."""
    from lecture_lib.viz import other
    from lecture_lib.viz.style import label_axes, legend

    compute, size, loss = (np.array([getattr(run, name) for run in runs]) for name in ("compute", "size", "loss"))
    for k, valley in enumerate(isoflop_valleys(compute, size, loss)):
        look, mine = other(k), compute == valley.compute
        ax.plot(size[mine], loss[mine], look["marker"], color=look["color"], markersize=4)
        dense = np.geomspace(size[mine].min(), size[mine].max(), 100)
        label = f"{valley.compute / 1e9:.3g} GFLOP"
        ax.plot(dense, valley(dense), color=look["color"], linestyle=look["linestyle"], linewidth=1.5, label=label)
        ax.plot(valley.size, valley.loss, "o", color=look["color"], markerfacecolor="none", markersize=12)
    ax.set_xscale("log")
    label_axes(ax, "trainable parameters", "loss on test digits (velocity, mean square)", "One curve per budget")
    legend(ax)


def draw_forecast(ax: Axes, runs: Sequence[Run]) -> None:
    """The lowest points, and what all but the last of them say about larger budgets."""
    from lecture_lib.viz import DATA, other
    from lecture_lib.viz.style import label_axes, legend

    compute = np.array(sorted({run.compute for run in runs}))
    generator = torch.Generator().manual_seed(0)
    earlier = [run for run in runs if run.compute < compute[-1]]
    found = forecast(earlier, resamples=RESAMPLES, generator=generator)
    dense = np.geomspace(compute[0], 4 * compute[-1], 100)
    for k, (law, label) in enumerate(((found.law, "law with a floor"), (found.straight, "law without"))):
        look = other(k)
        ax.plot(dense / 1e9, law(dense), color=look["color"], linestyle=look["linestyle"], label=label)
    low, high = found.band(dense)
    ax.fill_between(dense / 1e9, low, high, color=other(0)["color"], alpha=0.15, linewidth=0, label="90 % of resamples")
    ax.plot(compute[:-1] / 1e9, [v.loss for v in found.valleys], "o", color=DATA, label="lowest points, fitted")
    last = isoflop_valleys(*zip(*((run.compute, run.size, run.loss) for run in runs), strict=True))[-1]
    ax.plot(last.compute / 1e9, last.loss, "o", color=DATA, markerfacecolor="none", markersize=9, label="held out")
    ax.set(xscale="log", yscale="log")
    ax.yaxis.set_minor_formatter("{x:.1f}")
    label_axes(ax, "compute of one run (GFLOP)", "lowest loss of a budget", "Foretold from all but the last")
    legend(ax)
