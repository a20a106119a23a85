"""Rectified flow: learn a flow, run it, and learn the straight lines between where it starts and where it ends.

    flow      |v_1(x_t, t) - (eps - x0)|^2        x0 data, eps fresh
    reflow    |v_2(x_t, t) - (eps - x0_hat)|^2    eps fresh, x0_hat = ODE_1(eps)

The class is called ``Reflow``, because ``RectifiedFlow`` is the path.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import VELOCITY, Denoiser, RectifiedFlow, UniformTimes, uniform_grid
from lecture_lib.core.conditions import Cond, drop_condition, expand_cond
from lecture_lib.distill import Coupled, reflow_loss, solved_pairs
from lecture_lib.families.base import Batch, Phase
from lecture_lib.families.denoising import DenoisingModel, two_moons
from lecture_lib.nets import TimeMLP
from lecture_lib.samplers import Euler, Heun
from lecture_lib.tensors import check_count, check_number, randn_like


class Told(NamedTuple):
    """Pairs, and the conditions that they were made with."""

    pairs: Coupled
    cond: Cond | None


class Reflow(DenoisingModel):
    """Two stages, each with a network of its own: the flow that makes the pairs, and the straighter one that is used.

    The first network stays as it is while the second learns, so pairs are solved when they are needed and nothing has
    to be stored; the price is ``2 solver_steps`` evaluations per pair, shared by ``reuse`` times on its line.

    Args:
        first: the flow of the first stage, on a ``RectifiedFlow`` with velocity.
        denoiser: that of the second, which samples.
        event, w, p_uncond: as in ``DenoisingModel``.
        share: part of the training that belongs to the first stage.
        solver_steps: Heun's steps from noise to data when pairs are made.
        reuse: how many times per pair are trained in one batch.
    """

    formula = r"\hat x_0=\mathrm{ODE}_{v_1}(\epsilon),\quad\min_{v_2}\mathbb E\,\|v_2(x_t,t)-(\epsilon-\hat x_0)\|^2"
    source = "Liu, Gong & Liu 2023 (2209.03003), algorithm 1; Liu et al. 2024 (2309.06380)"
    steps = 2

    def __init__(
        self,
        first: Denoiser,
        denoiser: Denoiser,
        event: tuple[int, ...],
        *,
        share: float = 0.5,
        solver_steps: int = 10,
        reuse: int = 4,
        **options: float,
    ) -> None:
        super().__init__(denoiser, event, **options)
        self.first = first
        self.share = check_number("share", share, 0, 1)
        self.solver_steps, self.reuse = check_count("solver_steps", solver_steps), check_count("reuse", reuse)

    def times(self):
        return UniformTimes()

    def sampler(self):
        return Euler()

    # Two stages ----------------------------------------------------------------------------------------------------

    def phases(self):
        return Phase("flow", tuple(self.first.parameters())), Phase("reflow", tuple(self.denoiser.parameters()))

    def phase_at(self, done, total):
        flow, reflow = self.phases()
        return flow if done < self.share * total else reflow

    def loss(self, batch: Batch, phase: str = "reflow", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        if phase == "flow":
            return self.first.loss(*batch, times=self.times(), p_uncond=self.p_uncond, generator=generator)
        pairs, cond = self.lines(batch, generator=generator)
        return reflow_loss(self.denoiser, pairs, cond, times=self.times(), generator=generator)

    def lines(self, batch: Batch, *, generator: torch.Generator) -> Told:
        """As many pairs as the batch has data, each distinct one ``reuse`` times; of the batch only labels count."""
        x, *rest = batch
        distinct = -(-len(x) // self.reuse)
        cond = expand_cond(rest[0], len(x)) if rest else None
        if cond is not None:  # the first flow is asked without a condition as often as it was trained without
            cond = drop_condition(cond[:distinct], self.denoiser.null, self.p_uncond, generator)
        pairs = self.pairs(randn_like(x[:distinct], generator), cond)
        again = torch.arange(len(x), device=x.device) % distinct
        return Told(Coupled(*(end[again] for end in pairs)), None if cond is None else cond[again])

    def pairs(self, eps: Float[Tensor, " n *event"], cond: Cond | None = None) -> Coupled:
        """``(ODE_1(eps), eps)``: where the first flow takes each noise; with another noise nothing would straighten."""
        path = self.first.path
        return solved_pairs(self.first.given(cond), path, Heun(), uniform_grid(path, self.solver_steps), eps)

    @classmethod
    def small(cls):
        first, second = (Denoiser(TimeMLP(2, width=64, depth=2), RectifiedFlow(), VELOCITY) for _ in range(2))
        return cls(first, second, (2,), solver_steps=6), two_moons(), 800
