"""MM-DiT, the transformer of Stable Diffusion 3: a DiT block twice, for text and for image, joined in the attention.

For each stream k of text and image, with six vectors made from c by weights of its own (order as in ``DiTBlock``):

    h_k = (1 + scale1_k) LN(k) + shift1_k
    a   = JointAttention(h_text, h_image)
    k  += gate1_k a_k
    k  += gate2_k MLP_k((1 + scale2_k) LN(k) + shift2_k)

Source: Esser et al. 2024, section 4 and figure 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lecture_lib.nets.attention import AttentionKernel, fused_attention
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
from lecture_lib.nets.joint_attention import JointAttention
from lecture_lib.nets.positions import cropped_positions, positions_2d
from lecture_lib.nets.text_condition import read_condition


class Stream(nn.Module):
    """What one stream owns of a block besides its attention weights: norms, modulation, feed-forward."""

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.feed_forward = FeedForward(dim, ratio)
        self.modulation = nn.Linear(dim, 6 * dim)

    def before(
        self, x: Float[Tensor, " b n d"], c: Float[Tensor, " b d"]
    ) -> tuple[Float[Tensor, " b n d"], list[Float[Tensor, " b 1 d"]]]:
        """The tokens as the attention sees them, and the four vectors that ``after`` needs."""
        shift1, scale1, *later = self.modulation(F.silu(c))[:, None].chunk(6, dim=-1)
        return modulate(self.norm1(x), shift1, scale1), later

    def after(
        self, x: Float[Tensor, " b n d"], attended: Float[Tensor, " b n d"], later: list[Float[Tensor, " b 1 d"]]
    ) -> Float[Tensor, " b n d"]:
        """The tokens after attention and feed-forward, each through its gate."""
        gate1, shift2, scale2, gate2 = later
        x = torch.addcmul(x, gate1, attended)
        return torch.addcmul(x, gate2, self.feed_forward(modulate(self.norm2(x), shift2, scale2)))


class ReadOnlyStream(nn.Module):
    """A stream that is read by the other one and not changed: two modulation vectors, nothing after the attention."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(dim, 2 * dim)

    def before(
        self, x: Float[Tensor, " b n d"], c: Float[Tensor, " b d"]
    ) -> tuple[Float[Tensor, " b n d"], list[Float[Tensor, " b 1 d"]]]:
        shift, scale = self.modulation(F.silu(c))[:, None].chunk(2, dim=-1)
        return modulate(self.norm1(x), shift, scale), []

    def after(self, x: Float[Tensor, " b n d"], attended: Tensor, later: list[Tensor]) -> Float[Tensor, " b n d"]:
        return x


class MMDiTBlock(nn.Module):
    """One block of two streams; with QK normalisation and rotary angles it is the double-stream block of FLUX.

    Args:
        dim, heads, ratio: width, heads, hidden width of the feed-forward over dim.
        qk_norm: normalise queries and keys.
        last: the text will not be needed any more, so only the image is updated.
        kernel: the attention kernel.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        ratio: float = 4.0,
        *,
        qk_norm: bool = False,
        last: bool = False,
        kernel: AttentionKernel = fused_attention,
    ) -> None:
        super().__init__()
        self.text = ReadOnlyStream(dim) if last else Stream(dim, ratio)
        self.image = Stream(dim, ratio)
        self.attention = JointAttention(dim, heads, qk_norm=qk_norm, text_written=not last, kernel=kernel)

    def forward(
        self,
        text: Float[Tensor, " b m d"],
        image: Float[Tensor, " b n d"],
        c: Float[Tensor, " b d"],
        mask: Bool[Tensor, " b m"] | None = None,
        rotary: Float[Tensor, " m_plus_n k"] | None = None,
    ) -> tuple[Float[Tensor, " b m d"], Float[Tensor, " b n d"]]:
        h_text, text_later = self.text.before(text, c)
        h_image, image_later = self.image.before(image, c)
        a_text, a_image = self.attention(h_text, h_image, mask, rotary)
        return self.text.after(text, a_text, text_later), self.image.after(image, a_image, image_later)


class Streams(NamedTuple):
    """What the first block is given: both streams, the modulation vector, the words' mask, rotary angles (FLUX)."""

    text: Float[Tensor, " b m d"]
    image: Float[Tensor, " b n d"]
    c: Float[Tensor, " b d"]
    mask: Bool[Tensor, " b m"] | None = None
    rotary: Float[Tensor, " m_plus_n k"] | None = None


