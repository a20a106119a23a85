"""Quality against cost on the digits: solvers of the guided teacher, its distilled guidance, and its one-step student.

All draw digits with the same labels. Quality is the Frechet distance to the test split, cost is the
evaluations of the network and the milliseconds of the core (process time), so that other programs decide less.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Int
from matplotlib.figure import Figure
from torch import Tensor

from lecture_lib import zoo
from lecture_lib.core import Denoise, Denoiser, uniform_grid
from lecture_lib.data import digits
from lecture_lib.guidance import fused, linear
from lecture_lib.metrics import Price, read_prices
from lecture_lib.samplers import DDIM, ConsistencyMultistep, DPMSolverPP2M, Heun, Sampler, UniPC, sample
from lecture_lib.tensors import few_threads
from lecture_lib.tooling.benching import Measurement
from lecture_lib.zoo.evaluate_students import CHUNK, GRIDS, distance
from lecture_lib.zoo.recipes import DISTILLED, DIT, ONE_STEP

W = 1.5  # of the guided ones; all others draw at w = 1
SOLVERS = {
    "DDIM": (DDIM(), (1, 2, 4, 8, 16)),
    "Heun": (Heun(), (1, 2, 4, 8)),
    "DPM-Solver++(2M)": (DPMSolverPP2M(), (1, 2, 4, 8, 16)),
    "UniPC-3": (UniPC(), (2, 4, 8, 16)),
}
GUIDED = (2, 4, 8)  # steps


@dataclass(frozen=True)
class Contestant:
    """A way of making digits.

    Attributes:
        method: its name in the table.
        denoise: labels -> denoiser.
        sampler, grid: what walks, and where it stops.
    """

    method: str
    denoise: Callable[[Tensor], Denoise]
    sampler: Sampler
    grid: Tensor

    @torch.inference_mode()
    def draw(self, labels: Int[Tensor, " n"], generator: torch.Generator) -> tuple[Tensor, int]:
        """Pictures (n, 1, 8, 8), and the evaluations of the network that each took."""
        drawn = []
        for part in labels.split(CHUNK):
            x, path = torch.randn(len(part), 1, 8, 8, generator=generator), zoo.load(DIT.name).path
            frames = sample(self.denoise(part), path, self.sampler, self.grid, x, generator=generator)
            drawn.append(deque(frames, maxlen=1)[0])
        return torch.cat([frame.x for frame in drawn]), drawn[0].nfe


def contestants() -> Iterator[Contestant]:
    """Every solver with the plain teacher, guidance by two passes and by one, and the one-step student."""
    teacher, heard, student = (zoo.load(recipe.name) for recipe in (DIT, DISTILLED, ONE_STEP))
    for name, (sampler, counts) in SOLVERS.items():
        for steps in counts:
            yield Contestant(name, teacher.given, sampler, uniform_grid(teacher.path, steps))
    for steps in GUIDED:
        grid = uniform_grid(teacher.path, steps)
        yield Contestant(f"guided, w = {W:g}, (2M)", partial(_guided, teacher), DPMSolverPP2M(), grid)
        yield Contestant("distilled guidance, (2M)", partial(_told, heard, W), DPMSolverPP2M(), grid)
    for levels in GRIDS.values():
        grid = torch.tensor(levels, dtype=torch.float64) * student.path.t_max
        yield Contestant("one-step student", partial(_told, student, 1.0), ConsistencyMultistep(), grid)


def _guided(model: Denoiser, labels: Tensor) -> Denoise:
    return fused(model, model.null, labels, linear(W))


def _told(model: Denoiser, w: float, labels: Tensor) -> Denoise:
    return model.given({"label": labels, "w": torch.full((len(labels),), w)})


def price(contestant: Contestant, labels: Int[Tensor, " n"], seed: int = 0) -> Price:
    """What a digit of this contestant costs and how far the digits are from the test split."""
    began = time.process_time()
    pictures, nfe = contestant.draw(labels, torch.Generator().manual_seed(seed))
    ms = 1e3 * (time.process_time() - began) / len(labels)
    return Price(contestant.method, nfe, ms, distance(pictures))


def measure() -> Iterator[Measurement]:
    """Two rows per point of the front, from 1442 digits each; two minutes of one core."""
    labels = digits("train").labels
    with few_threads(1):
        for contestant in contestants():
            for what, value in price(contestant, labels).rows().items():
                yield Measurement(what, value, "ms" if what.endswith("milliseconds") else "")


def figure(measurements: Sequence[Measurement]) -> Figure:
    """Distance against evaluations and against milliseconds, side by side."""
    from lecture_lib.widgets.front import front_picture

    return front_picture(read_prices({"what": m.what, "value": str(m.value)} for m in measurements))
