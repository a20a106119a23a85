"""The zoo: recipes as plain objects, and the small weights they give, checked whenever they are opened."""

from lecture_lib.zoo.evaluate import evaluate, summary
from lecture_lib.zoo.library import (
    embed,
    install,
    judge,
    lcm_lora_text_to_image,
    lcm_text_to_image,
    load,
    masked_text_to_image,
    names,
    recipe,
    status,
    text_to_image,
    transformer_text_to_image,
)
from lecture_lib.zoo.models import NoiseAwareClassifier
from lecture_lib.zoo.recipe import Recipe
from lecture_lib.zoo.row import Row
from lecture_lib.zoo.workshop import train

__all__ = [
    "NoiseAwareClassifier",
    "Recipe",
    "Row",
    "embed",
    "evaluate",
    "install",
    "judge",
    "lcm_lora_text_to_image",
    "lcm_text_to_image",
    "load",
    "masked_text_to_image",
    "names",
    "recipe",
    "status",
    "summary",
    "text_to_image",
    "train",
    "transformer_text_to_image",
]
