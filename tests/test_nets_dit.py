"""The diffusion transformer: zero at birth, published sizes, and diffusers' implementation with the same weights."""

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
    parameter_count,
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


@pytest.mark.parametrize(
    ("dim", "depth", "heads", "patch", "count"),
    [(384, 12, 6, 2, 32_963_360), (768, 12, 12, 4, None), (1152, 28, 16, 2, None)],
)
def test_published_sizes(dim, depth, heads, patch, count):
    with torch.device("meta"):
        net = DiT(
            32,
            4,
            patch=patch,
            dim=dim,
            depth=depth,
            heads=heads,
            out_channels=8,
            condition=LabelEmbedding(1000, dim),
        )
    if count is not None:
        assert parameter_count(net) == count
        assert parameter_count(net, trainable_only=True) == count - 256 * 384  # the frozen table of positions
    millions = {384: 33, 768: 130, 1152: 675}[dim]  # Peebles & Xie 2023, table 4 (B/4 and XL/2 among them)
    assert round(parameter_count(net) / 1e6) == millions


def diffusers_twin(mine: DiT):
    """diffusers' DiT with the weights of ours."""
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=1,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
        norm_eps=1e-6,
    ).eval()
    theirs.pos_embed.proj.weight.data = mine.embed.weight.data.unflatten(1, (2, 2, 1)).permute(0, 3, 1, 2)
    theirs.pos_embed.proj.bias.data = mine.embed.bias.data
    theirs.pos_embed.pos_embed = mine.positions.data[None]
    for a, b in zip(theirs.transformer_blocks, mine.blocks, strict=True):
        a.norm1.emb.time_proj.downscale_freq_shift = 0  # theirs: 1, unlike the paper's own code
        copy_linear(a.norm1.emb.timestep_embedder.linear_1, mine.time.mlp[0])
        copy_linear(a.norm1.emb.timestep_embedder.linear_2, mine.time.mlp[2])
        a.norm1.emb.class_embedder.embedding_table.weight.data = mine.condition.table.weight.data
        copy_linear(a.norm1.linear, b.modulation)
        for i, layer in enumerate((a.attn1.to_q, a.attn1.to_k, a.attn1.to_v)):
            layer.weight.data = b.attention.qkv.weight.data.chunk(3)[i]
            layer.bias.data = b.attention.qkv.bias.data.chunk(3)[i]
        copy_linear(a.attn1.to_out[0], b.attention.out)
        copy_linear(a.ff.net[0].proj, b.feed_forward.inner)
        copy_linear(a.ff.net[2], b.feed_forward.outer)
    copy_linear(theirs.proj_out_1, mine.final.modulation)
    copy_linear(theirs.proj_out_2, mine.final.linear)
    return theirs


def copy_linear(to, source):
    to.weight.data, to.bias.data = source.weight.data, source.bias.data


def test_equals_diffusers_with_the_same_weights():
    mine = shaken(DiT(8, 1, dim=16, depth=2, heads=2, condition=LabelEmbedding(10, 16)))
    theirs = diffusers_twin(mine)
    x, t, y = torch.randn(3, 1, 8, 8, generator=G), torch.tensor([1.0, 250.0, 999.0]), torch.tensor([0, 4, 10])
    with torch.no_grad():
        ours, other = mine(x, t, y), theirs(x, timestep=t, class_labels=y).sample
    assert ours.abs().max() > 0.1
    assert (ours - other).abs().max() <= 1e-4 * other.abs().max()


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
