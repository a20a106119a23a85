"""Text to features: a small transformer that serves as CLIP's text encoder or T5's, and several of them at once.

What tells the two apart is who sees whom (``causal_mask`` or ``full_mask``) and what they are trained for (see
``ContrastivePair``, ``SpanDenoiser`` and ``GlossWriter``), not their layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets.dit import FeedForward
from lecture_lib.nets.tokenizer import END, PAD, START

Visible = Callable[[int], Tensor]
"""n -> (n, n) bool: entry (i, j) says whether token i sees token j."""


def causal_mask(n: int) -> Bool[Tensor, " n n"]:
    """Every token sees itself and those before it (CLIP's text encoder, and every decoder)."""
    return torch.ones(n, n, dtype=torch.bool).tril()


def full_mask(n: int) -> Bool[Tensor, " n n"]:
    """Every token sees all others (T5's encoder)."""
    return torch.ones(n, n, dtype=torch.bool)


class MaskedAttention(nn.Module):
    """Attention from tokens x to a context, along the pairs that a mask allows; self-attention if they are the same.

    Args:
        dim: width of x and of the result, a multiple of ``heads``.
        heads: number of heads.
        context: width of the context; default: dim.

    Raises:
        ShapeError: dim is no multiple of heads.

    Source: Vaswani et al. 2017, section 3.2.
    """

    def __init__(self, dim: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        if dim % heads:
            raise ShapeError(f"dim: got {dim} with heads={heads}, expected a multiple of heads")
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(context or dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, " b n d"], context: Float[Tensor, " b m c"], mask: Bool[Tensor, " b n m"]
    ) -> Float[Tensor, " b n d"]:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (b, h, n, d/h)
            for part in (self.q(x), *self.kv(context).chunk(2, dim=-1))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
        return self.out(mixed.transpose(1, 2).flatten(2))


class TextBlock(nn.Module):
    """Pre-norm transformer block: x + attention(norm x), then x + MLP(norm x)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), MaskedAttention(dim, heads)
        self.norm2, self.feed_forward = nn.LayerNorm(dim), FeedForward(dim, 4.0)

    def forward(self, x: Float[Tensor, " b n d"], mask: Bool[Tensor, " b n n"]) -> Float[Tensor, " b n d"]:
        h = self.norm1(x)
        x = x + self.attention(h, h, mask)
        return x + self.feed_forward(self.norm2(x))


class TextFeatures(NamedTuple):
    """What an encoder says of texts.

    Attributes:
        tokens: one vector per token, after the last block and the final norm.
        penultimate: the same before the last block, without a norm: what SDXL takes from both of its encoders.
        pooled: the text as one vector, the final state of <end>.
        mask: True where there is a token and not padding.
    """

    tokens: Float[Tensor, " b n d"]
    penultimate: Float[Tensor, " b n d"]
    pooled: Float[Tensor, " b d"]
    mask: Bool[Tensor, " b n"]


class TextEncoder(nn.Module):
    """Transformer over the tokens of a text: pre-norm, GELU, learned positions. Padding is never attended to.

    CLIP's text encoder is causal, so that <end> is the first token to have seen the whole text: there it is pooled.
    T5's encoder is bidirectional, has relative instead of learned positions, and no pooled output; ours pools at <end>
    all the same.

    Args:
        vocabulary: number of tokens, the special ones included: ``len(tokenizer)``.
        dim, depth, heads: width, number of blocks, heads.
        length: largest number of tokens.
        visible: who sees whom: ``causal_mask`` or ``full_mask``.

    Raises:
        ShapeError: tokens are not whole numbers (b, n <= length).
        RangeError: a token outside the vocabulary, or a text without <end>.

    Source: Radford et al. 2021, section 2.4; Raffel et al. 2020, section 2.1.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        dim: int = 128,
        depth: int = 2,
        heads: int = 4,
        length: int = 24,
        visible: Visible = causal_mask,
    ) -> None:
        super().__init__()
        self.vocabulary, self.dim, self.length = vocabulary, dim, length
        self.table = nn.Embedding(vocabulary, dim)
        self.positions = nn.Parameter(0.01 * torch.randn(length, dim))
        nn.init.normal_(self.table.weight, std=0.02)
        self.blocks = nn.ModuleList(TextBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.register_buffer("visible", visible(length), persistent=False)

    def forward(self, tokens: Int[Tensor, " b n"]) -> TextFeatures:
        self.check(tokens)
        n = tokens.shape[1]
        mask = tokens != PAD
        sees = self.visible[:n, :n] & mask[:, None]  # (b, n, n)
        x = before = self.table(tokens) + self.positions[:n]
        for block in self.blocks:
            before, x = x, block(x, sees)
        x = self.norm(x)
        end = (tokens == END).int().argmax(1)
        return TextFeatures(x, before, x[torch.arange(len(x), device=x.device), end], mask)

    def check(self, tokens: Int[Tensor, " b n"]) -> None:
        """Raise a named error unless ``tokens`` are texts of this vocabulary."""
        if tokens.ndim != 2 or tokens.is_floating_point() or not 2 <= tokens.shape[1] <= self.length:
            got = f"{tuple(tokens.shape)} of {tokens.dtype}"
            raise ShapeError(f"tokens: got {got}, expected whole numbers (b, n) with 2 <= n <= {self.length}")
        low, high = tokens.aminmax()
        if low < 0 or high >= self.vocabulary:
            raise RangeError(f"tokens: got {int(low)}..{int(high)}, expected 0..{self.vocabulary - 1}")
        if not (tokens == END).any(1).all() or (tokens[:, 0] == PAD).any():
            raise RangeError("tokens: got a row without <end>, or one that begins with <pad>, expected encoded texts")


class SpanDenoiser(nn.Module):
    """A text encoder with a small causal decoder that writes the words missing from a text: T5's training.

    A span of words is replaced by one <mask>; the decoder is given <mask> and writes the span, then <end>, looking at
    the encoded rest by cross-attention. T5 removes several spans, each with its own sentinel; in texts of a dozen
    words its rate of 15 % leaves room for one. After training only the encoder is used. Embeddings are shared with it.

    Args:
        encoder: with ``full_mask``.
        heads: heads of the decoder.
        longest: most tokens that the decoder writes, <end> included.

    Source: Raffel et al. 2020, section 3.1.4 and figure 2.
    """

    def __init__(self, encoder: TextEncoder, *, heads: int = 4, longest: int = 6) -> None:
        super().__init__()
        dim = encoder.dim
        self.encoder, self.longest = encoder, longest
        self.positions = nn.Parameter(0.01 * torch.randn(longest, dim))
        self.norm1, self.cross = nn.LayerNorm(dim), MaskedAttention(dim, heads)
        self.block = TextBlock(dim, heads)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, corrupted: Int[Tensor, " b n"], written: Int[Tensor, " b m"]) -> Float[Tensor, " b m k"]:
        """Logits of the token that follows each token written so far; the first of these is <mask>.

        Raises:
            ShapeError: more than ``longest`` tokens written, or as in ``TextEncoder``.
            RangeError: as in ``TextEncoder``.
        """
        m = written.shape[-1]
        if written.ndim != 2 or not 1 <= m <= self.longest:
            raise ShapeError(f"written: got {tuple(written.shape)}, expected (b, m) with m in 1..{self.longest}")
        features = self.encoder(corrupted)
        table = self.encoder.table
        x = table(written) + self.positions[:m]
        # Cross-attention first: what surrounds the gap says more than the words already written.
        x = x + self.cross(self.norm1(x), features.tokens, features.mask[:, None].expand(-1, m, -1))
        x = self.block(x, causal_mask(m).to(x.device)[None])
        return F.linear(self.norm2(x), table.weight)


