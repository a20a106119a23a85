"""A recipe of the zoo trained in several processes; see ``training.distributed``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from lecture_lib.training import ByStep, Step, warmup_cosine
from lecture_lib.training.distributed import (
    Spread,
    copies,
    parts,
    process_group,
    processes,
    rank,
    train_distributed,
    whole_weights,
)
from lecture_lib.zoo.recipe import Recipe
from lecture_lib.zoo.workshop import initial

__all__ = ["copies", "parts", "process_group", "processes", "rank", "scale_out"]


def scale_out(
    recipe: Recipe, path: Path | str, *, shards: int, steps: int | None = None, spread: Spread = copies
) -> Iterator[Step]:
    """Train ``recipe`` on ``shards`` of its batches per update; the last weights go to ``path``, as safetensors.

    Without averaging and without checkpoints: a demonstration of scale, not a way into the zoo.

    Args:
        recipe: whose model, losses, optimiser and batches.
        path: where process 0 writes.
        shards: a multiple of the number of processes.
        steps: where to stop, at most the recipe's; the default.
        spread: ``copies`` or ``parts``.
    """
    model, steps = initial(recipe), recipe.steps if steps is None else min(steps, recipe.steps)
    loop = train_distributed(
        model,
        ByStep(recipe.loss_at),
        recipe.batches(),
        steps=steps,
        shards=shards,
        optimizer=recipe.optimizer,
        generator=torch.Generator().manual_seed(recipe.seed + 1),
        spread=spread,
        schedule=warmup_cosine(recipe.steps, warmup=recipe.warmup),
        clip=recipe.clip,
    )
    for step in loop:
        recipe.settle(model, step.number)
        yield step
    weights = whole_weights(model)
    if rank() == 0:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_file({name: weight.contiguous() for name, weight in weights.items()}, path)
