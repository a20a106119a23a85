"""The network of a masked image model: a bidirectional transformer that says what may stand at every hidden place.

    h = sqrt(d) table[tokens] + positions               the mask is one more row of the table
    h = Block(h, c, words), depth times                 c: the text as one vector, in adaLN-Zero; words: cross-attention
    logits = LayerNorm(h) table[codes]^T + bias         of the codes alone: a mask is never an answer

The blocks are those of the text-conditioned DiT, without a time: how much is hidden, the network sees.
Source: Chang et al. 2022 (MaskGIT), section 3.1; text as in Chang et al. 2023 (Muse) by cross-attention; one table for
both ends, times sqrt(d) at the entrance, as in Vaswani et al. 2017, section 3.4.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets.attention import AttentionKernel, fused_attention
from lecture_lib.nets.dit import DiTBlock
from lecture_lib.nets.positions import positions_2d
from lecture_lib.nets.text_condition import read_condition
from lecture_lib.nets.text_dit import TextDiTBlock


class MaskedTransformer(nn.Module):
    """Tokens 0..size - 1, or the mask, in; logits of ``size`` codes at every place out.

    Args:
        size: number of codes.
        grid: rows and columns of the map of places, which are read row by row.
        dim, depth, heads, ratio: width, number of blocks, heads, hidden width of the feed-forward over dim.
        context_dim: width of the text tokens; None for a network that reads no words.
        vector_dim: width of the text as one vector; None for none: c is then one learned vector for all.
        kernel: the attention kernel.

    Raises:
        ShapeError: dim is not a multiple of heads and of 4.
        RangeError: a side of the grid is not a whole number >= 1.
    """

    def __init__(
        self,
        size: int,
        grid: tuple[int, int],
        *,
        dim: int = 128,
        depth: int = 4,
        heads: int = 4,
        ratio: float = 4.0,
        context_dim: int | None = None,
        vector_dim: int | None = None,
        kernel: AttentionKernel = fused_attention,
    ) -> None:
        super().__init__()
        self.size, self.context_dim, self.vector_dim = size, context_dim, vector_dim
        self.table = nn.Embedding(size + 1, dim)
        # Learned, but from a table with structure: started at random, neighbours have to be found out first (the loss
        # of ``shapes-maskgit`` after 400 updates: 1.49, with rotary positions in the same network 1.30).
        self.positions = nn.Parameter(positions_2d(*grid, dim))
        self.hear = nn.Linear(vector_dim, dim) if vector_dim else None
        self.silence = None if vector_dim else nn.Parameter(torch.zeros(dim))
        options = {"kernel": kernel} | ({"context_dim": context_dim} if context_dim else {})
        block = TextDiTBlock if context_dim else DiTBlock
        self.blocks = nn.ModuleList(block(dim, heads, ratio, **options) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.bias = nn.Parameter(torch.zeros(size))
        nn.init.normal_(self.table.weight, std=dim**-0.5)
        for (
            part
        ) in self.blocks:  # deaf at first, but with open gates: nothing is to be kept as it is, as noise is in DiT
            nn.init.zeros_(part.modulation.weight)
            part.modulation.bias.data = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 1.0]).repeat_interleave(dim)
            if context_dim:
                nn.init.zeros_(part.cross_attention.out.weight)
                nn.init.zeros_(part.cross_attention.out.bias)

    @property
    def length(self) -> int:
        """Number n of places."""
        return len(self.positions)

    @property
    def mask(self) -> int:
        """The token that stands for "hidden": the number after the last code. 0 is a code like any other."""
        return self.size

    def forward(self, tokens: Int[Tensor, " b n"], cond: Mapping[str, Tensor] | None = None) -> Float[Tensor, " b n k"]:
        """Logits of every code at every place, hidden or not.

        Args:
            tokens: whole numbers; hidden ones are ``mask``.
            cond: ``{"tokens": (b, m, context_dim), "mask": (b, m) bool, "vector": (b, vector_dim)}`` as ``JointText``
                gives it; without what the network has no ear for.

        Raises:
            ShapeError: tokens are not (b, length) whole numbers, or a condition is missing or of another shape.
            RangeError: a token outside 0..size.
            UnknownNameError: ``cond`` has an entry that the network has no ear for.
        """
        self.check(tokens)
        heard = read_condition(cond, len(tokens), context_dim=self.context_dim, vector_dim=self.vector_dim)
        c = self.silence.expand(len(tokens), -1) if self.hear is None else self.hear(heard.vector)  # (b, d)
        words = (heard.tokens, heard.mask) if self.context_dim else ()
        h = self.table(tokens) * self.table.embedding_dim**0.5 + self.positions
        for block in self.blocks:
            h = block(h, c, *words)
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
