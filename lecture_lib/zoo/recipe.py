"""A recipe is everything that decides a training, as one frozen object; its subclasses say what is trained."""

from __future__ import annotations

import functools
import pathlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import Denoiser, Parameterization, Path, Times
from lecture_lib.data import Batches, Draws, digits
from lecture_lib.guidance import guidance_distillation_loss
from lecture_lib.nets import parameter_count
from lecture_lib.tensors import randn_like
from lecture_lib.training import Loss, adamw
from lecture_lib.zoo import store
from lecture_lib.zoo.models import CLASSES, NoiseAwareClassifier
from lecture_lib.zoo.pictures import DIGITS, Pictures

Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Recipe(ABC):
    """What every training has: a name, a network, and the numbers of the optimiser.

    Attributes:
        name: the name under which the zoo knows it.
        about: one sentence for tables.
        network: a callable without arguments that builds the network (a ``functools.partial``, so that it prints).
        steps, batch_size, lr, warmup, weight_decay, clip: AdamW with warm-up, cosine and clipping.
        decay: of the averaged weights, which are the ones that are kept.
        seed: of the initial weights, the batches and the noise.
    """

    name: str
    about: str
    network: Callable[[], nn.Module]
    steps: int
    batch_size: int = 128
    lr: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.0
    clip: float = 1.0
    decay: float = 0.999
    seed: int = 0

    kind: ClassVar[str]

    @abstractmethod
    def build(self) -> nn.Module:
        """The untrained model; its random numbers come from the global generator (see ``workshop.initial``)."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """One loss per sample of a batch of (images, labels)."""

    def loss_at(self, done: int) -> Loss:
        """The loss of the update after ``done`` others; ``loss`` unless a recipe has a curriculum."""
        return self.loss

    def prepare(self, model: nn.Module) -> None:  # noqa: B027 - most recipes have nothing to do here
        """Last changes to the initial weights; none unless a recipe starts from another model."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Of all trainable weights; AdamW unless a recipe trains several parts at their own rates."""
        return adamw(model, self.lr, weight_decay=self.weight_decay)

    def settle(self, model: nn.Module, done: int) -> None:  # noqa: B027 - most recipes have nothing to do here
        """What follows the update number ``done`` without gradients; nothing unless a model keeps averages."""

    def size(self) -> int:
        """How many weights the model has; nothing is drawn and nothing kept."""
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return parameter_count(self.build())

    def batches(self) -> Draws:
        """Endless batches of the training digits."""
        train = digits("train")
        return Batches((train.images, train.labels), self.batch_size)

    def home(self) -> pathlib.Path:
        """The folder of its weights."""
        return store.WEIGHTS

    def describe(self) -> dict[str, object]:
        """The recipe in plain values (strings, numbers): what is embedded in the weights and compared on resume."""
        values = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return {"kind": type(self).__name__} | values


def trained(recipe: Recipe, device: str = "cpu") -> nn.Module:
    """The recipe's model with its installed weights, for use and not for training; opened once per device and shared.

    Raises:
        DamagedFileError: its weights are missing, truncated, altered or foreign.
    """
    return _opened(recipe, device, recipe.home())


@functools.cache
def _opened(recipe: Recipe, device: str, folder: pathlib.Path) -> nn.Module:
    # Building draws initial weights from the global generator, which may be initialising another model right now.
    # And whoever opens it first may be in inference mode: weights made there could never be differentiated through.
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]), torch.device("cpu"):
        model = store.fill(recipe.build(), recipe.name, folder)
        return model.to(device).eval().requires_grad_(False)


def forget() -> None:
    """Open models anew from now on: their weights on disk have changed."""
    _opened.cache_clear()


