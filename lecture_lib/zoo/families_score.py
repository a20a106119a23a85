"""Diffusion and energies on the digits."""

from __future__ import annotations

from functools import partial

import torch

from lecture_lib.core import VE, Path, VPLinear
from lecture_lib.families import (
    DDPM,
    VESDE,
    VPSDE,
    EnergyBased,
    EnergyMatching,
    LevelDecoder,
    ScoreSDE,
    SubVPSDE,
)
from lecture_lib.nets import PointEnergy
from lecture_lib.samplers import forward_variance
from lecture_lib.zoo.family_recipe import FamilyRecipe
from lecture_lib.zoo.models import CLASSES, digit_dit

EVENT = (1, 8, 8)
# Of samples, so that each draws the digit it is asked for; likelihoods are those of the plain conditional model.
GUIDANCE = {DDPM: 1.5, VPSDE: 1.5, VESDE: 2.25, SubVPSDE: 1.75}


def digit_ddpm(dim: int, depth: int, T: int) -> DDPM:
    """DDPM of T steps (its schedule at T of its times) on grey levels."""
    table = VPLinear().alpha(torch.arange(1, T + 1, dtype=torch.float64, device="cpu") / T) ** 2
    network = digit_dit(dim=dim, depth=depth, heads=4, ratio=3.0)
    # The variance of points is 0.4 of that of the step forward near data; with it the bound charges every error of a
    # small network 2.6 times as much: 2.72 bits per dimension instead of 2.52, with samples alike.
    return DDPM(
        network,
        EVENT,
        table=table,
        null=torch.tensor(CLASSES),
        decoder=LevelDecoder(),
        variance=forward_variance,
        w=GUIDANCE[DDPM],
    )


def digit_sde(family: type[ScoreSDE], dim: int, depth: int, path: Path | None = None) -> ScoreSDE:
    """A score SDE with the same transformer."""
    network = digit_dit(dim=dim, depth=depth, heads=4, ratio=3.0)
    return family(network, EVENT, path=path, null=torch.tensor(CLASSES), sigma_data=0.75, w=GUIDANCE[family])


DDPM_DIGITS = FamilyRecipe(
    name="family-ddpm",
    about="DDPM: 200 noise levels, 200 steps back, a bound on grey levels",
    network=partial(digit_ddpm, dim=64, depth=3, T=200),
    steps=3000,
    batch_size=64,
)
VP_DIGITS = FamilyRecipe(
    name="family-vp-sde",
    about="score SDE, variance preserving",
    network=partial(digit_sde, family=VPSDE, dim=64, depth=3),
    steps=3000,
    batch_size=64,
    dequantised=True,
)
# Noise need not be wider than two digits can be apart (Song & Ermon 2020, 2006.09011, technique 1): 9.5 for the digits.
VE_DIGITS = FamilyRecipe(
    name="family-ve-sde",
    about="score SDE, variance exploding",
    network=partial(digit_sde, family=VESDE, dim=64, depth=3, path=VE(sigma_max=12.0)),
    steps=3000,
    batch_size=64,
    dequantised=True,
)
SUB_VP_DIGITS = FamilyRecipe(
    name="family-sub-vp-sde",
    about="score SDE, sub-VP: less noise early on",
    network=partial(digit_sde, family=SubVPSDE, dim=64, depth=3),
    steps=3000,
    batch_size=64,
    dequantised=True,
)


def digit_energy(width: int, depth: int) -> EnergyBased:
    """An energy of digits widened by noise of 0.3: the black border of exactly -1 is too thin to walk along."""
    network = PointEnergy(64, width=width, depth=depth, n_classes=CLASSES)
    return EnergyBased(network, EVENT, temperature=0.1, step=0.02, smooth=0.3, chain=40)


def digit_potential(width: int, depth: int) -> EnergyMatching:
    """A static potential that is told the label."""
    network = PointEnergy(64, width=width, depth=depth, n_classes=CLASSES)
    return EnergyMatching(network, EVENT, temperature=0.01, horizon=2.0, contrast=0.05, share=0.7)


ENERGY = FamilyRecipe(
    name="family-ebm",
    about="energy-based model: short Langevin chains from data and from noise",
    network=partial(digit_energy, width=256, depth=3),
    steps=1600,
    batch_size=64,
    decay=0.99,
)
ENERGY_MATCHING = FamilyRecipe(
    name="family-energy-matching",
    about="energy matching: one static potential, flow first, then balance",
    network=partial(digit_potential, width=256, depth=3),
    steps=2000,
    batch_size=64,
    decay=0.99,
)
SCORES = (DDPM_DIGITS, VP_DIGITS, VE_DIGITS, SUB_VP_DIGITS, ENERGY, ENERGY_MATCHING)
