"""Endless batches, drawn by index on the device where the tensors already are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lecture_lib.errors import ShapeError
from lecture_lib.tensors import check_count, check_number


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
        ShapeError: no tensors, no samples, lengths that differ, or a tensor that is not in a list.
    """

    def __init__(self, tensors: Sequence[Tensor], batch_size: int) -> None:
        if isinstance(tensors, Tensor):  # its rows would pass for a list of tensors
            raise ShapeError(f"tensors: got a tensor of shape {tuple(tensors.shape)}, expected a tuple or list of them")
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


class Dequantised:
    """Batches whose first tensor has grey levels, each level spread evenly over its cell: what a density can model.

        x + step (u - 1/2),   u uniform in [0, 1)^d

    A density p on this then bounds the probability of a picture: ``log P(x) >= E_u log p(x + ...) + d log step``.

    Args:
        batches: where batches come from.
        step: distance of two levels; 1/8 for ``digits``.

    Source: Theis, van den Oord & Bethge 2016 (1511.01844), section 3.1.
    """

    def __init__(self, batches: Draws, step: float = 1 / 8) -> None:
        self.batches, self.step = batches, check_number("step", step, 1e-12)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """One batch, with fresh noise."""
        x, *rest = self.batches.draw(generator)
        u = torch.rand(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
        return x + self.step * (u - 0.5), *rest