@dataclass(frozen=True, kw_only=True)
class DenoiserRecipe(Recipe):
    """A class-conditional denoiser whose label is dropped now and then, so that it knows p(x) as well."""

    path: Path
    parameterization: Parameterization
    times: Times
    p_uncond: float = 0.1

    kind: ClassVar[str] = "denoiser"

    def build(self) -> Denoiser:
        return Denoiser(self.network(), self.path, self.parameterization, null=torch.tensor(CLASSES))

    def loss(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        images, labels = batch
        return model.loss(images, labels, times=self.times, p_uncond=self.p_uncond, generator=generator)


@dataclass(frozen=True, kw_only=True)
class DistilledRecipe(Recipe):
    """A student that says in one pass what its guided teacher says in two; w is an input (Meng et al. 2023).

    The student starts as a copy of the teacher. Labels are dropped as in the teacher's training, where the guided
    prediction is the unconditional one whatever w is.
    """

    teacher: DenoiserRecipe
    times: Times
    w_low: float = 0.0
    w_high: float = 6.0

    kind: ClassVar[str] = "distilled"

    def build(self) -> Denoiser:
        null = {"label": torch.tensor(CLASSES), "w": torch.tensor(1.0)}
        return Denoiser(self.network(), self.teacher.path, self.teacher.parameterization, null=null)

    def prepare(self, model: Denoiser) -> None:
        weights = self._taught().state_dict()
        renamed = {name.replace("condition.table", "condition.label.table"): value for name, value in weights.items()}
        model.load_state_dict(renamed, strict=False)  # all but the embedding of w, which the teacher lacks

    def loss(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        images, labels = batch
        u = torch.rand(2, len(images), generator=generator)
        w = self.w_low + (self.w_high - self.w_low) * u[0]
        labels = torch.where(u[1] < self.teacher.p_uncond, CLASSES, labels)
        return guidance_distillation_loss(
            model, self._taught(), images, labels, w, times=self.times, generator=generator
        )

    def _taught(self) -> Denoiser:
        return trained(self.teacher)


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe(Recipe):
    """One classifier for all noise levels of a path: cross-entropy at random times."""

    path: Path
    times: Times

    kind: ClassVar[str] = "noise-aware classifier"

    def build(self) -> NoiseAwareClassifier:
        return NoiseAwareClassifier(self.network(), self.path)

    def loss(self, model: NoiseAwareClassifier, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        images, labels = batch
        t = self.times.sample(len(images), generator=generator, device=images.device)
        x_t = self.path.mix(images, randn_like(images, generator), t)
        return F.cross_entropy(model(x_t, t), labels, reduction="none")


@dataclass(frozen=True, kw_only=True)
class PicturesRecipe(Recipe):
    """What can be trained on any pictures that look like the digits.

    Attributes:
        data: the pictures.
    """

    data: Pictures = DIGITS

    def on(self, data: Pictures) -> Self:
        """The same recipe for other pictures, named after them: ``family-vae`` becomes ``mnist-vae``."""
        return replace(self, name=f"{data.name}-{self.name.partition('-')[2]}", data=data)

    def home(self) -> pathlib.Path:
        return self.data.folder or super().home()

    def batches(self) -> Draws:
        train = self.data.train()
        return Batches((train.images, train.labels), self.batch_size)

    def describe(self) -> dict[str, object]:
        described = super().describe()
        if self.data == DIGITS:  # goes without saying: weights of the zoo were described before there was a choice
            del described["data"]
        return described


@dataclass(frozen=True, kw_only=True)
class FeatureRecipe(PicturesRecipe):
    """A classifier of clean images that lends its features; noise keeps it from fitting single pixels."""

    noise: float = 0.5

    kind: ClassVar[str] = "features"

    def build(self) -> nn.Module:
        return self.network()

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        images, labels = batch
        return F.cross_entropy(model(images + self.noise * randn_like(images, generator)), labels, reduction="none")


def _plain(value: object) -> object:
    """A value as JSON can hold it, the same in every process."""
    if isinstance(value, Recipe | Parameterization | Pictures):
        return value.name
    if isinstance(value, functools.partial):
        return f"{value.func.__name__}({', '.join(f'{k}={v!r}' for k, v in value.keywords.items())})"
    return value if isinstance(value, str | int | float) else repr(value)
