"""Attention tile by tile: the softmax of a row is known after one pass, though no row of logits is ever whole.

A query remembers three things of the keys it has read (``Seen``), and ``online_softmax`` brings them up to date with
the next tile. ``tiled_attention`` is this in two loops, FlashAttention without the GPU: the n x m probabilities never
exist, forwards or backwards, so that its memory grows with n + m.

Sources: Milakov & Gimelshein 2018, algorithm 3, for the recurrence of maximum and denominator; Dao et al. 2022
(FlashAttention), algorithm 1, for the rescaled output, and algorithm 4 for the backward pass; queries in the outer
loop, so that each tile of them is finished before the next begins, as in Dao 2023 (FlashAttention-2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from lecture_lib.nets.attention import KeyMask
from lecture_lib.tensors import check_count


class Seen(NamedTuple):
    """What queries remember of the keys read so far, with logits s_j and values v_j.

    Attributes:
        maximum: m = max_j s_j.
        denominator: l = sum_j exp(s_j - m).
        numerator: o = sum_j exp(s_j - m) v_j.
    """

    maximum: Float[Tensor, "*b n 1"]
    denominator: Float[Tensor, "*b n 1"]
    numerator: Float[Tensor, "*b n d"]

    @classmethod
    def nothing(cls, *shape: int, like: Tensor) -> Seen:
        """Before the first key, for queries (*b, n) and values of width d: ``shape`` is (*b, n, d)."""
        zeros = like.new_zeros(*shape[:-1], 1)
        # The lowest number instead of -inf, which would turn m - m' into NaN where every key so far is masked.
        return cls(zeros + torch.finfo(like.dtype).min, zeros, like.new_zeros(shape))

    def output(self) -> Float[Tensor, "*b n d"]:
        """o / l, the softmax average of the values; zero where nothing could be read."""
        return self.numerator / self._total()

    def log_sum_exp(self) -> Float[Tensor, "*b n 1"]:
        """m + log l = log sum_j exp(s_j): all that the backward pass needs to know of the softmax."""
        return self.maximum + self._total().log()

    def _total(self) -> Float[Tensor, "*b n 1"]:
        return self.denominator.masked_fill(self.denominator == 0, 1.0)


def online_softmax(seen: Seen, logits: Float[Tensor, "*b n m"], values: Float[Tensor, "*b m d"]) -> Seen:
    """Read m more keys: the old sums shrink by exp(m_old - m_new), the new terms are added. -inf is a masked key.

    m' = max(m, max_j s_j),   l' = e^(m - m') l + sum_j e^(s_j - m'),   o' = e^(m - m') o + sum_j e^(s_j - m') v_j

    No exponent is above zero, so nothing overflows.
    """
    maximum = torch.maximum(seen.maximum, logits.amax(dim=-1, keepdim=True))
    shrink, weights = (seen.maximum - maximum).exp(), (logits - maximum).exp()
    denominator = shrink * seen.denominator + weights.sum(dim=-1, keepdim=True)
    return Seen(maximum, denominator, shrink * seen.numerator + weights @ values)


def tiled_attention(
    q: Float[Tensor, " b h n d"],
    k: Float[Tensor, " b h m d"],
    v: Float[Tensor, " b h m d"],
    mask: KeyMask | None = None,
    *,
    tile: int = 128,
) -> Float[Tensor, " b h n d"]:
    """Attention in tiles of ``tile`` queries and keys: equal to ``fused_attention`` up to rounding, for any tile size.

    Beyond its output it holds tile x tile logits at a time, per head, and keeps one number per query for the backward
    pass, which makes the probabilities anew. Half-precision inputs are summed in float32. It can be differentiated
    once, and not in forward mode.

    Raises:
        RangeError: tile is not a whole number >= 1.
    """
    return _TiledAttention.apply(q, k, v, mask, check_count("tile", tile))


class _TiledAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, tile: int) -> Tensor:
        out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device)
        log_sums = torch.empty(*q.shape[:-1], 1, dtype=_precise(q).dtype, device=q.device)
        for rows in _tiles(q, tile):
            seen = Seen.nothing(*out[..., rows, :].shape, like=log_sums)
            for columns in _tiles(k, tile):
                seen = online_softmax(seen, _logits(q, k, mask, rows, columns), _precise(v[..., columns, :]))
            out[..., rows, :], log_sums[..., rows, :] = seen.output(), seen.log_sum_exp()
        ctx.save_for_backward(q, k, v, mask, out, log_sums)
        ctx.tile = tile
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, out, log_sums = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        dq, dk, dv = (torch.zeros_like(x, dtype=log_sums.dtype) for x in (q, k, v))
        for rows in _tiles(q, ctx.tile):
            query, d_row = _precise(q[..., rows, :]), _precise(d_out[..., rows, :])
            mean = (d_row * out[..., rows, :]).sum(dim=-1, keepdim=True)  # sum_j P_j dP_j, read off the output
            for columns in _tiles(k, ctx.tile):
                probs = (_logits(q, k, mask, rows, columns) - log_sums[..., rows, :]).exp()
                d_logits = probs * (d_row @ _precise(v[..., columns, :]).mT - mean)
                dv[..., columns, :] += probs.mT @ d_row
                dk[..., columns, :] += scale * d_logits.mT @ query
                dq[..., rows, :] += scale * d_logits @ _precise(k[..., columns, :])
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None


def _logits(q: Tensor, k: Tensor, mask: Tensor | None, rows: slice, columns: slice) -> Float[Tensor, "*b r c"]:
    """q·k / sqrt(d) of one tile, -inf for masked keys."""
    logits = _precise(q[..., rows, :]) @ _precise(k[..., columns, :]).mT / q.shape[-1] ** 0.5
    return logits if mask is None else logits.masked_fill(~_tile_of(mask, rows, columns), -torch.inf)


def _tile_of(mask: Bool[Tensor, "*b n m"], rows: slice, columns: slice) -> Bool[Tensor, "*b r c"]:
    """The part of a mask that belongs to a tile; one row serves all queries."""
    return mask[..., rows if mask.shape[-2] > 1 else slice(None), columns]


def _tiles(x: Float[Tensor, "*b n d"], tile: int) -> Iterator[slice]:
    return (slice(start, start + tile) for start in range(0, x.shape[-2], tile))


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
