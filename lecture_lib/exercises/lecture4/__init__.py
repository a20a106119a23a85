"""Exercise 4: consistency models and fast generation."""

from __future__ import annotations

from lecture_lib.exercises.lecture4.curricula import ict_curriculum
from lecture_lib.exercises.lecture4.distances import pseudo_huber
from lecture_lib.exercises.lecture4.halving import halved_target
from lecture_lib.exercises.lecture4.maps import consistency_function, gaussian_flow_map
from lecture_lib.exercises.lecture4.matching import matching_loss
from lecture_lib.exercises.lecture4.mean_flow import mean_flow_loss
from lecture_lib.exercises.lecture4.pairs import ct_loss
from lecture_lib.exercises.lecture4.sampling import gamma_sample
from lecture_lib.exercises.lecture4.straightening import reflow
from lecture_lib.exercises.lecture4.tangents import scm_target
from lecture_lib.exercises.lecture4.teaching import cd_loss
from lecture_lib.exercises.task import Sheet

SHEET = Sheet(
    4,
    "Consistency models and fast generation",
    "E4_fast_generation",
    (
        *(gaussian_flow_map, consistency_function),
        *(ct_loss, cd_loss, ict_curriculum, pseudo_huber),
        *(scm_target, gamma_sample, mean_flow_loss),
        *(halved_target, matching_loss, reflow),
    ),
)
