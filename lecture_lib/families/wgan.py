"""Wasserstein GAN: the critic is kept near slope 1, and its loss measures how far the fakes have to travel."""

from __future__ import annotations

import torch

from lecture_lib.families.denoising import two_moons
from lecture_lib.families.implicit import ImplicitModel, with_slope
from lecture_lib.nets import (
    PointFeatures,
    PointGenerator,
    ProjectionCritic,
    hinge_generator_loss,
    wasserstein_discriminator_loss,
)
from lecture_lib.tensors import check_number, per_sample


class WGANGP(ImplicitModel):
    """WGAN with a gradient penalty, five updates of the critic for one of the generator.

    The penalty is soft: where the fakes are data shifted by m, the best linear critic has the slope 1 + m/(2 penalty),
    and ``minus_distance`` says -(m + m^2/(2 penalty)).

    Args:
        generator, critic, event: as for ``ImplicitModel``.
        penalty: weight lambda of ``(|dD/dx| - 1)^2`` between data and fakes. 10 as in the paper; so strong a penalty
            keeps a small critic from turning round, and 1 serves the plane better (see ``oracles.dirac``).
    """

    formula = r"L_D=D(G)-D(x)+\lambda(\|\nabla D(\hat x)\|-1)^2,\ \hat x=ux+(1-u)G,\quad L_G=-D(G)"
    source = "Arjovsky et al. 2017 (1701.07875); Gulrajani et al. 2017 (1704.00028), algorithm 1"
    critic_updates = 5
    betas = (0.0, 0.9)

    def __init__(self, generator, critic, event, *, penalty: float = 10.0) -> None:
        super().__init__(generator, critic, event)
        self.penalty = check_number("penalty", penalty, 0)

    def critic_loss(self, real, fake, cond, *, generator):
        u = per_sample(torch.rand(len(real), generator=generator, device=generator.device).to(real.device), real)
        _, slope2 = with_slope(self.critic, u * real + (1 - u) * fake, cond)
        excess = (slope2 + 1e-12).sqrt() - 1  # a root has no derivative at 0
        return self.minus_distance(real, fake, cond) + self.penalty * excess**2

    def generator_loss(self, fake, real, cond):
        return hinge_generator_loss(self.critic(fake, cond))

    def minus_distance(self, real, fake, cond=None):
        """``D(x_hat) - D(x)``: the mean of its negative estimates W1 between data and fakes."""
        return wasserstein_discriminator_loss(self.critic(real, cond), self.critic(fake, cond))

    @classmethod
    def small(cls):
        return cls(PointGenerator(), ProjectionCritic(PointFeatures()), (2,), penalty=1.0), two_moons(), 1200
