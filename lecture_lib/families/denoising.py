"""Families that are a denoiser on a path: what differs is the path, the pairs, the sampler and where the likelihood is.

forward_process    x_t = alpha x0 + sigma eps
reverse_process    a sampler down a grid
loss               |y_hat(x_t, t) - y|^2
log_prob           the probability-flow ODE and its divergence
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import VELOCITY, Denoiser, RectifiedFlow, Times, UniformTimes, independent, uniform_grid
from lecture_lib.core.couplings import Coupling, given_noise, optimal_pairing, within
from lecture_lib.core.likelihood import exact_divergence, hutchinson, log_likelihood
from lecture_lib.data import Batches, moons
from lecture_lib.families.base import Batch, GenerativeModel, LogProb
from lecture_lib.guidance import fused, linear
from lecture_lib.nets import TimeMLP
from lecture_lib.samplers import Euler, Sampler, sample
from lecture_lib.tensors import check_count, check_times, randn_like

FEW = 16  # up to so many dimensions the trace of a Jacobian is worth its gradients; beyond, Hutchinson estimates it


class DenoisingModel(GenerativeModel):
    """One denoiser, and the verbs that follow from its path.

    Args:
        denoiser: network, path and parameterization; with a ``null`` it is a conditional one.
        event: shape of one sample.
        w: guidance scale of ``sample`` where there is a condition; 1 is plain conditional.
        p_uncond: how often a condition is dropped in training, if there is one.
    """

    steps = 50
    likelihood_steps = 40

    def __init__(self, denoiser: Denoiser, event: tuple[int, ...], *, w: float = 1.0, p_uncond: float = 0.1) -> None:
        super().__init__()
        self.denoiser, self.event, self.w = denoiser, tuple(event), w
        self.p_uncond = 0.0 if denoiser.null is None else p_uncond

    # What a family decides -----------------------------------------------------------------------------------------

    @abstractmethod
    def times(self) -> Times:
        """Which times are trained."""

    @abstractmethod
    def sampler(self) -> Sampler:
        """The step of ``reverse_process``."""

    def coupling(self) -> Coupling:
        """Which noise goes with which data."""
        return independent

    def grid(self, steps: int) -> Float[Tensor, " n+1"]:
        """The times of ``reverse_process``, falling."""
        return uniform_grid(self.denoiser.path, steps)

    def likelihood_grid(self) -> Float[Tensor, " n+1"]:
        """The times of ``log_prob``, falling; a path whose velocity is infinite at t = 0 stops short of it."""
        return self.grid(self.likelihood_steps)

    # What follows --------------------------------------------------------------------------------------------------

    def forward_process(self, x, t, *, generator=None):
        path = self.denoiser.path
        return path.mix(x, randn_like(x, generator), check_times("t", t, len(x), 1.0) * path.t_max)

    def loss(self, batch: Batch, phase: str = "all", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        return self.denoiser.loss(
            *batch, times=self.times(), coupling=self.coupling(), p_uncond=self.p_uncond, generator=generator
        )

    def prior(self, n, *, generator):
        path, noise = self.denoiser.path, super().prior(n, generator=generator)
        return path.sigma(torch.tensor(path.t_max, dtype=torch.float64)).to(noise) * noise

    def reverse_process(self, z, cond=None, *, steps=None, generator) -> Iterator[Tensor]:
        grid = self.grid(self.steps if steps is None else check_count("steps", steps))
        denoise = self.denoiser.given(cond)
        if cond is not None and self.w != 1:
            denoise = fused(self.denoiser, self.denoiser.null, cond, linear(self.w))
        frames = sample(denoise, self.denoiser.path, self.sampler(), grid, z, generator=generator)
        return (frame.x for frame in frames)

    def log_prob(self, x, cond=None, *, generator=None):
        """By the probability-flow ODE; in few dimensions exact up to its steps, in many Hutchinson's estimate."""
        few = x[0].numel() <= FEW
        divergence = exact_divergence if few else hutchinson(randn_like(x, generator).sign())
        grid = self.likelihood_grid()
        nats = log_likelihood(self.denoiser.given(cond), self.denoiser.path, x, grid, divergence=divergence)
        return LogProb(nats.detach(), "exact" if few else "estimate")  # a learned path would leave a gradient


class FlowMatching(DenoisingModel):
    """Straight lines from data to noise, and the mean velocity along them: conditional flow matching."""

    formula = r"x_t=(1-t)\,x_0+t\,\epsilon,\quad \min_v\,\mathbb E\,\|v(x_t,t)-(\epsilon-x_0)\|^2"
    source = "Lipman et al. 2023 (2210.02747); Liu et al. 2023 (2209.03003)"

    def times(self):
        return UniformTimes()

    def sampler(self):
        return Euler()

    @classmethod
    def small(cls):
        return cls(Denoiser(TimeMLP(2, width=64, depth=2), RectifiedFlow(), VELOCITY), (2,)), two_moons(), 600


class OTFlowMatching(DenoisingModel):
    """The same, with each batch's noise re-paired by optimal transport: straighter paths, for a price per batch.

    Where there are labels, within each of them: see ``core.within``.
    """

    formula = r"(x_0,\epsilon)\sim\pi^\star_{\text{batch}},\quad x_t=(1-t)\,x_0+t\,\epsilon"
    source = "Tong et al. 2024 (2302.00482), OT-CFM; Pooladian et al. 2023 (2304.14772)"

    def times(self):
        return UniformTimes()

    def sampler(self):
        return Euler()

    def loss(self, batch: Batch, phase: str = "all", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        x0, *labels = batch
        pairing = within(*labels, optimal_pairing) if labels else optimal_pairing
        coupling = given_noise(pairing(x0, randn_like(x0, generator), generator))
        return self.denoiser.loss(
            *batch, times=self.times(), coupling=coupling, p_uncond=self.p_uncond, generator=generator
        )

    @classmethod
    def small(cls):
        return cls(Denoiser(TimeMLP(2, width=64, depth=2), RectifiedFlow(), VELOCITY), (2,)), two_moons(), 600


def two_moons(n: int = 4096, batch_size: int = 256) -> Batches:
    """Batches of two moons, for ``small`` models of the plane: always the same points."""
    return Batches((moons(n, generator=torch.Generator().manual_seed(0))[0],), batch_size)
