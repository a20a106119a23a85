"""Opening the zoo: names, recipes, trained models, and what state they are in."""

from __future__ import annotations

import copy
import functools
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

import lecture_lib
from lecture_lib.core import Denoiser
from lecture_lib.errors import DamagedFileError
from lecture_lib.families import MaskedTextToImage, TextToImage
from lecture_lib.metrics import Judge
from lecture_lib.nets import FeatureNetwork
from lecture_lib.training import checkpoint
from lecture_lib.zoo import store
from lecture_lib.zoo.pictures import DIGITS, Pictures
from lecture_lib.zoo.recipe import Recipe, forget, trained
from lecture_lib.zoo.recipes import FEATURES, RECIPES, recipe
from lecture_lib.zoo.shapes_latent_consistency import LCM, LCM_LORA
from lecture_lib.zoo.shapes_masked import MASKED, TOKENS
from lecture_lib.zoo.shapes_text import shapes_tokenizer
from lecture_lib.zoo.shapes_text_to_image import TEXT_TO_IMAGE, shapes_space, shapes_text
from lecture_lib.zoo.shapes_transformers import MMDIT

Pipeline = TypeVar("Pipeline", TextToImage, MaskedTextToImage)


def names() -> list[str]:
    """The names of all models of the zoo."""
    return list(RECIPES)


def load(name: str, device: torch.device | str | None = None) -> nn.Module:
    """A trained model, in evaluation mode and without gradients on its weights.

    Denoisers come as ``core.Denoiser``, the classifier as ``NoiseAwareClassifier``, the feature network as
    ``nets.FeatureNetwork``. Models are opened once per device and shared: ``copy.deepcopy`` yours before changing it.

    Args:
        name: one of ``names()``.
        device: where to; default CPU.

    Raises:
        UnknownNameError: no such model.
        DamagedFileError: its weights are missing, truncated, altered or foreign.
    """
    return trained(recipe(name), str(device or "cpu"))


@functools.cache
def text_to_image(device: str | None = None) -> TextToImage:
    """The text-to-image model of the shapes world, from caption to picture; opened once per device.

    Raises:
        DamagedFileError: as in ``load``, for any of its four parts.
    """
    return _pipeline(TextToImage, load(TEXT_TO_IMAGE.name), shapes_space(), device)


@functools.cache
def transformer_text_to_image(device: str | None = None) -> TextToImage:
    """The same with another denoiser: the MM-DiT of Lecture 3 in place of the U-Net; opened once per device.

    Raises:
        DamagedFileError: as in ``load``, for any of its four parts.
    """
    return _pipeline(TextToImage, load(MMDIT.name), shapes_space(), device)


@functools.cache
def lcm_text_to_image(device: str | None = None) -> TextToImage:
    """The latent consistency model of Lecture 4, to be asked with ``jump(prompts, w=..., steps=4)``; opened once.

    Raises:
        DamagedFileError: as in ``load``, for any of its four parts.
    """
    return _pipeline(TextToImage, load(LCM.name), shapes_space(), device)


@functools.cache
@torch.inference_mode(False)  # copied weights, that one may want to train
def lcm_lora_text_to_image(device: str | None = None) -> TextToImage:
    """The transformer of Lecture 3 with LCM-LoRA's difference merged into its weights, for ``jump(prompts, steps=4)``.

    To add a style too: ``adapter = copy.deepcopy(load("shapes-lcm-lora"))``, and ``add_lora(adapter.network, ...)``
    for the style's own.

    Raises:
        DamagedFileError: as in ``load``, for any of its parts.
    """
    teacher, adapter = load(MMDIT.name), copy.deepcopy(load(LCM_LORA.name))
    adapter.merge()
    denoiser = Denoiser(adapter.network, teacher.path, teacher.parameterization, null=teacher.null)
    return _pipeline(TextToImage, denoiser, shapes_space(), device)


@functools.cache
def judge(data: Pictures = DIGITS) -> Judge:
    """The independent judge of digits: fitted on their training split once per process (about 0.2 s)."""
    train = data.train(data.shown)
    return Judge(train.images, train.labels)


def features(data: Pictures = DIGITS) -> FeatureNetwork:
    """The classifier of these pictures that lends its features to Frechet distances.

    Raises:
        DamagedFileError: as in ``load``.
    """
    return trained(FEATURES.on(data))


