"""Flows, interpolants and bridges on the digits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch

from lecture_lib.core import VELOCITY, BrownianNoise, Denoiser, RectifiedFlow, TwoSidedDenoiser, linear_interpolant
from lecture_lib.families import (
    DenoisingModel,
    FlowMatching,
    OTFlowMatching,
    Reflow,
    SchrodingerBridge,
    StochasticInterpolant,
)
from lecture_lib.nets import DiT
from lecture_lib.zoo.family_recipe import FamilyRecipe
from lecture_lib.zoo.models import CLASSES, digit_dit
from lecture_lib.zoo.pictures import Pictures
from lecture_lib.zoo.recipe import trained

EVENT = (1, 8, 8)


def on_digits(family: type[DenoisingModel], dim: int, depth: int) -> DenoisingModel:
    """A flow with the transformer of Lecture 3, told the label."""
    return family(velocity(dim, depth), EVENT)


def rectified(dim: int, depth: int, **options: float) -> Reflow:
    """Two such flows, one after the other."""
    return Reflow(velocity(dim, depth), velocity(dim, depth), EVENT, **options)


def interpolant(dim: int, depth: int) -> StochasticInterpolant:
    """Between digits and noise, with noise on top: gamma^2 = t (1 - t)."""
    path = linear_interpolant(BrownianNoise(1.0))
    return StochasticInterpolant(TwoSidedDenoiser(*two(dim, depth), path, null=torch.tensor(CLASSES)), EVENT)


def bridge(dim: int, depth: int, sigma: float) -> SchrodingerBridge:
    """Between digits and noise."""
    return SchrodingerBridge(*two(dim, depth), EVENT, sigma=sigma, null=torch.tensor(CLASSES))


def velocity(dim: int, depth: int) -> Denoiser:
    """The transformer of Lecture 3 on straight lines."""
    network = digit_dit(dim=dim, depth=depth, heads=4, ratio=3.0)
    return Denoiser(network, RectifiedFlow(), VELOCITY, null=torch.tensor(CLASSES))


def two(dim: int, depth: int) -> tuple[DiT, DiT]:
    """Two of them, for the two regressions of a two-sided family."""
    return digit_dit(dim=dim, depth=depth, heads=4, ratio=3.0), digit_dit(dim=dim, depth=depth, heads=4, ratio=3.0)


@dataclass(frozen=True, kw_only=True)
class ReflowRecipe(FamilyRecipe):
    """The second stage alone: the first flow is another recipe's, and the second starts as its copy."""

    teacher: FamilyRecipe

    def on(self, data: Pictures) -> Self:
        return replace(super().on(data), teacher=self.teacher.on(data))

    def prepare(self, model: Reflow) -> None:
        weights = trained(self.teacher).denoiser.state_dict()
        for flow in (model.first, model.denoiser):
            flow.load_state_dict(weights)


FLOW_MATCHING = FamilyRecipe(
    name="family-flow-matching",
    about="flow matching: straight lines, mean velocities",
    network=partial(on_digits, family=FlowMatching, dim=64, depth=3),
    steps=3000,
    batch_size=64,
    dequantised=True,
)
OT_CFM = FamilyRecipe(
    name="family-ot-cfm",
    about="flow matching with noise and digits re-paired by optimal transport within each class of a batch",
    network=partial(on_digits, family=OTFlowMatching, dim=64, depth=3),
    steps=2500,
    batch_size=96,
    dequantised=True,
)
RECTIFIED = ReflowRecipe(
    name="family-rectified-flow",
    about="rectified flow: the straight lines between the ends of family-flow-matching; 2 steps",
    network=partial(rectified, dim=64, depth=3, share=0.0, solver_steps=8),
    steps=1000,
    batch_size=64,
    lr=1e-3,
    decay=0.995,
    dequantised=True,
    teacher=FLOW_MATCHING,
)
INTERPOLANT = FamilyRecipe(
    name="family-stochastic-interpolant",
    about="stochastic interpolant between digits and noise: velocity and score, one ODE and all its SDEs",
    network=partial(interpolant, dim=48, depth=3),
    steps=3500,
    batch_size=64,
    dequantised=True,
)
BRIDGE = FamilyRecipe(
    name="family-schrodinger-bridge",
    about="Schroedinger bridge between digits and noise: Sinkhorn within each class of a batch",
    network=partial(bridge, dim=48, depth=3, sigma=0.5),
    steps=4800,
    batch_size=64,
    dequantised=True,
)
FLOWS = (FLOW_MATCHING, OT_CFM, RECTIFIED, INTERPOLANT, BRIDGE)
