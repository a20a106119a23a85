"""FLUX.1: published sizes, diffusers' network with the same weights, rotary places, the parallel block, errors."""

from __future__ import annotations

import copy

import diffusers
import pytest
import torch
import torch.nn.functional as F
from diffusers import FluxTransformer2DModel
from torch import nn

from lecture_lib.errors import ShapeError, UnknownNameError
from lecture_lib.nets import (
    Flux,
    SingleStreamBlock,
    explicit_attention,
    flux_dev,
    flux_from_diffusers,
    flux_schnell,
    parameter_count,
    with_kernel,
)

diffusers.logging.set_verbosity_error()
G = torch.Generator().manual_seed(4)
SMALL = {"dim": 24, "double": 2, "single": 2, "heads": 2, "axes": (4, 2, 6), "context_dim": 10, "vector_dim": 7}


def randn(*shape):
    return torch.randn(*shape, generator=G)


def shaken(net, std=0.2):
    """All weights random, those that start at zero too; the gains of the norms stay about 1."""
    for name, p in net.named_parameters():
        p.data.normal_(std=std, generator=G)
        if "gain" in name or "norm_q" in name or "norm_k" in name or "norm_added" in name:
            p.data += 1
    return net.eval()


def small(**options):
    return shaken(Flux(4, **{**SMALL, **options}))


def condition(b=2, m=5, **more):
    return {"tokens": randn(b, m, 10), "vector": randn(b, 7), **more}


def distance(a, b):
    return (a - b).abs().max().item()


# --- the published networks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("build", "count"), [(flux_dev, 11_901_408_320), (flux_schnell, 11_891_178_560)])
def test_parameter_counts_are_the_published_ones(build, count):
    with torch.device("meta"):
        net = build()
    assert parameter_count(net) == count
    assert net.single[0].heads == net.blocks[0].attention.text.heads == 24  # of width 128; no count shows it


def their_network(double=2, single=2, guidance=True):
    return shaken(
        FluxTransformer2DModel(
            in_channels=16,
            num_layers=double,
            num_single_layers=single,
            attention_head_dim=12,
            num_attention_heads=2,
            joint_attention_dim=10,
            pooled_projection_dim=7,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 2, 6),
        )
    )


def packed(x):
    """Latents as FLUX's pipeline packs them: 2x2 patches, the channel first. Written out with ``unfold``."""
    return F.unfold(x, 2, stride=2).transpose(1, 2)


def unpacked(tokens, size):
    return F.fold(tokens.transpose(1, 2), size, 2, stride=2)


def their_output(net, x, t, cond):
    """Their pipeline's conventions: time in 0..1, guidance as it is, ids (0, row, column) and zeros for the text."""
    h, w = x.shape[-2] // 2, x.shape[-1] // 2
    ids = torch.stack([torch.zeros(h, w), torch.arange(h)[:, None].expand(h, w), torch.arange(w).expand(h, w)], dim=-1)
    tokens = net(
        packed(x),
        encoder_hidden_states=cond["tokens"],
        pooled_projections=cond["vector"],
        timestep=t / 1000,
        img_ids=ids.reshape(-1, 3),
        txt_ids=torch.zeros(cond["tokens"].shape[1], 3),
        guidance=cond.get("w"),
    ).sample
    return unpacked(tokens, x.shape[-2:])


@pytest.mark.parametrize(
    ("double", "single", "guidance", "size"),
    [(2, 2, True, (8, 8)), (1, 3, False, (4, 12)), (3, 1, True, (10, 6))],
)
def test_equals_diffusers_with_the_same_weights(double, single, guidance, size):
    theirs, mine = their_network(double, single, guidance), small(double=double, single=single, guidance=guidance)
    assert parameter_count(mine) == parameter_count(theirs)
    assert flux_from_diffusers(mine, theirs.state_dict()) is mine
    x, t = randn(3, 4, *size), 1000 * torch.rand(3, generator=G)
    cond = condition(3, **({"w": 1 + 4 * torch.rand(3, generator=G)} if guidance else {}))
    with torch.no_grad():
        expected = their_output(theirs, x, t, cond)
        assert expected.std() > 0.1
        assert distance(mine(x, t, cond), expected) <= 1e-5