class MMDiT(nn.Module):
    """Multimodal diffusion transformer on latents of any shape up to a largest grid of tokens.

    Args:
        channels: the latents are (b, channels, h, w), h and w multiples of ``patch``.
        patch: side of a patch.
        dim, depth, heads, ratio: width, number of blocks, heads, hidden width of the feed-forward over dim.
        context_dim, vector_dim: width of the text tokens and of the pooled text.
        grid: side of the largest grid of tokens; smaller ones take their positions from its middle.
        spacing: distance of neighbouring tokens in the table of positions.
        qk_norm: normalise queries and keys (SD 3.5; SD 3 does not).
        guidance: take a guidance scale ``w`` as an input, to be distilled.
        kernel: the attention kernel.

    Raises:
        ShapeError: dim is not a multiple of heads and of 4.
        RangeError: grid is not a whole number >= 1.

    Source: Esser et al. 2024, section 4; the depth d determines the rest there: width 64 d, d heads.
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
        spacing: float = 1.0,
        qk_norm: bool = False,
        guidance: bool = False,
        kernel: AttentionKernel = fused_attention,
    ) -> None:
        super().__init__()
        self.channels, self.patch = channels, patch
        self.context_dim, self.vector_dim, self.guidance = context_dim, vector_dim, guidance
        self.embed = nn.Linear(patch**2 * channels, dim)
        # A buffer: fixed, but saved with the weights, as in the published files.
        self.register_buffer("positions", positions_2d(grid, grid, dim, spacing=spacing))
        self.condition = TimeTextEmbedding(dim, vector_dim, guidance=guidance)
        self.words = nn.Linear(context_dim, dim)
        options = {"qk_norm": qk_norm, "kernel": kernel}
        self.blocks = nn.ModuleList(MMDiTBlock(dim, heads, ratio, last=i == depth - 1, **options) for i in range(depth))
        self.final = FinalLayer(dim, patch**2 * channels)
        reset_transformer(self, self.blocks)

    def forward(
        self, x: Float[Tensor, " b c h w"], t: Float[Tensor, " b"], cond: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, " b c h w"]:
        """The network at time t in 0..1000, given the text.

        Args:
            x: latents.
            t: one network time per sample.
            cond: ``{"tokens": (b, m, context_dim), "vector": (b, vector_dim)}``, with ``"mask": (b, m)`` bool if some
                tokens are padding (True marks the words), and ``"w": (b,)`` if the network takes a guidance scale.

        Raises:
            ShapeError: something has the wrong shape or dtype, or is missing.
            RangeError: more tokens along a side than the table of positions has.
            UnknownNameError: ``cond`` has an entry of another name.
        """
        text, image, c, mask, _ = self.enter(x, t, cond)
        for block in self.blocks:
            text, image = block(text, image, c, mask)
        return unpatchify(self.final(image, c), self.patch, x.shape[-2])

    def enter(self, x: Tensor, t: Tensor, cond: Mapping[str, Tensor] | None) -> Streams:
        """The streams before the first block; raises what ``forward`` raises."""
        check_latents(x, t, self.channels, self.patch)
        sizes = {"context_dim": self.context_dim, "vector_dim": self.vector_dim, "guidance": self.guidance}
        heard = read_condition(cond, len(x), **sizes)
        height, width = x.shape[-2] // self.patch, x.shape[-1] // self.patch
        image = self.embed(patchify(x, self.patch)) + cropped_positions(self.positions, height, width)
        return Streams(self.words(heard.tokens), image, self.condition(t, heard.vector, heard.w), heard.mask)


def sd3_medium() -> MMDiT:
    """The transformer of Stable Diffusion 3 Medium: 2,028,328,000 parameters, 4.1 GB in half precision.

    Text tokens are 4096 wide, the pooled text 2048 (``sd3_condition``), latents have 16 channels.
    ``with torch.device("meta"): net = sd3_medium()`` builds it without memory, to be looked at.
    Source: Esser et al. 2024; configuration of stabilityai/stable-diffusion-3-medium.
    """
    sizes = {"dim": 24 * 64, "depth": 24, "heads": 24, "context_dim": 4096, "vector_dim": 2048}
    return MMDiT(16, **sizes, grid=192, spacing=64 / 192)
