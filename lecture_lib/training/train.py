"""The training loop of the whole course: draw a batch, take the loss, step, yield."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.data import Draws
from lecture_lib.errors import NonFiniteError, RangeError, ShapeError
from lecture_lib.tensors import check_count
from lecture_lib.training.ema import Ema
from lecture_lib.training.schedule import Schedule, constant

Loss = Callable[[nn.Module, tuple[Tensor, ...], torch.Generator], Tensor]
"""(model, batch, generator) -> one loss per sample, (b,)."""


@dataclass(frozen=True)
class ByStep:
    """A loss that changes as training goes on, such as that of a curriculum.

    Attributes:
        at: updates already made -> the loss of the next one.
    """

    at: Callable[[int], Loss]


Precision = Callable[[torch.device], AbstractContextManager]


@dataclass(frozen=True)
class Step:
    """What one update did.

    Attributes:
        number: updates made so far, this one included: 1, 2, ..., steps.
        loss: mean loss of its batch, before the update.
        gradient_norm: global norm of the gradient before clipping.
        learning_rate: the rate it was made with.
    """

    number: int
    loss: float
    gradient_norm: float
    learning_rate: float


def full_precision(device: torch.device) -> AbstractContextManager:
    """Leave every operation in the precision of its inputs."""
    return nullcontext()


def bfloat16(device: torch.device) -> AbstractContextManager:
    """Matrix products in bfloat16, weights in float32. Meant for GPUs that have it; on a CPU measure first."""
    return torch.autocast(device.type, dtype=torch.bfloat16)


def adamw(model: nn.Module, lr: float, *, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.99)):
    """Fused AdamW on the trainable weights: several times cheaper per update than the default loop on small models."""
    weights = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(weights, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)


def train(
    model: nn.Module,
    loss: Loss | ByStep,
    batches: Draws,
    *,
    steps: int,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    schedule: Schedule = constant,
    clip: float | None = 1.0,
    ema: Ema | None = None,
    precision: Precision = full_precision,
    start: int = 0,
) -> Iterator[Step]:
    """Train, yielding after every update; stop by leaving the loop.

    Between two yields nothing is under way, so a caller may save, evaluate or change anything there. All randomness
    comes from ``generator``, and the learning rate is a function of the step: model, optimizer, ema, generator and
    the step number are the whole state (see ``training.save`` and ``training.restore``).

    Args:
        model: the module whose parameters the optimizer holds; put in training mode.
        loss: (model, batch, generator) -> (b,), one per sample; the loop averages. ``ByStep`` for one that changes.
        batches: where batches come from.
        steps: number of the last update.
        optimizer: ``adamw(model, lr)`` or any other; its groups' initial rates are the base rates.
        schedule: factor on the base rates, as a function of the updates already made.
        clip: largest global gradient norm; None leaves gradients alone.
        ema: average that follows the model.
        precision: ``full_precision`` or ``bfloat16``.
        start: updates already made, 0 for a fresh start.

    Raises:
        ShapeError: the loss is not (b,).
        NonFiniteError: the loss is NaN or infinite; weights are left as they were before that update.
    """
    check_count("steps", steps, 0)
    check_count("start", start, 0)
    if clip is not None and not clip > 0:
        raise RangeError(f"clip: got {clip}, expected a positive norm, or None for no clipping")
    device = next(model.parameters()).device
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    for done in range(start, steps):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = float(group["initial_lr"] * schedule(done))  # a plain number, for checkpoints
        batch, now = batches.draw(generator), loss.at(done) if isinstance(loss, ByStep) else loss
        with precision(device):
            mean = _mean(now(model, batch, generator), done)
        optimizer.zero_grad(set_to_none=True)
        mean.backward()
        norm = _clip(optimizer, clip)
        optimizer.step()
        if ema is not None:
            ema.update(model)
        yield Step(done + 1, mean.item(), float(norm), optimizer.param_groups[0]["lr"])


def _mean(losses: Float[Tensor, " b"], done: int) -> Float[Tensor, ""]:
    if losses.ndim != 1:
        raise ShapeError(f"loss: got shape {tuple(losses.shape)}, expected (b,), one loss per sample")
    mean = losses.float().mean()
    if not torch.isfinite(mean):
        raise NonFiniteError(f"loss: got {mean.item()} in update {done + 1}, expected a finite number")
    return mean


def _clip(optimizer: torch.optim.Optimizer, largest: float | None) -> Float[Tensor, ""]:
    """Global gradient norm; gradients are scaled down to ``largest`` if they exceed it."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    return nn.utils.clip_grad_norm_(weights, float("inf") if largest is None else largest)
