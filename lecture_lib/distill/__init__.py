"""Distillation: many steps of a solver, learned as one function. One loss, and the choices that make each method."""

from lecture_lib.distill.boundary import Boundary, boundary, consistency_scalings, latent_scalings
from lecture_lib.distill.continuous import continuous_loss, noise_velocity, residual_loss, tangent
from lecture_lib.distill.distances import Distance, huber, normalised, pseudo_huber, squared
from lecture_lib.distill.jumps import (
    ctm_loss,
    diagonal_loss,
    dyadic_jumps,
    mean_flow_loss,
    shortcut_loss,
    stopped,
)
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
from lecture_lib.distill.progressive import Round, clean_target, ddim_jump, halving, progressive_loss
from lecture_lib.distill.sampling import jump_along
from lecture_lib.distill.scm import LogWeight, scm_loss, scm_tangent
from lecture_lib.distill.semigroup import Leg, semigroup_loss, shared_noise, solved

__all__ = [
    "Boundary",
    "ConsistencyFunction",
    "Distance",
    "FlowMap",
    "FlowMapModel",
    "Jump",
    "Leg",
    "LogWeight",
    "Round",
    "boundary",
    "carried",
    "clean_target",
    "consistency_scalings",
    "continuous_loss",
    "ctm_loss",
    "ddim_jump",
    "diagonal_loss",
    "dyadic_jumps",
    "exact_consistency",
    "halving",
    "huber",
    "jump_along",
    "latent_scalings",
    "mean_flow_loss",
    "noise_velocity",
    "normalised",
    "progressive_loss",
    "pseudo_huber",
    "residual_loss",
    "scm_loss",
    "scm_tangent",
    "semigroup_loss",
    "shared_noise",
    "shortcut_loss",
    "solved",
    "squared",
    "stay",
    "stopped",
    "tangent",
    "towards",
]
