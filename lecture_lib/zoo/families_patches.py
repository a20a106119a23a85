"""Families that write a digit scale by scale or patch by patch, and those that only look at it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from lecture_lib.data import Batches, moving_digits
from lecture_lib.families import JEPA, MAR, VAR, VJEPA
from lecture_lib.zoo.family_recipe import FamilyRecipe
from lecture_lib.zoo.models import CLASSES


@dataclass(frozen=True, kw_only=True)
class ClipRecipe(FamilyRecipe):
    """A family on clips of moving digits."""

    clips: int = 8000

    def batches(self) -> Batches:
        return Batches((moving_digits(self.clips).clips,), self.batch_size)


SCALES = FamilyRecipe(
    name="family-var",
    about="next scale: 1 + 4 + 16 tokens of one codebook in three passes",
    network=partial(
        VAR, scales=(1, 2, 4), size=128, code_dim=8, code_width=32, n_classes=CLASSES, dim=80, depth=3, w=1.5, first=0.4
    ),
    steps=4000,
    batch_size=64,
    decay=0.998,
)
PATCHES = FamilyRecipe(
    name="family-mar",
    about="16 continuous tokens in random order, a diffusion model for each",
    network=partial(MAR, dim=64, depth=2, head_width=96, head_depth=2, n_classes=CLASSES, w=1.5),
    steps=3000,
    batch_size=64,
    decay=0.998,
    dequantised=True,
)
PICTURES = FamilyRecipe(
    name="family-jepa",
    about="features of hidden patches from those of visible ones; draws nothing",
    network=partial(JEPA, dim=64, depth=2),
    steps=2000,
    batch_size=64,
    lr=1e-3,
    decay=0.99,
    labelled=False,
)
CLIPS = ClipRecipe(
    name="family-vjepa",
    about="features of hidden tubes of a clip from those of visible ones; draws nothing",
    network=partial(VJEPA, dim=64, depth=2),
    steps=800,
    batch_size=32,
    lr=1e-3,
    decay=0.99,
    labelled=False,
)
PATCH_FAMILIES = (SCALES, PATCHES, PICTURES, CLIPS)
