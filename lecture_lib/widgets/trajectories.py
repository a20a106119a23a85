"""Sampling step by step in the plane: any sampler, path and grid, beside the exact flow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from torch import Tensor

from lecture_lib.core import RectifiedFlow, logsnr_grid
from lecture_lib.samplers import UniPC, sample
from lecture_lib.viz import Backdrop, Shot, film_shot, film_stage, lattice
from lecture_lib.widgets.catalogue import FLOOR, GRIDS, PATHS, SAMPLERS, START, WORLDS, build, denoiser, time_at
from lecture_lib.widgets.controls import choice, count, same_seed
from lecture_lib.widgets.explorer import Explorer, Scene

POINTS = 16
EXTENT = (-2.4, 2.4, -2.4, 2.4)
LADDER = (0.4 * FLOOR, 1.6 * START)
_TOGETHER = 10  # seeds whose exact trajectories are computed in one batch, which costs little more than one alone
_NEARLY_CLEAN = 1e-4  # noise level from which the exact trajectory jumps to clean data
_EXACT_TO = 1e-6  # data units: median error of what is called exact here, measured against oracles.flow_map

# Positions are drawn as z = x/(alpha + sigma). These are the coordinates of rectified flow, in which every path has the
# same exact trajectories, and a step that keeps its prediction (DDIM) is a straight line towards the predicted x0.


@dataclass(frozen=True)
class Film:
    """A whole run, in the coordinates of the picture.

    Attributes:
        z: ``(n + 1, b, 2)`` positions. x0: ``(n, b, 2)``, the prediction at the start of each step.
        times, levels, nfe: ``(n + 1,)`` each: on the path's clock, as sigma/alpha, and evaluations so far.
        deterministic: whether an exact trajectory exists to compare with.
    """

    z: Float[Tensor, " n+1 b 2"]
    x0: Float[Tensor, " n b 2"]
    times: list[float]
    levels: list[float]
    nfe: list[int]
    deterministic: bool


def starting_noise(seed: int) -> tuple[Float[Tensor, " b 2"], torch.Generator]:
    """The noise of a seed, and the generator that goes on with it for stochastic samplers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(POINTS, 2, generator=generator, dtype=torch.float64), generator


@lru_cache(maxsize=128)
def film(world: str, sampler: str, path: str, grid: str, steps: int, seed: int) -> Film:
    """The run that these names describe; remembered, so that moving through it only draws."""
    law, road, (noise, generator) = WORLDS[world](), PATHS[path], starting_noise(seed)
    solver, times = build(sampler, law, steps), GRIDS[grid](road, steps, START)
    moments = road.along(times)
    x_T = moments[0].sigma * noise
    frames = list(sample(denoiser(solver, law, road), road, solver, times, x_T, generator=generator))
    z = torch.stack([frame.x / (c.alpha + c.sigma) for frame, c in zip(frames, moments, strict=True)])
    x0 = torch.stack([frame.x0 for frame in frames[1:]])
    levels, nfe = [c.level for c in moments], [frame.nfe for frame in frames]
    return Film(z, x0, times.tolist(), levels, nfe, solver.deterministic)


# What is exact ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _flows(world: str, decade: int) -> tuple[CubicSpline, np.ndarray]:
    """Exact trajectories of ten seeds: a spline over half log-SNR, and where they end on clean data."""
    path, law = RectifiedFlow(), WORLDS[world]()
    noise = torch.cat([starting_noise(_TOGETHER * decade + k)[0] for k in range(_TOGETHER)])
    grid = logsnr_grid(path, 240, start=time_at(path, START), end=time_at(path, _NEARLY_CLEAN))
    grid = torch.cat([grid, grid.new_zeros(1)])
    z = np.stack([f.x.numpy() for f in sample(law.denoise(path), path, UniPC(4), grid, float(grid[0]) * noise)])
    return CubicSpline(path.lam(grid[:-1]).numpy(), z[:-1]), z[-1]


