"""Energy matching: one potential that first carries noise to data, then holds it there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import Cond, RectifiedFlow, optimal_pairing, within
from lecture_lib.errors import NotTractable
from lecture_lib.families.base import Batch, GenerativeModel, Phase
from lecture_lib.families.denoising import two_moons
from lecture_lib.families.energy import slope, unnormalised
from lecture_lib.nets import PointEnergy
from lecture_lib.samplers import langevin
from lecture_lib.tensors import check_count, check_number, check_times, randn_like


class EnergyMatching(GenerativeModel):
    """A potential V that does not know the time: far from data its slope is optimal transport, at data exp(-V/eps).

    Phase ``flow`` fits the slope to straight lines between data and noise paired by optimal transport. Followed for
    longer than the time 1 of a line, that slope carries samples on and away. Phase ``balance`` adds contrastive
    divergence, which makes the data's place an equilibrium: then samples may go on for as long as they like. Both
    phases train the same weights.

    Time is the paper's within ``reverse_process``: 0 at noise, 1 where data is reached, ``horizon`` at the end. The
    temperature is 0 up to ``warm``, rises to ``temperature`` at 1 and stays.

    Args:
        network: ``(x, cond) -> (b,)``, or ``(x, None)``; smooth in x.
        event: shape of one sample.
        temperature: eps of the equilibrium ``exp(-V/eps)``.
        horizon: until when samples move; above 1.
        warm: tau*, in [0, 1).
        contrast: weight of ``V(x) - V(x~)`` in the second phase.
        share: of all updates that the first phase takes.
        chain: steps of a chain in training.
    """

    steps = 60
    games: ClassVar[tuple[str, ...]] = ("balance",)
    formula = r"\|\nabla V(x_t)-(\epsilon-x_0)\|^2+\lambda\,[V(x_0)-V(\tilde x)],\quad p\propto e^{-V/\varepsilon}"
    source = "Balcerak et al. 2025 (2504.10612), Eq. 6 and 7, Alg. 1 and 2"

    def __init__(
        self,
        network: nn.Module,
        event: tuple[int, ...],
        *,
        temperature: float = 0.01,
        horizon: float = 1.5,
        warm: float = 0.8,
        contrast: float = 0.1,
        share: float = 0.6,
        chain: int = 30,
    ) -> None:
        super().__init__()
        self.network, self.event, self.path = network, tuple(event), RectifiedFlow()
        self.temperature, self.horizon = (
            check_number("temperature", temperature, 0),
            check_number("horizon", horizon, 1),
        )
        self.warm, self.contrast = check_number("warm", warm, 0, 1 - 1e-6), check_number("contrast", contrast, 0)
        self.share, self.chain = check_number("share", share, 0, 1), check_count("chain", chain)

    def energy(self, x: Float[Tensor, " b *event"], cond: Cond | None = None) -> Float[Tensor, " b"]:
        """``V/eps``: ``-log p`` of the equilibrium, up to a constant."""
        return self.network(x, cond) / self.temperature

    def phases(self):
        weights = tuple(self.parameters())
        return Phase("flow", weights), Phase("balance", weights)

    def phase_at(self, done, total):
        return self.phases()[done >= self.share * total]

    def loss(self, batch: Batch, phase: str = "flow", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        x, cond = batch[0], batch[1] if len(batch) > 1 else None
        flow = self.flow_loss(x, cond, generator)
        return flow if phase == "flow" else flow + self.contrast * self.contrast_loss(x, cond, generator)

    def flow_loss(self, x, cond, generator) -> Float[Tensor, " b"]:
        """``|grad V(x_t) - (eps - x0)|^2``, mean over dimensions; pairs by optimal transport, within each class."""
        pairing = optimal_pairing if cond is None else within(cond, optimal_pairing)
        eps = pairing(x, randn_like(x, generator), generator)
        t = torch.rand(len(x), generator=generator, device=generator.device, dtype=torch.float64).to(x.device)
        velocity = slope(lambda y: self.network(y, cond), self.path.mix(x, eps, t), create_graph=True)
        return (velocity - (eps - x)).square().flatten(1).mean(1)

    def contrast_loss(self, x, cond, generator) -> Float[Tensor, " b"]:
        """``V(x) - V(x~)``; half of the chains start at data and move at full temperature, half come from noise."""
        half = (len(x) + 1) // 2
        parts, begins = (slice(half), slice(half, None)), (1.0, 0.0)
        starts = x[:half], randn_like(x[half:], generator)
        ends = [
            last(self.move(z, None if cond is None else cond[part], self.chain, begin, generator))
            for z, part, begin in zip(starts, parts, begins, strict=True)
            if len(z)
        ]
        return self.network(x, cond) - self.network(torch.cat(ends), cond)

    def move(self, x, cond, steps: int, begin: float, generator) -> Iterator[Tensor]:
        """Langevin from the time ``begin`` of the paper's clock to the horizon."""
        h = (self.horizon - begin) / steps
        times = [begin + h * k for k in range(steps)]
        temperatures = [self.temperature * min(max((u - self.warm) / (1 - self.warm), 0.0), 1.0) for u in times]
        force = lambda x: -slope(lambda y: self.network(y, cond), x)  # noqa: E731
        return langevin(force, x, step=h, temperatures=temperatures, generator=generator)

    def forward_process(self, x, t, *, generator=None):
        return self.path.mix(x, randn_like(x, generator), check_times("t", t, len(x), 1.0))

    def reverse_process(self, z, cond=None, *, steps=None, generator) -> Iterator[Tensor]:
        steps = self.steps if steps is None else check_count("steps", steps)
        return chain([z], self.move(z, cond, steps, 0.0, generator))

    def log_prob(self, x, cond=None, *, generator=None):
        raise NotTractable(unnormalised(self))

    @classmethod
    def small(cls):
        return cls(PointEnergy(2), (2,)), two_moons(batch_size=128), 500


def last(frames: Iterator[Tensor]) -> Tensor:
    """The last one."""
    *_, x = frames
    return x
