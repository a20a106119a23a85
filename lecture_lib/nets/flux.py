"""FLUX.1: double-stream blocks as in SD3, then single-stream blocks on text and image as one sequence.

    double  two weight sets, one joint attention (``MMDiTBlock`` with QK normalisation and rotary angles)
    single  one weight set, attention and feed-forward side by side instead of one after the other:

            h = (1 + scale) LN(x) + shift
            q, k, v, m = W_in h
            x += gate W_out [attention(q, k, v) | gelu(m)]

There is no table of positions: rotary angles of (0, row, column) turn queries and keys, words stand at (0, 0, 0). The
text is dropped after the last block. Source: FLUX.1 (Black Forest Labs 2024), the published code; no paper came with
it. The parallel form of a block is that of Dehghani et al. 2023 (ViT-22B), section 2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.attention import AttentionKernel, KeyMask, QKNorm, fused_attention
from lecture_lib.nets.dit import FinalLayer, check_latents, modulate, patchify, reset_transformer, unpatchify
from lecture_lib.nets.embeddings import TimeTextEmbedding
from lecture_lib.nets.joint_attention import joint_mask
from lecture_lib.nets.mmdit import MMDiTBlock, Streams
from lecture_lib.nets.positions import AxialRotary, joint_positions, rotate
from lecture_lib.nets.text_condition import read_condition


class SingleStreamBlock(nn.Module):
    """Attention and feed-forward in parallel, one modulation, on a sequence of text and image tokens.

    Args:
        dim, heads, ratio: width, a multiple of ``heads``; heads; hidden width of the feed-forward over dim.
        kernel: the attention kernel.
    """

    def __init__(self, dim: int, heads: int, ratio: float = 4.0, *, kernel: AttentionKernel = fused_attention) -> None:
        super().__init__()
        self.heads, self.kernel = heads, kernel
        self.widths = (dim, dim, dim, int(ratio * dim))  # of q, k, v and the feed-forward's hidden layer
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(dim, 3 * dim)
        self.qk_norm = QKNorm(dim // heads)
        self.inner = nn.Linear(dim, sum(self.widths))
        self.outer = nn.Linear(dim + self.widths[-1], dim)

    def forward(
        self,
        x: Float[Tensor, " b n d"],
        c: Float[Tensor, " b d"],
        mask: KeyMask | None = None,
        rotary: Float[Tensor, " n k"] | None = None,
    ) -> Float[Tensor, " b n d"]:
        shift, scale, gate = self.modulation(F.silu(c))[:, None].chunk(3, dim=-1)
        *qkv, hidden = self.inner(modulate(self.norm(x), shift, scale)).split(self.widths, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in qkv)  # (b, h, n, d/h)
        q, k = self.qk_norm(q, k)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        masks = () if mask is None else (mask,)
        attended = self.kernel(q, k, v, *masks).transpose(1, 2).flatten(2)
        both = torch.cat([attended, F.gelu(hidden, approximate="tanh")], dim=-1)
        return torch.addcmul(x, gate, self.outer(both))


class Flux(nn.Module):
    """The transformer of FLUX.1, on latents of any shape.

    Args:
        channels: the latents are (b, channels, h, w), h and w multiples of ``patch``.
        patch: side of a patch.
        dim, heads, ratio: width, heads, hidden width of the feed-forward over dim.
        double, single: numbers of double- and of single-stream blocks.
        axes: channels of a head turned by (picture, row, column); together dim / heads.
        context_dim, vector_dim: width of the text tokens and of the pooled text.
        guidance: take a guidance scale ``w`` as an input: the network was distilled to guide itself.
        kernel: the attention kernel.

    Raises:
        ShapeError: dim is not a multiple of heads, or the axes do not fill a head.
    """

    def __init__(
        self,
        channels: int = 16,
        *,
        patch: int = 2,
        dim: int = 3072,
        double: int = 19,
        single: int = 38,
        heads: int = 24,
        ratio: float = 4.0,
        axes: tuple[int, int, int] = (16, 56, 56),
        context_dim: int = 4096,
        vector_dim: int = 768,
        guidance: bool = True,
        kernel: AttentionKernel = fused_attention,
    ) -> None:
        super().__init__()
        if dim % heads or sum(axes) != dim // heads:
            raise ShapeError(f"axes must add up to dim / heads, got axes={axes}, dim={dim}, heads={heads}")
        self.channels, self.patch, self.rotary = channels, patch, AxialRotary(axes)
        self.context_dim, self.vector_dim, self.guidance = context_dim, vector_dim, guidance
        self.embed = nn.Linear(patch**2 * channels, dim)
        self.condition = TimeTextEmbedding(dim, vector_dim, guidance=guidance)
        self.words = nn.Linear(context_dim, dim)
        self.blocks = nn.ModuleList(MMDiTBlock(dim, heads, ratio, qk_norm=True, kernel=kernel) for _ in range(double))
        self.single = nn.ModuleList(SingleStreamBlock(dim, heads, ratio, kernel=kernel) for _ in range(single))
        self.final = FinalLayer(dim, patch**2 * channels)
        reset_transformer(self, [*self.blocks, *self.single])

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
            UnknownNameError: ``cond`` has an entry of another name.
        """
        text, image, c, mask, rotary = self.enter(x, t, cond)
        for block in self.blocks:
            text, image = block(text, image, c, mask, rotary)
        tokens = torch.cat([text, image], dim=1)
        readable = None if mask is None else joint_mask(mask, image.shape[1])
        for block in self.single:
            tokens = block(tokens, c, readable, rotary)
        return unpatchify(self.final(tokens[:, text.shape[1] :], c), self.patch, x.shape[-2])

    def enter(self, x: Tensor, t: Tensor, cond: Mapping[str, Tensor] | None) -> Streams:
        """The streams before the first block; raises what ``forward`` raises."""
        check_latents(x, t, self.channels, self.patch)
        sizes = {"context_dim": self.context_dim, "vector_dim": self.vector_dim, "guidance": self.guidance}
        heard = read_condition(cond, len(x), **sizes)
        text, image = self.words(heard.tokens), self.embed(patchify(x, self.patch))
        places = joint_positions(text.shape[1], x.shape[-2] // self.patch, x.shape[-1] // self.patch)
        rotary = self.rotary(places.to(x.device))
        return Streams(text, image, self.condition(t, heard.vector, heard.w), heard.mask, rotary)


def flux_dev() -> Flux:
    """The transformer of FLUX.1 [dev]: 11,901,408,320 parameters, 24 GB in half precision.

    Text tokens (T5) are 4096 wide, the pooled text (CLIP) 768, latents have 16 channels. Distilled to guide itself:
    w = 3.5 is an input, not a second pass. ``with torch.device("meta"): net = flux_dev()`` builds it without memory.
    """
    return Flux()


def flux_schnell() -> Flux:
    """The transformer of FLUX.1 [schnell], distilled to four steps and less; it takes no guidance scale."""
    return Flux(guidance=False)
