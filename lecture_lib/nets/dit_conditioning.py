"""Three other ways to tell a transformer block the time and the label; DiT's choice, adaLN-Zero, is ``DiTBlock``.

    in context        [x, c] <- Block([x, c])                     c: two more tokens, dropped at the end
    cross-attention   x += SelfAttention(x);  x += CrossAttention(x, c);  x += MLP(x)
    adaLN             LN(x) (1 + scale(c)) + shift(c) before each branch
    adaLN-Zero        the same, and each branch times gate(c), which starts at zero

The first two hear time and label as tokens, side by side (``TokenDiT``), the last two their sum (``DiT``).

Source: Peebles & Xie 2023, section 3.2 and figure 3; section 5 and figure 5 for what each costs and brings.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.nets.attention import AttentionKernel, MultiHeadAttention, fused_attention
from lecture_lib.nets.dit import BlockFactory, DiT, FeedForward, modulate
from lecture_lib.nets.spatial_transformer import CrossAttention


class InContextBlock(nn.Module):
    """The block of a vision transformer on image and condition tokens alike; both come out changed.

    Source: Peebles & Xie 2023, section 3.2, "in-context conditioning", as with the class token of ViT.
    """

    def __init__(self, dim: int, heads: int, ratio: float = 4.0, *, kernel: AttentionKernel = fused_attention) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = MultiHeadAttention(dim, heads, kernel=kernel)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.feed_forward = FeedForward(dim, ratio)

    def forward(
        self, x: Float[Tensor, " b n d"], c: Float[Tensor, " b m d"]
    ) -> tuple[Float[Tensor, " b n d"], Float[Tensor, " b m d"]]:
        h = torch.cat([x, c], dim=1)  # (b, n + m, d)
        h = h + self.attention(self.norm1(h))
        h = h + self.feed_forward(self.norm2(h))
        return h[:, : x.shape[1]], h[:, x.shape[1] :]


class CrossAttentionBlock(nn.Module):
    """Image tokens attend to one another, then to the condition tokens, which stay as they are.

    Source: Peebles & Xie 2023, section 3.2, "cross-attention block": that of Vaswani et al. 2017's decoder.
    """

    def __init__(self, dim: int, heads: int, ratio: float = 4.0, *, kernel: AttentionKernel = fused_attention) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = MultiHeadAttention(dim, heads, kernel=kernel)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.cross_attention = CrossAttention(dim, heads, context_dim=dim, kernel=kernel)
        self.norm3 = nn.LayerNorm(dim, eps=1e-6)
        self.feed_forward = FeedForward(dim, ratio)

    def forward(
        self, x: Float[Tensor, " b n d"], c: Float[Tensor, " b m d"]
    ) -> tuple[Float[Tensor, " b n d"], Float[Tensor, " b m d"]]:
        x = x + self.attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x), c)
        return x + self.feed_forward(self.norm3(x)), c


class AdaLNBlock(nn.Module):
    """``DiTBlock`` without its gates: the condition sets scale and shift of both norms, and the block is never silent.

    Source: Peebles & Xie 2023, section 3.2, "adaptive layer norm block".
    """

    def __init__(self, dim: int, heads: int, ratio: float = 4.0, *, kernel: AttentionKernel = fused_attention) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attention = MultiHeadAttention(dim, heads, kernel=kernel)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.feed_forward = FeedForward(dim, ratio)
        self.modulation = nn.Linear(dim, 4 * dim)

    def forward(self, x: Float[Tensor, " b n d"], c: Float[Tensor, " b d"]) -> Float[Tensor, " b n d"]:
        shift1, scale1, shift2, scale2 = self.modulation(F.silu(c))[:, None].chunk(4, dim=-1)  # 4 x (b, 1, d)
        x = x + self.attention(modulate(self.norm1(x), shift1, scale1))
        return x + self.feed_forward(modulate(self.norm2(x), shift2, scale2))


class PlainFinalLayer(nn.Module):
    """Last norm and a linear map from tokens to patches, deaf to the condition; zero at initialisation."""

    def __init__(self, dim: int, features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.linear = nn.Linear(dim, features)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Float[Tensor, " b n d"], _c: Tensor) -> Float[Tensor, " b n k"]:
        return self.linear(self.norm(x))


class TokenDiT(DiT):
    """A diffusion transformer that hears time and label as two tokens; for adaLN pass ``AdaLNBlock`` to ``DiT``.

    Args:
        size, channels, dim, options: as for ``DiT``.
        block: ``InContextBlock`` or ``CrossAttentionBlock``, called as ``x, c = block(x, c)``.

    Raises:
        ShapeError: size is not a multiple of patch, or an input has another shape.

    Source: Peebles & Xie 2023, section 3.2. Only with adaLN does the last norm hear the condition.
    """

    def __init__(self, size: int, channels: int, *, block: BlockFactory, dim: int = 128, **options) -> None:
        super().__init__(size, channels, block=block, dim=dim, **options)
        self.final = PlainFinalLayer(dim, self.final.linear.out_features)

    def forward(
        self, x: Float[Tensor, " b c h w"], t: Float[Tensor, " b"], cond: object | None = None
    ) -> Float[Tensor, " b k h w"]:
        tokens, c = self.enter(x, t, cond)
        for block in self.blocks:
            tokens, c = block(tokens, c)
        return self.leave(tokens, c)

    def hear(self, t: Float[Tensor, " b"], cond: object | None) -> Float[Tensor, " b m d"]:
        """Time and condition as tokens, side by side."""
        heard = [self.time(t)] if self.condition is None else [self.time(t), self.condition(cond, len(t))]
        return torch.stack(heard, dim=1)
