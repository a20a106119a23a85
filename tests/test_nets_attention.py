"""Attention: two kernels, one function; forward-mode differentiation; QK-RMSNorm."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets import (
    DiT,
    MultiHeadAttention,
    QKNorm,
    UNet,
    explicit_attention,
    fused_attention,
    with_kernel,
)
from lecture_lib.nets.attention import attention_weights

G = torch.Generator().manual_seed(0)


def qkv(*shape):
    return tuple(torch.randn(*shape, generator=G) for _ in range(3))


@pytest.mark.parametrize("shape", [(2, 4, 16, 24), (1, 1, 1, 8), (3, 2, 5, 7)])
def test_both_kernels_agree(shape):
    q, k, v = qkv(*shape)
    assert (fused_attention(q, k, v) - explicit_attention(q, k, v)).abs().max() <= 1e-6


def test_attention_equals_torch_multi_head():
    mine = MultiHeadAttention(24, 4, kernel=explicit_attention)
    theirs = nn.MultiheadAttention(24, 4, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = mine.qkv.weight.data, mine.qkv.bias.data
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = mine.out.weight.data, mine.out.bias.data
    x = torch.randn(2, 9, 24, generator=G)
    assert torch.allclose(mine(x), theirs(x, x, x, need_weights=False)[0], atol=1e-6)


def test_forward_mode_goes_through_the_explicit_kernel_only():
    x, dx = torch.randn(2, 5, 8, generator=G).double(), torch.randn(2, 5, 8, generator=G).double()
    layer = MultiHeadAttention(8, 2, kernel=explicit_attention).double()
    _, slope = torch.func.jvp(layer, (x,), (dx,))
    h = 1e-5
    numeric = (layer(x + h * dx) - layer(x - h * dx)) / (2 * h)
    assert torch.allclose(slope, numeric, atol=1e-8)


def test_with_kernel_opens_whole_networks():
    for net in (DiT(8, 1, dim=16, depth=1, heads=2), UNet(1, width=8, heads=2)):
        for p in net.parameters():
            p.data.normal_(std=0.1, generator=G)
        x, t = torch.randn(2, 1, 8, 8, generator=G), torch.tensor([10.0, 700.0])
        opened = with_kernel(copy.deepcopy(net), explicit_attention)
        assert torch.allclose(opened(x, t), net(x, t), atol=1e-5)
        value, slope = torch.func.jvp(lambda x, t, f=opened: f(x, t), (x, t), (x, torch.ones(2)))
        assert torch.isfinite(slope).all() and slope.abs().max() > 0 and value.shape == x.shape


def test_qk_norm_bounds_the_logits_and_ignores_scale():
    norm = QKNorm(16)
    q, k, _ = qkv(1, 2, 6, 16)
    a, b = norm(q, k)
    assert (a @ b.transpose(-2, -1) / 16**0.5).abs().max() <= 16**0.5 + 1e-4
    assert torch.allclose(norm(5 * q, k)[0], a, atol=1e-4)
    theirs = nn.RMSNorm(16, eps=1e-6)
    assert torch.allclose(a, theirs(q), atol=1e-6)
    layer = MultiHeadAttention(32, 2, qk_norm=QKNorm(16))
    assert layer(torch.randn(2, 3, 32, generator=G)).shape == (2, 3, 32)


def test_qk_norm_with_trained_gains_equals_torchs_and_that_of_diffusers():
    norm, generator = QKNorm(16), torch.Generator().manual_seed(1)
    norm.q_gain.data, norm.k_gain.data = (1 + 0.5 * torch.randn(16, generator=generator) for _ in range(2))
    q, k, _ = qkv(2, 3, 5, 16)
    theirs = nn.RMSNorm(16, eps=1e-6), pytest.importorskip("diffusers.models.normalization").RMSNorm(16, eps=1e-6)
    for module in theirs:
        for ours, x, gain in zip(norm(q, k), (q, k), (norm.q_gain, norm.k_gain), strict=True):
            module.weight.data = gain.data
            assert torch.allclose(ours, module(x), atol=1e-6)
    a, b = norm(100 * q, 100 * k)
    bound = 16**0.5 * (norm.q_gain * norm.k_gain).abs().max()
    assert (a @ b.mT / 16**0.5).abs().max() <= bound * (1 + 1e-6)


def test_unit_vectors_with_the_usual_scale_make_attention_flat():
    """MISTAKES B45: l2-normalised queries and keys over sqrt(d) cannot pick a key out; RMS-normalised ones can."""
    n, d = 4096, 64
    keys = torch.randn(1, 1, n, d, generator=torch.Generator().manual_seed(2))
    query = 3 * keys[:, :, 17:18]  # points exactly to key 17
    flat = attention_weights(F.normalize(query, dim=-1), F.normalize(keys, dim=-1))[0, 0, 0]
    assert flat.max() / flat.min() <= math.exp(2 / d**0.5) < 1.285  # logits within 1 / sqrt(d) of zero
    assert flat[17] == pytest.approx(2.77e-4, rel=0.01) and flat[17] < 1.14 / n
    sharp = attention_weights(*QKNorm(d)(query, keys))[0, 0, 0].detach()
    # The match has the logit sqrt(d) = 8, the others are about standard normal, with mean exp of e^(1/2).
    assert sharp[17] == pytest.approx(1 / (1 + n * math.exp(0.5 - d**0.5)), rel=0.1)  # 0.31


def test_heads_must_divide_the_width():
    with pytest.raises(ShapeError, match="dim=10, heads=4"):
        MultiHeadAttention(10, 4)
