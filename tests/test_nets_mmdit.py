"""MM-DiT: the published size, diffusers' network with the same weights, one softmax over two streams, masks, errors."""

from __future__ import annotations

import copy

import diffusers
import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import nn

from lecture_lib.errors import RangeError, ShapeError, UnknownNameError
from lecture_lib.nets import (
    DiTBlock,
    JointAttention,
    MMDiT,
    MMDiTBlock,
    explicit_attention,
    mmdit_from_diffusers,
    parameter_count,
    sd3_medium,
    with_kernel,
)

diffusers.logging.set_verbosity_error()
G = torch.Generator().manual_seed(3)
SMALL = {"dim": 24, "depth": 2, "heads": 2, "context_dim": 12, "vector_dim": 7, "grid": 6}


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
    return shaken(MMDiT(4, **{**SMALL, **options}))


def condition(b=2, m=5, **more):
    return {"tokens": randn(b, m, 12), "vector": randn(b, 7), **more}


def distance(a, b):
    return (a - b).abs().max().item()


# --- the published network -------------------------------------------------------------------------------------------


def test_sd3_medium_has_the_published_number_of_parameters():
    with torch.device("meta"):
        net = sd3_medium()
    assert parameter_count(net) == 2_028_328_000
    assert net.blocks[0].attention.text.heads == 24  # of width 64; no count shows it


def their_network(depth=2, heads=2, head_dim=12, qk_norm=None):
    return shaken(
        SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=depth,
            attention_head_dim=head_dim,
            num_attention_heads=heads,
            joint_attention_dim=12,
            caption_projection_dim=heads * head_dim,
            pooled_projection_dim=7,
            pos_embed_max_size=6,
            qk_norm=qk_norm,
        )
    )


