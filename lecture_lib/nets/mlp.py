"""MLPs that hear the time: on the points of the two-dimensional worlds, and on single tokens."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.nets.embeddings import LabelEmbedding, NumbersEmbedding, TimestepEmbedding


class ResidualLayer(nn.Module):
    """x + W2 SiLU(W1 LN(x) (1 + scale(c)) + shift(c)); the identity at initialisation."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.inner = nn.Linear(dim, dim)
        self.modulation = nn.Linear(dim, 2 * dim)
        self.outer = nn.Linear(dim, dim)
        for layer in (self.modulation, self.outer):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, " b d"], c: Float[Tensor, " b d"]) -> Float[Tensor, " b d"]:
        shift, scale = self.modulation(c).chunk(2, dim=-1)
        hidden = self.inner(self.norm(x)) * (1 + scale) + shift
        return x + self.outer(F.silu(hidden))


class TimeMLP(nn.Module):
    """A residual MLP on vectors, told the time and, if it has an ear for them, the label and other numbers.

    Args:
        features: length of x.
        width, depth: width and number of residual layers.
        n_classes: number of classes; 0 for a network without labels.
        numbers: what else it hears, name -> scale as for ``NumbersEmbedding``; its ``cond`` is then a dict of these,
            and of ``"label"`` if it has classes.
    """

    def __init__(
        self,
        features: int = 2,
        *,
        width: int = 128,
        depth: int = 3,
        n_classes: int = 0,
        numbers: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.time = TimestepEmbedding(width)
        self.label = LabelEmbedding(n_classes, width) if n_classes else None
        self.numbers = NumbersEmbedding(numbers, width) if numbers else None
        self.enter = nn.Linear(features, width)
        self.layers = nn.ModuleList(ResidualLayer(width) for _ in range(depth))
        self.leave = nn.Linear(width, features)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, x: Float[Tensor, " b f"], t: Float[Tensor, " b"], cond: Int[Tensor, " b"] | Mapping | None = None
    ) -> Float[Tensor, " b f"]:
        c = self.time(t)
        if self.label is not None:
            c = c + self.label(cond.get("label") if isinstance(cond, Mapping) else cond, len(x))
        if self.numbers is not None:
            c = c + self.numbers(cond, len(x))
        c, x = F.silu(c), self.enter(x)
        for layer in self.layers:
            x = layer(x, c)
        return self.leave(F.silu(x))


class TokenMLP(nn.Module):
    """A residual MLP on one token, told the time and a vector that knows everything else about it.

    Args:
        features: length of the token.
        context: length of the vector.
        width, depth: width and number of residual layers.

    Source: Li et al. 2024 (MAR), section 4.1, "denoising MLP": the vector is added to the time's and modulates norms.
    """

    def __init__(self, features: int, context: int, *, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        self.time, self.hear = TimestepEmbedding(width), nn.Linear(context, width)
        self.enter = nn.Linear(features, width)
        self.layers = nn.ModuleList(ResidualLayer(width) for _ in range(depth))
        self.leave = nn.Linear(width, features)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, x: Float[Tensor, " b f"], t: Float[Tensor, " b"], cond: Float[Tensor, " b d"]
    ) -> Float[Tensor, " b f"]:
        c, x = F.silu(self.time(t) + self.hear(cond)), self.enter(x)
        for layer in self.layers:
            x = layer(x, c)
        return self.leave(F.silu(x))


class LabelMLP(nn.Module):
    """A residual MLP from vectors to vectors, told a label and no time; its output is zero at initialisation.

    Args:
        features, out_features: lengths of x and of the output.
        width, depth: width and number of residual layers.
        n_classes: number of classes; 0 for none. Label ``n_classes`` is "no class".
    """

    def __init__(
        self, features: int, out_features: int, *, width: int = 64, depth: int = 1, n_classes: int = 0
    ) -> None:
        super().__init__()
        self.label = LabelEmbedding(n_classes, width)
        nn.init.normal_(self.label.table.weight)  # alone here, it must not be as quiet as beside a time
        self.enter = nn.Linear(features, width)
        self.layers = nn.ModuleList(ResidualLayer(width) for _ in range(depth))
        self.leave = nn.Linear(width, out_features)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Float[Tensor, " b f"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b k"]:
        """The output for the labels ``cond``; None stands for no class."""
        c, x = F.silu(self.label(cond, len(x))), self.enter(x)
        for layer in self.layers:
            x = layer(x, c)
        return self.leave(F.silu(x))
