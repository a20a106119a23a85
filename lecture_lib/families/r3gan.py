"""R3GAN: a relativistic game with slopes penalised on both sides, the modern baseline."""

from __future__ import annotations

from lecture_lib.families.denoising import two_moons
from lecture_lib.families.implicit import ImplicitModel, with_slope
from lecture_lib.nets import PointFeatures, PointGenerator, ProjectionCritic, relativistic_discriminator_loss
from lecture_lib.tensors import check_number


class R3GAN(ImplicitModel):
    """Each fake against a sample of data with the same label; R1 at data and R2 at fakes.

    zeta is the softplus. With ``ResNeXtGenerator`` and a ``ProjectionCritic`` of ``ResNeXtFeatures`` the networks are
    of the paper's kind, too.

    Args:
        generator, critic, event: as for ``ImplicitModel``.
        gamma: weight of both penalties.
    """

    formula = (
        r"L_D=\zeta(D(G)-D(x))+\tfrac\gamma2\big(\|\nabla D(x)\|^2+\|\nabla D(G)\|^2\big),\quad L_G=\zeta(D(x)-D(G))"
    )
    source = "Huang et al. 2024 (2501.05441), section 2; relativistic pairs: Jolicoeur-Martineau 2018 (1807.00734)"

    def __init__(self, generator, critic, event, *, gamma: float = 1.0) -> None:
        super().__init__(generator, critic, event)
        self.gamma = check_number("gamma", gamma, 0)

    def critic_loss(self, real, fake, cond, *, generator):
        (on_real, r1), (on_fake, r2) = (with_slope(self.critic, x, cond) for x in (real, fake))
        return relativistic_discriminator_loss(on_real, on_fake) + self.gamma / 2 * (r1 + r2)

    def generator_loss(self, fake, real, cond):
        return relativistic_discriminator_loss(real=self.critic(fake, cond), fake=self.critic(real, cond))

    @classmethod
    def small(cls):
        return cls(PointGenerator(), ProjectionCritic(PointFeatures()), (2,), gamma=0.1), two_moons(), 1200
