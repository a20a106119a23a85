"""Flow-matching families on the digits."""

from __future__ import annotations

from functools import partial

import torch

from lecture_lib.core import VELOCITY, Denoiser, RectifiedFlow
from lecture_lib.families import DenoisingModel, FlowMatching
from lecture_lib.zoo.family_recipe import FamilyRecipe
from lecture_lib.zoo.models import CLASSES, digit_dit


def on_digits(family: type[DenoisingModel], dim: int, depth: int) -> DenoisingModel:
    """A flow with the transformer of Lecture 3, told the label."""
    network = digit_dit(dim=dim, depth=depth, heads=4, ratio=3.0)
    return family(Denoiser(network, RectifiedFlow(), VELOCITY, null=torch.tensor(CLASSES)), (1, 8, 8))


FLOW_MATCHING = FamilyRecipe(
    name="family-flow-matching",
    about="flow matching: straight lines, mean velocities",
    network=partial(on_digits, family=FlowMatching, dim=64, depth=3),
    steps=3000,
    batch_size=64,
    dequantised=True,
)
FLOWS = (FLOW_MATCHING,)
