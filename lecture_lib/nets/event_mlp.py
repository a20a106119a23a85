"""One residual MLP from events to events: generator, transport map, critic and potential of any small world."""

from __future__ import annotations

import math

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.embeddings import LabelEmbedding, TimestepEmbedding
from lecture_lib.nets.mlp import ResidualLayer


class EventMLP(nn.Module):
    """``(b, *event) -> (b, *out)``, told a label and a time if it has ears for them; zero at initialisation.

    Args:
        event: shape of one input, such as (2,) or (1, 8, 8); it is flattened.
        out: shape of one output; () for a critic or a potential, the event's own by default.
        width, depth: width and number of residual layers.
        n_classes: number of classes, label ``n_classes`` being the null class; 0 for a network without labels.
        timed: whether it is told a time, on a scale of about 0..1000.

    Raises:
        ShapeError: (when called) x is not a batch of events, or a timed network hears no time.
    """

    def __init__(
        self,
        event: tuple[int, ...] = (2,),
        out: tuple[int, ...] | None = None,
        *,
        width: int = 64,
        depth: int = 2,
        n_classes: int = 0,
        timed: bool = False,
    ) -> None:
        super().__init__()
        self.event, self.out = tuple(event), tuple(event if out is None else out)
        self.time = TimestepEmbedding(width) if timed else None
        self.label = LabelEmbedding(n_classes, width) if n_classes else None
        if n_classes:  # labels as loud as the hidden units: a critic has no time to wait until they have grown
            nn.init.normal_(self.label.table.weight)
        self.enter = nn.Linear(math.prod(self.event), width)
        self.layers = nn.ModuleList(ResidualLayer(width) for _ in range(depth))
        self.leave = nn.Linear(width, math.prod(self.out))
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, x: Float[Tensor, " b *event"], t: Float[Tensor, " b"] | None = None, cond: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b *out"]:
        if tuple(x.shape[1:]) != self.event:
            raise ShapeError(f"x: got shape {tuple(x.shape)}, expected (b, {', '.join(map(str, self.event))})")
        if (self.time is None) != (t is None):
            raise ShapeError(f"t: got {type(t).__name__}, expected {'None' if self.time is None else 'times (b,)'}")
        hidden = self.enter(x.flatten(1))
        c = hidden.new_zeros(hidden.shape)
        if self.time is not None:
            c = c + self.time(t)
        if self.label is not None:
            c = c + self.label(cond, len(x))
        c = F.silu(c)
        for layer in self.layers:
            hidden = layer(hidden, c)
        return self.leave(F.silu(hidden)).reshape(len(x), *self.out)
