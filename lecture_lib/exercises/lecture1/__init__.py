"""Exercise 1: latent diffusion."""

from __future__ import annotations

from lecture_lib.exercises.lecture1.attention import cross_attention
from lecture_lib.exercises.lecture1.boss import paint
from lecture_lib.exercises.lecture1.codes import quantised, to_latent
from lecture_lib.exercises.lecture1.likelihood import first_stage_loss
from lecture_lib.exercises.lecture1.preconditioning import preconditioned
from lecture_lib.exercises.lecture1.saving import psnr, saved
from lecture_lib.exercises.lecture1.schedules import cosine_table, zero_terminal
from lecture_lib.exercises.lecture1.targets import min_snr_loss, read_off
from lecture_lib.exercises.task import Sheet

SHEET = Sheet(
    1,
    "Latent diffusion",
    "E1_latent_diffusion",
    (
        *(saved, psnr, first_stage_loss),
        *(to_latent, quantised),
        *(cosine_table, zero_terminal),
        *(read_off, min_snr_loss),
        *(preconditioned, cross_attention),
        paint,
    ),
)
