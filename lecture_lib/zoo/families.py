"""All families of Lecture 5 on the digits, in the order of its table."""

from __future__ import annotations

from lecture_lib.zoo.families_exact import EXACT
from lecture_lib.zoo.families_flow import FLOWS
from lecture_lib.zoo.families_implicit import IMPLICIT
from lecture_lib.zoo.families_latent import LATENT_FAMILIES
from lecture_lib.zoo.families_patches import PATCH_FAMILIES
from lecture_lib.zoo.families_score import SCORES
from lecture_lib.zoo.families_unified import UNIFIED
from lecture_lib.zoo.family_recipe import FamilyRecipe

FAMILIES: tuple[FamilyRecipe, ...] = (
    *LATENT_FAMILIES,
    *EXACT,
    *IMPLICIT,
    *FLOWS,
    *SCORES,
    *PATCH_FAMILIES,
    *UNIFIED,
)  # fmt: skip
