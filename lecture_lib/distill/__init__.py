"""Distillation: many steps of a solver, learned as one function. One loss, and the choices that make each method."""

from lecture_lib.distill.boundary import Boundary, boundary, consistency_scalings, latent_scalings
from lecture_lib.distill.consistency import cd_loss, ct_loss, ect_loss, ict_loss, seeded_masks, twins
from lecture_lib.distill.curricula import (
    EqualPairs,
    LogNormalPairs,
    NeighbourPairs,
    Pair,
    Pairs,
    RatioPairs,
    ct_decay,
    ct_points,
    ect_stage,
    ict_points,
    rising_grid,
)
from lecture_lib.distill.distances import Distance, huber, pseudo_huber, squared
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
from lecture_lib.distill.multistep import greedy_grid, multistep_grid
from lecture_lib.distill.semigroup import Leg, semigroup_loss, shared_noise, solved

__all__ = [
    "Boundary",
    "ConsistencyFunction",
    "Distance",
    "EqualPairs",
    "FlowMap",
    "FlowMapModel",
    "Jump",
    "Leg",
    "LogNormalPairs",
    "NeighbourPairs",
    "Pair",
    "Pairs",
    "RatioPairs",
    "boundary",
    "carried",
    "cd_loss",
    "consistency_scalings",
    "ct_decay",
    "ct_loss",
    "ct_points",
    "ect_loss",
    "ect_stage",
    "exact_consistency",
    "greedy_grid",
    "huber",
    "ict_loss",
    "ict_points",
    "latent_scalings",
    "multistep_grid",
    "pseudo_huber",
    "rising_grid",
    "seeded_masks",
    "semigroup_loss",
    "shared_noise",
    "solved",
    "squared",
    "stay",
    "towards",
    "twins",
]
