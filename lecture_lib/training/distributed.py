"""The same training in several processes: copies of the model (data parallel), or each process a part of it (sharded).

An update is the mean over ``shards`` small batches, and each shard has its own random numbers, which depend on the
update and on the shard and on nothing else. Processes share the shards out among themselves: one process or eight, the
losses are the same up to the order in which numbers are added.

    torchrun --nproc_per_node=2 -m lecture_lib.cli scale family-flow-matching --shards 2

PyTorch does the work: ``DistributedDataParallel`` averages gradients, ``fully_shard`` (FSDP2) cuts the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.data import Draws
from lecture_lib.errors import RangeError
from lecture_lib.tensors import check_count
from lecture_lib.training.train import ByStep, Loss, Step, train

Spread = Callable[[nn.Module], nn.Module]
"""A module as one of several processes holds it: ``copies`` or ``parts``."""


@dataclass(frozen=True)
class Shards:
    """Batches in ``count`` shards, of which this process draws its own.

    Attributes:
        batches: where each shard comes from; an update sees ``count`` of its batches.
        count: a multiple of the number of processes.
    """

    batches: Draws
    count: int

    def __post_init__(self):
        if check_count("count", self.count) % processes():
            raise RangeError(f"count: got {self.count} shards, expected a multiple of {processes()} processes")

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The key of an update, alike in all processes: its shards are functions of it."""
        return (torch.randint(2**62, (), generator=generator, device=generator.device),)

    def losses(self, loss: Loss, model: nn.Module, key: Tensor) -> Float[Tensor, " b"]:
        """The losses of this process's shards."""
        mine = range(rank(), self.count, processes())
        generators = [torch.Generator().manual_seed(int(key) + k) for k in mine]
        return torch.cat([loss(model, self.batches.draw(g), g) for g in generators])


class LossAsForward(nn.Module):
    """A model whose forward pass is its loss: PyTorch's wrappers act on what goes through ``forward``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, losses: Callable[[Loss, nn.Module, Tensor], Tensor], loss: Loss, key: Tensor) -> Tensor:
        return losses(loss, self.model, key)


def copies(module: nn.Module) -> nn.Module:
    """Every process has all weights; gradients are averaged. For models that fit into each process."""
    if processes() == 1:
        return module
    return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)  # a phase moves a part of them


def parts(module: nn.Module) -> nn.Module:
    """Every process has a part of each weight and fetches the rest when it is needed. For models that do not fit."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    return fully_shard(module, mesh=init_device_mesh(next(module.parameters()).device.type, (processes(),)))


def train_distributed(
    model: nn.Module,
    loss: Loss | ByStep,
    batches: Draws,
    *,
    steps: int,
    shards: int,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    generator: torch.Generator,
    spread: Spread = copies,
    **options: object,
) -> Iterator[Step]:
    """``training.train`` in every process of a group; without a group it is the one process that has all shards.

    Args:
        model: alike in all processes (same seed).
        loss, batches: as for ``train``; an update sees ``shards`` batches.
        steps: number of the last update.
        shards: a multiple of the number of processes.
        optimizer: model -> optimizer; made when the weights are where they will be.
        generator: with the same seed in all processes.
        spread: ``copies`` or ``parts``.
        options: of ``train``: ``schedule``, ``clip``, ``precision``, ``start``.

    Yields:
        steps whose loss is the mean over all processes.

    Raises:
        RangeError: the shards cannot be shared out evenly.
    """
    split = Shards(batches, shards)
    module = spread(LossAsForward(model))

    def at(done: int) -> Loss:
        now = loss.at(done) if isinstance(loss, ByStep) else loss
        return lambda module, batch, generator: module(split.losses, now, batch[0])

    how = {"steps": steps, "optimizer": optimizer(model), "generator": generator} | options
    for step in train(module, ByStep(at), split, **how):
        yield replace(step, loss=_mean(step.loss))


@contextmanager
def process_group(backend: str = "gloo") -> Iterator[None]:
    """The group that ``torchrun`` started; nothing where there is none. "gloo" for CPUs, "nccl" for GPUs."""
    if not dist.is_torchelastic_launched():
        yield
        return
    dist.init_process_group(backend)
    try:
        yield
    finally:
        dist.destroy_process_group()


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """All weights on the CPU, in process 0 (the others get an empty dict); all processes must ask together."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    if processes() == 1:
        return {name: weight.detach().cpu() for name, weight in model.state_dict().items()}
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def _mean(value: float) -> float:
    """The mean of a number over all processes."""
    if processes() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(total)
    return float(total) / processes()
