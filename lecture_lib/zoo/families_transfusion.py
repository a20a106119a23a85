"""Recipe of the family that reads and writes words and pictures: captions of one thing, on 16x16 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from lecture_lib.families import CaptionedThings, Transfusion
from lecture_lib.zoo.family_recipe import FamilyRecipe

WORDS, LENGTH = 21, 6  # of ``thing_words``: 17 words and 4 special tokens; of a caption


@dataclass(frozen=True, kw_only=True)
class TransfusionRecipe(FamilyRecipe):
    """A family on pictures and captions, both drawn afresh."""

    kind: ClassVar[str] = "words and pictures"

    def batches(self) -> CaptionedThings:
        return CaptionedThings(self.batch_size)


TRANSFUSION = TransfusionRecipe(
    name="family-transfusion",
    about="one transformer, captions to pictures and back: 'a small red circle', 16x16 pixels",
    network=partial(Transfusion, vocabulary=WORDS, length=LENGTH, dim=96, depth=3, heads=4, picture_first=0.4, w=2.0),
    steps=20000,
    batch_size=16,  # what is short is updates, not pictures: these are drawn afresh
    lr=2e-3,
    decay=0.998,
)
