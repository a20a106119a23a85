"""Energy-based models: ``p(x) = exp(-E(x))/Z`` with any network as E, and nobody who knows Z."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import Cond
from lecture_lib.errors import NotTractable, RangeError
from lecture_lib.families.base import Batch, GenerativeModel
from lecture_lib.families.denoising import two_moons
from lecture_lib.nets import PointEnergy
from lecture_lib.samplers import langevin
from lecture_lib.tensors import blend, check_count, check_number, randn_like

Energy = Callable[[Tensor], Tensor]
"""``x (b, ...) -> (b,)``."""


def slope(energy: Energy, x: Float[Tensor, " b *d"], *, create_graph: bool = False) -> Float[Tensor, " b *d"]:
    """``grad E(x)``, sample by sample; with ``create_graph`` the weights of E can learn from it."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(energy(x).sum(), x, create_graph=create_graph)[0]


class EnergyBased(GenerativeModel):
    """A network's energy, pushed down at data and up where its own short Langevin chains end.

    The gradient of ``E(x) - E(x~)`` is that of ``-log p(x)`` if the chains have forgotten where they started. They are
    short, so half of them start at data (contrastive divergence), which they need only correct, and half at noise,
    where samples will start. Chains are not differentiated through.

    A chain cannot walk along data that is thinner than its own steps. ``smooth`` widens the data by noise, and then the
    last move of ``reverse_process`` takes that noise off again: ``x - smooth^2 grad E`` is the mean of what it was
    added to (walk and jump).

    Args:
        network: ``(x, cond) -> (b,)``, or ``(x, None)``; smooth in x.
        event: shape of one sample.
        temperature: the network's unit: ``E = network/temperature``.
        step: of the Langevin chains; well below the variance of the (smoothed) data's thinnest direction.
        smooth: standard deviation of the noise that widens the data; 0 for none.
        chain: steps of a chain in training.
        calm: weight of ``(T E)^2``, which keeps energies from drifting off together: the loss sees differences only.
    """

    steps = 200
    games: ClassVar[tuple[str, ...]] = ("all",)
    formula = r"p=e^{-E}/Z,\quad\nabla_\theta\mathcal L=\mathbb E_x\nabla_\theta E-\mathbb E_{\tilde x}\nabla_\theta E"
    source = (
        "Hinton 2002 (contrastive divergence); Nijkamp et al. 2019 (1904.09770); "
        "walk and jump: Saremi & Hyvarinen 2019 (1903.02334)"
    )

    def __init__(
        self,
        network: nn.Module,
        event: tuple[int, ...],
        *,
        temperature: float = 1.0,
        step: float = 0.01,
        smooth: float = 0.0,
        chain: int = 40,
        calm: float = 0.01,
    ) -> None:
        super().__init__()
        self.network, self.event = network, tuple(event)
        self.temperature, self.step = check_number("temperature", temperature, 1e-9), check_number("step", step, 1e-12)
        self.smooth = check_number("smooth", smooth, 0)
        self.chain, self.calm = check_count("chain", chain), check_number("calm", calm, 0)

    def energy(self, x: Float[Tensor, " b *event"], cond: Cond | None = None) -> Float[Tensor, " b"]:
        """``-log p(x)``, or ``-log p(x | cond)``, up to a constant (one for each condition); p of smoothed data."""
        return self.network(x, cond) / self.temperature

    def walk(self, x: Float[Tensor, " b *event"], cond: Cond | None, steps: int, generator) -> Iterator[Tensor]:
        """Langevin on the energy as it is."""
        force = lambda x: -slope(lambda y: self.energy(y, cond), x)  # noqa: E731
        return langevin(force, x, step=self.step, temperatures=[1.0] * steps, generator=generator)

    def loss(self, batch: Batch, phase: str = "all", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        x, cond = batch[0], batch[1] if len(batch) > 1 else None
        x, half = blend((1.0, x), (self.smooth, randn_like(x, generator))), len(x) // 2
        start = torch.cat([x[:half], self.prior(len(x) - half, generator=generator)])
        *_, fake = self.walk(start, cond, self.chain, generator)
        low, high = self.energy(x, cond), self.energy(fake, cond)
        return low - high + self.calm * self.temperature**2 * (low**2 + high**2)

    def reverse_process(self, z, cond=None, *, steps=None, generator) -> Iterator[Tensor]:
        x = z
        yield x
        for x in self.walk(z, cond, self.steps if steps is None else check_count("steps", steps), generator):
            yield x
        if self.smooth:
            yield x - self.smooth**2 * slope(lambda y: self.energy(y, cond), x)

    def log_prob(self, x, cond=None, *, generator=None):
        raise NotTractable(unnormalised(self))

    @classmethod
    def small(cls):
        return cls(PointEnergy(2), (2,), step=0.004, chain=30), two_moons(batch_size=128), 150


def unnormalised(model: GenerativeModel) -> str:
    """What ``log_prob`` of an energy says."""
    return (
        f"log_prob: {type(model).__name__} knows log p(x) up to the constant log Z, an integral over all x; "
        "in the plane, grid_log_normaliser adds it up, so that log p = -energy - log Z"
    )


def grid_log_normaliser(
    energy: Energy, *, low: float = -3.0, high: float = 3.0, cells: int = 200, device: torch.device | str = "cpu"
) -> float:
    """``log Z = log int exp(-E)`` over a square of the plane, by the midpoint rule.

    Args:
        energy: of points (b, 2).
        low, high: both coordinates run from low to high.
        cells: per axis.

    Raises:
        RangeError: more than a hundredth of the mass lies in the outermost cells: the square is too small.
    """
    width = (high - check_number("low", low, -math.inf, high)) / check_count("cells", cells, 3)
    axis = low + width * (torch.arange(cells, device=device) + 0.5)
    with torch.no_grad():
        log_mass = -energy(torch.cartesian_prod(axis, axis)).double().reshape(cells, cells)
    total = log_mass.logsumexp((0, 1))
    inside = (log_mass[1:-1, 1:-1].logsumexp((0, 1)) - total).exp()
    if not inside > 0.99:
        raise RangeError(f"low, high: {1 - float(inside):.1%} of the mass at the edge of [{low:g}, {high:g}]^2")
    return float(total) + 2 * math.log(width)


def score_matching_loss(energy: Energy, x: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """``|grad E|^2/2 - laplacian E``: smallest, on average over data, where grad E = -grad log p. No chains, no Z.

    The squared gradient alone is smallest for a constant energy: the second term is what makes it learn.

    Source: Hyvarinen 2005, theorem 1.
    """
    x = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    flat = g.flatten(1)
    laplacian = sum(
        torch.autograd.grad(flat[:, i].sum(), x, create_graph=True)[0].flatten(1)[:, i] for i in range(flat.shape[1])
    )
    return flat.square().sum(1) / 2 - laplacian
