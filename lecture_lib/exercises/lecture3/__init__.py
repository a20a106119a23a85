"""Exercise 3: diffusion transformers."""

from __future__ import annotations

from lecture_lib.exercises.lecture3.boss import dit_block
from lecture_lib.exercises.lecture3.branch import branch
from lecture_lib.exercises.lecture3.clocks import turned
from lecture_lib.exercises.lecture3.counting import cost, kept
from lecture_lib.exercises.lecture3.joint import joint_attention
from lecture_lib.exercises.lecture3.mup import mup_factors
from lecture_lib.exercises.lecture3.scaling import foretold
from lecture_lib.exercises.lecture3.solver import sample_2m
from lecture_lib.exercises.lecture3.tiles import read_tile
from lecture_lib.exercises.lecture3.times import training_times
from lecture_lib.exercises.lecture3.tokens import positions, unpatchify
from lecture_lib.exercises.task import Sheet

SHEET = Sheet(
    3,
    "Diffusion transformers",
    "E3_transformers",
    (
        *(unpatchify, positions, turned),
        *(branch, read_tile, cost, joint_attention),
        *(kept, training_times, foretold, mup_factors),
        *(sample_2m, dit_block),
    ),
)