@functools.cache
def masked_text_to_image(device: str | None = None) -> MaskedTextToImage:
    """The masked image model of the shapes world, from caption to picture; opened once per device.

    Raises:
        DamagedFileError: as in ``load``, for any of its parts.
    """
    return _pipeline(MaskedTextToImage, trained(MASKED), load(TOKENS.name), device)


@torch.inference_mode(False)
def _pipeline(kind: type[Pipeline], model: nn.Module, pictures: nn.Module, device: str | None) -> Pipeline:
    """A model with what makes pictures of its output and what reads its prompts, on ``device`` (a copy, if given)."""
    whole = kind(model, pictures, shapes_text(), shapes_tokenizer())
    return (whole if device is None else copy.deepcopy(whole).to(device)).eval()


ASSEMBLED = (
    text_to_image,
    transformer_text_to_image,
    masked_text_to_image,
    lcm_text_to_image,
    lcm_lora_text_to_image,
    shapes_space,
    shapes_text,
)


def install(source: Path | str, *, folder: Path | None = None) -> Path:
    """Turn a finished checkpoint of ``train`` into weights of the zoo: the averaged weights, in half precision.

    Their quality is not known yet: ``embed`` adds the figures once they are measured.

    Args:
        source: checkpoint file written by ``zoo.train``.
        folder: where to; default: the package's own weights.

    Raises:
        DamagedFileError: no checkpoint of ours, not finished, or of a recipe that has changed since.
    """
    named = checkpoint.read(source)["about"].get("recipe", {}).get("name")
    return keep(RECIPES.get(named), source, folder=folder)


def keep(mine: Recipe | None, source: Path | str, *, folder: Path | None = None) -> Path:
    """The same for a recipe of your own; its weights go to ``folder``, by default the recipe's.

    Raises:
        DamagedFileError: as in ``install``; without a recipe the checkpoint is nobody's.
    """
    content = checkpoint.read(source)
    described = content["about"].get("recipe", {})
    if mine is None or mine.describe() != described:
        raise DamagedFileError(f"{source}: checkpoint of another recipe than this course's: {described}")
    if content["step"] < mine.steps:
        raise DamagedFileError(f"{source}: training stopped at update {content['step']} of {mine.steps}: resume it")
    metadata = {
        "recipe": described,
        "seed": mine.seed,
        "steps": content["step"],
        "seconds": round(content["parts"]["stopwatch"]["seconds"], 3),
        "metrics": {},
        "versions": versions(),
    }
    path = store.write(mine.name, content["parts"]["ema"]["average"], metadata, folder or mine.home())
    forget()
    for assembled in ASSEMBLED:
        assembled.cache_clear()
    return path


def embed(name: str, metrics: dict[str, object], *, folder: Path | None = None) -> Path:
    """Put measured figures into installed weights, in place of those there; the tensors stay as they are, bit for bit.

    Args:
        name: one of ``names()``.
        metrics: measured figures, as ``summary`` gives them.
        folder: where the weights are; default: the package's own.

    Raises:
        UnknownNameError, DamagedFileError: as in ``load``.
    """
    state, metadata = store.read(recipe(name).name, folder)
    return store.write(name, state, metadata | {"metrics": metrics}, folder)


def versions() -> dict[str, str]:
    """Versions that a training depends on."""
    return {"lecture_lib": lecture_lib.__version__, "python": platform.python_version(), "torch": torch.__version__}


@dataclass(frozen=True)
class Status:
    """One line of the zoo's table; ``state`` is "ready", or says what is wrong."""

    name: str
    kind: str
    about: str
    state: str
    parameters: int
    bytes: int
    steps: int
    seconds: float
    metrics: dict[str, object]


def status(folder: Path | None = None) -> list[Status]:
    """The state of every model of the zoo, damaged or missing ones included; raises nothing."""
    return [status_of(recipe(name), folder) for name in names()]


def status_of(mine: Recipe, folder: Path | None = None) -> Status:
    """The state of the model of one recipe, in ``folder`` or where the recipe keeps it."""
    name, folder, parameters = mine.name, folder or mine.home(), mine.size()
    try:
        _, metadata = store.read(name, folder)
        size = store.manifest(folder)[name]["bytes"]
        state = "ready" if metadata["recipe"] == mine.describe() else "ready, but trained by an earlier recipe"
    except DamagedFileError as error:
        metadata, size, state = {}, 0, str(error)
    return Status(
        name,
        mine.kind,
        mine.about,
        state,
        parameters,
        size,
        metadata.get("steps", 0),
        metadata.get("seconds", 0.0),
        metadata.get("metrics", {}),
    )
