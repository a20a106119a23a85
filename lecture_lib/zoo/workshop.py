"""Training a recipe, resumable: kill it anywhere, call again, and the weights come out the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from lecture_lib.tensors import check_count, layers_from
from lecture_lib.training import ByStep, Ema, Step, checkpoint, warmup_cosine
from lecture_lib.training import train as run
from lecture_lib.zoo.recipe import Recipe
from lecture_lib.zoo.recipes import recipe as find


class Stopwatch:
    """Seconds of training, carried over interruptions in the checkpoint."""

    def __init__(self) -> None:
        self.seconds, self.since = 0.0, time.monotonic()

    def state_dict(self) -> dict[str, float]:
        now = time.monotonic()
        self.seconds, self.since = self.seconds + now - self.since, now
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.seconds, self.since = state["seconds"], time.monotonic()


def initial(recipe: Recipe) -> nn.Module:
    """The recipe's model as it is before the first update: a pure function of the recipe.

    PyTorch initialises layers from the global generator; it is borrowed here and given back as it was.
    """
    with layers_from(recipe.seed):
        model = recipe.build()
    recipe.prepare(model)
    return model


def train(name: str | Recipe, directory: Path | str, *, resume: bool = True, save_every: int = 250) -> Iterator[Step]:
    """Train a model of the zoo, yielding after every update.

    A checkpoint ``directory/NAME.ckpt`` is written every ``save_every`` updates and after the last; hand it to
    ``install`` to put the weights into the zoo.

    Args:
        name: one of ``names()``, or a recipe of your own.
        directory: where the checkpoint is.
        resume: go on from the checkpoint if there is one; otherwise start afresh.
        save_every: updates between two checkpoints.

    Raises (at the call):
        UnknownNameError: no such recipe.
        DamagedFileError: the checkpoint is damaged or belongs to another recipe.
    """
    recipe = find(name) if isinstance(name, str) else name
    check_count("save_every", save_every)
    path = Path(directory) / f"{recipe.name}.ckpt"
    model = initial(recipe)
    ema = Ema(model, recipe.decay)
    optimizer = recipe.optimizer(model)
    generator = torch.Generator().manual_seed(recipe.seed + 1)
    parts = {"model": model, "optimizer": optimizer, "ema": ema, "stopwatch": Stopwatch()}
    about = {"recipe": recipe.describe()}
    start = checkpoint.restore(path, parts, generator, about=about) if resume and path.exists() else 0
    steps = run(
        model,
        ByStep(recipe.loss_at),
        recipe.batches(),
        steps=recipe.steps,
        optimizer=optimizer,
        generator=generator,
        schedule=warmup_cosine(recipe.steps, warmup=recipe.warmup),
        clip=recipe.clip,
        ema=ema,
        start=start,
    )

    def saving() -> Iterator[Step]:
        for step in steps:
            recipe.settle(model, step.number)
            if step.number % save_every == 0 or step.number == recipe.steps:
                checkpoint.save(path, step.number, parts, generator, about=about)
            yield step

    return saving()
