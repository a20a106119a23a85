"""StyleGAN: not another game but another generator, with styles, noise of its own and truncation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.data import Batches, digits
from lecture_lib.families.implicit import ImplicitModel, Labels, with_slope
from lecture_lib.nets import (
    ConvFeatures,
    ProjectionCritic,
    StyleGenerator,
    logistic_discriminator_loss,
    logistic_generator_loss,
)
from lecture_lib.tensors import check_count, check_number, randn_like


class StyleGAN(ImplicitModel):
    """The non-saturating game with R1, played by a ``StyleGenerator``.

    Args:
        generator: a ``StyleGenerator``.
        critic, event: as for ``ImplicitModel``.
        gamma: weight of R1.
        truncation: psi of ``sample``: styles are drawn from ``w_mean + psi (w - w_mean)``; 1 leaves them alone, less
            trades variety for typical pictures. Training never truncates.
    """

    formula = (
        r"w=f(z/\|z\|),\ x=g(w,\text{noise}),\ w'_{oik}=\frac{s_iw_{oik}}{\sqrt{\sum(s_iw_{oik})^2}},"
        r"\quad \bar w+\psi(w-\bar w)"
    )
    source = "Karras et al. 2019 (1812.04948); Karras et al. 2020 (1912.04958)"

    def __init__(
        self, generator: StyleGenerator, critic, event, *, gamma: float = 1.0, truncation: float = 1.0
    ) -> None:
        super().__init__(generator, critic, event)
        self.gamma = check_number("gamma", gamma, 0)
        self.truncation = check_number("truncation", truncation)

    def critic_loss(self, real, fake, cond, *, generator):
        on_real, r1 = with_slope(self.critic, real, cond)
        return logistic_discriminator_loss(on_real, self.critic(fake, cond)) + self.gamma / 2 * r1

    def generator_loss(self, fake, real, cond):
        return logistic_generator_loss(self.critic(fake, cond))

    def generated(self, z, cond, *, generator):
        return self.generator(z, cond, self.noise(z, generator=generator))

    def drawn(self, z, cond, *, generator):
        w = self.generator.mapping(z, cond)
        if self.truncation != 1:
            w = self.mean_style(cond, generator=generator).lerp(w, self.truncation)
        return self.generator.synthesise(w, self.noise(z, generator=generator))

    def noise(self, z: Float[Tensor, " b l"], *, generator: torch.Generator) -> Sequence[Float[Tensor, " b 1 h w"]]:
        """Fresh noise for every layer."""
        return [randn_like(z.new_empty(len(z), 1, side, side), generator) for side in self.generator.noise_sides]

    def mean_style(
        self, cond: Labels | None = None, n: int = 1000, *, generator: torch.Generator
    ) -> Float[Tensor, " b w"]:
        """``E_z f(z, c)`` over ``n`` draws of z, for each label of ``cond``; (1, w) without labels.

        Each class has its own mean: the mean of all lies between classes, and truncation would blur labels.
        """
        z = self.prior(check_count("n", n), generator=generator)
        if cond is None:
            return self.generator.mapping(z).mean(0, keepdim=True)
        classes, which = cond.unique(return_inverse=True)
        return torch.stack([self.generator.mapping(z, c.expand(n)).mean(0) for c in classes])[which]

    @classmethod
    def small(cls):
        generator = StyleGenerator(16, width=16, dim=16, depth=4)
        model = cls(generator, ProjectionCritic(ConvFeatures(width=8, features=32)), (1, 8, 8))
        return model, Batches((digits().images,), 64), 300
