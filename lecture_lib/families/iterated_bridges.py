"""Schroedinger bridges by iteration: one direction learns from what the other one draws.

    DSB    iterative proportional fitting: each drift learns to reverse the other's paths       (right ends in turn)
    DSBM   iterative Markovian fitting: each model learns the bridges between the other's ends  (right ends always)

Both converge to the bridge that ``SchrodingerBridge`` approximates by the plans of mini-batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import BrownianNoise, TwoSidedDenoiser, linear_interpolant
from lecture_lib.core.conditions import Cond
from lecture_lib.families.base import Batch, GenerativeModel, Phase
from lecture_lib.families.bridges import eight_gaussians
from lecture_lib.families.denoising import two_moons
from lecture_lib.families.encoding import check_unlabelled
from lecture_lib.families.interpolants import End, TwoSidedModel, White, two_mlps
from lecture_lib.nets import TimeMLP
from lecture_lib.samplers import ConstantDiffusion, EulerMaruyama
from lecture_lib.tensors import check_count, check_number, randn_like


class DiffusionSchrodingerBridge(GenerativeModel):
    """DSB: two drifts, trained in turns, each to walk the other's paths back.

        outward   dx = f(x, t) dt + sigma dW      from data; zero at first, which is the Brownian motion itself
        inward    dx = g(x, t) d(-t) + sigma dW   from the other end

    A step of length h back along a path goes from ``X_{k+1}`` to the law of ``X_k``, whose first two moments are both
    regressions: g is that of ``(X_k - X_{k+1})/h``, and what it leaves over, ``E|X_k - X_{k+1} - h g|^2/d``, is the
    variance of the step. It is sigma^2 h only for h -> 0, and is kept for each step as a share of that. Between
    Gaussians the iteration then has the exact bridge as its limit, however few the steps. De Bortoli et al. differ in
    both, which is the same for h -> 0. On N(0, 1) to N(3, 1/4) with 16 steps their variance sigma^2 h has a covariance
    of 0.172 after four rounds, and ever less after more, in place of 0.207; their mean, the regression of
    ``X_k + h f(X_k) - X_{k+1} - h f(X_{k+1})``, comes out as 0.3 in place of 0.

    Args:
        outward_drift, inward_drift: networks ``(x, network time, cond) -> like x`` that start at zero.
        event: shape of one sample.
        sigma: of the Brownian motion.
        other: what is at t = 1; default N(0, I).
        steps: of a path, in training and sampling; who samples with another number reads the shares at the same times.
        rounds: how often each direction's turn comes.
    """

    formula = (
        r"g\leftarrow\arg\min\mathbb E\,\|g(X_{k+1})-(X_k-X_{k+1})/h\|^2,\quad X\text{ walked by }f,"
        r"\;\text{then }f\text{ likewise}"
    )
    source = (
        "De Bortoli et al. 2021 (2106.01357), algorithm 1; Vargas et al. 2021 (2106.03227), section 4; "
        "the variance: Bao et al. 2022 (2201.06503), theorem 1"
    )
    games = ("inward", "outward")
    memory = 0.95  # of the running mean of what a regression leaves over
    _left: Tensor | None = None  # that of the last update, for after_update

    def __init__(
        self,
        outward_drift: nn.Module,
        inward_drift: nn.Module,
        event: tuple[int, ...],
        *,
        sigma: float = 1.0,
        other: End | None = None,
        steps: int = 20,
        rounds: int = 3,
    ) -> None:
        super().__init__()
        self.outward_drift, self.inward_drift, self.event = outward_drift, inward_drift, tuple(event)
        self.sigma, self.steps = check_number("sigma", sigma, 1e-6), check_count("steps", steps)
        self.rounds, self.other = check_count("rounds", rounds), White(self.event) if other is None else other
        self.register_buffer("outward_share", torch.ones(steps))  # step k lies between the times k h and (k + 1) h
        self.register_buffer("inward_share", torch.ones(steps))

    def phases(self):
        drifts = ("inward", self.inward_drift), ("outward", self.outward_drift)
        return tuple(Phase(name, tuple(drift.parameters())) for name, drift in drifts)

    def phase_at(self, done, total):
        return self.phases()[min(done * 2 * self.rounds // max(total, 1), 2 * self.rounds - 1) % 2]

    def prior(self, n, *, generator):
        return self.other(n, generator).to(next(self.parameters()))

    def walk(
        self, x: Float[Tensor, " b *event"], way: str, times: Float[Tensor, " n+1"], generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Step by step along ``times``, rising for the ``way`` "outward", falling for "inward"; x itself first."""
        drift, share = getattr(self, f"{way}_drift"), getattr(self, f"{way}_share")
        yield x
        for t, s in pairwise(times.tolist()):
            h, k = abs(s - t), int((t + s) / 2 * self.steps)
            with torch.no_grad():
                x = x + h * self._ask(drift, x, x.new_full((len(x),), t))
            x = x + self.sigma * (h * float(share[k])) ** 0.5 * randn_like(x, generator)
            yield x

    def loss(self, batch: Batch, phase: str = "inward", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        x0 = batch[0]
        times = torch.linspace(0, 1, self.steps + 1)
        if phase == "inward":
            way, start, learner = "outward", x0, self.inward_drift
        else:
            way, start, learner = "inward", self.other(len(x0), generator).to(x0), self.outward_drift
            times = times.flip(0)
        path = torch.stack(list(self.walk(start, way, times, generator)))  # (n + 1, b, *event)
        x, y, s = path[:-1].flatten(0, 1), path[1:].flatten(0, 1), times[1:].to(x0).repeat_interleave(len(x0))
        left = self._ask(learner, y, s) - (x - y) * self.steps
        left = left.square().flatten(1).mean(1).unflatten(0, (self.steps, -1))  # (n, b)
        share = left.detach().mean(1) / (self.steps * self.sigma**2)
        self._left = share if phase == "inward" else share.flip(0)
        return left.mean(0)

    def after_update(self, phase: str) -> None:
        """The running mean of what the regression leaves over at each step, as a share of sigma^2 h."""
        if self._left is not None:
            share = getattr(self, f"{phase}_share")
            share.lerp_(self._left.to(share), 1 - self.memory)
        self._left = None

    def reverse_process(self, z, cond=None, *, steps=None, generator) -> Iterator[Tensor]:
        check_unlabelled(cond)
        times = torch.linspace(1, 0, (self.steps if steps is None else check_count("steps", steps)) + 1)
        return self.walk(z, "inward", times, generator)

    @staticmethod
    def _ask(drift: nn.Module, x: Tensor, t: Float[Tensor, " b"]) -> Tensor:
        return drift(x, 1000 * t, None)

    @classmethod
    def small(cls):
        drifts = (TimeMLP(2, width=64, depth=2) for _ in range(2))
        model = cls(*drifts, (2,), sigma=0.7, other=eight_gaussians(), steps=10, rounds=2)
        return model, two_moons(batch_size=128), 600


class BridgeMatching(TwoSidedModel):
    """DSBM: bridges between independent ends first; then two models in turns, each on the ends that the other joins.

        independent   x0 and x1 drawn apart                                     -> outward model
        inward        x0 from the data, x1 where the outward model takes it     -> inward model
        outward       x1 from the other end, x0 where the inward model takes it -> outward model

    Each model thus ends in points that were really drawn, and errors do not pile up. With sigma -> 0 and one stage it
    is rectified flow.

    Args:
        inward: transport and noise networks of the model that samples.
        outward: those of the other one.
        event: shape of one sample.
        sigma: of the Brownian motion.
        walk_steps: of a path in training. They are Euler's, and few cost covariance: between N(0, 1) and N(3, 1/4) with
            exact networks 8 steps end at 0.194, 15 at 0.200, 30 at 0.204, where the bridge has 0.207.
        rounds: how often the inward model has its turn.
        null: what stands for "no condition".
        ends: ``other``, ``p_uncond``, ``margin``, as in ``TwoSidedModel``.
    """

    formula = r"(x_0,x_1)\sim\text{the other model's walk},\quad x_t=(1-t)x_0+t\,x_1+\sigma\sqrt{t(1-t)}\,z"
    source = "Shi et al. 2023 (2303.16852), algorithm 1; Peluchetti 2023 (2304.00917)"
    games = ("inward", "outward")

    def __init__(
        self,
        inward: tuple[nn.Module, nn.Module],
        outward: tuple[nn.Module, nn.Module],
        event: tuple[int, ...],
        *,
        sigma: float = 1.0,
        walk_steps: int = 30,
        rounds: int = 2,
        null: Cond | None = None,
        **ends: object,
    ) -> None:
        path = linear_interpolant(BrownianNoise(check_number("sigma", sigma, 1e-6) ** 2))
        super().__init__(TwoSidedDenoiser(*inward, path, null=null), event, **ends)
        self.outward_denoiser, self.sigma = TwoSidedDenoiser(*outward, path, null=null), float(sigma)
        self.walk_steps, self.rounds = check_count("walk_steps", walk_steps), check_count("rounds", rounds)

    def sampler(self):
        return EulerMaruyama(ConstantDiffusion(self.sigma**2))

    def walks_outward(self):
        return self.outward_denoiser

    def phases(self):
        inward, outward = (tuple(model.parameters()) for model in (self.denoiser, self.outward_denoiser))
        return Phase("independent", outward), Phase("inward", inward), Phase("outward", outward)

    def phase_at(self, done, total):
        independent, *turns = self.phases()
        stage = min(done * 2 * self.rounds // max(total, 1), 2 * self.rounds - 1)
        return turns[1 - stage % 2] if stage else independent

    def loss(self, batch: Batch, phase: str = "inward", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        x0, *cond = batch
        x1 = self.other(len(x0), generator).to(x0)
        if phase == "inward":
            *_, x1 = self.outward(x0, *cond, steps=self.walk_steps, generator=generator)
        elif phase == "outward":
            *_, x0 = self.reverse_process(x1, *cond, steps=self.walk_steps, generator=generator)
        learner = self.denoiser if phase == "inward" else self.outward_denoiser
        return learner.loss(x0, x1, *cond, times=self.times(), p_uncond=self.p_uncond, generator=generator)

    @classmethod
    def small(cls):
        model = cls(two_mlps(), two_mlps(), (2,), sigma=0.7, walk_steps=6, other=eight_gaussians())
        return model, two_moons(batch_size=128), 240
