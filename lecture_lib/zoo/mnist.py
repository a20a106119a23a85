"""The families on MNIST: the same recipes, other pictures, weights in a folder of the reader's."""

from __future__ import annotations

from pathlib import Path

from lecture_lib.data import mnist
from lecture_lib.zoo.families import FAMILIES
from lecture_lib.zoo.families_patches import ClipRecipe
from lecture_lib.zoo.family_recipe import FamilyRecipe
from lecture_lib.zoo.pictures import Pictures
from lecture_lib.zoo.recipe import FeatureRecipe
from lecture_lib.zoo.recipes import FEATURES


def mnist_pictures(folder: Path) -> Pictures:
    """MNIST, measured on 2000 drawn digits per seed and 1000 of the test split; distances are to the whole of it."""
    return Pictures("mnist", mnist, drawn=2000, scored=1000, shown=10_000, folder=folder)


def mnist_recipes(data: Pictures) -> tuple[FeatureRecipe, tuple[FamilyRecipe, ...]]:
    """The classifier that measures distances, and all families of pictures; that of clips has its own data.

    They come in an order in which none needs the weights of a later one.
    """
    return FEATURES.on(data), tuple(family.on(data) for family in FAMILIES if not isinstance(family, ClipRecipe))
