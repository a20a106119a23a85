"""What a network evaluation buys: error against cost on the ring of eight, for the samplers of one's choice."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from functools import cache, lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import Discrete, ddpm_linear
from lecture_lib.oracles import flow_map
from lecture_lib.samplers import sample
from lecture_lib.viz import Backdrop, CostLine, cost_shot, cost_stage, other
from lecture_lib.widgets.catalogue import GRIDS, SAMPLERS, build, ring
from lecture_lib.widgets.controls import choice, switch
from lecture_lib.widgets.explorer import Explorer, Scene

POINTS = 64
STEPS = (1, 2, 3, 4, 5, 7, 10, 14, 20, 30, 50)
BUDGETS = (5, 10, 20, 50)  # evaluations per sample at which samplers are usually compared
NONE = "none"
# Argument of the drawing function -> sampler; each keeps its look whichever others are shown.
TOGGLES = {
    "ddim": "DDIM",
    "heun": "Heun",
    "plms": "PLMS",
    "solver3": "DPM-Solver-3",
    "pp2m": "DPM-Solver++(2M)",
    "pp3m": "DPM-Solver++(3M)",
    "unipc3": "UniPC-3",
}
SHOWN_FIRST = ("ddim", "heun", "pp2m", "unipc3")
_PATIENCE = 0.25  # seconds of work after which the lines that are ready are shown


@cache
def path() -> Discrete:
    """DDPM's table."""
    return Discrete(ddpm_linear())


@cache
def start() -> Float[Tensor, " b 2"]:
    """The same pure noise for every sampler."""
    noise = torch.randn(POINTS, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return path().at(1.0).sigma * noise


@lru_cache
def exact_end(t: float) -> Float[Tensor, " b 2"]:
    """Where the exact flow takes that noise at time t."""
    ones = torch.ones(POINTS, dtype=torch.float64)
    return flow_map(ring().denoise(path()), path(), start(), ones, t * ones, tolerance=1e-8)


@cache
def measured(sampler: str, grid: str, steps: int) -> tuple[int, float]:
    """``(NFE, median distance from the exact end)`` of one run; remembered, so a toggle computes what is new."""
    times = GRIDS[grid](path(), steps, path().at(1.0).level)
    frames = sample(ring().denoise(path()), path(), build(sampler, ring(), steps), times, start())
    final = deque(frames, maxlen=1)[0]
    return final.nfe, float((final.x - exact_end(float(times[-1]))).norm(dim=1).median())


def curve(sampler: str, grid: str) -> tuple[list[int], list[float]]:
    """Costs and errors of a sampler, from one step up to the largest budget."""
    points = []
    for steps in STEPS:
        points.append(measured(sampler, grid, steps))
        if points[-1][0] >= BUDGETS[-1]:
            break
    return tuple(map(list, zip(*points, strict=True)))


@cache
def _stage(grid: str) -> Backdrop:
    title = f"Ring of eight, DDPM's betas, {grid}"
    return cost_stage(nfe=(0.9, 65.0), error=(1e-6, 3.0), orders=(1, 2, 3, 4), title=title)


def convergence_scenes(grid: str, more: str, **shown: bool) -> Iterator[Scene]:
    """Error against cost of the samplers switched on, and of one more; what is ready is shown while the rest runs."""
    names = {TOGGLES[key]: other(k) for k, key in enumerate(TOGGLES) if shown[key]}
    if more != NONE:
        names[more] = other(len(TOGGLES))
    lines, since = [], time.perf_counter()
    for name, look in names.items():
        lines.append(CostLine(name, *curve(name, grid), look))
        if time.perf_counter() - since > _PATIENCE and len(lines) < len(names):
            yield Scene(cost_shot(_stage(grid), lines), f"So far: {name}.", progress=len(lines) / len(names))
            since = time.perf_counter()
    yield Scene(cost_shot(_stage(grid), lines), _note(lines), progress=1.0)


def _note(lines: list[CostLine]) -> str:
    """The best of the samplers shown, within each budget."""
    if not lines:
        return "No sampler is switched on."
    words = []
    for budget in BUDGETS:
        best = min((e, line.label) for line in lines for n, e in zip(line.nfe, line.error, strict=True) if n <= budget)
        words.append(f"{budget} NFE: {best[0]:.2g} ({best[1]})")
    return f"Smallest error in data units within {'; '.join(words)}."


def error_nfe_explorer() -> Explorer:
    """Which sampler for which budget, and what the time grid has to do with it."""
    rest = [name for name, entry in SAMPLERS.items() if name not in TOGGLES.values() and _is_rival(entry)]
    controls = {
        "grid": choice("time grid", "uniform in log-SNR", list(GRIDS), "Where the steps lie"),
        "more": choice("one more", NONE, [NONE, *rest], "Any other deterministic sampler"),
        **{key: switch(name, key in SHOWN_FIRST, f"Show {name}") for key, name in TOGGLES.items()},
    }
    return Explorer(
        convergence_scenes,
        controls,
        caption="A straight line parallel to a dotted guide means that order. On the log-SNR grid orders show as the "
        "theory says, but only from some ten evaluations on: below that, who is best is a different question. Now take "
        "the uniform grid, and see every order fade, for its last step is too long.",
        alt="Median error against network evaluations per sample, both axes logarithmic, one line per sampler, with "
        "dotted guides for the orders 1 to 4.",
    )


def _is_rival(entry: object) -> bool:
    """Deterministic, so that it has an error against the flow; the adaptive reference is left out for its cost."""
    return getattr(entry, "deterministic", True) and entry is not SAMPLERS["RK45 (adaptive)"]
