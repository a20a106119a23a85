"""Error at equal cost on the ring of eight modes, DDPM's schedule, from pure noise to clean data.

The error is the distance to the exact flow from the same noise, its median over 512 points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import product

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lecture_lib.benchmarks.samplers.rivals import rivals
from lecture_lib.core import (
    Discrete,
    ddpm_linear,
    karras_grid,
    logsnr_grid,
    quadratic_grid,
    then_clean,
    uniform_grid,
)
from lecture_lib.oracles import flow_map, ring_of_modes
from lecture_lib.samplers import (
    B1,
    B2,
    DATA,
    DDIM,
    LMS,
    NOISE,
    DPMSolver3,
    DPMSolverPP2M,
    DPMSolverPP3M,
    ExponentialAdams,
    Heun,
    Sampler,
    UniPC,
    last,
    sample,
)
from lecture_lib.tooling.benching import Measurement

# Evaluations: the median error that the best sampler on the best grid must reach.
BARS = {5: 4.9e-2, 10: 5.2e-3, 20: 1.2e-3, 50: 4.1e-5}
BUDGETS = (4, 5, 7, 10, 13, 16, 20, 25, 31, 40, 50)
POINTS = 512
PATH = Discrete(ddpm_linear())
LEVEL = math.exp(-PATH.at(1.0).lam)  # the noise level sigma/alpha of the table's last entry: 157.4
SHOWN = [
    DDIM(),
    Heun(),
    LMS(4),
    DPMSolver3(),
    DPMSolverPP2M(),
    DPMSolverPP3M(),
    ExponentialAdams(3, NOISE),
    UniPC(3),
]
CANDIDATES = [
    *[UniPC(k, B, form) for form in (DATA, NOISE) for B in (B1, B2) for k in (2, 3, 4)],
    *[ExponentialAdams(k, form) for form in (DATA, NOISE) for k in (2, 3, 4)],
    DPMSolverPP2M(),
    DPMSolverPP3M(),
    LMS(4),
]
PER_STEP = {Heun: 2, DPMSolver3: 3}


def to_clean(steps: int, level: float) -> Tensor:
    """Equal steps in log-SNR down to a noise level, then one to clean data."""
    if steps == 1:
        return uniform_grid(PATH, 1)
    return then_clean(logsnr_grid(PATH, steps - 1, start=1.0, end=PATH.at_lam(-math.log(level)).time))


GRIDS: dict[str, Callable[[int], Tensor]] = {
    "uniform": partial(uniform_grid, PATH),
    "quadratic": partial(quadratic_grid, PATH),
    **{f"log-SNR to {level:g}": partial(to_clean, level=level) for level in (0.0015, 0.005, 0.01, 0.02, 0.05)},
    **{
        f"Karras {rho:g} to {level:g}": partial(karras_grid, PATH, sigma_max=LEVEL, sigma_min=level, rho=rho)
        for rho, level in product((7, 10, 15), (0.002, 0.005, 0.01, 0.02))
    },
}


@cache
def problem(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise, and where the exact flow takes it."""
    x_T = torch.randn(POINTS, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ends = torch.ones(POINTS, dtype=torch.float64), torch.zeros(POINTS, dtype=torch.float64)
    return x_T, flow_map(ring_of_modes().denoise(PATH), PATH, x_T, *ends)


def error(sampler: Sampler, grid: Tensor, seed: int = 0) -> float:
    """Median distance to the exact end points."""
    x_T, exact = problem(seed)
    return float((last(sample(ring_of_modes().denoise(PATH), PATH, sampler, grid, x_T)) - exact).norm(dim=1).median())


def steps_for(sampler: Sampler, nfe: int) -> int | None:
    """How many steps spend exactly ``nfe`` evaluations, the last one (to clean data) only one; None if none do."""
    cost = PER_STEP.get(type(sampler), 1)
    first = nfe - 1 if isinstance(sampler, DPMSolverPP3M) else nfe
    return (first - 1) // cost + 1 if (first - 1) % cost == 0 and first > 0 else None


@cache
def curves() -> dict[str, list[float]]:
    """Error of each shown sampler at each budget, all on one grid (log-SNR down to 0.01); NaN where none fits."""
    lines = {}
    for sampler in SHOWN:
        steps = [steps_for(sampler, nfe) for nfe in BUDGETS]
        lines[repr(sampler)] = [math.nan if k is None else error(sampler, to_clean(k, 0.01)) for k in steps]
    return lines


def best(nfe: int) -> tuple[float, Sampler, str]:
    """The smallest error at ``nfe`` evaluations over candidates and grids, with its sampler and grid."""
    found = (
        (error(sampler, grid(steps_for(sampler, nfe))), sampler, name)
        for sampler, (name, grid) in product(CANDIDATES, GRIDS.items())
    )
    return min(found, key=lambda row: row[0])


def measure() -> Iterator[Measurement]:
    """The curves of one grid; then the best of ours, on fresh points as well, and the best of `diffusers`."""
    for sampler, errors in curves().items():
        for nfe, value in zip(BUDGETS, errors, strict=True):
            if not math.isnan(value):
                yield Measurement(f"ring, {nfe} NFE, {sampler}", value, "data units")
    for nfe, bar in BARS.items():
        value, sampler, grid = best(nfe)
        yield Measurement(f"ring, {nfe} NFE, best: {sampler!r} on {grid}", value, "data units", bar)
        again = error(sampler, GRIDS[grid](steps_for(sampler, nfe)), seed=1)
        yield Measurement(f"ring, {nfe} NFE, the same on points not chosen by", again, "data units", bar)
    x_T, exact = problem()
    for nfe in BARS:
        value, name = min(rivals(ring_of_modes(), PATH, x_T, exact, nfe))
        yield Measurement(f"ring, {nfe} NFE, best of diffusers: {name}", value, "data units")


def figure(measurements: Sequence[Measurement]) -> Figure:
    """Error against evaluations, with the best of ours and of `diffusers` as measured."""
    from lecture_lib.viz import cost_stage
    from lecture_lib.viz.style import EXACT, other

    title = "Ring of eight modes; in colour: log-SNR grid to 0.01"
    stage = cost_stage(nfe=(4, 54), error=(1e-5, 1.0), orders=(1, 2, 3), title=title)
    (ax,) = stage.figure.axes
    for i, (name, errors) in enumerate(curves().items()):
        points = [(nfe, value) for nfe, value in zip(BUDGETS, errors, strict=True) if not math.isnan(value)]
        ax.plot(*zip(*points, strict=True), label=name, linewidth=1.6, markersize=5, **other(i))
    for who, word, marker in (
        ("best of diffusers", "best of diffusers", "s"),
        ("best of these, any grid", "best:", "o"),
    ):
        points = [
            (int(m.what.split()[1]), m.value) for m in measurements if m.what.startswith("ring") and word in m.what
        ]
        if points:
            style = ":" if marker == "s" else "-"
            ax.plot(*zip(*points, strict=True), label=who, color=EXACT, linestyle=style, linewidth=2.4, marker=marker)
    ax.set_xlim(3.5, 54)
    ax.legend(loc="lower left", fontsize=9)
    return stage.figure
