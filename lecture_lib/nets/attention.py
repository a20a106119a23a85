"""Multi-head self-attention whose kernel is an object.

``fused_attention`` is the fast one; ``explicit_attention`` writes the softmax out, so that forward-mode
differentiation (``torch.func.jvp``), which fused kernels refuse, goes through it. Both compute

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V            Vaswani et al. 2017, eq. 1

and take a mask of the keys, True where a key may be attended to. A query all of whose keys are masked sees
nothing: its output is zero.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.positions import rotate

AttentionKernel = Callable[..., Tensor]
"""A callable (q, k, v) or (q, k, v, mask) -> (b, h, n, d); only layers that are given a mask pass one on."""

KeyMask = Bool[Tensor, " b 1 1 m"]


def fused_attention(
    q: Float[Tensor, " b h n d"],
    k: Float[Tensor, " b h m d"],
    v: Float[Tensor, " b h m d"],
    mask: KeyMask | None = None,
) -> Float[Tensor, " b h n d"]:
    """Attention by PyTorch's fused kernel: fast, but closed to forward-mode differentiation."""
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v)
    # What a kernel makes of a row with nothing to read differs (zero or NaN): it reads everything, times zero.
    readable = mask.any(dim=-1, keepdim=True)  # (b, 1, 1, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask | ~readable) * readable


def attention_weights(
    q: Float[Tensor, " b h n d"], k: Float[Tensor, " b h m d"], mask: KeyMask | None = None
) -> Float[Tensor, " b h n m"]:
    """softmax(Q K^T / sqrt(d)): rows that sum to 1, or are zero where every key is masked."""
    logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (b, h, n, m)
    if mask is None:
        return torch.softmax(logits, dim=-1)
    # The lowest number instead of -inf: a fully masked row is then uniform, not NaN, until the mask makes it zero.
    logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    return torch.softmax(logits, dim=-1) * mask


def explicit_attention(
    q: Float[Tensor, " b h n d"],
    k: Float[Tensor, " b h m d"],
    v: Float[Tensor, " b h m d"],
    mask: KeyMask | None = None,
) -> Float[Tensor, " b h n d"]:
    """Attention written out: equal to ``fused_attention`` up to rounding, and open to ``torch.func.jvp``."""
    return attention_weights(q, k, mask) @ v


class QKNorm(nn.Module):
    """Root-mean-square normalisation of queries and keys, each with a learned gain per head dimension.

    The logits can then never exceed sqrt(d) max|g_q g_k|, however large the activations grow
    (Esser et al. 2024, section 5.3.2; Zhang & Sennrich 2019 for RMSNorm).
    """

    def __init__(self, head_dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.q_gain = nn.Parameter(torch.ones(head_dim))
        self.k_gain = nn.Parameter(torch.ones(head_dim))
        self.eps = eps

    def forward(
        self, q: Float[Tensor, " b h n d"], k: Float[Tensor, " b h m d"]
    ) -> tuple[Float[Tensor, " b h n d"], Float[Tensor, " b h m d"]]:
        return self.unit(q) * self.q_gain, self.unit(k) * self.k_gain

    def unit(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """x divided by its root mean square along the last axis."""
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps)


class MultiHeadAttention(nn.Module):
    """Self-attention of tokens (b, n, d) with ``heads`` heads.

    Args:
        dim: width of the tokens, a multiple of ``heads``.
        heads: number of heads.
        kernel: ``fused_attention`` or ``explicit_attention`` (or any callable of q, k, v).
        qk_norm: a module applied to queries and keys, for example ``QKNorm(dim // heads)``.
    """

    def __init__(
        self, dim: int, heads: int, *, kernel: AttentionKernel = fused_attention, qk_norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ShapeError(f"dim must be a multiple of heads, got dim={dim}, heads={heads}")
        self.heads = heads
        self.kernel = kernel
        self.qk_norm = qk_norm
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, " b n d"], rotary: Float[Tensor, " n k"] | None = None
    ) -> Float[Tensor, " b n d"]:
        """Mix the tokens; ``rotary`` holds the angles by which queries and keys are turned, after ``qk_norm``.

        They come from ``AxialRotary`` and are an argument, not part of the layer: all layers of a network share them,
        and another resolution has others.
        """
        q, k, v = (self.split(part) for part in self.qkv(x).chunk(3, dim=-1))  # 3 x (b, h, n, d/h)
        if self.qk_norm is not None:
            q, k = self.qk_norm(q, k)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        return self.out(self.kernel(q, k, v).transpose(1, 2).flatten(2))

    def split(self, x: Float[Tensor, " b n d"]) -> Float[Tensor, " b h n k"]:
        """Cut the width into heads: (b, n, d) -> (b, h, n, d/h)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