def test_a_network_on_the_meta_device_takes_the_tensors_over():
    weights = their_network().state_dict()
    with torch.device("meta"):
        empty = Flux(4, **SMALL)
    flux_from_diffusers(empty, weights)
    assert empty.words.weight.data_ptr() == weights["context_embedder.weight"].data_ptr()
    x, t, cond = randn(2, 4, 8, 8), torch.tensor([3.0, 900.0]), condition(w=torch.ones(2))
    with torch.no_grad():
        assert torch.equal(empty(x, t, cond), flux_from_diffusers(small(), weights)(x, t, cond))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda w: w.pop("x_embedder.weight"), UnknownNameError, r"1 weights are missing \(x_embedder.weight\)"),
        (lambda w: w.pop("single_transformer_blocks.0.proj_mlp.bias"), UnknownNameError, "to_qkv_mlp.bias"),
        (lambda w: w.update(extra=torch.ones(1)), UnknownNameError, r"1 have no place in the network \(extra\)"),
        (lambda w: w.update({"x_embedder.weight": torch.ones(24, 17)}), ShapeError, r"x_embedder.weight \(24, 17\)"),
        (lambda w: w.update({"proj_out.weight": torch.ones(20, 24)}), ShapeError, r"expected \(16, 24\)"),
        (
            lambda w: w.update({"single_transformer_blocks.1.proj_mlp.weight": torch.ones(96, 5)}),
            ShapeError,
            "differ in width",
        ),
    ],
)
def test_weights_are_loaded_all_or_not_at_all(change, error, words):
    weights, mine = dict(their_network().state_dict()), small()
    change(weights)
    before = copy.deepcopy(mine.state_dict())
    with pytest.raises(error, match=words):
        flux_from_diffusers(mine, weights)
    assert all(torch.equal(value, before[name]) for name, value in mine.state_dict().items())


# --- blocks ----------------------------------------------------------------------------------------------------------


def test_blocks_are_the_identity_at_birth_bit_for_bit():
    net = Flux(4, **SMALL)
    text, image, c = randn(2, 5, 24), randn(2, 16, 24), randn(2, 24)
    for block in net.blocks:
        after = block(text, image, c)
        assert torch.equal(after[0], text) and torch.equal(after[1], image)
    assert all(torch.equal(block(image, c), image) for block in net.single)
    x = randn(2, 4, 8, 8)
    assert torch.equal(net(x, torch.tensor([1.0, 900.0]), condition()), torch.zeros_like(x))


def test_attention_and_feed_forward_run_in_parallel():
    """The block is the sum of one with the attention alone and one with the feed-forward alone, each on the same x."""
    block, x, c = shaken(SingleStreamBlock(24, 2)), randn(2, 9, 24), randn(2, 24)
    attention, feed_forward = copy.deepcopy(block), copy.deepcopy(block)
    attention.outer.weight.data[:, 24:] = 0
    feed_forward.outer.weight.data[:, :24] = 0
    feed_forward.outer.bias.data[:] = 0
    assert distance(block(x, c) - x, (attention(x, c) - x) + (feed_forward(x, c) - x)) <= 1e-5
    shift, scale, gate = block.modulation(F.silu(c)).chunk(3, dim=-1)
    h = F.layer_norm(x, (24,), eps=1e-6) * (1 + scale[:, None]) + shift[:, None]
    inner, outer = nn.Linear(24, 96), block.outer.weight[:, 24:]
    inner.weight.data, inner.bias.data = block.inner.weight[72:], block.inner.bias[72:]
    expected = gate[:, None] * (F.gelu(inner(h), approximate="tanh") @ outer.T)
    assert distance(feed_forward(x, c) - x, expected) <= 1e-5