class GlossWriter(nn.Module):
    """A text encoder with a small causal decoder that must write, from the vector of ONE word, what that word is about.

        logits_j = table . norm(h_j + W feature),   h_j = block(words written before j)

    The decoder reads a single vector and adds it, without attention or further thought. So the encoder has to bring
    together in each word what the whole text says about it, and to put it plainly, as a sum of parts that a linear map
    can read. After training only the encoder is used. Embeddings are shared by both halves.

    Args:
        encoder: with ``full_mask``.
        heads: heads of the decoder.
        longest: most tokens that the decoder is given.
    """

    def __init__(self, encoder: TextEncoder, *, heads: int = 4, longest: int = 15) -> None:
        super().__init__()
        dim = encoder.dim
        self.encoder, self.longest = encoder, longest
        self.positions = nn.Parameter(0.01 * torch.randn(longest, dim))
        self.block = TextBlock(dim, heads)
        self.read = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, feature: Float[Tensor, " b d"], written: Int[Tensor, " b m"]) -> Float[Tensor, " b m k"]:
        """Logits of the token that follows each token written so far; the first of these is <start>.

        Raises:
            ShapeError: more than ``longest`` tokens written, or a feature of another width.
        """
        m = written.shape[-1]
        if written.ndim != 2 or not 1 <= m <= self.longest:
            raise ShapeError(f"written: got {tuple(written.shape)}, expected (b, m) with m in 1..{self.longest}")
        if feature.shape != (len(written), self.encoder.dim):
            raise ShapeError(f"feature: got {tuple(feature.shape)}, expected {(len(written), self.encoder.dim)}")
        table = self.encoder.table
        h = self.block(table(written) + self.positions[:m], causal_mask(m).to(feature.device)[None])
        return F.linear(self.norm(h + self.read(feature)[:, None]), table.weight)


