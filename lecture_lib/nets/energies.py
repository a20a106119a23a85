"""Energies: one smooth number per sample, low where data is. SiLU throughout, since the gradient is what gets used."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.nets.embeddings import LabelEmbedding
from lecture_lib.tensors import check_count


class PointEnergy(nn.Module):
    """An energy of vectors, or of small pictures laid out as vectors: a plain MLP that may hear a label.

    Args:
        features: numbers in one x.
        width, depth: width and number of hidden layers.
        n_classes: number of classes (label n_classes is the null class); 0 for none.
    """

    def __init__(self, features: int = 2, *, width: int = 64, depth: int = 3, n_classes: int = 0) -> None:
        super().__init__()
        self.label = LabelEmbedding(n_classes, width) if n_classes else None
        widths = [check_count("features", features), *[check_count("width", width)] * check_count("depth", depth), 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Float[Tensor, " b *f"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b"]:
        """The energy; ``cond=None`` is the null class."""
        enter, *layers = self.layers
        x = enter(x.flatten(1))
        x = x if self.label is None else x + self.label(cond, len(x))
        for layer in layers:
            x = layer(F.silu(x))
        return x[:, 0]
