"""Attention: two kernels, one function; forward-mode differentiation; QK-RMSNorm."""

from __future__ import annotations

import copy

import pytest
import torch
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


def test_heads_must_divide_the_width():
    with pytest.raises(ShapeError, match="dim=10, heads=4"):
        MultiHeadAttention(10, 4)
