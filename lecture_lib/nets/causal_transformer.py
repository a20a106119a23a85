"""A decoder-only transformer: every place says what may stand there, having seen the places before it and no other.

    h_0 = start(class) + p_0,   h_i = sqrt(d) table[x_{i-1}] + p_i      place i is told the token before it
    h = h + Attention(LN h, those that it sees),   h = h + MLP(LN h)    depth times
    logits_i = W LN(h_i)                                                of the token at place i, the first included

The shift by one is made here and nowhere else: ``logits[:, i]`` belongs to ``tokens[:, i]``.
Source: Radford et al. 2019 (GPT-2), section 2.3; Chen et al. 2020 (image GPT) for pixels; one table times sqrt(d) at
the entrance, Vaswani et al. 2017, section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets.attention import AttentionKernel, MultiHeadAttention, fused_attention
from lecture_lib.nets.dit import FeedForward
from lecture_lib.nets.embeddings import LabelEmbedding
from lecture_lib.nets.positions import positions_1d
from lecture_lib.nets.text import causal_mask
from lecture_lib.tensors import check_count

Memory = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of all places read so far, (b, h, m, d/h) each, one pair for each block; () before the first."""


def block_causal_mask(sizes: Sequence[int]) -> Bool[Tensor, " n n"]:
    """Blocks in a row, of so many places each: every place sees its whole block and all blocks before.

    With sizes 1, 1, 1, ... that is ``causal_mask``. Source: Tian et al. 2024 (VAR), figure 4: a block is a scale.
    """
    block = torch.arange(len(sizes)).repeat_interleave(torch.tensor([check_count("sizes", size) for size in sizes]))
    return block[:, None] >= block[None, :]


class CausalBlock(nn.Module):
    """Pre-norm transformer block that remembers the keys and values of what it has read."""

    def __init__(self, dim: int, heads: int, ratio: float = 4.0, *, kernel: AttentionKernel = fused_attention) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), MultiHeadAttention(dim, heads, kernel=kernel)
        self.norm2, self.feed_forward = nn.LayerNorm(dim), FeedForward(dim, ratio)

    def forward(
        self, x: Float[Tensor, " b n d"], sees: Bool[Tensor, " n m"], past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Float[Tensor, " b n d"], tuple[Tensor, Tensor]]:
        """The next n places, and the keys and values of all m places up to them: those of ``past``, then theirs."""
        layer = self.attention
        q, k, v = (layer.split(part) for part in layer.qkv(self.norm1(x)).chunk(3, dim=-1))  # (b, h, n, d/h)
        if past is not None:
            k, v = (torch.cat(pair, dim=2) for pair in zip(past, (k, v), strict=True))  # (b, h, m, d/h)
        x = x + layer.out(layer.kernel(q, k, v, sees[None, None]).transpose(1, 2).flatten(2))
        return x + self.feed_forward(self.norm2(x)), (k, v)


class CausalTrunk(nn.Module):
    """The blocks alone, from vectors to vectors, with a mask of who sees whom and a memory of what was read.

    Reading places 0..n-1 at once, or in any pieces that the mask allows, gives the same vectors up to rounding.

    Args:
        sees: (n, n), True where place i (row) sees place j: ``causal_mask(n)``, ``block_causal_mask(sizes)``.
        dim, depth, heads, ratio: width, number of blocks, heads, hidden width of the feed-forward over dim.
        kernel: the attention kernel.

    Raises:
        ShapeError: the mask is not square, a place does not see itself, or dim is no multiple of heads.
    """

    def __init__(
        self,
        sees: Bool[Tensor, " n n"],
        dim: int,
        *,
        depth: int = 4,
        heads: int = 4,
        ratio: float = 4.0,
        kernel: AttentionKernel = fused_attention,
    ) -> None:
        super().__init__()
        if sees.ndim != 2 or sees.shape[0] != sees.shape[1] or sees.dtype != torch.bool or not sees.diagonal().all():
            got = f"{sees.dtype} {tuple(sees.shape)}"
            raise ShapeError(f"sees: got {got}, expected bool (n, n) where every place sees itself")
        self.register_buffer("sees", sees, persistent=False)
        self.blocks = nn.ModuleList(CausalBlock(dim, heads, ratio, kernel=kernel) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        for block in self.blocks:  # each of the 2 depth branches adds a little: the sum starts near the embedding
            for layer in (block.attention.out, block.feed_forward.outer):
                nn.init.normal_(layer.weight, std=0.02 / (2 * depth) ** 0.5)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, " b n d"], past: Memory = ()) -> tuple[Float[Tensor, " b n d"], Memory]:
        """The next n places after those in ``past``, and the longer memory; ``past`` itself is not changed.

        Raises:
            ShapeError: more places than the mask has.
            RangeError: a place sees one that is not read yet: a block must be read as a whole.
        """
        start = past[0][0].shape[2] if past else 0
        end = start + x.shape[1]
        if end > len(self.sees):
            raise ShapeError(f"x: got places up to {end}, expected at most {len(self.sees)}, the size of the mask")
        if self.sees[start:end, end:].any():
            raise RangeError(f"x: got places {start}..{end - 1}, which see later ones; expected whole blocks")
        sees, memory = self.sees[start:end, :end], []
        for block, pair in zip(self.blocks, past or [None] * len(self.blocks), strict=True):
            x, pair = block(x, sees, pair)
            memory.append(pair)
        return self.norm(x), tuple(memory)


