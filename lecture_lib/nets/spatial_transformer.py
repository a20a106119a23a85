"""The transformer inside Stable Diffusion's U-Net: pixels attend to one another, then to the words of the prompt.

    h  = proj_in(GroupNorm x)                   one token per pixel, (b, h w, c)
    h += SelfAttention(LayerNorm h)        |
    h += CrossAttention(LayerNorm h, text) |    depth times
    h += FeedForward(LayerNorm h)          |
    x += proj_out(h)                            zero at initialisation

Source: Rombach et al. 2022, section 3.3 and appendix E.2.1.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.attention import AttentionKernel, fused_attention


class CrossAttention(nn.Module):
    """Attention from tokens (b, n, dim) to a context (b, m, context_dim), such as the words of a prompt.

    Q = W_q x,  K = W_k context,  V = W_v context    (Rombach et al. 2022, section 3.3; no biases but the last)

    Args:
        dim: width of the tokens.
        heads: number of heads.
        head_dim: width of a head; default: dim / heads, which must then be whole.
        context_dim: width of the context; None for self-attention, whose context is x itself.
        kernel: ``fused_attention``, ``explicit_attention`` or any callable of (q, k, v) and (q, k, v, mask).

    Raises:
        ShapeError: dim is not a multiple of heads and no head_dim is given.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        head_dim: int | None = None,
        context_dim: int | None = None,
        kernel: AttentionKernel = fused_attention,
    ) -> None:
        super().__init__()
        if head_dim is None and dim % heads:
            raise ShapeError(f"dim must be a multiple of heads, got dim={dim}, heads={heads}")
        inner = heads * (dim // heads if head_dim is None else head_dim)
        self.heads, self.context_dim, self.kernel = heads, context_dim, kernel
        self.q = nn.Linear(dim, inner, bias=False)
        self.k = nn.Linear(context_dim or dim, inner, bias=False)
        self.v = nn.Linear(context_dim or dim, inner, bias=False)
        self.out = nn.Linear(inner, dim)

    def forward(
        self,
        x: Float[Tensor, " b n d"],
        context: Float[Tensor, " b m k"] | None = None,
        mask: Bool[Tensor, " b m"] | None = None,
    ) -> Float[Tensor, " b n d"]:
        """What each token reads from the context; ``mask`` is True for the words that may be read.

        Raises:
            ShapeError: the layer needs a context of width context_dim and got another one, or none.
        """
        context = x if self.context_dim is None else self.check(context)
        q, k, v = self.split(self.q(x)), self.split(self.k(context)), self.split(self.v(context))
        masks = () if mask is None else (mask[:, None, None, :],)  # the same for all heads and queries
        return self.out(self.kernel(q, k, v, *masks).transpose(1, 2).flatten(2))

    def split(self, x: Float[Tensor, " b n k"]) -> Float[Tensor, " b h n d"]:
        """Cut the width into heads: (b, n, h d) -> (b, h, n, d)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def check(self, context: Tensor | None) -> Float[Tensor, " b m k"]:
        """``context`` itself, if it is (b, m, context_dim)."""
        if context is None or context.ndim != 3 or context.shape[-1] != self.context_dim:
            got = None if context is None else tuple(context.shape)
            raise ShapeError(f"context must have shape (b, m, {self.context_dim}), got {got}")
        return context


class GEGLU(nn.Module):
    """Gated feed-forward layer: (W_1 x) * GELU(W_2 x), then back to the width of x.

    Source: Shazeer 2020, eq. 6 (the gate is a GELU; with a sigmoid it would be a GLU). The two maps are one matrix.
    """

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, 2 * ratio * dim)
        self.outer = nn.Linear(ratio * dim, dim)

    def forward(self, x: Float[Tensor, " b n d"]) -> Float[Tensor, " b n d"]:
        value, gate = self.inner(x).chunk(2, dim=-1)
        return self.outer(value * F.gelu(gate))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, one after the other, each on the LayerNorm of its input.

    Without text (``context_dim`` None or 0) the second step is missing.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        head_dim: int | None = None,
        context_dim: int | None = None,
        kernel: AttentionKernel = fused_attention,
    ) -> None:
        super().__init__()
        options = {"head_dim": head_dim, "kernel": kernel}
        self.norm1 = nn.LayerNorm(dim)
        self.self_attention = CrossAttention(dim, heads, **options)
        self.norm2 = nn.LayerNorm(dim) if context_dim else None
        self.cross_attention = CrossAttention(dim, heads, context_dim=context_dim, **options) if context_dim else None
        self.norm3 = nn.LayerNorm(dim)
        self.feed_forward = GEGLU(dim)

    def forward(
        self,
        x: Float[Tensor, " b n d"],
        context: Float[Tensor, " b m k"] | None = None,
        mask: Bool[Tensor, " b m"] | None = None,
    ) -> Float[Tensor, " b n d"]:
        x = x + self.self_attention(self.norm1(x))
        if self.cross_attention is not None:
            x = x + self.cross_attention(self.norm2(x), context, mask)
        return x + self.feed_forward(self.norm3(x))


class SpatialTransformer(nn.Module):
    """A transformer on the pixels of a feature map, with a residual connection around it; the identity at first.

    Args:
        channels: channels of the feature map, a multiple of ``groups``.
        heads: attention heads.
        head_dim: width of a head; default: channels / heads.
        depth: number of transformer blocks.
        context_dim: width of the context; None or 0 for a network without text.
        groups: groups of the normalisation.
        kernel: the attention kernel.

    ``proj_in`` and ``proj_out`` act on each pixel: published as 1x1 convolutions in SD 1.5 and as linear layers in
    SD 2 and SDXL, which is the same map with the same numbers.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        head_dim: int | None = None,
        depth: int = 1,
        context_dim: int | None = None,
        groups: int = 32,
        kernel: AttentionKernel = fused_attention,
    ) -> None:
        super().__init__()
        inner = channels if head_dim is None else heads * head_dim
        options = {"head_dim": head_dim, "context_dim": context_dim, "kernel": kernel}
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.blocks = nn.ModuleList(TransformerBlock(inner, heads, **options) for _ in range(depth))
        self.proj_out = nn.Linear(inner, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(
        self,
        x: Float[Tensor, " b c h w"],
        context: Float[Tensor, " b m k"] | None = None,
        mask: Bool[Tensor, " b m"] | None = None,
    ) -> Float[Tensor, " b c h w"]:
        # One sequence per image, (b, h*w, c): pixels of different images never meet.
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens, context, mask)
        return x + self.proj_out(tokens).transpose(1, 2).reshape(x.shape)
