"""Global orders on a Gaussian mixture, against its exact flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import Path, VPLinear, logsnr_grid, uniform_grid
from lecture_lib.oracles import GaussianMixture, flow_map
from lecture_lib.samplers import (
    B1,
    B2,
    DATA,
    DDIM,
    FPNDM,
    LMS,
    NOISE,
    PLMS,
    DPMSolver1,
    DPMSolver2,
    DPMSolver3,
    DPMSolverPP2M,
    DPMSolverPP2S,
    DPMSolverPP3M,
    DPMSolverPP3S,
    Euler,
    ExponentialAdams,
    Heun,
    Sampler,
    UniPC,
)
from lecture_lib.samplers.base import Watched
from lecture_lib.tooling.benching import Measurement


class Problem:
    """An initial value problem with a known solution: points ``x_T`` (b, d) of a mixture, noised to ``start``."""

    def __init__(self, world: GaussianMixture, path: Path, x_T: Tensor, start: float, end: float):
        self.path, self.denoise, self.x_T, self.start, self.end = path, world.denoise(path), x_T, start, end
        self._known: dict[float, Tensor] = {}

    @classmethod
    def of(cls, world: GaussianMixture, path: Path, n: int, *, lam: tuple[float, float], seed: int = 0) -> Problem:
        """``n`` draws of the world, noised to half log-SNR ``lam[0]``; to be brought to ``lam[1]``."""
        generator = torch.Generator().manual_seed(seed)
        start, end = path.time_of(torch.tensor(lam, dtype=torch.float64)).tolist()
        x0 = world.sample(n, generator=generator)
        eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
        return cls(world, path, path.mix(x0, eps, torch.full((n,), start, dtype=torch.float64)), start, end)

    def exact(self, time: float) -> Float[Tensor, " b *d"]:
        """The exact flow at ``time``, from x_T."""
        if time not in self._known:
            ends = (torch.full((len(self.x_T),), v, dtype=torch.float64) for v in (self.start, time))
            self._known[time] = flow_map(self.denoise, self.path, self.x_T, *ends, tolerance=1e-12)
        return self._known[time]

    @cached_property
    def solution(self) -> Float[Tensor, " b *d"]:
        """Where the exact flow ends."""
        return self.exact(self.end)

    @torch.no_grad()
    def run(self, sampler: Sampler, grid: Tensor, *, exact_steps: int = 0, correct_last: bool = False) -> Tensor:
        """The driver's loop, but the first ``exact_steps`` points are put where the exact flow is.

        ``correct_last`` lets UniPC correct its last point as well, for one evaluation more.
        """
        ask, x, state, moments = Watched(self.denoise, self.path), self.x_T, None, self.path.along(grid)
        for i, (t, s) in enumerate(pairwise(moments)):
            if 0 < i <= exact_steps:
                x = self.exact(t.time)
                if isinstance(sampler, UniPC):  # an exact point needs no correction: a memory at clean data gives none
                    state = state._replace(t=self.path.at(0.0))
            x, state = sampler.step(ask, x, t, s, state, None)
        if correct_last:
            x = sampler.update(state, moments[-1], arrived=sampler.form.model(ask(x, moments[-1])))
        return x

    def order(self, sampler: Sampler, n: int, grid_of: Callable = logsnr_grid, **options) -> float:
        """``log2`` of how much the mean error falls from n to 2n steps."""
        errors = []
        for steps in (n, 2 * n):
            grid = grid_of(self.path, steps, start=self.start, end=self.end)
            errors.append(float((self.run(sampler, grid, **options) - self.solution).abs().mean()))
        return math.log2(errors[0] / errors[1])


# sampler, steps at which its slope has settled, theoretical order
SINGLESTEP = [
    (Euler(), 160, 1),
    (DDIM(), 160, 1),
    (DPMSolver1(), 160, 1),
    (Heun(), 160, 2),
    (DPMSolver2(), 80, 2),
    (DPMSolverPP2S(), 160, 2),
    (DPMSolver3(), 80, 3),
    (DPMSolverPP3S(), 160, 3),
]
MULTISTEP = [
    *[(LMS(k), 320, k) for k in (2, 3, 4)],
    (DPMSolverPP2M(), 80, 2),
    (DPMSolverPP3M(), 320, 3),
    *[(ExponentialAdams(k, form), 320, k) for form in (DATA, NOISE) for k in (2, 3, 4)],
]
CORRECTED = [(UniPC(k, B, form), 320, k + 1) for form in (DATA, NOISE) for B in (B1, B2) for k in (1, 2, 3)]
AS_USED = [DPMSolverPP3M(), ExponentialAdams(3), ExponentialAdams(4), LMS(4), UniPC(2), UniPC(3), UniPC(3, B1, NOISE)]


def three_modes() -> GaussianMixture:
    """Three modes in the plane, one of them tilted."""
    covs = [[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]], [[0.25, -0.05], [-0.05, 0.15]]]
    return GaussianMixture([0.5, 0.3, 0.2], [[-1.5, 0.0], [1.0, 1.2], [0.5, -1.3]], torch.tensor(covs).double())


def measure() -> Iterator[Measurement]:
    """Slopes, each beside its theory; last the largest deviation, which has a bar."""
    problem = Problem.of(three_modes(), VPLinear(), 12, lam=(-3.0, 2.5))
    deviations = []
    for sampler, n, theory, options in _cases():
        slope = problem.order(sampler, n, **options)
        deviations.append(abs(slope - theory))
        yield Measurement(f"order of {sampler!r}, theory {theory}", slope, "")
    yield Measurement("largest deviation from theory", max(deviations), "", 0.1)
    for sampler in AS_USED:
        yield Measurement(f"order of {sampler!r} with the start that users get", problem.order(sampler, 640), "")


def _cases() -> Iterator[tuple[Sampler, int, int, dict]]:
    yield from ((sampler, n, theory, {}) for sampler, n, theory in SINGLESTEP)
    yield from ((sampler, n, theory, {"exact_steps": theory - 1}) for sampler, n, theory in MULTISTEP)
    for sampler, n, theory in CORRECTED:
        yield sampler, n, theory, {"exact_steps": theory - 2, "correct_last": True}
    yield from ((sampler, 160, 2, {"grid_of": uniform_grid}) for sampler in (PLMS(), FPNDM()))
