"""The unifying views on the digits: DiffFlow, the MMD flow and unbalanced transport. JKO needs exact determinants of
d x d Hessians and an energy, so it stays on the plane."""

from __future__ import annotations

from functools import partial

import torch

from lecture_lib.families import DiffFlow, MMDFlow, UnbalancedTransport, smoothed
from lecture_lib.nets import EventMLP
from lecture_lib.zoo.family_recipe import FamilyRecipe
from lecture_lib.zoo.models import CLASSES

EVENT = (1, 8, 8)


def diffflow(width: int, depth: int, critic_width: int) -> DiffFlow:
    """A score that hears the label, and a smaller critic that hears it too."""
    score = EventMLP(EVENT, width=width, depth=depth, n_classes=CLASSES, timed=True)
    critic = EventMLP(EVENT, (), width=critic_width, depth=2, n_classes=CLASSES, timed=True)
    denoiser = smoothed(score, sigma_data=0.75, null=torch.tensor(CLASSES))
    # Mostly score: in 64 dimensions a critic of a few hundred updates does not find the way alone.
    return DiffFlow(denoiser, critic, EVENT, share=0.8, levels=24, sigmas=(2.0, 0.05), rate=0.5, inner=20)


def mmd_flow(width: int, depth: int) -> MMDFlow:
    """A generator that hears the label."""
    return MMDFlow(EventMLP(EVENT, width=width, depth=depth, n_classes=CLASSES), EVENT)


def unbalanced(width: int, depth: int) -> UnbalancedTransport:
    """A map and a potential that hear the label."""
    networks = (EventMLP(EVENT, out, width=width, depth=depth, n_classes=CLASSES) for out in (EVENT, ()))
    return UnbalancedTransport(*networks, EVENT, tau=0.01)


DIFFFLOW = FamilyRecipe(
    name="family-diffflow",
    about="DiffFlow: particles led by a score and a discriminator",
    network=partial(diffflow, width=128, depth=3, critic_width=64),
    steps=7014,
    batch_size=96,
)
MMD_FLOW = FamilyRecipe(
    name="family-mmd-flow",
    about="MMD flow: a generator after its particles, kernel of distances",
    network=partial(mmd_flow, width=144, depth=3),
    steps=3000,
    batch_size=512,
)
UNBALANCED = FamilyRecipe(
    name="family-unbalanced",
    about="unbalanced transport: a map and a potential in turns",
    network=partial(unbalanced, width=128, depth=2),
    steps=6000,
    batch_size=128,
)
UNIFIED = (DIFFFLOW, MMD_FLOW, UNBALANCED)
