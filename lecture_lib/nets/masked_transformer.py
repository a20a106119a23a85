"""The network of a masked image model: a bidirectional transformer that says what may stand at every hidden place.

    h = table[tokens] + positions + W vector          the mask is one more row of the table
    h = h + SelfAttention, + CrossAttention(text), + FeedForward, depth times; every place sees all others
    logits = LayerNorm(h) table[codes]^T + bias        of the codes alone: a mask is never an answer

Source: Chang et al. 2022 (MaskGIT), section 3.1; text by cross-attention as in Chang et al. 2023 (Muse).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets.attention import AttentionKernel, fused_attention
from lecture_lib.nets.spatial_transformer import TransformerBlock


class MaskedTransformer(nn.Module):
    """Tokens 0..size - 1, or the mask, in; logits of ``size`` codes at every place out.

    Args:
        size: number of codes.
        length: number n of places, 64 for an 8x8 map.
        dim, depth, heads: width, number of blocks, heads.
        context_dim: width of the text tokens; None for a network without text.
        vector_dim: width of the text as one vector, which is told to every place; None for none.
        kernel: the attention kernel.
    """

    def __init__(
        self,
        size: int,
        length: int,
        *,
        dim: int = 128,
        depth: int = 4,
        heads: int = 4,
        context_dim: int | None = None,
        vector_dim: int | None = None,
        kernel: AttentionKernel = fused_attention,
    ) -> None:
        super().__init__()
        self.size, self.length, self.context_dim = size, length, context_dim
        self.table = nn.Embedding(size + 1, dim)
        self.positions = nn.Parameter(0.02 * torch.randn(length, dim))
        nn.init.normal_(self.table.weight, std=0.02)
        self.vector = nn.Linear(vector_dim, dim) if vector_dim else None
        options = {"context_dim": context_dim, "kernel": kernel}
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads, **options) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.bias = nn.Parameter(torch.zeros(size))

    @property
    def mask(self) -> int:
        """The token that stands for "hidden": the number after the last code. 0 is a code like any other."""
        return self.size

    def forward(self, tokens: Int[Tensor, " b n"], cond: Mapping[str, Tensor] | None = None) -> Float[Tensor, " b n k"]:
        """Logits of every code at every place, hidden or not.

        Args:
            tokens: whole numbers; hidden ones are ``mask``.
            cond: ``{"tokens": (b, m, context_dim), "mask": (b, m) bool, "vector": (b, vector_dim)}`` as ``JointText``
                gives it; what the network has no ear for is not looked at.

        Raises:
            ShapeError: tokens are not (b, length) whole numbers, or a condition is missing or of another shape.
            RangeError: a token outside 0..size.
        """
        self.check(tokens)
        cond = {} if cond is None else cond
        h = self.table(tokens) + self.positions
        if self.vector is not None:
            h = h + self.vector(self.told(cond, len(tokens)))[:, None]
        for block in self.blocks:
            h = block(h, cond.get("tokens"), cond.get("mask"))
        return F.linear(self.norm(h), self.table.weight[: self.size], self.bias)

    def check(self, tokens: Tensor) -> None:
        """Raise a named error unless ``tokens`` fit the network."""
        if tokens.ndim != 2 or tokens.shape[1] != self.length or tokens.is_floating_point():
            got = f"{tokens.dtype} {tuple(tokens.shape)}"
            raise ShapeError(f"tokens: got {got}, expected whole numbers of shape (b, {self.length})")
        low, high = tokens.aminmax()
        if low < 0 or high > self.size:
            raise RangeError(
                f"tokens: got {int(low)}..{int(high)}, expected 0..{self.size}, the last of which is the mask"
            )

    def told(self, cond: Mapping[str, Tensor], batch: int) -> Float[Tensor, " b v"]:
        """The vector of ``cond``, if it has the right shape."""
        vector, expected = cond.get("vector"), (batch, self.vector.in_features)
        if vector is None or vector.shape != expected:
            raise ShapeError(
                f"cond['vector']: got {None if vector is None else tuple(vector.shape)}, expected shape {expected}"
            )
        return vector