class CausalTransformer(nn.Module):
    """Tokens 0..size - 1 in; at each place the logits of its token, given the class and the tokens before it.

    Args:
        size: number of different tokens.
        length: number of places.
        n_classes: number of classes, heard at the start; 0 for none. Label ``n_classes`` is "no class".
        positions: (length, dim), where the learned positions start; default ``positions_1d`` of 0, 1, 2, ...
        dim, depth, heads, ratio, kernel: as in ``CausalTrunk``.

    Raises:
        ShapeError: dim is no multiple of heads, or the positions have another shape.
    """

    def __init__(
        self,
        size: int,
        length: int,
        *,
        dim: int = 128,
        depth: int = 4,
        heads: int = 4,
        ratio: float = 4.0,
        n_classes: int = 0,
        positions: Float[Tensor, " n d"] | None = None,
        kernel: AttentionKernel = fused_attention,
    ) -> None:
        super().__init__()
        self.size, self.length = check_count("size", size), check_count("length", length)
        positions = positions_1d(torch.arange(length), dim) if positions is None else positions
        if positions.shape != (length, dim):
            raise ShapeError(f"positions: got {tuple(positions.shape)}, expected {(length, dim)}")
        self.start = LabelEmbedding(n_classes, dim)  # without classes its one row is the start token
        self.table = nn.Embedding(size, dim)
        self.positions = nn.Parameter(positions.clone())  # learned, but from a table with structure
        self.trunk = CausalTrunk(causal_mask(length), dim, depth=depth, heads=heads, ratio=ratio, kernel=kernel)
        self.head = nn.Linear(dim, size)
        nn.init.normal_(self.table.weight, std=dim**-0.5)
        for part in (self.head.weight, self.head.bias):  # all tokens alike at first
            nn.init.zeros_(part)

    def forward(self, tokens: Int[Tensor, " b n"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b n k"]:
        """Logits of each token given those before it: ``logits[:, i]`` has not seen ``tokens[:, i]``.

        Args:
            tokens: whole sequences or their beginnings, n <= length.
            cond: labels; None stands for no class.

        Raises:
            ShapeError: tokens are not whole numbers (b, n), or cond is not one label for each.
            RangeError: a token outside 0..size - 1, or a label that does not exist.
        """
        self.check(tokens)
        n = tokens.shape[1]
        h = torch.cat([self.start(cond, len(tokens))[:, None], self.embed(tokens[:, : n - 1])], dim=1)
        h, _ = self.trunk(h + self.positions[:n])
        return self.head(h)

    def begin(self, n: int, cond: Int[Tensor, " n"] | None = None) -> tuple[Float[Tensor, " n k"], Memory]:
        """Logits of the first token of ``n`` sequences, and the memory that ``next`` goes on from."""
        h, memory = self.trunk(self.start(cond, n)[:, None] + self.positions[:1])
        return self.head(h[:, 0]), memory

    def next(self, token: Int[Tensor, " b"], memory: Memory) -> tuple[Float[Tensor, " b k"], Memory]:
        """Logits of the token after ``token``: one place's work, where ``forward`` would do all of them again.

        Raises:
            ShapeError: the sequences are complete, or token is not whole numbers (b,).
        """
        self.check(token[:, None])
        place = memory[0][0].shape[2]
        if place == self.length:
            raise ShapeError(f"memory: got {place} places, expected fewer than {self.length}: nothing follows the last")
        h, memory = self.trunk(self.embed(token)[:, None] + self.positions[place], memory)
        return self.head(h[:, 0]), memory

    def embed(self, tokens: Int[Tensor, " *b"]) -> Float[Tensor, " *b d"]:
        """Tokens as vectors of about the size of the positions."""
        return self.table(tokens) * self.table.embedding_dim**0.5

    def check(self, tokens: Tensor) -> None:
        """Raise a named error unless ``tokens`` fit the network."""
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= self.length or tokens.is_floating_point():
            got = f"{tokens.dtype} {tuple(tokens.shape)}"
            raise ShapeError(f"tokens: got {got}, expected whole numbers (b, n) with 1 <= n <= {self.length}")
        low, high = tokens.aminmax()
        if low < 0 or high >= self.size:
            raise RangeError(f"tokens: got {int(low)}..{int(high)}, expected 0..{self.size - 1}")
