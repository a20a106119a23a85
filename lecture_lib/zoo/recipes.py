"""The recipes of the zoo. To add a model, add a recipe here, then ``course train NAME``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from lecture_lib.core import EPS, VELOCITY, LogitNormalTimes, RectifiedFlow, UniformTimes, V, VPCosine, VPLinear
from lecture_lib.errors import UnknownNameError
from lecture_lib.nets import FeatureNetwork, NoisyClassifier, UNet
from lecture_lib.zoo.digit_students import DigitConsistencyRecipe
from lecture_lib.zoo.families import FAMILIES
from lecture_lib.zoo.families_transfusion import TRANSFUSION
from lecture_lib.zoo.models import CLASSES, digit_dit, guided_digit_dit
from lecture_lib.zoo.recipe import ClassifierRecipe, DenoiserRecipe, DistilledRecipe, FeatureRecipe, Recipe
from lecture_lib.zoo.ring_consistency import RING_CONSISTENCY
from lecture_lib.zoo.ring_jumps import RING_JUMPS
from lecture_lib.zoo.ring_matching import RING_MATCHING
from lecture_lib.zoo.shapes_autoencoders import AUTOENCODERS
from lecture_lib.zoo.shapes_control import CONTROL
from lecture_lib.zoo.shapes_latent_consistency import LCM, LCM_LORA
from lecture_lib.zoo.shapes_masked import MASKED, TOKENS
from lecture_lib.zoo.shapes_text import CLIP, LANGUAGE
from lecture_lib.zoo.shapes_text_to_image import TEXT_TO_IMAGE
from lecture_lib.zoo.shapes_transformers import MMDIT

DIT = DenoiserRecipe(
    name="digits-dit",
    about="class-conditional diffusion transformer, rectified flow, velocity",
    network=partial(digit_dit, dim=96, depth=4, heads=4, ratio=3.0),
    steps=12000,
    batch_size=64,
    lr=3e-3,
    path=RectifiedFlow(),
    parameterization=VELOCITY,
    times=UniformTimes(),
    p_uncond=0.12,
)
# The same network on the same budget, trained for the two older objectives. Noise determines x0 = (x - sigma eps)/alpha
# up to sigma/alpha times the network's error, so the path of DIT_EPS ends where that is 12 (Stable Diffusion's: 15);
# DDPM's own schedule ends at 152.
DIT_EPS = replace(
    DIT,
    name="digits-dit-eps",
    about="the same transformer, variance-preserving linear path, noise: the objective of DDPM",
    path=VPLinear(beta_max=10.0),
    parameterization=EPS,
)
DIT_V = replace(
    DIT,
    name="digits-dit-v",
    about="the same transformer, variance-preserving cosine path, v",
    path=VPCosine(),
    parameterization=V,
)
UNET = DenoiserRecipe(
    name="digits-unet",
    about="class-conditional U-Net, variance-preserving cosine path, v",
    network=partial(UNet, channels=1, width=32, n_classes=CLASSES),
    steps=4000,
    batch_size=64,
    path=VPCosine(),
    parameterization=V,
    times=UniformTimes(),
    p_uncond=0.12,
)
WEAK = DenoiserRecipe(
    name="digits-dit-weak",
    about="a smaller transformer, stopped early: the reference of autoguidance",
    network=partial(digit_dit, dim=48, depth=2, heads=4, ratio=3.0),
    steps=1200,
    path=RectifiedFlow(),
    parameterization=VELOCITY,
    times=LogitNormalTimes(),
    p_uncond=0.12,
)
CLASSIFIER = ClassifierRecipe(
    name="digits-classifier",
    about="log p(c | x_t) at every noise level of the rectified flow",
    network=partial(NoisyClassifier, channels=1, n_classes=CLASSES, width=24),
    steps=1500,
    weight_decay=0.05,
    path=RectifiedFlow(),
    times=UniformTimes(),
)
FEATURES = FeatureRecipe(
    name="digits-features",
    about="classifier of clean digits; its 64-d penultimate layer measures Frechet distances",
    network=partial(FeatureNetwork, channels=1, n_classes=CLASSES),
    steps=1200,
    weight_decay=0.01,
    decay=0.99,
)
DISTILLED = DistilledRecipe(
    name="digits-dit-distilled",
    about="the guided transformer in one pass: w in [0, 6] is an input",
    network=partial(guided_digit_dit, dim=96, depth=4, heads=4, ratio=3.0),
    steps=2500,
    batch_size=64,
    lr=1e-3,
    teacher=DIT,
    times=UniformTimes(),
)
ONE_STEP = DigitConsistencyRecipe(
    name="digits-dit-one-step",
    about="the guided transformer in one step: consistency distillation, w in [1, 2.5] is an input",
    network=DISTILLED.network,
    steps=2500,
    batch_size=64,
    lr=1e-3,
    decay=0.998,
    teacher=DISTILLED,
    w_low=1.0,
    w_high=2.5,
    coarsest=4,
    doublings=3,
)

DIGITS = (DIT, DIT_EPS, DIT_V, UNET, WEAK, CLASSIFIER, FEATURES, DISTILLED, ONE_STEP)
SHAPES = (
    *AUTOENCODERS,
    CLIP,
    LANGUAGE,
    TEXT_TO_IMAGE,
    MMDIT,
    TOKENS,
    MASKED,
    CONTROL,
    LCM,
    LCM_LORA,
)  # in the order in which they lean on each other
RING = (
    *RING_CONSISTENCY,
    *RING_JUMPS,
    *RING_MATCHING,
)
RECIPES: dict[str, Recipe] = {r.name: r for r in (*DIGITS, *SHAPES, *RING, *FAMILIES, TRANSFUSION)}


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UnknownNameError: no such recipe; the message lists those that exist.
    """
    if name not in RECIPES:
        raise UnknownNameError(f"name: got {name!r}, expected one of {', '.join(RECIPES)}")
    return RECIPES[name]
