"""What holds for every family, whatever it is: the laws that a new one must pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lecture_lib.data import Draws
from lecture_lib.errors import CourseError, NotDefined, NotTractable
from lecture_lib.families.base import GenerativeModel
from lecture_lib.tensors import layers_from


def laws(model: GenerativeModel, batches: Draws, *, seed: int = 0) -> Iterator[tuple[str, bool]]:
    """Claims about a model and whether they hold: ``for claim, holds in laws(*Family.small()[:2])``.

    Args:
        model: any instance, trained or not; its weights are left as they were, it itself in evaluation mode.
        batches: what it is trained on.
        seed: of everything random.
    """
    batch = batches.draw(_seeded(seed))
    with layers_from(seed):  # whatever is drawn from the global generator in here is seen
        before = torch.random.get_rng_state()
        yield from _losses(model, batch, seed)
        yield from _samples(model, batch, seed)
        yield from _log_probs(model, batch, seed)
        yield from _forward(model, batch, seed)
        yield "no verb draws from the global generator", bool(torch.equal(before, torch.random.get_rng_state()))


def _losses(model: GenerativeModel, batch: tuple[Tensor, ...], seed: int) -> Iterator[tuple[str, bool]]:
    owned = {id(weight) for phase in model.phases() for weight in phase.parameters}
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    yield "every weight belongs to a phase", {id(weight) for weight in trainable} <= owned
    for phase in {phase.name: phase for phase in model.phases()}.values():
        model.train()
        model.zero_grad(set_to_none=True)
        losses = model.loss(batch, phase.name, generator=_seeded(seed))
        again = model.loss(batch, phase.name, generator=_seeded(seed))
        losses.mean().backward()
        yield f"{phase.name}: one finite loss per sample", losses.shape == batch[0].shape[:1] and _finite(losses)
        yield f"{phase.name}: same seed, same loss", torch.allclose(losses, again, rtol=1e-5, atol=1e-6)
        mine = {id(weight) for weight in phase.parameters}
        moved = {id(weight) for weight in trainable if weight.grad is not None}
        yield f"{phase.name}: gradients reach its own weights and no others", bool(moved) and moved <= mine
        model.zero_grad(set_to_none=True)


def _samples(model: GenerativeModel, batch: tuple[Tensor, ...], seed: int) -> Iterator[tuple[str, bool]]:
    cond = batch[1][:4] if len(batch) > 1 else None
    draw = lambda seed: model.sample(4, cond, generator=_seeded(seed))  # noqa: E731
    try:
        x = draw(seed)
    except NotDefined as reason:
        yield "sample gives a reason for drawing nothing", len(str(reason)) > 30
        return
    yield "samples have the event's shape and are finite", x.shape == (4, *model.event) and _finite(x)
    yield (
        "same seed, same samples; another seed, others",
        bool(torch.equal(x, draw(seed))) and not torch.equal(x, draw(seed + 1)),
    )
    yield "samples carry no gradient", not x.requires_grad
    yield "zero samples are refused", _refused(lambda: model.sample(0, generator=_seeded(seed)))


def _log_probs(model: GenerativeModel, batch: tuple[Tensor, ...], seed: int) -> Iterator[tuple[str, bool]]:
    model.eval()
    x, cond = batch[0][:4], batch[1][:4] if len(batch) > 1 else None
    try:
        found = model.log_prob(x, cond, generator=_seeded(seed))
    except (NotDefined, NotTractable) as reason:
        yield "log_prob gives a reason for having none", len(str(reason)) > 30
        return
    yield f"log_prob ({found.kind}): one finite number per sample", found.nats.shape == (4,) and _finite(found.nats)
    yield "log_prob carries no gradient", not found.nats.requires_grad
    if found.kind == "exact":
        order = torch.tensor([2, 0, 3, 1])
        there = model.log_prob(x[order], None if cond is None else cond[order], generator=_seeded(seed + 1)).nats
        yield "an exact log_prob hears neither seed nor neighbours", torch.allclose(there, found.nats[order], rtol=1e-4)


def _forward(model: GenerativeModel, batch: tuple[Tensor, ...], seed: int) -> Iterator[tuple[str, bool]]:
    x = batch[0][:4]
    try:
        start = model.forward_process(x, torch.zeros(4, dtype=torch.float64), generator=_seeded(seed))
    except NotDefined as reason:
        yield "forward_process gives a reason for having none", len(str(reason)) > 30
        return
    yield "at t = 0 there is the data", start.shape == x.shape and torch.allclose(start, x, atol=1e-4)
    end = model.forward_process(x, torch.ones(4, dtype=torch.float64), generator=_seeded(seed))
    yield "at t = 1 there is something else, and finite", _finite(end) and not torch.equal(end, x)


def _finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all())


def _refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except CourseError:
        return True
    return False


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
