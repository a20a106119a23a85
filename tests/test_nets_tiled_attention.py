"""Tiled attention: equal to the fused kernel in values and slopes, safe at extreme logits, linear in memory."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from lecture_lib.errors import RangeError
from lecture_lib.nets import (
    DiT,
    Seen,
    explicit_attention,
    fused_attention,
    online_softmax,
    peak_memory,
    tiled_attention,
    with_kernel,
)

TILES = [1, 3, 16, 37, 64, 1000]  # queries: 37, keys: 50


def qkv(n=37, m=50, d=24, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    sizes = ((2, 3, n, d), (2, 3, m, d), (2, 3, m, d))
    return tuple(torch.randn(*size, generator=generator).to(dtype).requires_grad_() for size in sizes)


def masks(m=50):
    keys = torch.rand(2, 1, 1, m, generator=torch.Generator().manual_seed(5)) > 0.4
    keys[1, ..., :20] = False  # whole tiles without a readable key come first
    return keys


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("mask", [None, masks()], ids=["all keys", "masked"])
def test_values_and_slopes_equal_the_fused_kernel(tile, mask):
    slope = torch.randn(2, 3, 37, 24, generator=torch.Generator().manual_seed(1))
    found = []
    # The oracle's slopes are taken in float64: in float32 its rounding would use up the tolerance by itself.
    for kernel, dtype in ((partial(tiled_attention, tile=tile), torch.float32), (fused_attention, torch.float64)):
        inputs = qkv(dtype=dtype)
        out = kernel(*inputs, mask)
        found.append((out, *torch.autograd.grad(out, inputs, slope.to(dtype))))
    for name, ours, theirs in zip(("out", "dq", "dk", "dv"), *found, strict=True):
        assert (ours - theirs).abs().max() <= 1e-6, name
    assert (found[0][0] - fused_attention(*qkv(), mask)).abs().max() <= 1e-6


@pytest.mark.parametrize("tile", [1, 7, 64])
def test_float64_agrees_to_its_own_rounding(tile):
    q, k, v = qkv(dtype=torch.float64)
    expected = F.scaled_dot_product_attention(q, k, v)
    assert (tiled_attention(q, k, v, tile=tile) - expected).abs().max() <= 1e-14
    assert torch.autograd.gradcheck(
        partial(tiled_attention, tile=tile), [x[:1, :1, :5].detach().requires_grad_() for x in (q, k, v)]
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_logits_neither_overflow_nor_vanish(sign):
    q, k, v = qkv()
    k = sign * torch.linspace(-1, 1, 50)[None, None, :, None] * torch.ones_like(k)
    out = tiled_attention(q.detach().abs() * 1e30, k, v, tile=8)  # logits up to 1e31: exp of one is inf
    winner = v[:, :, -1 if sign > 0 else 0]
    assert torch.equal(out, winner[:, :, None].expand_as(out))
    # All logits near -1000: exp of one is 0, and yet the weights sum to 1.
    ones = torch.ones(1, 1, 4, 1)
    assert torch.allclose(tiled_attention(-1000 * ones, ones + 1e-3 * v[:1, :1, :4, :1], ones, tile=2), ones)
    # Logits of 1000 and more apart, in rising and falling order: each tile rescales what came before.
    out = tiled_attention(torch.full((1, 1, 2, 1), 100.0), k[:1, :1, :, :1] * 50, v[:1, :1], tile=4)
    expected = fused_attention(torch.full((1, 1, 2, 1), 100.0), k[:1, :1, :, :1] * 50, v[:1, :1])
    assert torch.allclose(out, expected, atol=1e-6)


def test_online_softmax_by_hand():
    """Two tiles with logits log 1, log 2 and log 3, log 4; values 1, 10, 100, 1000."""
    logits, values = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).double().log(), torch.tensor([1.0, 10, 100, 1000]).double()
    first = online_softmax(Seen.nothing(1, 1, like=logits), logits[:, :2], values[:2, None])
    assert [x.item() for x in first] == pytest.approx([math.log(2), 1.5, 10.5])
    second = online_softmax(first, logits[:, 2:], values[2:, None])
    assert [x.item() for x in second] == pytest.approx([math.log(4), 2.5, 4321 / 4])
    assert second.output().item() == pytest.approx(432.1) and second.log_sum_exp().item() == pytest.approx(math.log(10))


def test_without_rescaling_the_output_is_far_off():
    """MISTAKES B60: the recurrence of m and l alone does not make one pass; the output must be rescaled with them."""
    q, k, v = (x.detach().double() for x in qkv(seed=3))
    logits, seen = 3 * q @ k.mT, Seen.nothing(2, 3, 37, 24, like=q)
    forgetful = torch.zeros(2, 3, 37, 24).double()
    for columns in torch.arange(50).split(10):
        seen = online_softmax(seen, logits[..., columns], v[..., columns, :])
        forgetful += (logits[..., columns] - seen.maximum).exp() @ v[..., columns, :]
    exact = torch.softmax(logits, dim=-1) @ v
    assert (seen.output() - exact).abs().max() <= 1e-13
    assert (forgetful / seen.denominator - exact).abs().max() > 0.5


def test_who_can_read_nothing_gets_zero_and_teaches_nothing():
    inputs, nobody = qkv(), torch.zeros(2, 1, 1, 50, dtype=torch.bool)
    nobody[0] = True
    out = tiled_attention(*inputs, nobody, tile=16)
    assert torch.equal(out[1], torch.zeros_like(out[1])) and out[0].abs().sum() > 0
    for grad in torch.autograd.grad(out.square().sum(), inputs):
        assert torch.equal(grad[1], torch.zeros_like(grad[1])) and torch.isfinite(grad).all()


def test_half_precision_is_summed_in_float32():
    q, k, v = (x.detach().bfloat16() for x in qkv(m=2000))
    ours = tiled_attention(q, k, v, tile=16)
    assert ours.dtype == torch.bfloat16
    exact = explicit_attention(q.float(), k.float(), v.float())
    assert torch.equal(ours, tiled_attention(q.float(), k.float(), v.float(), tile=16).bfloat16())
    assert (ours - exact).abs().max() <= 1.001 * 2**-8 * exact.abs().max()  # one rounding, of the result


def test_a_network_runs_and_learns_with_it():
    net = DiT(16, 1, patch=2, dim=32, depth=2, heads=2)
    generator = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.data.normal_(std=0.1, generator=generator)
    x, t = torch.randn(2, 1, 16, 16, generator=generator), torch.tensor([10.0, 700.0])
    found = []
    for kernel in (fused_attention, partial(tiled_attention, tile=24)):
        with_kernel(net, kernel)
        loss = net(x, t).square().mean()
        found.append((loss, *torch.autograd.grad(loss, [p for p in net.parameters() if p.requires_grad])))
    for theirs, ours in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.detach().abs().max()))


def test_memory_grows_with_tokens_not_with_their_square():
    def extra(kernel, n):
        inputs = [torch.randn(1, 2, n, 32, requires_grad=True) for _ in range(3)]
        slope = torch.ones(1, 2, n, 32)
        return peak_memory(lambda: torch.autograd.backward(kernel(*inputs), slope))

    explicit, tiled = ([extra(kernel, n) for n in (512, 2048)]
                       for kernel in (explicit_attention, partial(tiled_attention, tile=64)))  # fmt: skip
    assert tiled[1] <= 4 * tiled[0] and explicit[1] >= 12 * explicit[0]
    # The probabilities alone: 2 heads x 2048^2 x 4 bytes.
    assert explicit[1] >= 2 * 2048**2 * 4 > 8 * tiled[1]


def test_peak_memory_counts_what_lives_at_the_same_time():
    def call():
        for _ in range(3):
            torch.zeros(1000)  # gone before the next one comes
        first, second = torch.zeros(3000), torch.zeros(5000)
        return first, second

    assert peak_memory(call) == 4 * 8000
    kept = torch.zeros(10**6)
    assert peak_memory(lambda: kept.view(1000, 1000).mT) == 0


def test_the_tile_is_a_whole_number():
    with pytest.raises(RangeError, match="tile: got 0"):
        tiled_attention(*qkv(), tile=0)


@pytest.mark.parametrize("tile", TILES)
def test_each_query_may_have_a_mask_of_its_own(tile):
    """As the causal transformers give their kernel."""
    q, k, v = qkv()
    mask = torch.ones(1, 1, 37, 50, dtype=torch.bool).tril(3)
    mask[..., 20, :] = False
    expected, got = fused_attention(q, k, v, mask), tiled_attention(q, k, v, mask, tile=tile)
    assert (got - expected).abs().max() < 2e-6
    grad = torch.randn(got.shape, generator=torch.Generator().manual_seed(3))
    for mine, theirs in zip(
        torch.autograd.grad(got, (q, k, v), grad), torch.autograd.grad(expected, (q, k, v), grad), strict=True
    ):
        assert (mine - theirs).abs().max() < 1e-5
