"""A continuous normalizing flow, trained by maximum likelihood through the solver: FFJORD."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import AdaptiveRungeKutta, OdeSolver, RungeKutta4, exact_divergence, hutchinson
from lecture_lib.core.likelihood import Divergence, standard_normal_log_prob
from lecture_lib.data import Batches, moons
from lecture_lib.errors import ShapeError
from lecture_lib.families.base import Batch, GenerativeModel, LogProb
from lecture_lib.families.denoising import FEW
from lecture_lib.families.encoding import heard
from lecture_lib.nets import TimeMLP
from lecture_lib.tensors import check_batch, check_count, check_number, check_times, per_sample, randn_like

CLOCK = 10.0  # A solver trains the field at its own few times; on the usual clock, 0..1000, it would be wild between.


class CNF(GenerativeModel):
    """A field that carries data to noise, and the density with it; nothing but the likelihood says where it leads.

        dx/dt = v(x, t),   dl/dt = div v(x, t),   log p(x) = log N(x(1); center, scale^2) + l(1)

    In up to ``FEW`` dimensions the divergence is exact; in more it is Hutchinson's estimate, with one probe per solve.

    Args:
        field: ``(x (b, d), t (b,) in 0..CLOCK, cond) -> (b, d)``, such as ``TimeMLP``.
        event: shape of one sample.
        center, scale: of the noise at t = 1, numbers for each dimension; default 0 and 1. Mean and standard deviation
            of the data make the way shorter. The field works in these units.
        solver: carries points in training and in sampling.
        judge: carries them where ``log_prob`` is asked for.
        kinetic: weight of ``int |v|^2 dt`` (in units of the scale) in the loss: short straight ways, which few steps
            of a solver follow faithfully (Finlay et al. 2020, 2002.02798).
        null: the label that stands for "no class"; None for a field without classes.
        p_uncond: how often a label is dropped in training.
    """

    formula = r"\dot x=v_\theta(x,t),\quad\log p(x)=\log\mathcal N(x_1)+\int_0^1\nabla\!\cdot v_\theta\,dt"
    source = "Grathwohl et al. 2019 (1810.01367), FFJORD; Chen et al. 2018 (1806.07366)"

    def __init__(
        self,
        field: nn.Module,
        event: tuple[int, ...],
        *,
        center: Float[Tensor, " *event"] | None = None,
        scale: Float[Tensor, " *event"] | None = None,
        solver: OdeSolver | None = None,
        judge: OdeSolver | None = None,
        kinetic: float = 0.0,
        null: int | None = None,
        p_uncond: float = 0.1,
    ) -> None:
        super().__init__()
        self.kinetic = check_number("kinetic", kinetic, 0)
        self.field, self.event = field, tuple(event)
        self.register_buffer("center", torch.zeros(event) if center is None else center)
        self.register_buffer("scale", torch.ones(event) if scale is None else scale)
        self.solver, self.judge = solver or RungeKutta4(4), judge or AdaptiveRungeKutta(1e-5, 1e-5)
        self.null, self.p_uncond = null, check_number("p_uncond", p_uncond, 0, 1)
        self.steps = getattr(self.solver, "steps", 1)

    @torch.no_grad()
    def start_from(self, x: Float[Tensor, " b *event"], cond: Tensor | None = None) -> CNF:
        """Noise with the mean and the spread of the batch, dimension by dimension; a spread of 1e-4 at least.

        Raises:
            ShapeError: one sample, which has no spread.
        """
        if len(check_batch("x", x)) < 2:
            raise ShapeError("x: got 1 sample, expected at least 2: their spread is taken")
        self.center.copy_(x.mean(0)), self.scale.copy_(x.std(0).clamp(min=1e-4))
        return self

    def velocity(
        self, x: Float[Tensor, " b *event"], t: Float[Tensor, " b"], cond: Tensor | None = None
    ) -> Float[Tensor, " b *event"]:
        """dx/dt at times t in [0, 1]."""
        own = ((x - self.center) / self.scale).flatten(1)
        return self.scale * self.field(own, (CLOCK * t).to(x.dtype), cond).reshape(x.shape)

    def slope(self, cond: Tensor | None, divergence: Divergence):
        """Velocity and divergence, as a solver wants them."""
        return lambda x, t: divergence(lambda y: self.velocity(y, t.expand(len(y)), cond), x)

    def density(
        self, x: Float[Tensor, " b *event"], cond: Tensor | None, divergence: Divergence, solver: OdeSolver
    ) -> Float[Tensor, " b"]:
        """``log p(x | cond)`` in nats, float64, with gradients if divergence and solver have them."""
        if check_batch("x", x).shape[1:] != self.event:
            raise ShapeError(f"x: got {tuple(x.shape)}, expected (b, {', '.join(map(str, self.event))})")
        z, gained = solver(self.slope(cond, divergence), x, 0.0, 1.0)
        noise = standard_normal_log_prob((z - self.center) / self.scale) - self.scale.double().log().sum()
        return noise + gained

    def divergence(self, x: Tensor, generator: torch.Generator | None, create_graph: bool = False) -> Divergence:
        """Exact in few dimensions, else an estimate with one probe of signs for each sample."""
        if x[0].numel() <= FEW:
            return partial(exact_divergence, create_graph=create_graph)
        return hutchinson(randn_like(x, generator).sign(), create_graph=create_graph)

    def loss(self, batch: Batch, phase: str = "all", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Nats per dimension, and the kinetic energy that they cost, through every step of the solver."""
        x, cond = heard(batch, self.null, self.p_uncond, generator)
        divergence = self.divergence(x, generator, create_graph=True)

        def at_a_price(field, x):
            u, each = divergence(field, x)
            return u, each - self.kinetic * (u / self.scale).flatten(1).square().sum(1)

        nats = self.density(x, cond, at_a_price, self.solver)
        return (-nats / x[0].numel()).to(x.dtype)

    @torch.no_grad()
    def log_prob(self, x, cond=None, *, generator=None):
        nats = self.density(x, cond, self.divergence(x, generator), self.judge)
        return LogProb(nats, "exact" if x[0].numel() <= FEW else "estimate")

    @torch.no_grad()
    def forward_process(self, x, t, *, generator=None):
        """Where the field has carried x by time t; each sample runs its own clock, from 0 to its t."""
        t = check_times("t", t, len(x), 1.0)

        def slope(y: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
            return per_sample(t, y) * self.velocity(y, u * t), y.new_zeros(len(y))

        return self.solver(slope, x, 0.0, 1.0)[0]

    def prior(self, n, *, generator):
        return self.center + self.scale * super().prior(n, generator=generator)

    @torch.no_grad()
    def reverse_process(self, z, cond=None, *, steps=None, generator) -> Iterator[Tensor]:
        """One frame per step, from t = 1 down to 0: the same field, backwards."""
        steps = self.steps if steps is None else check_count("steps", steps)

        def slope(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            return self.velocity(x, t.expand(len(x)), cond), x.new_zeros(len(x))

        for number in range(steps, 0, -1):
            z, _ = RungeKutta4(1)(slope, z, number / steps, (number - 1) / steps)
            yield z

    @classmethod
    def plane(cls, *, width: int = 64, depth: int = 2, n_classes: int = 0) -> CNF:
        """For points (2,)."""
        return cls(TimeMLP(2, width=width, depth=depth, n_classes=n_classes), (2,), null=n_classes or None)

    @classmethod
    def small(cls):
        x = moons(4096, generator=torch.Generator().manual_seed(0))[0]
        field = TimeMLP(2, width=32, depth=1)
        nn.init.normal_(field.leave.weight, std=0.02)  # a field of zero would leave all where it is
        return (
            cls(field, (2,), center=x.mean(0), scale=x.std(0), solver=RungeKutta4(4), kinetic=0.05),
            Batches((x,), 128),
            120,
        )