def exact(world: str, seed: int, levels: list[float]) -> Float[np.ndarray, " m b 2"]:
    """Where the probability-flow ODE takes the noise of ``seed``, at noise levels sigma/alpha, on any path."""
    (spline, end), place = _flows(world, seed // _TOGETHER), seed % _TOGETHER
    mine = slice(POINTS * place, POINTS * (place + 1))
    return np.stack([end[mine] if v < _NEARLY_CLEAN else spline(-math.log(v))[mine] for v in levels])


_DRAWN = [*np.geomspace(START, FLOOR, 70).tolist(), 0.0]


@lru_cache(maxsize=256)
def _trajectories(world: str, seed: int) -> Float[np.ndarray, " m b 2"]:
    """The exact trajectories as they are drawn, from noise to clean data."""
    return exact(world, seed, _DRAWN)


@lru_cache(maxsize=256)
def flow_field(world: str, level: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Positions and directions of the flow at one noise level, towards the data; None on clean data."""
    if level == 0:
        return None
    _, _, points = lattice(EXTENT, 15)
    path, x = RectifiedFlow(), torch.from_numpy(points)
    t = torch.full((len(x),), time_at(path, level), dtype=torch.float64)
    return points, -WORLDS[world]().denoise(path)(x, t).velocity.numpy()


# The picture --------------------------------------------------------------------------------------------------------


@cache
def _stage(world: str) -> Backdrop:
    law = WORLDS[world]()
    return film_stage(lambda points: law.log_prob(torch.from_numpy(points)), EXTENT, LADDER)


def trajectory_scene(world: str, sampler: str, path: str, grid: str, steps: int, step: int, seed: int) -> Scene:
    """One moment of a run: the way so far, where the network points, where the exact flow goes."""
    run = film(world, sampler, path, grid, steps, seed)
    now = min(step, steps)
    level = run.levels[now]
    shot = Shot(
        past=run.z[: now + 1],
        levels=run.levels,
        title=rf"step {now} of {steps}: t = {run.times[now]:.3g}, $\sigma_t/\alpha_t$ = {level:.3g}",
        predicted=run.x0[now - 1] if now else None,
        exact=_trajectories(world, seed) if run.deterministic else None,
        exact_now=exact(world, seed, [level])[0] if run.deterministic else None,
        field=flow_field(world, level),
    )
    return Scene(film_shot(_stage(world), shot), _note(run, shot, now))


def _note(run: Film, shot: Shot, now: int) -> str:
    """What it cost so far, and how far it is from the exact flow."""
    words = [f"Step {now} of {len(run.nfe) - 1}: {run.nfe[now]} network evaluations per sample so far"]
    if run.deterministic:
        gap = float(np.median(np.linalg.norm(run.z[now].numpy() - shot.exact_now, axis=1)))
        size = f"{gap:.2g}" if gap > _EXACT_TO else f"below {_EXACT_TO:g}"
        words.append(f"median distance from the exact flow {size} data units")
    else:
        words.append("fresh noise in every step, so there is no exact trajectory to compare with")
    outside = int((run.z[now].abs() > EXTENT[1]).any(dim=1).sum())
    if outside:
        words.append(f"{outside} of {POINTS} points lie outside the window")
    return "; ".join(words) + "."


def trajectories_explorer() -> Explorer:
    """Any sampler at work, step by step.

    The consistency sampler is given the exact flow map in place of a trained consistency model.
    """
    controls = {
        "world": choice("world", "ring of eight", list(WORLDS), "The data; the denoiser is exact"),
        "sampler": choice("sampler", "DDIM", list(SAMPLERS), "How a step is made"),
        "path": choice("path", "VP linear", list(PATHS), "How data turns into noise, and on which clock"),
        "grid": choice("time grid", "uniform in t", list(GRIDS), "Where the steps lie: see the ladder on the right"),
        "steps": count("steps", 10, 1, 50, "How many steps the whole run has"),
        "step": count("step shown", 7, 0, 10, "Walk through the run; nothing is computed anew"),
        "seed": same_seed(),
    }
    controls["steps"].observe(lambda change: setattr(controls["step"], "max", change["new"]), names="value")
    return Explorer(
        trajectory_scene,
        controls,
        caption="Walk through the run with *step shown*. A blue line leads from where a step began to the clean data "
        "that the network predicted there; DDIM goes straight along it, higher orders bend towards the dashed curve. "
        "Change the path: the dashed curves stay, because x/(alpha + sigma) has the same exact flow on every path. "
        "What changes is where the steps lie (ladder on the right). Which grid spends them where the curves bend?",
        alt="The plane with the data as blue contours, sixteen sampling trajectories from grey noise to now, the exact "
        "trajectories as black dashed curves, predicted clean data as blue diamonds, and pale arrows for the flow; "
        "on the right a ladder of the noise levels that the time grid visits.",
    )
