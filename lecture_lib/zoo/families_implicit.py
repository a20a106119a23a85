"""Implicit families on the digits: four games, each with the networks that its paper made for it, in small."""

from __future__ import annotations

from functools import partial

from lecture_lib.families import GAN, R3GAN, WGANGP, StyleGAN
from lecture_lib.nets import (
    ConvFeatures,
    ConvGenerator,
    ProjectionCritic,
    ResNeXtFeatures,
    ResNeXtGenerator,
    StyleGenerator,
)
from lecture_lib.zoo.family_recipe import FamilyRecipe
from lecture_lib.zoo.models import CLASSES

EVENT = (1, 8, 8)
LATENT = 32


def dcgan(gamma: float, width: int) -> GAN:
    """A conditional DCGAN with R1."""
    return GAN(ConvGenerator(LATENT, width=width, n_classes=CLASSES), conv_critic(width), EVENT, gamma=gamma)


def wgan_gp(penalty: float, width: int) -> WGANGP:
    """The same networks in Wasserstein's game."""
    return WGANGP(ConvGenerator(LATENT, width=width, n_classes=CLASSES), conv_critic(width), EVENT, penalty=penalty)


def style_gan(gamma: float, width: int, critic_width: int) -> StyleGAN:
    """Styles against the critic of DCGAN; the mapping network ten times slower, since trainings are short."""
    generator = StyleGenerator(LATENT, width=width, dim=width, n_classes=CLASSES, rate=0.1)
    return StyleGAN(generator, conv_critic(critic_width), EVENT, gamma=gamma)


def r3gan(gamma: float, width: int, groups: int) -> R3GAN:
    """Residual networks without normalisation on both sides."""
    generator = ResNeXtGenerator(LATENT, width=width, groups=groups, n_classes=CLASSES)
    critic = ProjectionCritic(ResNeXtFeatures(width=width, groups=groups), CLASSES)
    return R3GAN(generator, critic, EVENT, gamma=gamma)


def conv_critic(width: int) -> ProjectionCritic:
    """DCGAN's critic, which hears the label by projection."""
    return ProjectionCritic(ConvFeatures(width=width), CLASSES)


FAMILY_GAN = FamilyRecipe(
    name="family-gan",
    about="DCGAN: non-saturating, with R1",
    network=partial(dcgan, gamma=1.0, width=32),
    steps=2000,
    batch_size=64,
    decay=0.998,
)
FAMILY_WGAN_GP = FamilyRecipe(
    name="family-wgan-gp",
    about="WGAN-GP: five updates of the critic for one of the generator",
    network=partial(wgan_gp, penalty=10.0, width=32),
    steps=2400,
    batch_size=64,
    decay=0.998,
)
FAMILY_STYLEGAN = FamilyRecipe(
    name="family-stylegan",
    about="StyleGAN: mapping network, modulated convolutions, noise, R1",
    network=partial(style_gan, gamma=1.0, width=32, critic_width=32),
    steps=4000,
    batch_size=64,
    lr=3e-3,
    decay=0.998,
)
FAMILY_R3GAN = FamilyRecipe(
    name="family-r3gan",
    about="R3GAN: relativistic pairs, R1 and R2, no normalisation",
    network=partial(r3gan, gamma=1.0, width=48, groups=12),
    steps=3000,
    batch_size=64,
    decay=0.998,
)
IMPLICIT = (FAMILY_GAN, FAMILY_WGAN_GP, FAMILY_STYLEGAN, FAMILY_R3GAN)
