"""Distillation: many steps of a solver, learned as one function. One loss, and the choices that make each method."""

from lecture_lib.distill.adversarial import AdversarialConsistency, Judged, Legs
from lecture_lib.distill.boundary import Boundary, boundary, consistency_scalings, latent_scalings
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
from lecture_lib.distill.matching import (
    DMD2,
    FakeScore,
    Matched,
    MatchingWeight,
    by_divergence,
    by_teacher_error,
    matching_loss,
    simulated,
)
from lecture_lib.distill.reflow import Pairs, endpoint_loss, reflow_loss, solved_pairs, transport_cost
from lecture_lib.distill.semigroup import Leg, semigroup_loss, shared_noise, solved

__all__ = [
    "DMD2",
    "AdversarialConsistency",
    "Boundary",
    "ConsistencyFunction",
    "Distance",
    "FakeScore",
    "FlowMap",
    "FlowMapModel",
    "Judged",
    "Jump",
    "Leg",
    "Legs",
    "Matched",
    "MatchingWeight",
    "Pairs",
    "boundary",
    "by_divergence",
    "by_teacher_error",
    "carried",
    "consistency_scalings",
    "endpoint_loss",
    "exact_consistency",
    "huber",
    "latent_scalings",
    "matching_loss",
    "pseudo_huber",
    "reflow_loss",
    "semigroup_loss",
    "shared_noise",
    "simulated",
    "solved",
    "solved_pairs",
    "squared",
    "stay",
    "towards",
    "transport_cost",
]
