"""Endless batches, drawn by index on the device where the tensors already are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lecture_lib.errors import ShapeError
from lecture_lib.tensors import check_count


class Draws(Protocol):
    """Where a training's batches come from: ``Batches``, or anything else whose only state is the generator."""

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]: ...


class Batches:
    """Random batches of several tensors of equal length, with replacement and without end.

    Every batch is a pure function of the generator's state, so there is nothing else to save or restore:
    resume the generator and the same batches follow.

    Args:
        tensors: tensors of equal length n, such as images and labels.
        batch_size: samples per batch.

    Raises:
        ShapeError: no tensors, no samples, or lengths that differ.
    """

    def __init__(self, tensors: Sequence[Tensor], batch_size: int) -> None:
        lengths = {len(tensor) for tensor in tensors}
        if len(lengths) != 1 or lengths == {0}:
            raise ShapeError(f"tensors: got lengths {sorted(lengths)}, expected one common length of at least 1")
        self.tensors = tuple(tensors)
        self.batch_size = check_count("batch_size", batch_size)

    def __len__(self) -> int:
        """Number of samples to draw from (the batches themselves never end)."""
        return len(self.tensors[0])

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """One batch: as many tensors as were given, each (batch_size, ...)."""
        index = torch.randint(len(self), (self.batch_size,), generator=generator, device=generator.device)
        return tuple(tensor[index.to(tensor.device)] for tensor in self.tensors)

    def stream(self, generator: torch.Generator) -> Iterator[tuple[Tensor, ...]]:
        """Batches for ever: ``for images, labels in batches.stream(generator)``."""
        while True:
            yield self.draw(generator)
