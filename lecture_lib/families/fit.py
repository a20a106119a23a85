"""One trainer for all families: the training loop of the course, with one group of the optimiser per phase."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lecture_lib.data import Draws
from lecture_lib.errors import ShapeError
from lecture_lib.tensors import check_number
from lecture_lib.training import ByStep, Ema, Schedule, Step, constant, train

if TYPE_CHECKING:  # the base class has a demo, and the demo fits
    from lecture_lib.families.base import GenerativeModel


@dataclass(frozen=True)
class Update(Step):
    """A training step that also says whose turn it was.

    Attributes:
        phase: its name.
    """

    phase: str


def phase_optimizer(model: GenerativeModel, lr: float) -> torch.optim.Optimizer:
    """Adam with one group of weights per phase; a group whose turn it is not has no gradients and stays where it is.

    Raises:
        ShapeError: a weight is in two phases that differ in other weights, or in none.
    """
    check_number("lr", lr, 0)
    groups = {tuple(map(id, p.parameters)): p for p in model.phases()}  # phases of the same weights share a group
    held = [weight for key in groups for weight in key]
    missing = [name for name, weight in model.named_parameters() if weight.requires_grad and id(weight) not in held]
    if missing or len(held) != len(set(held)):
        twice = f"{len(held) - len(set(held))} weights in two groups"
        raise ShapeError(f"phases: got {twice} and {missing[:3]} in none, expected each weight in exactly one")
    return torch.optim.Adam([{"params": p.parameters, "lr": lr * p.lr, "betas": p.betas} for p in groups.values()])


def phase_loss(model: GenerativeModel, total: int) -> ByStep:
    """The model's own losses as ``training.train`` takes them: the turn's phase, as a function of the updates made."""

    def at(done: int):
        name = model.phase_at(done, total).name
        return lambda model, batch, generator: model.loss(batch, name, generator=generator)

    return ByStep(at)


def fit(
    model: GenerativeModel,
    batches: Draws,
    *,
    steps: int,
    lr: float = 2e-3,
    generator: torch.Generator,
    optimizer: torch.optim.Optimizer | None = None,
    schedule: Schedule = constant,
    clip: float | None = 1.0,
    ema: Ema | None = None,
    start: int = 0,
) -> Iterator[Update]:
    """Train any family, yielding after every update; stop by leaving the loop.

    Args:
        model: whose ``phases`` say which weights move when, and whose ``loss`` says towards what.
        batches: (data, condition) or (data,).
        steps: number of the last update, those of all phases counted.
        lr: base rate; a phase may scale it.
        generator: of everything random.
        optimizer: default ``phase_optimizer(model, lr)``; pass your own to save it.
        schedule, clip, ema, start: as in ``training.train``.
    """
    optimizer = phase_optimizer(model, lr) if optimizer is None else optimizer
    loop = train(
        model, phase_loss(model, steps), batches, steps=steps, optimizer=optimizer, generator=generator,
        schedule=schedule, clip=clip, ema=ema, start=start,
    )  # fmt: skip
    for step in loop:
        phase = model.phase_at(step.number - 1, steps)
        model.after_update(phase.name)
        mine = (group["lr"] for group in optimizer.param_groups if group["params"][0] is phase.parameters[0])
        yield Update(step.number, step.loss, step.gradient_norm, next(mine, step.learning_rate), phase.name)
