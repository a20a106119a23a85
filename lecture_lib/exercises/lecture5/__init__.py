"""Exercise 5: unified interpolants."""

from __future__ import annotations

from lecture_lib.exercises.lecture5.bounds import iw_bound
from lecture_lib.exercises.lecture5.bridging import bridge_batch
from lecture_lib.exercises.lecture5.codes import quantise
from lecture_lib.exercises.lecture5.coupling import partners
from lecture_lib.exercises.lecture5.critics import critic_loss
from lecture_lib.exercises.lecture5.flows import flow_bits
from lecture_lib.exercises.lecture5.landscape import hyvarinen, jko_step
from lecture_lib.exercises.lecture5.mixing import interpolate, velocity_and_score
from lecture_lib.exercises.lecture5.rates import special_cases
from lecture_lib.exercises.lecture5.walking import walk_down
from lecture_lib.exercises.task import Sheet

SHEET = Sheet(
    5,
    "Unified interpolants",
    "E5_unified_interpolants",
    (
        *(interpolate, velocity_and_score, walk_down, special_cases, partners),
        *(flow_bits, iw_bound, quantise, critic_loss),
        *(hyvarinen, jko_step, bridge_batch),
    ),
)
