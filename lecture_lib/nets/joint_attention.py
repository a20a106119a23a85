"""Joint attention (Stable Diffusion 3, FLUX): two streams with weights of their own meet in one softmax.

    q, k, v = [text; image] side by side,    [a_text; a_image] = softmax(q k^T / sqrt(d)) v

One softmax over both, so a word that draws attention takes it from the pixels. It is not self-attention plus
cross-attention, where two softmaxes give each source a full share. Text comes first in the sequence, everywhere.

Source: Esser et al. 2024, section 4 and figure 2b.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.attention import AttentionKernel, KeyMask, QKNorm, fused_attention
from lecture_lib.nets.positions import rotate


def joint_mask(words: Bool[Tensor, " b m"], n_image: int) -> KeyMask:
    """The keys that may be read in a sequence [text; image]: the words that are no padding, and every image token."""
    return F.pad(words, (0, n_image), value=True)[:, None, None, :]


class StreamProjections(nn.Module):
    """One stream's own weights in a joint attention: tokens to queries, keys and values, and attended values back.

    Args:
        dim, heads: width of the tokens, number of heads.
        qk_norm: root-mean-square normalisation of queries and keys, with gains of this stream (SD 3.5, FLUX).
        written: whether the stream is changed by the attention; one that is only read has no output projection.
    """

    def __init__(self, dim: int, heads: int, *, qk_norm: bool = False, written: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.qk_norm = QKNorm(dim // heads) if qk_norm else None
        self.out = nn.Linear(dim, dim) if written else nn.Identity()

    def read(self, x: Float[Tensor, " b n d"]) -> tuple[Float[Tensor, " b h n k"], ...]:
        """Queries, keys and values of the tokens, cut into heads."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return (q, k, v) if self.qk_norm is None else (*self.qk_norm(q, k), v)

    def write(self, attended: Float[Tensor, " b h n k"]) -> Float[Tensor, " b n d"]:
        """What the attention brings to the tokens: heads joined and mixed."""
        return self.out(attended.transpose(1, 2).flatten(2))


class JointAttention(nn.Module):
    """Attention of text and image tokens over all tokens of both, with projections for each stream.

    Args:
        dim: width of the tokens of both streams, a multiple of ``heads``.
        heads: number of heads.
        qk_norm: normalise queries and keys, each stream with its own gains.
        text_written: False in the last block of SD3, whose text is read by the image and then dropped.
        kernel: ``fused_attention``, ``explicit_attention`` or any callable of (q, k, v) and (q, k, v, mask).

    Raises:
        ShapeError: dim is not a multiple of heads.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        qk_norm: bool = False,
        text_written: bool = True,
        kernel: AttentionKernel = fused_attention,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ShapeError(f"dim must be a multiple of heads, got dim={dim}, heads={heads}")
        self.kernel = kernel
        self.text = StreamProjections(dim, heads, qk_norm=qk_norm, written=text_written)
        self.image = StreamProjections(dim, heads, qk_norm=qk_norm)

    def forward(
        self,
        text: Float[Tensor, " b m d"],
        image: Float[Tensor, " b n d"],
        mask: Bool[Tensor, " b m"] | None = None,
        rotary: Float[Tensor, " m_plus_n k"] | None = None,
    ) -> tuple[Float[Tensor, " b m d"], Float[Tensor, " b n d"]]:
        """What each stream gains.

        Args:
            text, image: tokens, already normalised and modulated.
            mask: True for words, False for padding, which nobody reads.
            rotary: angles of all tokens, text first, by which queries and keys are turned (``AxialRotary``).
        """
        a_text, a_image = self.attend(text, image, mask, rotary)
        return self.text.write(a_text), self.image.write(a_image)

    def attend(
        self,
        text: Float[Tensor, " b m d"],
        image: Float[Tensor, " b n d"],
        mask: Bool[Tensor, " b m"] | None = None,
        rotary: Float[Tensor, " m_plus_n k"] | None = None,
    ) -> tuple[Float[Tensor, " b h m k"], Float[Tensor, " b h n k"]]:
        """The attended values of text and image, head by head, before they are mapped back."""
        streams = zip(self.text.read(text), self.image.read(image), strict=True)
        q, k, v = (torch.cat(pair, dim=2) for pair in streams)  # (b, h, m + n, k) each
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        masks = () if mask is None else (joint_mask(mask, image.shape[1]),)
        return self.kernel(q, k, v, *masks).split([text.shape[1], image.shape[1]], dim=2)
