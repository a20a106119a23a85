"""Distillation: many steps of a solver, learned as one function. One loss, and the choices that make each method."""

from lecture_lib.distill.boundary import Boundary, boundary, consistency_scalings, latent_scalings
from lecture_lib.distill.distances import Distance, huber, pseudo_huber, squared
from lecture_lib.distill.latent import SkippedSteps, adapter_consistency_loss, guided_leg, latent_consistency_loss
from lecture_lib.distill.maps import (
    ConsistencyFunction,
    FlowMap,
    FlowMapModel,
    Jump,
    carried,
    exact_consistency,
    stay,
    towards,
)
from lecture_lib.distill.semigroup import Leg, semigroup_loss, shared_noise, solved

__all__ = [
    "Boundary",
    "ConsistencyFunction",
    "Distance",
    "FlowMap",
    "FlowMapModel",
    "Jump",
    "Leg",
    "SkippedSteps",
    "adapter_consistency_loss",
    "boundary",
    "carried",
    "consistency_scalings",
    "exact_consistency",
    "guided_leg",
    "huber",
    "latent_consistency_loss",
    "latent_scalings",
    "pseudo_huber",
    "semigroup_loss",
    "shared_noise",
    "solved",
    "squared",
    "stay",
    "towards",
]
