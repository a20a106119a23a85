"""Energies: one smooth number per sample, low where data is. SiLU throughout, since the gradient is what gets used."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.nets.embeddings import LabelEmbedding
from lecture_lib.tensors import check_count


class PointEnergy(nn.Module):
    """An energy of vectors: a plain MLP that may hear a label.

    Args:
        features: length of x.
        width, depth: width and number of hidden layers.
        n_classes: number of classes (label n_classes is the null class); 0 for none.
    """

    def __init__(self, features: int = 2, *, width: int = 64, depth: int = 3, n_classes: int = 0) -> None:
        super().__init__()
        self.label = LabelEmbedding(n_classes, width) if n_classes else None
        widths = [check_count("features", features), *[check_count("width", width)] * check_count("depth", depth), 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Float[Tensor, " b f"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b"]:
        """The energy; ``cond=None`` is the null class."""
        enter, *layers = self.layers
        x = enter(x)
        x = x if self.label is None else x + self.label(cond, len(x))
        for layer in layers:
            x = layer(F.silu(x))
        return x[:, 0]


class ImageEnergy(nn.Module):
    """An energy of 8x8 pictures: three convolutions, two of them with stride 2, and an MLP on the 2x2 that is left.

    Args:
        channels: channels of the pictures.
        width: channels at full resolution; two and four times as many below.
        n_classes: number of classes (label n_classes is the null class); 0 for none. A label scales and shifts the
            features of the MLP.
    """

    def __init__(self, channels: int = 1, *, width: int = 24, n_classes: int = 0) -> None:
        super().__init__()
        width, hidden = check_count("width", width), 8 * width
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=stride, padding=1)
            for a, b, stride in ((channels, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2))
        )
        self.enter, self.leave = nn.Linear(16 * width, hidden), nn.Linear(hidden, 1)
        self.label = LabelEmbedding(n_classes, 2 * hidden) if n_classes else None

    def forward(self, x: Float[Tensor, " b c 8 8"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b"]:
        """The energy; ``cond=None`` is the null class."""
        for layer in self.convolutions:
            x = F.silu(layer(x))
        x = self.enter(x.flatten(1))
        if self.label is not None:
            scale, shift = self.label(cond, len(x)).chunk(2, dim=1)
            x = x * (1 + scale) + shift
        return self.leave(F.silu(x))[:, 0]
