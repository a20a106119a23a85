"""Generative adversarial networks: a critic that estimates log p/q, and a generator that climbs it."""

from __future__ import annotations

from lecture_lib.families.denoising import two_moons
from lecture_lib.families.implicit import ImplicitModel, with_slope
from lecture_lib.nets import (
    PointFeatures,
    PointGenerator,
    ProjectionCritic,
    logistic_discriminator_loss,
    logistic_generator_loss,
)
from lecture_lib.tensors import check_number


class GAN(ImplicitModel):
    """The non-saturating game, on logits, with the penalty R1 that makes it converge.

    zeta is the softplus: ``zeta(-D) = -log sigmoid(D)``. With ``ConvGenerator`` and a ``ProjectionCritic`` of
    ``ConvFeatures`` it is a conditional DCGAN.

    Args:
        generator, critic, event: as for ``ImplicitModel``.
        gamma: weight of R1, the critic's squared slope at data; 0 for the game as Goodfellow left it.
    """

    formula = r"L_D=\zeta(-D(x))+\zeta(D(G(z)))+\tfrac\gamma2\|\nabla D(x)\|^2,\quad L_G=\zeta(-D(G(z)))"
    source = (
        "Goodfellow et al. 2014 (1406.2661); Radford et al. 2016 (1511.06434); R1: Mescheder et al. 2018 (1801.04406)"
    )

    def __init__(self, generator, critic, event, *, gamma: float = 1.0) -> None:
        super().__init__(generator, critic, event)
        self.gamma = check_number("gamma", gamma, 0)

    def critic_loss(self, real, fake, cond, *, generator):
        on_real, r1 = with_slope(self.critic, real, cond)
        return logistic_discriminator_loss(on_real, self.critic(fake, cond)) + self.gamma / 2 * r1

    def generator_loss(self, fake, real, cond):
        return logistic_generator_loss(self.critic(fake, cond))

    @classmethod
    def small(cls):
        return cls(PointGenerator(), ProjectionCritic(PointFeatures()), (2,), gamma=0.1), two_moons(), 1200
