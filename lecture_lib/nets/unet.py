"""A small U-Net with time and label embedding, after Ho et al. 2020 and Dhariwal & Nichol 2021."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.attention import AttentionKernel, MultiHeadAttention, fused_attention
from lecture_lib.nets.embeddings import LabelEmbedding, TimestepEmbedding

GROUPS = 8


class ResBlock(nn.Module):
    """Two convolutions with adaptive group norm: the condition scales and shifts the second norm.

    The last convolution starts at zero, so the block starts as its skip connection.
    Source: Dhariwal & Nichol 2021, section 3 (AdaGN).
    """

    def __init__(self, channels: int, out_channels: int, cond_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(cond_dim, 2 * out_channels)
        self.norm2 = nn.GroupNorm(GROUPS, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Float[Tensor, " b c h w"], c: Float[Tensor, " b d"]) -> Float[Tensor, " b k h w"]:
        hidden = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulation(F.silu(c))[:, :, None, None].chunk(2, dim=1)
        hidden = self.norm2(hidden) * (1 + scale) + shift
        return self.skip(x) + self.conv2(F.silu(hidden))


class SpatialAttention(nn.Module):
    """Self-attention among the pixels of a feature map, with a residual connection."""

    def __init__(self, channels: int, heads: int, kernel: AttentionKernel = fused_attention) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.attention = MultiHeadAttention(channels, heads, kernel=kernel)
        nn.init.zeros_(self.attention.out.weight)
        nn.init.zeros_(self.attention.out.bias)

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b c h w"]:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (b, h*w, c)
        return x + self.attention(tokens).transpose(1, 2).reshape(x.shape)


class UNet(nn.Module):
    """Two resolutions, one skip connection per level, attention at the lower one.

    Args:
        channels: channels of the images (b, channels, h, w); h and w must be even.
        width: channels at full resolution, a multiple of 8; twice as many at half resolution.
        n_classes: number of classes (label n_classes is the null class); 0 for an unconditional network.
        heads: attention heads.
        kernel: the attention kernel.
    """

    def __init__(
        self,
        channels: int = 1,
        *,
        width: int = 32,
        n_classes: int = 0,
        heads: int = 4,
        kernel: AttentionKernel = fused_attention,
    ) -> None:
        super().__init__()
        high, low, cond_dim = width, 2 * width, 4 * width
        self.time = TimestepEmbedding(cond_dim)
        self.label = LabelEmbedding(n_classes, cond_dim) if n_classes else None
        self.enter = nn.Conv2d(channels, high, 3, padding=1)
        self.down_high = ResBlock(high, high, cond_dim)
        self.shrink = nn.Conv2d(high, high, 3, stride=2, padding=1)
        self.down_low = ResBlock(high, low, cond_dim)
        self.attention = SpatialAttention(low, heads, kernel)
        self.middle = ResBlock(low, low, cond_dim)
        self.up_low = ResBlock(2 * low, low, cond_dim)
        self.grow = nn.Conv2d(low, high, 3, padding=1)
        self.up_high = ResBlock(2 * high, high, cond_dim)
        self.norm = nn.GroupNorm(GROUPS, high)
        self.leave = nn.Conv2d(high, channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, x: Float[Tensor, " b c h w"], t: Float[Tensor, " b"], cond: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b c h w"]:
        if x.ndim != 4 or x.shape[-1] % 2 or x.shape[-2] % 2:
            raise ShapeError(f"x must be images (b, c, h, w) with even h and w, got {tuple(x.shape)}")
        c = self.time(t)
        if self.label is not None:
            c = c + self.label(cond, len(x))
        high = self.down_high(self.enter(x), c)  # (b, width, h, w)
        low = self.down_low(self.shrink(high), c)  # (b, 2 width, h/2, w/2)
        deep = self.middle(self.attention(low), c)
        up = self.up_low(torch.cat([deep, low], dim=1), c)
        up = self.grow(F.interpolate(up, scale_factor=2.0, mode="nearest"))
        up = self.up_high(torch.cat([up, high], dim=1), c)
        return self.leave(F.silu(self.norm(up)))
