"""The diffusion transformer: its patches, zero at birth, its conditions (test_nets_dit_family.py compares it)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets import (
    DiT,
    DiTBlock,
    LabelAndScale,
    LabelEmbedding,
    modulations,
    patchify,
    unpatchify,
)

G = torch.Generator().manual_seed(1)


def tiny(**options):
    return DiT(8, 1, dim=16, depth=2, heads=2, ratio=2, condition=LabelEmbedding(10, 16), **options)


def shaken(net):
    """All weights random, those that start at zero too."""
    for p in net.parameters():
        p.data.normal_(std=0.2, generator=G)
    return net


def test_patchify_by_hand_and_back():
    x = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    tokens = patchify(x, 2)
    assert tokens.shape == (2, 4, 12)
    # Token 1 is the upper right patch; its features run over rows, columns, then channels.
    assert tokens[0, 1].tolist() == [x[0, c, i, j].item() for i in (0, 1) for j in (2, 3) for c in range(3)]
    assert torch.equal(unpatchify(tokens, 2, 4), x)


def test_patch_embedding_is_a_convolution():
    net = DiT(8, 3, dim=16, depth=1, heads=2)
    x = torch.randn(2, 3, 8, 8, generator=G)
    kernel = net.embed.weight.unflatten(1, (2, 2, 3)).permute(0, 3, 1, 2)
    conv = F.conv2d(x, kernel, net.embed.bias, stride=2).flatten(2).transpose(1, 2)
    assert torch.allclose(net.embed(patchify(x, 2)), conv, atol=1e-6)


def test_output_is_zero_and_blocks_are_the_identity_at_birth():
    net = tiny()
    x, t = torch.randn(3, 1, 8, 8, generator=G), torch.tensor([0.0, 400.0, 1000.0])
    assert torch.equal(net(x, t, torch.tensor([0, 5, 10])), torch.zeros_like(x))
    block = DiTBlock(16, 2)
    torch.nn.init.normal_(block.modulation.bias[:0])
    torch.nn.init.zeros_(block.modulation.weight)
    torch.nn.init.zeros_(block.modulation.bias)
    tokens = torch.randn(2, 5, 16, generator=G)
    assert torch.equal(block(tokens, torch.randn(2, 16, generator=G)), tokens)
    tokens = torch.randn(2, 16, 16, generator=G)
    for mine in net.blocks:
        assert torch.equal(mine(tokens, torch.randn(2, 16, generator=G)), tokens)


def test_first_update_moves_modulation_and_last_layer_only():
    net = tiny()
    x, t = torch.randn(4, 1, 8, 8, generator=G), torch.rand(4, generator=G) * 1000
    (net(x, t, torch.tensor([1, 2, 3, 4])) - 1).square().mean().backward()
    moved = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == {"final.linear.weight", "final.linear.bias"}


def test_conditions_reach_the_output():
    net = shaken(DiT(8, 1, dim=16, depth=1, heads=2, condition=LabelAndScale(10, 16)))
    x, t, label = torch.randn(2, 1, 8, 8, generator=G), torch.tensor([300.0, 300.0]), torch.tensor([1, 1])
    outputs = [net(x, t, {"label": label, "w": torch.full((2,), w)}) for w in (1.0, 2.0)]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
    assert not torch.equal(net(x, t + 100), net(x, t))
    assert torch.equal(net(x, t), net(x, t, {"label": torch.tensor([10, 10]), "w": torch.ones(2)}))


def test_dtype_follows_and_bad_input_is_named():
    net = shaken(tiny()).double()
    x, t = torch.randn(2, 1, 8, 8, generator=G).double(), torch.tensor([1.0, 2.0]).double()
    assert net(x, t).dtype == torch.float64
    with pytest.raises(ShapeError, match=r"\(b, 1, 8, 8\)"):
        net(torch.zeros(2, 1, 8, 6), t)
    with pytest.raises(RangeError):
        net(x, t, torch.tensor([3, 12]))
    with pytest.raises(ShapeError):
        DiT(9, 1, patch=2)


def test_modulations_are_all_that_a_block_hears_of_time_and_label():
    net = shaken(tiny())
    x, t, label = torch.randn(3, 1, 8, 8, generator=G), torch.tensor([0.0, 400.0, 1000.0]), torch.tensor([0, 5, 10])
    told = modulations(net, t, label)
    assert told.shape == (2, 6, 3, 16)
    tokens, c = net.enter(x, t, label)
    for block, vectors in zip(net.blocks, told, strict=True):
        shift1, scale1, gate1, shift2, scale2, gate2 = vectors[:, :, None]
        after = tokens + gate1 * block.attention(F.layer_norm(tokens, (16,), eps=1e-6) * (1 + scale1) + shift1)
        after = after + gate2 * block.feed_forward(F.layer_norm(after, (16,), eps=1e-6) * (1 + scale2) + shift2)
        tokens = block(tokens, c)
        assert torch.allclose(tokens, after, atol=1e-5 * after.abs().max().item())
