"""A diffusion transformer with adaLN-Zero (Peebles & Xie 2023): the block fits on one screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.attention import AttentionKernel, MultiHeadAttention, fused_attention
from lecture_lib.nets.embeddings import TimestepEmbedding
from lecture_lib.nets.positions import positions_2d


def patchify(x: Float[Tensor, " b c h w"], patch: int) -> Float[Tensor, " b n k"]:
    """Cut images into patches: token n = (i, j) row by row, features in the order (row, column, channel)."""
    return rearrange(x, "b c (i p) (j q) -> b (i j) (p q c)", p=patch, q=patch)


def unpatchify(tokens: Float[Tensor, " b n k"], patch: int, height: int) -> Float[Tensor, " b c h w"]:
    """Exact inverse of ``patchify`` for images of the given height."""
    return rearrange(tokens, "b (i j) (p q c) -> b c (i p) (j q)", i=height // patch, p=patch, q=patch)


def modulate(
    x: Float[Tensor, " b n d"], shift: Float[Tensor, " b 1 d"], scale: Float[Tensor, " b 1 d"]
) -> Float[Tensor, " b n d"]:
    """x (1 + scale) + shift: the affine map of a normalisation, chosen by the condition."""
    return torch.addcmul(shift, x, 1 + scale)


class FeedForward(nn.Module):
    """Two linear layers with a tanh-GELU between them."""

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, int(ratio * dim))
        self.outer = nn.Linear(int(ratio * dim), dim)

    def forward(self, x: Float[Tensor, " b n d"]) -> Float[Tensor, " b n d"]:
        return self.outer(F.gelu(self.inner(x), approximate="tanh"))


class DiTBlock(nn.Module):
    """Transformer block with adaLN-Zero: all gates are zero at first, so the block starts as the identity.

    Source: Peebles & Xie 2023, figure 3 and section 3.2; order (shift, scale, gate) twice.
    """

    def __init__(self, dim: int, heads: int, ratio: float = 4.0, *, kernel: AttentionKernel = fused_attention) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attention = MultiHeadAttention(dim, heads, kernel=kernel)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.feed_forward = FeedForward(dim, ratio)
        self.modulation = nn.Linear(dim, 6 * dim)

    def forward(self, x: Float[Tensor, " b n d"], c: Float[Tensor, " b d"]) -> Float[Tensor, " b n d"]:
        modulation = self.modulation(F.silu(c))[:, None]  # (b, 1, 6 d)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        x = torch.addcmul(x, gate1, self.attention(modulate(self.norm1(x), shift1, scale1)))
        return torch.addcmul(x, gate2, self.feed_forward(modulate(self.norm2(x), shift2, scale2)))


class FinalLayer(nn.Module):
    """Last norm, modulated, and a linear map from tokens to patches; zero at initialisation."""

    def __init__(self, dim: int, features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(dim, 2 * dim)
        self.linear = nn.Linear(dim, features)

    def forward(self, x: Float[Tensor, " b n d"], c: Float[Tensor, " b d"]) -> Float[Tensor, " b n k"]:
        shift, scale = self.modulation(F.silu(c))[:, None].chunk(2, dim=-1)
        return self.linear(modulate(self.norm(x), shift, scale))


def check_latents(x: Tensor, t: Tensor, channels: int, patch: int) -> None:
    """Raise a named error unless x is (b, channels, h, w), h and w multiples of ``patch``, and t is (b,)."""
    if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape or x.shape[2] % patch or x.shape[3] % patch:
        expected = f"(b, {channels}, h, w), h and w multiples of {patch}"
        raise ShapeError(f"x must have shape {expected}, got {tuple(x.shape)}")
    if t.shape != (len(x),):
        raise ShapeError(f"t must have shape ({len(x)},), one time per sample, got {tuple(t.shape)}")


def reset_transformer(net: nn.Module, blocks: Iterable[nn.Module]) -> None:
    """Xavier for ``net.embed`` and the linear layers of the blocks, then zeros where adaLN-Zero wants them."""
    for layer in (net.embed, *(m for block in blocks for m in block.modules() if isinstance(m, nn.Linear))):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    modulations = [module.modulation for module in net.modules() if hasattr(module, "modulation")]
    for layer in (*modulations, net.final.linear):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


BlockFactory = Callable[..., nn.Module]
"""A class of blocks, or what makes one: ``factory(dim, heads, ratio, kernel=kernel)``."""


class DiT(nn.Module):
    """Diffusion transformer on square images.

    Args:
        size, channels: the images are (b, channels, size, size).
        patch: side of a patch; size must be a multiple of it.
        dim, depth, heads, ratio: width, number of blocks, heads, hidden width of the feed-forward over dim.
        condition: module (cond, batch) -> (b, dim), such as ``LabelEmbedding(10, dim)`` or
            ``LabelAndScale(10, dim)``; None for a network without conditions.
        out_channels: channels of the output (2 * channels when the variance is learned too); default: channels.
        block: class of the blocks, called as ``block(tokens, c)``: ``DiTBlock``, or ``AdaLNBlock`` to compare with.
        kernel: the attention kernel; ``explicit_attention`` for forward-mode differentiation.

    Raises:
        ShapeError: size is not a multiple of patch, or an input has another shape.

    Source: Peebles & Xie 2023; DiT-S/2 is ``DiT(32, 4, patch=2, dim=384, depth=12, heads=6, out_channels=8,
    condition=LabelEmbedding(1000, 384))`` with 32,963,360 parameters.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        *,
        patch: int = 2,
        dim: int = 128,
        depth: int = 4,
        heads: int = 4,
        ratio: float = 4.0,
        condition: nn.Module | None = None,
        out_channels: int | None = None,
        block: BlockFactory = DiTBlock,
        kernel: AttentionKernel = fused_attention,
    ) -> None:
        super().__init__()
        if size % patch:
            raise ShapeError(f"size must be a multiple of patch, got size={size}, patch={patch}")
        self.size, self.channels, self.patch = size, channels, patch
        grid = size // patch
        self.embed = nn.Linear(patch**2 * channels, dim)
        self.positions = nn.Parameter(positions_2d(grid, grid, dim), requires_grad=False)  # (n, dim), frozen
        self.time = TimestepEmbedding(dim)
        self.condition = condition
        self.blocks = nn.ModuleList(block(dim, heads, ratio, kernel=kernel) for _ in range(depth))
        self.final = FinalLayer(dim, patch**2 * (out_channels or channels))
        reset_transformer(self, self.blocks)

    def forward(
        self, x: Float[Tensor, " b c h w"], t: Float[Tensor, " b"], cond: object | None = None
    ) -> Float[Tensor, " b k h w"]:
        tokens, c = self.enter(x, t, cond)
        for block in self.blocks:
            tokens = block(tokens, c)
        return self.leave(tokens, c)

    def enter(
        self, x: Float[Tensor, " b c h w"], t: Float[Tensor, " b"], cond: object | None
    ) -> tuple[Float[Tensor, " b n d"], Float[Tensor, " b d"]]:
        """The patches as tokens with their places, and the vector that every block hears."""
        if x.shape[1:] != (self.channels, self.size, self.size):
            raise ShapeError(f"x must be (b, {self.channels}, {self.size}, {self.size}), got {tuple(x.shape)}")
        return self.embed(patchify(x, self.patch)) + self.positions, self.hear(t, cond)

    def hear(self, t: Float[Tensor, " b"], cond: object | None) -> Float[Tensor, " b d"]:
        """Time and condition as one vector; all that the blocks know of them."""
        c = self.time(t)
        batch = t.shape[0]  # and not len(t), a plain int, which would fix the batch of an exported graph
        return c if self.condition is None else c + self.condition(cond, batch)

    def leave(self, tokens: Float[Tensor, " b n d"], c: Float[Tensor, " b d"]) -> Float[Tensor, " b k h w"]:
        """From the tokens of the last block to an image."""
        return unpatchify(self.final(tokens, c), self.patch, self.size)


MODULATIONS = ("shift 1", "scale 1", "gate 1", "shift 2", "scale 2", "gate 2")
"""What a block is told, in order: 1 is around the attention, 2 around the feed-forward."""


@torch.no_grad()
def modulations(net: DiT, t: Float[Tensor, " b"], cond: object | None = None) -> Float[Tensor, " blocks 6 b d"]:
    """The six vectors that time and condition send to every block, in the order of ``MODULATIONS``.

    They do not depend on the picture: all a block ever hears of the time and the label is here.

    Args:
        net: with blocks of ``DiTBlock``.
        t: network times.
        cond: as in ``net``, a label for each time.
    """
    c = net.hear(t, cond)
    return torch.stack([torch.stack(block.modulation(F.silu(c)).chunk(6, dim=-1)) for block in net.blocks])
