"""A diffusion transformer that hears captions: adaLN-Zero for time and pooled text, cross-attention for the words.

    x += gate1 SelfAttention((1 + scale1) LN(x) + shift1)
    x += CrossAttention(x, words)
    x += gate2 MLP((1 + scale2) LN(x) + shift2)

Source: Chen et al. 2024 (PixArt-α), section 2.3 and figure 4. Two things are simpler here: each block makes its
modulation by weights of its own, as in DiT (PixArt-α shares them and gives each block an offset), and the words go into
the blocks as the text encoders leave them, where PixArt-α sends them through an MLP first.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lecture_lib.nets.attention import AttentionKernel, MultiHeadAttention, fused_attention
from lecture_lib.nets.dit import (
    FeedForward,
    FinalLayer,
    check_latents,
    modulate,
    patchify,
    reset_transformer,
    unpatchify,
)
from lecture_lib.nets.embeddings import TimeTextEmbedding
from lecture_lib.nets.positions import cropped_positions, positions_2d
from lecture_lib.nets.spatial_transformer import CrossAttention
from lecture_lib.nets.text_condition import read_condition


class TextDiTBlock(nn.Module):
    """``DiTBlock`` with a look at the words between its two branches.

    Source: Chen et al. 2024, figure 4; the words are read without a norm, as in PixArt-α.
    """

    def __init__(
        self, dim: int, heads: int, ratio: float = 4.0, *, context_dim: int, kernel: AttentionKernel = fused_attention
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attention = MultiHeadAttention(dim, heads, kernel=kernel)
        self.cross_attention = CrossAttention(dim, heads, context_dim=context_dim, kernel=kernel)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.feed_forward = FeedForward(dim, ratio)
        self.modulation = nn.Linear(dim, 6 * dim)

    def forward(
        self,
        x: Float[Tensor, " b n d"],
        c: Float[Tensor, " b d"],
        words: Float[Tensor, " b m k"],
        mask: Bool[Tensor, " b m"] | None = None,
    ) -> Float[Tensor, " b n d"]:
        modulation = self.modulation(F.silu(c))[:, None]  # (b, 1, 6 d)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        x = torch.addcmul(x, gate1, self.attention(modulate(self.norm1(x), shift1, scale1)))
        x = x + self.cross_attention(x, words, mask)
        return torch.addcmul(x, gate2, self.feed_forward(modulate(self.norm2(x), shift2, scale2)))


class TextDiT(nn.Module):
    """Text-conditioned diffusion transformer on latents of any shape up to a largest grid of tokens.

    Args:
        channels: the latents are (b, channels, h, w), h and w multiples of ``patch``.
        patch: side of a patch.
        dim, depth, heads, ratio: width, number of blocks, heads, hidden width of the feed-forward over dim.
        context_dim, vector_dim: width of the text tokens and of the pooled text.
        grid: side of the largest grid of tokens; smaller ones take their positions from its middle.
        kernel: the attention kernel.

    Raises:
        ShapeError: dim is not a multiple of heads and of 4.
        RangeError: grid is not a whole number >= 1.

    Source: Chen et al. 2024, section 2.3.
    """

    def __init__(
        self,
        channels: int = 4,
        *,
        patch: int = 2,
        dim: int = 128,
        depth: int = 4,
        heads: int = 4,
        ratio: float = 4.0,
        context_dim: int = 128,
        vector_dim: int = 128,
        grid: int = 16,
        kernel: AttentionKernel = fused_attention,
    ) -> None:
        super().__init__()
        self.channels, self.patch = channels, patch
        self.context_dim, self.vector_dim = context_dim, vector_dim
        self.embed = nn.Linear(patch**2 * channels, dim)
        self.register_buffer("positions", positions_2d(grid, grid, dim))
        self.condition = TimeTextEmbedding(dim, vector_dim)
        options = {"context_dim": context_dim, "kernel": kernel}
        self.blocks = nn.ModuleList(TextDiTBlock(dim, heads, ratio, **options) for _ in range(depth))
        self.final = FinalLayer(dim, patch**2 * channels)
        reset_transformer(self, self.blocks)
        for block in self.blocks:  # then every block starts as the identity, in spite of the words
            nn.init.zeros_(block.cross_attention.out.weight)

    def forward(
        self, x: Float[Tensor, " b c h w"], t: Float[Tensor, " b"], cond: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, " b c h w"]:
        """The network at time t in 0..1000, given the text.

        Args:
            x: latents.
            t: one network time per sample.
            cond: ``{"tokens": (b, m, context_dim), "vector": (b, vector_dim)}``, with ``"mask": (b, m)`` bool if some
                tokens are padding (True marks the words): what ``JointText`` says.

        Raises:
            ShapeError: something has the wrong shape or dtype, or is missing.
            RangeError: more tokens along a side than the table of positions has.
            UnknownNameError: ``cond`` has an entry of another name.
        """
        check_latents(x, t, self.channels, self.patch)
        heard = read_condition(cond, len(x), context_dim=self.context_dim, vector_dim=self.vector_dim)
        height, width = x.shape[-2] // self.patch, x.shape[-1] // self.patch
        c = self.condition(t, heard.vector)  # (b, dim)
        tokens = self.embed(patchify(x, self.patch)) + cropped_positions(self.positions, height, width)
        for block in self.blocks:
            tokens = block(tokens, c, heard.tokens, heard.mask)
        return unpatchify(self.final(tokens, c), self.patch, x.shape[-2])