def test_words_stand_at_one_place_and_pixels_at_theirs():
    net, t, cond = small(), torch.tensor([300.0]), condition(1)
    x, shuffled = randn(1, 4, 8, 8), condition(1)
    shuffled = cond | {"tokens": cond["tokens"][:, [3, 1, 4, 0, 2]]}
    with torch.no_grad():
        plain = net(x, t, cond)
        assert distance(net(x, t, shuffled), plain) <= 1e-5  # the order of words is not seen ...
        assert distance(net(x.roll(2, dims=-1), t, cond), plain.roll(2, dims=-1)) > 1e-3  # ... that of pixels is
        assert distance(net(x.transpose(2, 3), t, cond), plain.transpose(2, 3)) > 1e-3  # and which axis is which


def test_padding_is_as_good_as_absent():
    net, x, t, cond = small(), randn(2, 4, 8, 8), torch.tensor([10.0, 600.0]), condition()
    padded = cond | {"mask": torch.tensor([[True, True, True, False, False]]).expand(2, -1)}
    noisy = padded | {"tokens": torch.cat([cond["tokens"][:, :3], 100 * randn(2, 2, 10)], dim=1)}
    with torch.no_grad():
        expected = net(x, t, cond | {"tokens": cond["tokens"][:, :3]})
        assert distance(net(x, t, padded), expected) <= 1e-5
        assert distance(net(x, t, noisy), expected) <= 1e-5
        assert distance(net(x, t, cond), expected) > 1e-3


def test_everything_that_is_heard_reaches_the_output():
    net, x, t = small(), randn(2, 4, 8, 8), torch.tensor([10.0, 600.0])
    cond = condition(w=torch.tensor([1.0, 4.0]))
    with torch.no_grad():
        plain = net(x, t, cond)
        for name in ("tokens", "vector", "w"):
            assert distance(net(x, t, cond | {name: cond[name] + 1}), plain) > 1e-3
        without = {name: value for name, value in cond.items() if name != "w"}
        assert torch.equal(net(x, t, without), net(x, t, cond | {"w": torch.ones(2)}))


def test_the_explicit_kernel_is_the_same_network():
    net, x, t, cond = small(), randn(2, 4, 8, 8), torch.tensor([10.0, 600.0]), condition()
    with torch.no_grad():
        fused = net(x, t, cond)
        assert distance(with_kernel(net, explicit_attention)(x, t, cond), fused) <= 1e-5
    _, slope = torch.func.jvp(lambda x: net(x, t, cond), (x,), (torch.ones_like(x),))
    assert torch.isfinite(slope).all() and slope.abs().max() > 0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": torch.zeros(2, 3, 8, 8)}, ShapeError, r"x must have shape \(b, 4, h, w\)"),
        ({"t": torch.zeros(2, 1)}, ShapeError, r"t must have shape \(2,\)"),
        ({"vector": torch.zeros(2, 4)}, ShapeError, r"cond\['vector'\] must have shape \(2, 7\)"),
        ({"w": torch.zeros(2, 1)}, ShapeError, r"cond\['w'\]"),
        ({"guidance": torch.zeros(2)}, UnknownNameError, r"\['guidance'\]"),
    ],
)
def test_bad_input_is_named(change, error, words):
    cond = {"tokens": torch.zeros(2, 3, 10), "vector": torch.zeros(2, 7)}
    cond |= {name: value for name, value in change.items() if name not in {"x", "t"}}
    with pytest.raises(error, match=words):
        small()(change.get("x", torch.zeros(2, 4, 8, 8)), change.get("t", torch.zeros(2)), cond)


def test_bad_plans_are_named():
    with pytest.raises(ShapeError, match=r"axes must add up .*axes=\(4, 4, 6\), dim=24, heads=2"):
        Flux(4, **{**SMALL, "axes": (4, 4, 6)})
    with pytest.raises(UnknownNameError, match=r"\['w'\]"):
        small(guidance=False)(torch.zeros(2, 4, 8, 8), torch.zeros(2), condition(w=torch.ones(2)))