class Penultimate(nn.Module):
    """An encoder whose tokens are taken before its last block, as SDXL does; the pooled vector stays the final one."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder, self.length = encoder, encoder.length

    def forward(self, tokens: Int[Tensor, " b n"]) -> TextFeatures:
        features = self.encoder(tokens)
        return features._replace(tokens=features.penultimate)


class JointText(nn.Module):
    """Several frozen text encoders as one condition: {"tokens": (b, n, D), "mask": (b, n), "vector": (b, V)}.

    Tokens are joined along the width, as in SDXL (768 + 1280 = 2048), so all encoders share tokenizer and length;
    pooled vectors are joined, too (SDXL keeps only that of its second encoder).

    Args:
        encoders: modules tokens -> TextFeatures, such as ``TextEncoder`` or ``Penultimate``; frozen here, in place.

    Raises:
        ShapeError: no encoders, or of different lengths.

    Source: Podell et al. 2023, section 2.1.
    """

    def __init__(self, encoders: Sequence[nn.Module]) -> None:
        super().__init__()
        lengths = {encoder.length for encoder in encoders}
        if len(lengths) != 1:
            raise ShapeError(f"encoders: got lengths {sorted(lengths)}, expected one common length")
        self.length = lengths.pop()
        self.encoders = nn.ModuleList(encoders).eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, tokens: Int[Tensor, " b n"]) -> dict[str, Tensor]:
        features = [encoder(tokens) for encoder in self.encoders]
        return {
            "tokens": torch.cat([f.tokens for f in features], dim=-1),
            "mask": features[0].mask,
            "vector": torch.cat([f.pooled for f in features], dim=-1),
        }

    @property
    def null(self) -> dict[str, Tensor]:
        """The condition of the empty text, of one sample: tokens (n, D), mask (n,), vector (V,)."""
        device = next(self.parameters()).device
        empty = torch.full((1, self.length), PAD, device=device)
        empty[:, 0], empty[:, 1] = START, END
        return {name: value[0] for name, value in self(empty).items()}


def sd3_condition(first: TextFeatures, second: TextFeatures, third: TextFeatures) -> dict[str, Tensor]:
    """The condition of Stable Diffusion 3 from two CLIP encoders and T5.

    The first two are joined along the width and padded with zeros to the width of the third, which then follows along
    the sequence: (77, 768 + 1280 -> 4096) and (77, 4096) make (154, 4096). Nothing is projected. The vector joins the
    pooled outputs of the first two. Where the tokens are taken (SD3: CLIP's penultimate) is the caller's choice.

    Raises:
        ShapeError: the first two differ in length, or the third is narrower than both together.

    Source: Esser et al. 2024, section 4 and appendix B.3.
    """
    if first.tokens.shape[1] != second.tokens.shape[1]:
        raise ShapeError(f"second: got length {second.tokens.shape[1]}, expected {first.tokens.shape[1]} as in first")
    wide = torch.cat([first.tokens, second.tokens], dim=-1)
    missing = third.tokens.shape[-1] - wide.shape[-1]
    if missing < 0:
        raise ShapeError(f"third: got width {third.tokens.shape[-1]}, expected at least {wide.shape[-1]}")
    return {
        "tokens": torch.cat([F.pad(wide, (0, missing)), third.tokens], dim=1),
        "mask": torch.cat([first.mask, third.mask], dim=1),
        "vector": torch.cat([first.pooled, second.pooled], dim=-1),
    }
