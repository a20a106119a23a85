"""Implicit families: a generator that one can draw from and not ask, trained in a game with a critic.

    prior              z, a short vector of noise
    reverse_process    G(z, c), one jump
    loss               the critic's turn: tell data from fakes; the generator's: be taken for data
    log_prob           none

What differs is what each side pays, how often the critic moves, and the networks.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.errors import NotDefined, NotTractable, ShapeError, UnknownNameError
from lecture_lib.families.base import Batch, GenerativeModel, Phase
from lecture_lib.families.encoding import check_steps
from lecture_lib.nets import held, squared_slope
from lecture_lib.tensors import check_count, randn_like

Labels = Int[Tensor, " b"]
Critic = Callable[[Tensor, Labels | None], Tensor]
"""``(samples (b, ...), labels or None) -> logits (b, ...)``, each sample judged alone."""


class ImplicitModel(GenerativeModel):
    """A generator, a critic, and whose turn it is.

    Args:
        generator: ``(z (b, latent), labels (b,) or None) -> samples``, with attributes ``latent`` and ``n_classes``.
        critic: ``(samples, labels or None) -> logits (b, ...)``, each sample judged alone.
        event: shape of one sample.

    Attributes:
        critic_updates: of the critic for one of the generator.
        betas: of Adam; the mean of past gradients is short, or absent, because the opponent has moved since.
    """

    games = ("critic", "generator")
    critic_updates: ClassVar[int] = 1
    betas: ClassVar[tuple[float, float]] = (0.0, 0.99)

    def __init__(self, generator: nn.Module, critic: nn.Module, event: tuple[int, ...]) -> None:
        super().__init__()
        self.generator, self.critic, self.event = generator, critic, tuple(event)

    # What a family decides -----------------------------------------------------------------------------------------

    @abstractmethod
    def critic_loss(
        self, real: Tensor, fake: Tensor, cond: Labels | None, *, generator: torch.Generator
    ) -> Float[Tensor, " b"]:
        """What the critic pays; no gradient goes back through ``fake``."""

    @abstractmethod
    def generator_loss(self, fake: Tensor, real: Tensor, cond: Labels | None) -> Float[Tensor, " b"]:
        """What the generator pays; the critic is held still."""

    def generated(self, z: Tensor, cond: Labels | None, *, generator: torch.Generator) -> Tensor:
        """``G(z, c)``; ``generator`` is for generators that draw noise of their own."""
        return self.generator(z, cond)

    def drawn(self, z: Tensor, cond: Labels | None, *, generator: torch.Generator) -> Tensor:
        """What ``sample`` makes of z: ``generated``, unless a family does something to its samples afterwards."""
        return self.generated(z, cond, generator=generator)

    # What follows --------------------------------------------------------------------------------------------------

    def phases(self) -> tuple[Phase, ...]:
        critic, generator = (
            Phase(name, tuple(network.parameters()), betas=self.betas)
            for name, network in (("critic", self.critic), ("generator", self.generator))
        )
        return *(critic,) * self.critic_updates, generator

    def loss(self, batch: Batch, phase: str = "generator", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        """The turn's own loss. Batches are (data, labels), or (data,) for a generator without classes."""
        if phase not in self.games:
            raise UnknownNameError(f"phase: got {phase!r}, expected one of {', '.join(self.games)}")
        real, cond = batch[0], self._checked(batch[1] if len(batch) > 1 else None)
        z = self.prior(len(real), generator=generator)
        if phase == "critic":
            with torch.no_grad():
                fake = self.generated(z, cond, generator=generator)
            return self.critic_loss(real, fake, cond, generator=generator)
        with held(self.critic):
            return self.generator_loss(self.generated(z, cond, generator=generator), real, cond)

    def prior(self, n, *, generator):
        like = next(self.parameters())
        return randn_like(like.new_empty(check_count("n", n), self.generator.latent), generator)

    @torch.no_grad()
    def reverse_process(self, z, cond=None, *, steps=None, generator) -> Iterator[Tensor]:
        """One frame. A generator with classes that is told none draws them, all equally likely."""
        check_steps(steps, 1, "a generator jumps from noise to data")
        if cond is None and (classes := self.generator.n_classes):
            cond = torch.randint(classes, (len(z),), generator=generator, device=generator.device).to(z.device)
        return iter((self.drawn(z, self._checked(cond), generator=generator),))

    def forward_process(self, x, t, *, generator=None):
        raise NotDefined(
            "forward_process: a generator maps noise to data in one jump and has no way back; "
            "expected a family that noises or encodes"
        )

    def log_prob(self, x, cond=None, *, generator=None):
        latent = self.generator.latent
        raise NotTractable(
            f"log_prob: p(x) adds up all z with G(z) = x, and nobody can find them; with {latent} numbers in z and "
            f"{math.prod(self.event)} in x there may be no density at all. Expected a family with a likelihood"
        )

    def _checked(self, cond: Labels | None) -> Labels | None:
        if (cond is None) != (self.generator.n_classes == 0):
            got, expected = ("none", "some") if cond is None else ("some", "none")
            raise ShapeError(
                f"cond: got {got}, expected {expected}: the generator has {self.generator.n_classes} classes"
            )
        return cond


def with_slope(
    critic: Critic, x: Float[Tensor, " b *d"], cond: Labels | None
) -> tuple[Float[Tensor, " b *k"], Float[Tensor, " b"]]:
    """``D(x)`` and ``|dD/dx|^2`` from one pass of the critic: what it says, and the penalty R1 or R2."""
    x = x.detach().requires_grad_()
    logits = critic(x, cond)
    return logits, squared_slope(logits, x)


def generator_drift(
    critic: Critic, loss: Callable[[Tensor], Float[Tensor, " b"]], x: Float[Tensor, " b *d"], cond: Labels | None = None
) -> Float[Tensor, " b *d"]:
    """``-d loss(D(x))/dx``: where the generator's loss sends its samples, if each could move by itself.

    At the best critic, with s the scores of data and of fakes, it is

        logistic_generator_loss    (1 - D*) (s_data - s_fake)    silent where the critic is fooled
        hinge_generator_loss                 s_data - s_fake     the Wasserstein gradient flow of KL(fakes | data)

    Source: Goodfellow et al. 2014, section 3, by the chain rule.
    """
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss(critic(x, cond)).sum(), x)
    return -slope
