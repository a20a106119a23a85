"""Embeddings: the time, the label and the guidance scale, each turned into a vector."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.errors import RangeError, ShapeError, UnknownNameError


def timestep_features(t: Float[Tensor, " b"], dim: int = 256, max_period: float = 10_000.0) -> Float[Tensor, " b d"]:
    """Sinusoidal features [cos(t w_k) | sin(t w_k)] with w_k = max_period^(-k / (dim/2)).

    Args:
        t: network times, on a scale of about 0..1000 (times in 0..1 would all look alike).
        dim: number of features, even.
        max_period: sets the lowest frequency, just above 1 / max_period.

    Raises:
        ShapeError: t is not a vector, or dim is odd.

    Source: Vaswani et al. 2017, section 3.5; cosine first as in DDPM and DiT (Peebles & Xie 2023).
    """
    if t.ndim != 1 or dim % 2:
        raise ShapeError(f"t must have shape (b,) and dim be even, got t of shape {tuple(t.shape)}, dim={dim}")
    half = dim // 2
    # Phases up to 1000 rad lose their fraction in half precision, so they are formed in float32 at least.
    t = t.to(torch.promote_types(t.dtype, torch.float32))
    k = torch.arange(half, device=t.device, dtype=t.dtype)
    phase = t[:, None] * torch.exp(-math.log(max_period) * k / half)  # (b, dim/2)
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """A time (or any other scalar) as a vector: sinusoidal features, then a two-layer MLP.

    Args:
        dim: width of the vector.
        features: number of sinusoidal features.
        scale: factor from the scalar to the 0..1000 scale of the features (1 for network time).
    """

    def __init__(self, dim: int, *, features: int = 256, scale: float = 1.0) -> None:
        super().__init__()
        self.features, self.scale = features, scale
        self.mlp = nn.Sequential(nn.Linear(features, dim), nn.SiLU(), nn.Linear(dim, dim))
        for layer in (self.mlp[0], self.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b d"]:
        features = timestep_features(self.scale * t, self.features)
        return self.mlp(features.to(self.mlp[0].weight.dtype))


class LabelEmbedding(nn.Module):
    """Class labels 0..n_classes-1 as vectors; label ``n_classes`` is the null class, "no condition".

    Label dropout is not done here: the loss decides which samples lose their label.
    """

    def __init__(self, n_classes: int, dim: int) -> None:
        super().__init__()
        self.null = n_classes
        self.table = nn.Embedding(n_classes + 1, dim)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, labels: Int[Tensor, " b"] | None, batch: int) -> Float[Tensor, " b d"]:
        """Vectors of the labels; ``None`` stands for the null class throughout the batch.

        Raises:
            ShapeError: labels are not ``batch`` whole numbers.
            RangeError: a label lies outside 0..n_classes.
        """
        weight = self.table.weight
        if labels is None:
            return weight[self.null].expand(batch, -1)
        self.check(labels, batch)
        return self.table(labels.to(weight.device, torch.long))

    def check(self, labels: Int[Tensor, " b"], batch: int) -> None:
        """Raise a named error unless ``labels`` are ``batch`` integers in 0..n_classes."""
        if not isinstance(labels, Tensor):
            raise ShapeError(f"cond must hold {batch} integer labels, got {labels!r}, which is no tensor")
        if labels.shape != (batch,) or labels.is_floating_point() or labels.dtype == torch.bool:
            raise ShapeError(f"cond must hold {batch} integer labels, got {tuple(labels.shape)} of {labels.dtype}")
        if torch.compiler.is_compiling():  # a graph cannot branch on what it will be fed
            return
        lowest, highest = labels.aminmax()
        if lowest < 0 or highest > self.null:
            raise RangeError(
                f"labels must lie in 0..{self.null} ({self.null} is the null class), got {int(lowest)}..{int(highest)}"
            )


class LabelAndScale(nn.Module):
    """A label and a guidance scale together: what a guidance-distilled network is conditioned on.

    ``cond`` is ``{"label": (b,) integers, "w": (b,) scales}``; either may be missing: no label is the null
    class, no scale is w = 1. The two vectors are added (Meng et al. 2023, section 3.1; FLUX does the same).
    """

    def __init__(self, n_classes: int, dim: int) -> None:
        super().__init__()
        self.label = LabelEmbedding(n_classes, dim)
        # 100: the scales 1 and 1.1 are as far apart as two network times that differ by 10.
        self.scale = TimestepEmbedding(dim, scale=100.0)

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Float[Tensor, " b d"]:
        """The vector of ``cond``.

        Raises:
            ShapeError: no dictionary, or not one label, or one scale, per sample.
            UnknownNameError: an entry of another name.
        """
        cond = {} if cond is None else cond
        if not isinstance(cond, Mapping):
            raise ShapeError(f"cond: got {type(cond).__name__}, expected a dictionary with 'label' and 'w'")
        if unknown := set(cond) - {"label", "w"}:
            raise UnknownNameError(f"cond: got {sorted(unknown)}, expected 'label' and 'w'")
        weight = self.label.table.weight
        w = cond.get("w")
        w = torch.ones(batch, device=weight.device) if w is None else w.to(weight.device)
        if w.shape != (batch,):
            raise ShapeError(f"cond['w']: got shape {tuple(w.shape)}, expected ({batch},), one scale per sample")
        return self.label(cond.get("label"), batch) + self.scale(w)


class NumbersEmbedding(nn.Module):
    """Named numbers as one vector, each embedded as a time is and added: where to jump, how strongly to be guided.

    Args:
        scales: name -> factor from the number to the 0..1000 scale of times (1 for a network time).
        dim: width of the vector.
    """

    def __init__(self, scales: Mapping[str, float], dim: int) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({name: TimestepEmbedding(dim, scale=scale) for name, scale in scales.items()})

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Float[Tensor, " b d"]:
        """The vector of ``cond``, which has every one of the names, (b,) each.

        Raises:
            ShapeError: a number is missing, or is not one per sample.
        """
        cond = cond if isinstance(cond, Mapping) else {}
        for name in self.tables:
            got = tuple(cond[name].shape) if name in cond else None
            if got != (batch,):
                raise ShapeError(f"cond[{name!r}]: got shape {got}, expected ({batch},), one number per sample")
        return sum(table(cond[name]) for name, table in self.tables.items())


class TimeTextEmbedding(nn.Module):
    """The vector that all modulations are made from: MLP(t) + MLP(pooled text), and + MLP(w) if w is an input.

    Args:
        dim: width of the vector.
        vector_dim: width of the pooled text.
        guidance: whether the network is told a guidance scale, as one is that learned to guide itself (FLUX.1 [dev]).

    Source: Esser et al. 2024, figure 2a; for w, Meng et al. 2023, section 3.1, and FLUX.1 (Black Forest Labs 2024).
    """

    def __init__(self, dim: int, vector_dim: int, *, guidance: bool = False) -> None:
        super().__init__()
        self.time = TimestepEmbedding(dim)
        self.vector = nn.Sequential(nn.Linear(vector_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.scale = TimestepEmbedding(dim, scale=1000.0) if guidance else None  # 1000: as FLUX.1 was trained

    def forward(
        self, t: Float[Tensor, " b"], vector: Float[Tensor, " b v"], w: Float[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b d"]:
        """The vector at network time t in 0..1000; no w stands for w = 1, the plain conditional model."""
        c = self.time(t) + self.vector(vector)
        if self.scale is None:
            return c
        return c + self.scale(torch.ones_like(t) if w is None else w)