@pytest.mark.parametrize(
    ("depth", "heads", "qk_norm", "size"),
    [(2, 2, None, (8, 8)), (1, 3, None, (4, 12)), (3, 2, "rms_norm", (10, 6))],
)
def test_equals_diffusers_with_the_same_weights(depth, heads, qk_norm, size):
    theirs = their_network(depth, heads, qk_norm=qk_norm)
    options = {"dim": 12 * heads, "depth": depth, "heads": heads, "qk_norm": qk_norm is not None}
    mine = small(**options, spacing=4 / 6)  # their base size is 4 tokens, stretched over the table's 6
    columns_first = mine.positions.roll(12 * heads // 2, dims=1)  # theirs: half a vector for the column, then the row
    assert distance(columns_first, theirs.pos_embed.pos_embed[0]) <= 1e-6
    assert parameter_count(mine) == parameter_count(theirs)
    assert mmdit_from_diffusers(mine, theirs.state_dict()) is mine
    x, t, cond = randn(3, 4, *size), 1000 * torch.rand(3, generator=G), condition(3)
    with torch.no_grad():
        expected = theirs(x, cond["tokens"], cond["vector"], t).sample
        assert expected.std() > 0.1
        assert distance(mine(x, t, cond), expected) <= 1e-5


def test_a_network_on_the_meta_device_takes_the_tensors_over():
    theirs, weights = their_network(), None
    weights = theirs.state_dict()
    with torch.device("meta"):
        empty = MMDiT(4, **SMALL)
    mmdit_from_diffusers(empty, weights)
    x, t, cond = randn(2, 4, 8, 8), torch.tensor([3.0, 900.0]), condition()
    assert empty.words.weight.data_ptr() == weights["context_embedder.weight"].data_ptr()
    with torch.no_grad():
        assert distance(empty(x, t, cond), theirs(x, cond["tokens"], cond["vector"], t).sample) <= 1e-5


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda w: w.pop("proj_out.bias"), UnknownNameError, r"1 weights are missing \(proj_out.bias\)"),
        (lambda w: w.pop("transformer_blocks.0.attn.to_k.bias"), UnknownNameError, "to_qkv.bias.*attn.to_q.bias"),
        (lambda w: w.update(extra=torch.ones(1)), UnknownNameError, r"1 have no place in the network \(extra\)"),
        (lambda w: w.update({"proj_out.weight": torch.ones(16, 25)}), ShapeError, r"proj_out.weight \(16, 25\)"),
        (lambda w: w.update({"pos_embed.proj.weight": torch.ones(24, 9, 2, 2)}), ShapeError, r"\(24, 36\)"),
        (lambda w: w.update({"pos_embed.pos_embed": torch.ones(1, 9, 24)}), ShapeError, r"\(9, 24\)"),
        (
            lambda w: w.update({"transformer_blocks.0.attn.to_k.weight": torch.ones(24, 5)}),
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
        mmdit_from_diffusers(mine, weights)
    assert all(torch.equal(value, before[name]) for name, value in mine.state_dict().items())


# --- adaLN-Zero ------------------------------------------------------------------------------------------------------


def test_blocks_are_the_identity_at_birth_bit_for_bit():
    net = MMDiT(4, **SMALL)
    text, image, c = randn(2, 5, 24), randn(2, 16, 24), randn(2, 24)
    for block in net.blocks:
        after = block(text, image, c)
        assert torch.equal(after[0], text) and torch.equal(after[1], image)
    x = randn(2, 4, 8, 8)
    assert torch.equal(net(x, torch.tensor([1.0, 900.0]), condition()), torch.zeros_like(x))


def test_without_text_a_block_is_a_dit_block():
    mine, dit = shaken(MMDiTBlock(24, 2)), DiTBlock(24, 2)
    dit.modulation, dit.feed_forward = mine.image.modulation, mine.image.feed_forward
    dit.attention.qkv, dit.attention.out = mine.attention.image.qkv, mine.attention.image.out
    image, c = randn(2, 9, 24), randn(2, 24)
    text, after = mine(image[:, :0], image, c)
    assert text.shape == (2, 0, 24)
    assert distance(after, dit(image, c)) <= 1e-6


def test_the_last_block_writes_no_text():
    last, image = shaken(MMDiTBlock(24, 2, last=True)), randn(2, 9, 24)
    text, c = randn(2, 5, 24), randn(2, 24)
    assert torch.equal(last(text, image, c)[0], text)
    assert distance(last(text, image, c)[1], last(text + 1 + text**2, image, c)[1]) > 1e-3  # but it is read
    missing = parameter_count(MMDiTBlock(24, 2)) - parameter_count(last)
    assert missing == (24 * 24 + 24) + (8 * 24 * 24 + 5 * 24) + 4 * (24 * 24 + 24)  # out, feed-forward, modulation


# --- joint attention -------------------------------------------------------------------------------------------------


def test_with_equal_weights_it_is_attention_over_one_sequence():
    mine, theirs = shaken(JointAttention(24, 2)), nn.MultiheadAttention(24, 2, batch_first=True)
    mine.text.load_state_dict(mine.image.state_dict())
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = mine.image.qkv.weight.data, mine.image.qkv.bias.data
    theirs.out_proj.load_state_dict(mine.image.out.state_dict())
    text, image = randn(2, 5, 24), randn(2, 9, 24)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    both = torch.cat([text, image], dim=1)
    ignore = torch.cat([~mask, torch.zeros(2, 9, dtype=torch.bool)], dim=1)
    expected = theirs(both, both, both, key_padding_mask=ignore, need_weights=False)[0]
    assert distance(torch.cat(mine(text, image, mask), dim=1), expected) <= 1e-6


def test_one_softmax_is_not_self_attention_plus_cross_attention():
    """A word that shouts takes attention from the pixels: with a softmax each, what pixels say to pixels would stay."""
    mine = shaken(JointAttention(24, 2))
    mine.text.qkv.bias.data[48:] = 0  # values of words without a bias, so that words of zero say nothing
    text, image = torch.zeros(1, 5, 24), randn(1, 9, 24)
    alone = mine(text[:, :0], image)[1]
    beside = mine(text, image)[1]  # silent words, which still take their share
    assert distance(beside, alone) > 1e-2
    bias = mine.image.out.bias
    silent = explicit_share(mine, text, image)
    assert distance(beside - bias, silent) <= 1e-5


def explicit_share(layer, text, image):
    """What pixels read from pixels, times the share of attention that words of value zero have left to them."""
    q, k, v = layer.image.read(image)
    words = layer.text.read(text)[1]
    ours, theirs = (q @ keys.transpose(-2, -1) / 12**0.5 for keys in (k, words))
    share = ours.exp() / (ours.exp().sum(-1, keepdim=True) + theirs.exp().sum(-1, keepdim=True))
    return (share @ v).transpose(1, 2).flatten(2) @ layer.image.out.weight.T


def test_padding_is_as_good_as_absent():
    net = small(qk_norm=True)
    x, t, cond = randn(2, 4, 8, 8), torch.tensor([10.0, 600.0]), condition()
    padded = cond | {"mask": torch.tensor([[True, True, True, False, False]]).expand(2, -1)}
    short = cond | {"tokens": cond["tokens"][:, :3]}
    noisy = padded | {"tokens": torch.cat([cond["tokens"][:, :3], 100 * randn(2, 2, 12)], dim=1)}
    with torch.no_grad():
        expected = net(x, t, short)
        assert distance(net(x, t, padded), expected) <= 1e-5
        assert distance(net(x, t, noisy), expected) <= 1e-5
        assert distance(net(x, t, cond), expected) > 1e-3  # the mask is what hides them
        everything = cond | {"mask": torch.ones(2, 5, dtype=torch.bool)}
        assert distance(net(x, t, everything), net(x, t, cond)) <= 1e-6


def test_the_explicit_kernel_opens_it_to_forward_mode():
    net, cond = with_kernel(small(qk_norm=True), explicit_attention).double(), condition()
    cond = {name: value.double() for name, value in cond.items()}
    x, dx, t = randn(2, 4, 8, 8).double(), randn(2, 4, 8, 8).double(), torch.tensor([10.0, 600.0]).double()
    _, slope = torch.func.jvp(lambda x: net(x, t, cond), (x,), (dx,))
    h = 1e-5
    numeric = (net(x + h * dx, t, cond) - net(x - h * dx, t, cond)) / (2 * h)
    assert distance(slope, numeric) <= 1e-7


# --- conditions ------------------------------------------------------------------------------------------------------


def test_everything_that_is_heard_reaches_the_output():
    net = small(guidance=True)
    x, t, cond = randn(2, 4, 8, 8), torch.tensor([10.0, 600.0]), condition(w=torch.tensor([1.0, 4.0]))
    with torch.no_grad():
        plain = net(x, t, cond)
        for name in ("tokens", "vector", "w"):
            assert distance(net(x, t, cond | {name: cond[name] + 1}), plain) > 1e-3
        assert distance(net(x, t + 100, cond), plain) > 1e-3
        without = {name: value for name, value in cond.items() if name != "w"}
        assert torch.equal(net(x, t, without), net(x, t, cond | {"w": torch.ones(2)}))


def test_positions_come_from_the_middle_of_the_table():
    """Shifting the picture by a patch is seen: tokens are told apart by their place."""
    net = small()
    t, cond = torch.tensor([10.0]), condition(1)
    x = randn(1, 4, 8, 8)
    with torch.no_grad():
        moved = net(x.roll(2, dims=-1), t, cond)
        assert distance(moved, net(x, t, cond).roll(2, dims=-1)) > 1e-3
    added = net.enter(x, t, cond).image - net.embed(patches(x))
    middle = net.positions.reshape(6, 6, 24)[1:5, 1:5]
    assert distance(added, middle.reshape(1, 16, 24)) <= 1e-6


def patches(x):
    return nn.functional.unfold(x, 2, stride=2).transpose(1, 2).unflatten(-1, (4, 4)).transpose(-2, -1).flatten(-2)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": torch.zeros(2, 3, 8, 8)}, ShapeError, r"x must have shape \(b, 4, h, w\)"),
        ({"x": torch.zeros(2, 4, 8, 7)}, ShapeError, "multiples of 2"),
        ({"x": torch.zeros(2, 4, 14, 8)}, RangeError, "height: got 7, expected at most 6"),
        ({"t": torch.zeros(3)}, ShapeError, r"t must have shape \(2,\)"),
        ({"cond": None}, ShapeError, r"cond\['tokens'\] must have shape \(2, m, 12\), got none"),
        ({"tokens": torch.zeros(2, 3, 11)}, ShapeError, r"got \(2, 3, 11\)"),
        ({"mask": torch.ones(2, 3)}, ShapeError, "must be bool"),
        ({"vector": torch.zeros(2, 4)}, ShapeError, r"cond\['vector'\] must have shape \(2, 7\)"),
        ({"w": torch.zeros(3)}, ShapeError, r"cond\['w'\] must be floating of shape \(2,\)"),
        ({"w": torch.zeros(2).long()}, ShapeError, r"cond\['w'\]"),
        ({"label": torch.zeros(2)}, UnknownNameError, r"\['label'\].*\['mask', 'tokens', 'vector', 'w'\]"),
    ],
)
def test_bad_input_is_named(change, error, words):
    net = small(guidance=True)
    cond = {"tokens": torch.zeros(2, 3, 12), "vector": torch.zeros(2, 7)}
    cond |= {name: value for name, value in change.items() if name not in {"x", "t", "cond"}}
    with pytest.raises(error, match=words):
        net(change.get("x", torch.zeros(2, 4, 8, 8)), change.get("t", torch.zeros(2)), change.get("cond", cond))


def test_a_guidance_scale_needs_an_ear_and_heads_must_divide_the_width():
    with pytest.raises(UnknownNameError, match=r"\['w'\]"):
        small()(torch.zeros(2, 4, 8, 8), torch.zeros(2), condition(w=torch.ones(2)))
    with pytest.raises(ShapeError, match="dim=24, heads=5"):
        MMDiT(4, **{**SMALL, "heads": 5})
