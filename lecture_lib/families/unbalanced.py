"""Unbalanced optimal transport as a generative family: a map that may leave some of the data unexplained.

    min_{pi >= 0}  int c dpi + D_Psi1(pi_0 | mu) + D_Psi2(pi_1 | nu),      mu the prior, nu the data

in its semi-dual form, one supremum over a potential v:

    sup_v  int -Psi1*(-v^c(x)) dmu + int -Psi2*(-v(y)) dnu,      v^c(x) = inf_y c(x, y) - v(y)

The minimum inside is a network too, the map T. With Psi* = identity both marginals are met (balanced transport); with
Psi* = e^u - 1, the conjugate of the relative entropy, mass that is too dear to carry is left where it is.

Source: Choi, Choi & Kang 2023 (2305.14777), algorithm 1; as the steps of a JKO scheme, Choi, Choi & Kang 2024
(2402.05443); the balanced case, Rout, Korotin & Burnaev 2022 (2110.02999).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lecture_lib.families.base import Batch, GenerativeModel, Phase
from lecture_lib.families.denoising import two_moons
from lecture_lib.families.encoding import check_steps
from lecture_lib.nets import EventMLP, held
from lecture_lib.tensors import check_count, check_number


@dataclass(frozen=True)
class Conjugate:
    """``Psi*``, increasing and convex, with ``Psi*(0) = 0`` and slope 1 there: what a marginal's mismatch costs.

    Attributes:
        name, formula: what it is called, and Psi*(u).
        of: the function, element by element.
        share: its slope; at the best v, the density of the plan's marginal relative to what was asked for.
    """

    name: str
    formula: str
    of: Callable[[Tensor], Tensor]
    share: Callable[[Tensor], Tensor]


BEND = 5.0


def _exp(u: Tensor) -> Tensor:
    """``e^u``, continued by its tangent beyond BEND: an untrained v must not overflow."""
    return u.clamp(max=BEND).exp() * (1 + F.relu(u - BEND))


IDENTITY = Conjugate("balanced", "u", lambda u: u, torch.ones_like)
RELATIVE_ENTROPY = Conjugate("relative entropy", "e^u-1", lambda u: _exp(u) - 1, lambda u: u.clamp(max=BEND).exp())
SOFTPLUS = Conjugate(
    "softplus", r"2\log\tfrac{1+e^u}2", lambda u: 2 * (F.softplus(u) - math.log(2)), lambda u: 2 * torch.sigmoid(u)
)


class UnbalancedTransport(GenerativeModel):
    """A map T from the prior to the data and a potential v, trained in turns; one step to sample.

        transport   min_T  c(x, T(x)) - v(T(x))
        potential   min_v  Psi1*(v(T(x)) - c(x, T(x))) + Psi2*(-v(y)),        c(x, y) = tau |x - y|^2 / 2

    The smaller tau, the cheaper it is to carry mass: at tau -> 0 the marginals are met again. With
    ``psi_source = IDENTITY``, ``psi_target = RELATIVE_ENTROPY`` and ``tau = 1/h`` it is one JKO step of length h from
    the prior towards the data, learned from samples.

    Args:
        transport: ``(z (b, *event), None, labels) -> (b, *event)``, added to z.
        potential: ``(y (b, *event), None, labels) -> (b,)``.
        event: shape of one sample.
        psi_source, psi_target: Psi1* and Psi2*.
        tau: of the cost.
        inner: updates of T for one of v.
    """

    formula = r"\sup_v\inf_T\ -\mathbb E\,\Psi_1^*\big(v(T(x))-c(x,T(x))\big)-\mathbb E\,\Psi_2^*(-v(y))"
    source = "Choi, Choi & Kang 2023 (2305.14777); 2024 (2402.05443)"
    games = ("transport", "potential")

    def __init__(
        self,
        transport: EventMLP,
        potential: EventMLP,
        event: tuple[int, ...],
        *,
        psi_source: Conjugate = RELATIVE_ENTROPY,
        psi_target: Conjugate = RELATIVE_ENTROPY,
        tau: float = 0.1,
        inner: int = 2,
    ) -> None:
        super().__init__()
        self.transport, self.potential, self.event = transport, potential, tuple(event)
        self.psi_source, self.psi_target = psi_source, psi_target
        self.tau, self.inner = check_number("tau", tau, 0), check_count("inner", inner)

    def phases(self) -> tuple[Phase, ...]:
        transport = Phase("transport", tuple(self.transport.parameters()), betas=(0.5, 0.9))
        return *(transport,) * self.inner, Phase("potential", tuple(self.potential.parameters()), betas=(0.5, 0.9))

    def loss(self, batch: Batch, phase: str = "transport", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        y, cond = batch[0], batch[1] if len(batch) > 1 else None
        x = self.prior(len(y), generator=generator)
        if phase == "transport":
            with held(self.potential):
                there = self.carry(x, cond)
                return self.cost(x, there) - self.potential(there, None, cond)
        with torch.no_grad():
            there = self.carry(x, cond)
        gain = self.potential(there, None, cond) - self.cost(x, there)
        return self.psi_source.of(gain) + self.psi_target.of(-self.potential(y, None, cond))

    def cost(self, x: Float[Tensor, " b *event"], y: Float[Tensor, " b *event"]) -> Float[Tensor, " b"]:
        """``tau |x - y|^2 / 2``."""
        return self.tau * (x - y).square().flatten(1).sum(1) / 2

    def carry(self, z: Float[Tensor, " b *event"], cond: Tensor | None = None) -> Float[Tensor, " b *event"]:
        """``T(z)``."""
        return z + self.transport(z, None, cond)

    @torch.no_grad()
    def explained(self, y: Float[Tensor, " b *event"], cond: Tensor | None = None) -> Float[Tensor, " b"]:
        """``dpi_1/dnu(y) = Psi2*'(-v(y))``: 1 for data that is generated in full, near 0 for an outlier left alone."""
        return self.psi_target.share(-self.potential(y, None, cond))

    @torch.no_grad()
    def reverse_process(self, z, cond=None, *, steps=None, generator) -> Iterator[Tensor]:
        """Start and end of every point; on the way it goes straight."""
        check_steps(steps, 1, "a map takes noise to data at once")
        yield z
        yield self.carry(z, cond)

    @classmethod
    def small(cls):
        return cls(EventMLP((2,), depth=3), EventMLP((2,), (), depth=3), (2,)), two_moons(), 600
