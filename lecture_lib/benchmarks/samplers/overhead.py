"""What a step costs without the network: ours and `diffusers`', in turn, in one process, on one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, pairwise

import torch
from torch import Tensor

from lecture_lib.core import EDM, EPS, Discrete, Path, Prediction, karras_grid, stable_diffusion, trailing_grid
from lecture_lib.errors import MissingPackageError
from lecture_lib.samplers import DDIM, DPMSolverPP2M, Euler, Heun, Sampler, UniPC, last, sample
from lecture_lib.tensors import few_threads
from lecture_lib.tooling.benching import Measurement

BAR = 0.2  # of what theirs costs
STEPS, ROUNDS, RUNS = 50, 9, 5
SHAPE = (64, 3, 32, 32)  # float32
SCHEDULERS = {
    "DDIM": ("DDIMScheduler", {"clip_sample": False}, DDIM()),
    "2M": ("DPMSolverMultistepScheduler", {}, DPMSolverPP2M()),
    "UniPC": ("UniPCMultistepScheduler", {}, UniPC(2)),
    "Euler": ("EulerDiscreteScheduler", {}, Euler()),
    "Heun": ("HeunDiscreteScheduler", {}, Heun()),
}


def measure() -> Iterator[Measurement]:
    """Microseconds per step, theirs and ours, and the ratio, for five samplers; ours on the EDM clock and on a table.

    What of ours is Python shows on a single number; what no code can avoid, since the numbers must be read and written,
    shows in a bare loop. Theirs counts the calls that a pipeline makes (``set_timesteps``, ``scale_model_input``,
    ``step``), ours everything that ``sample`` does. The network's output is a fixed tensor, which stands for eps; with
    two tensors in turn nothing of one step's algebra can be shared with the next, as with a real network.
    """
    with few_threads(1):
        _settle_the_allocator()
        for name, (scheduler, options, sampler) in SCHEDULERS.items():
            yield from _compare(name, _scheduler(scheduler, options), sampler)


def _settle_the_allocator() -> None:
    """As after any network's first call: a block of 30 MB was freed once, and from then on glibc keeps smaller ones.

    In a process that never did, pictures go back to the kernel between the runs, and both sides pay for page faults:
    a step of theirs was seen to take up to 1.8 times as long, so that some ratios would look better than they are.
    """
    torch.zeros(30 * 2**20, dtype=torch.uint8)


def _scheduler(name: str, options: dict) -> Callable:
    try:
        import diffusers
    except ImportError as error:
        raise MissingPackageError("diffusers is needed to compare with: pip install 'lecture-lib[oracles]'") from error
    diffusers.logging.set_verbosity_error()
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return lambda: getattr(diffusers, name)(**betas, **options)


def _compare(name: str, make: Callable, sampler: Sampler) -> Iterator[Measurement]:
    generator = torch.Generator().manual_seed(0)
    x, eps = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    edm, table = EDM(), Discrete(stable_diffusion())
    grids = {"EDM clock": (edm, karras_grid(edm, STEPS, sigma_max=14.6, sigma_min=0.03))}
    if name in ("DDIM", "2M", "UniPC"):  # the velocity of a table is infinite at clean data
        grids["table"] = (table, trailing_grid(table, STEPS))
    other, one = torch.randn(SHAPE, generator=generator), (x[:1, :1, :1, :1], eps[:1, :1, :1, :1])
    runs = {"diffusers": lambda: _theirs(make(), x, eps)}
    runs |= {f"ours, {clock}": partial(_ours, sampler, *where, x, eps) for clock, where in grids.items()}
    runs["diffusers, two outputs in turn"] = lambda: _theirs(make(), x, eps, other)
    runs["ours, two outputs in turn"] = partial(_ours, sampler, *grids["EDM clock"], x, eps, other)
    runs["ours, of a single number"] = partial(_ours, sampler, *grids["EDM clock"], *one)
    if name in ("DDIM", "Euler"):  # on the EDM clock both are x + (s - t) eps
        runs["a bare loop, EDM clock"] = lambda: _bare(grids["EDM clock"][1], x, eps)
    times: dict[str, list[float]] = {what: [] for what in runs}
    for _ in range(ROUNDS):  # in turn, so that all of them meet the same disturbances
        for what, run in runs.items():
            times[what].append(min(run() for _ in range(RUNS)))  # the first run meets the caches of the one before
    medians = {what: statistics.median(values) for what, values in times.items()}
    for what, median in medians.items():
        yield Measurement(f"{name}: a step of {what}", median, "us")
    if "a bare loop, EDM clock" in medians:
        floor = medians["a bare loop, EDM clock"] / medians["diffusers"]
        yield Measurement(f"{name}: a bare loop over theirs", floor, "")
    in_turn = medians["ours, two outputs in turn"] / medians["diffusers, two outputs in turn"]
    yield Measurement(f"{name}: ours over theirs, two outputs in turn", in_turn, "")
    yield Measurement(f"{name}: ours over theirs", medians["ours, EDM clock"] / medians["diffusers"], "", BAR)


def _theirs(scheduler, x: Tensor, *outputs: Tensor) -> float:
    output = cycle(outputs)
    start = time.perf_counter()
    scheduler.set_timesteps(STEPS)  # ours computes its schedule within ``sample``
    with torch.no_grad():
        for t in scheduler.timesteps:
            scheduler.scale_model_input(x, t)
            x = scheduler.step(next(output), t, x).prev_sample
    return 1e6 * (time.perf_counter() - start) / STEPS


def _ours(sampler: Sampler, path: Path, grid: Tensor, x: Tensor, *outputs: Tensor) -> float:
    output = cycle(outputs)

    def denoise(x_t: Tensor, t: Tensor) -> Prediction:
        return Prediction.decoded(path, t, x_t, next(output), EPS)

    start = time.perf_counter()
    with torch.no_grad():
        last(sample(denoise, path, sampler, grid, x))
    return 1e6 * (time.perf_counter() - start) / STEPS


def _bare(grid: Tensor, x: Tensor, eps: Tensor) -> float:
    start = time.perf_counter()
    with torch.no_grad():
        for t, s in pairwise(grid.tolist()):
            x = torch.add(x, eps, alpha=s - t)
    return 1e6 * (time.perf_counter() - start) / STEPS
