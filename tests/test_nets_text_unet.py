"""The text U-Net: published sizes, diffusers' network with the same weights, masks, attention maps, errors."""

from __future__ import annotations

import math
from functools import cache

import diffusers
import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel

from lecture_lib.errors import RangeError, ShapeError, UnknownNameError
from lecture_lib.nets import (
    GEGLU,
    CrossAttention,
    MultiHeadAttention,
    SpatialTransformer,
    TextUNet,
    TransformerBlock,
    block_table,
    controlled_attention,
    explicit_attention,
    fused_attention,
    parameter_count,
    recorded_attention,
    sdxl_unet,
    size_features,
    stable_diffusion_unet,
    unet_from_diffusers,
    with_kernel,
    word_map,
)

diffusers.logging.set_verbosity_error()
G = torch.Generator().manual_seed(2)
SMALL = {"channels": 16, "multipliers": (1, 2), "blocks": 1, "depths": (1, 0), "groups": 4, "heads": 2}


def randn(*shape):
    return torch.randn(*shape, generator=G)


def shaken(net, std=0.1):
    """All weights random, those that start at zero too; the norms keep their gain of about 1."""
    for name, p in net.named_parameters():
        p.data.normal_(std=std, generator=G)
        if "norm" in name and name.endswith("weight"):
            p.data += 1
    return net.eval()


def small(**options):
    return shaken(TextUNet(**{**SMALL, "context_dim": 12, **options}))


def distance(a, b):
    return (a - b).abs().max().item()


# --- the published networks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("build", "count"), [(stable_diffusion_unet, 859_520_964), (sdxl_unet, 2_567_463_684)])
def test_parameter_counts_are_the_published_ones(build, count):
    with torch.device("meta"):
        net = build()
    assert parameter_count(net) == count
    assert sum(row.parameters for row in block_table(net)) == count


def test_sdxl_has_heads_of_64_and_sd1_has_8_of_them():
    """The number of heads changes no parameter count."""
    for build, heads in ((stable_diffusion_unet, {8}), (sdxl_unet, {10, 20})):
        with torch.device("meta"):
            layers = [m for m in build().modules() if isinstance(m, CrossAttention)]
        assert {m.heads for m in layers} == heads
        assert build is stable_diffusion_unet or all(m.q.out_features == 64 * m.heads for m in layers)


def test_block_table_tells_the_truth():
    """Each row's size and channels are those of the feature map that the module of that name puts out."""
    net = small(multipliers=(1, 2, 2), depths=(0, 2, 1), blocks=2, vector_dim=5)
    shapes = {}
    for name, module in net.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: shapes.__setitem__(name, out))
    with torch.no_grad():
        net(randn(1, 4, 8, 8), torch.ones(1), {"tokens": randn(1, 3, 12), "vector": randn(1, 5)})
    rows = block_table(net, 8)
    assert len(rows) == 4 + 2 * 3 + 2 + 2 + 3 * 3 + 2
    for row in rows:
        out = shapes[row.block.replace("[", ".").replace("]", "")]
        assert out.shape[1] == row.channels
        assert row.size is None or out.shape[2:] == (row.size, row.size)
    kinds = [row.kind for row in rows if "transformer" in row.kind]
    assert kinds.count("res + transformer x 2") == 5
    assert kinds.count("res + transformer x 1") == 6


def test_inpainting_has_nine_input_channels():
    with torch.device("meta"):
        assert parameter_count(stable_diffusion_unet(9)) == 859_520_964 + 5 * 320 * 9


# --- diffusers with the same weights ---------------------------------------------------------------------------------

CONV = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 2,
    "cross_attention_dim": 12,
    "attention_head_dim": 8,  # despite its name, the number of heads
    "norm_num_groups": 8,
}
LINEAR = {
    **CONV,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": (2, 4, 4),  # again the number of heads: 8 wide each
    "transformer_layers_per_block": (1, 2, 3),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 1536 + 20,
}
PLAN = {"channels": 16, "multipliers": (1, 2, 2), "context_dim": 12, "groups": 8}


@cache
def theirs_like_sd1():
    return shaken(UNet2DConditionModel(**CONV))


@cache
def theirs_like_sdxl():
    return shaken(UNet2DConditionModel(**LINEAR))


def like_sd1():
    return theirs_like_sd1(), TextUNet(**PLAN, blocks=2, depths=(1, 1, 0), middle_depth=1, heads=8)


def like_sdxl():
    options = {"blocks": 1, "depths": (0, 2, 3), "middle_depth": 3, "head_dim": 8}
    return theirs_like_sdxl(), TextUNet(**PLAN, **options, vector_dim=1536 + 20)


@pytest.mark.parametrize(("b", "h", "w"), [(1, 8, 8), (3, 4, 12), (2, 16, 8)])
def test_equals_diffusers_like_sd1(b, h, w):
    theirs, mine = like_sd1()
    assert parameter_count(mine) == parameter_count(theirs)
    assert unet_from_diffusers(mine, theirs.state_dict()) is mine
    x, tokens, t = randn(b, 4, h, w), randn(b, 7, 12), 999 * torch.rand(b, generator=G)
    with torch.no_grad():
        expected = theirs(x, t, tokens).sample
        assert expected.std() > 0.1
        assert distance(mine(x, t, {"tokens": tokens}), expected) <= 1e-5


@pytest.mark.parametrize(("b", "h", "w"), [(1, 8, 8), (2, 4, 12)])
def test_equals_diffusers_like_sdxl(b, h, w):
    theirs, mine = like_sdxl()
    unet_from_diffusers(mine, theirs.state_dict())
    x, tokens, pooled, t = randn(b, 4, h, w), randn(b, 7, 12), randn(b, 20), 999 * torch.rand(b, generator=G)
    ids = torch.randint(0, 1024, (b, 6), generator=G)
    vector = torch.cat([pooled, size_features(*ids.split(2, dim=1))], dim=1)
    with torch.no_grad():
        expected = theirs(x, t, tokens, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}).sample
        assert expected.std() > 0.1
        assert distance(mine(x, t, {"tokens": tokens, "vector": vector}), expected) <= 1e-5
        moved = theirs(x, t, tokens, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids + 8}).sample
        assert distance(moved, expected) > 1e-3  # the comparison above can see the sizes


def test_mask_equals_diffusers():
    theirs, mine = like_sd1()
    unet_from_diffusers(mine, theirs.state_dict())
    x, tokens, t = randn(2, 4, 8, 8), randn(2, 5, 12), torch.tensor([3.0, 700.0])
    mask = torch.tensor([[True, True, False, True, False], [True] * 5])
    with torch.no_grad():
        expected = theirs(x, t, tokens, encoder_attention_mask=mask).sample
        assert distance(mine(x, t, {"tokens": tokens, "mask": mask}), expected) <= 1e-5


def test_a_network_on_the_meta_device_takes_the_tensors_over():
    theirs, mine = like_sd1()
    with torch.device("meta"):
        empty = TextUNet(**PLAN, blocks=2, depths=(1, 1, 0), middle_depth=1, heads=8)
    weights = theirs.state_dict()
    unet_from_diffusers(empty, weights)
    assert empty.enter.weight.data_ptr() == weights["conv_in.weight"].data_ptr()
    x, cond = randn(1, 4, 8, 8), {"tokens": randn(1, 3, 12)}
    with torch.no_grad():
        same = unet_from_diffusers(mine, weights)(x, torch.ones(1), cond)
        assert torch.equal(empty(x, torch.ones(1), cond), same)


def damaged(change):
    theirs, mine = like_sd1()
    weights = dict(theirs.state_dict())
    change(weights)
    return shaken(mine), weights


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda w: w.pop("mid_block.resnets.1.conv2.bias"), UnknownNameError, r"1 weights are missing \(mid_block.res"),
        (lambda w: w.update(extra=torch.ones(1)), UnknownNameError, r"1 have no place in the network \(extra\)"),
        (
            lambda w: w.update({"conv_in.weight": torch.ones(16, 9, 3, 3)}),
            ShapeError,
            r"conv_in.weight \(16, 9, 3, 3\)",
        ),
        (lambda w: w.update({"conv_in.bias": torch.ones(17)}), ShapeError, r"expected \(16,\)"),
    ],
)
def test_wrong_weights_are_named_and_change_nothing(change, error, words):
    mine, weights = damaged(change)
    before = {name: p.clone() for name, p in mine.state_dict().items()}
    with pytest.raises(error, match=words):
        unet_from_diffusers(mine, weights)
    assert all(torch.equal(p, before[name]) for name, p in mine.state_dict().items())


# --- the parts -------------------------------------------------------------------------------------------------------


def test_geglu_by_hand():
    layer = GEGLU(3)
    assert layer.inner.weight.shape == (24, 3)
    x = randn(2, 5, 3)
    both = x @ layer.inner.weight.T + layer.inner.bias
    value, gate = both[..., :12], both[..., 12:]
    hidden = value * gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    assert distance(layer(x), hidden @ layer.outer.weight.T + layer.outer.bias) <= 1e-6


def test_cross_attention_equals_torch_multi_head():
    mine = CrossAttention(12, 3, context_dim=5)
    theirs = torch.nn.MultiheadAttention(12, 3, kdim=5, vdim=5, bias=False, batch_first=True)
    theirs.q_proj_weight.data, theirs.k_proj_weight.data = mine.q.weight.data, mine.k.weight.data
    theirs.v_proj_weight.data, theirs.out_proj.weight.data = mine.v.weight.data, mine.out.weight.data
    x, context = randn(2, 6, 12), randn(2, 4, 5)
    mask = torch.tensor([[True, False, True, True], [True, True, False, False]])
    expected, _ = theirs(x, context, context, key_padding_mask=~mask)
    assert distance(mine(x, context, mask), expected + mine.out.bias) <= 1e-6
    assert [name for name, _ in mine.named_parameters() if "bias" in name] == ["out.bias"]
    assert CrossAttention(12, 3, head_dim=10).out.in_features == 30


def test_block_is_sequential():
    """Each of the three steps sees the sum of those before it."""
    block = shaken(TransformerBlock(8, 2, context_dim=6))
    x, text = randn(2, 5, 8), randn(2, 3, 6)
    h = x + block.self_attention(F.layer_norm(x, (8,), block.norm1.weight, block.norm1.bias))
    h = h + block.cross_attention(F.layer_norm(h, (8,), block.norm2.weight, block.norm2.bias), text)
    h = h + block.feed_forward(F.layer_norm(h, (8,), block.norm3.weight, block.norm3.bias))
    assert distance(block(x, text), h) <= 1e-6


def test_spatial_transformer_is_the_identity_at_birth():
    layer = SpatialTransformer(16, 4, depth=2, context_dim=6, groups=4)
    x = randn(2, 16, 4, 6)
    assert torch.equal(layer(x, randn(2, 3, 6)), x)
    assert distance(shaken(layer)(x, randn(2, 3, 6)), x) > 0.01


def test_the_network_is_zero_at_birth():
    net = TextUNet(**SMALL, context_dim=12)
    x = randn(2, 4, 8, 8)
    assert torch.equal(net(x, torch.ones(2), {"tokens": randn(2, 3, 12)}), torch.zeros_like(x))
    features, res = randn(2, 16, 8, 8), net.down[0].stages[0].res
    assert torch.equal(res(features, randn(2, 64)), features)


def test_size_features_are_plain_timestep_features():
    original, crop, target = torch.tensor([[512, 768]]), torch.tensor([[0, 3]]), torch.tensor([[1024, 1024]])
    features = size_features(original, crop, target)
    assert features.shape == (1, 1536)
    for k, number in enumerate([512, 768, 0, 3, 1024, 1024]):
        for i in (0, 1, 77, 127):
            phase = number * 10_000 ** (-i / 128)
            assert features[0, 256 * k + i].item() == pytest.approx(math.cos(phase), abs=2e-4)
            assert features[0, 256 * k + 128 + i].item() == pytest.approx(math.sin(phase), abs=2e-4)


# --- masks, batches, options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [fused_attention, explicit_attention])
def test_masked_tokens_are_as_good_as_dropped(kernel):
    net = with_kernel(small(), kernel)
    x, t, tokens = randn(2, 4, 8, 8), torch.tensor([10.0, 900.0]), randn(2, 6, 12)
    mask = torch.tensor([True, True, False, True, False, False]).expand(2, 6)
    with torch.no_grad():
        dropped = net(x, t, {"tokens": tokens[:, [0, 1, 3]]})
        assert distance(net(x, t, {"tokens": tokens, "mask": mask}), dropped) <= 1e-5
        assert distance(net(x, t, {"tokens": tokens}), dropped) > 1e-3
        everything = net(x, t, {"tokens": tokens, "mask": torch.ones(2, 6, dtype=torch.bool)})
        assert distance(everything, net(x, t, {"tokens": tokens})) <= 1e-5


@pytest.mark.parametrize("kernel", [fused_attention, explicit_attention])
def test_a_fully_masked_row_reads_nothing_and_has_finite_gradients(kernel):
    layer = CrossAttention(8, 2, context_dim=6, kernel=kernel)
    x, context = randn(2, 5, 8).requires_grad_(), randn(2, 3, 6).requires_grad_()
    mask = torch.tensor([[False] * 3, [True, False, True]])
    out = layer(x, context, mask)
    assert torch.equal(out[0], layer.out.bias.expand(5, 8))
    out.square().sum().backward()
    for grad in (x.grad, context.grad, layer.q.weight.grad, layer.k.weight.grad):
        assert torch.isfinite(grad).all()
    assert context.grad[0].abs().max() == 0


def test_samples_do_not_mix():
    net = small(vector_dim=5)
    x, t = randn(3, 4, 8, 8), torch.tensor([1.0, 500.0, 900.0])
    cond = {"tokens": randn(3, 4, 12), "mask": torch.rand(3, 4, generator=G) > 0.3, "vector": randn(3, 5)}
    with torch.no_grad():
        together = net(x, t, cond)
        for k in range(3):
            row = slice(k, k + 1)
            alone = net(x[row], t[row], {name: value[row] for name, value in cond.items()})
            assert distance(alone, together[row]) <= 1e-5


@pytest.mark.parametrize("what", ["t", "tokens", "vector"])
def test_the_network_hears_everything(what):
    net = small(vector_dim=5)
    x, t, cond = randn(1, 4, 8, 8), torch.tensor([100.0]), {"tokens": randn(1, 4, 12), "vector": randn(1, 5)}
    with torch.no_grad():
        before = net(x, t, cond)
        after = net(x, t + 500, cond) if what == "t" else net(x, t, {**cond, what: randn(*cond[what].shape)})
    assert distance(before, after) > 1e-3


def test_without_text():
    net = small(context_dim=0)
    assert not any("cross_attention" in name or ("norm2" in name and "blocks" in name) for name in net.state_dict())
    assert net(randn(2, 4, 8, 8), torch.ones(2)).shape == (2, 4, 8, 8)
    with pytest.raises(UnknownNameError, match="tokens"):
        net(randn(2, 4, 8, 8), torch.ones(2), {"tokens": randn(2, 3, 12)})


def test_other_channels_and_precision():
    net = small(in_channels=9, out_channels=3).double()
    x, tokens = randn(1, 9, 4, 6).double(), randn(1, 2, 12).double()
    out = net(x, torch.ones(1), {"tokens": tokens})
    assert out.shape == (1, 3, 4, 6)
    assert out.dtype == torch.float64


def test_the_first_level_may_be_wider_than_the_entry():
    net = small(multipliers=(2, 1, 3), depths=(0, 1, 0), blocks=2)
    assert net(randn(1, 4, 4, 8), torch.ones(1), {"tokens": randn(1, 3, 12)}).shape == (1, 4, 4, 8)
    assert sum(row.parameters for row in block_table(net, 8)) == parameter_count(net)


def test_forward_mode_in_time_goes_through_the_explicit_kernel():
    net = with_kernel(small(), explicit_attention).double()
    x, tokens, t = randn(2, 4, 4, 4).double(), randn(2, 3, 12).double(), torch.tensor([40.0, 600.0]).double()

    def at(t):
        return net(x, t, {"tokens": tokens})

    _, slope = torch.func.jvp(at, (t,), (torch.ones_like(t),))
    assert distance(slope, (at(t + 1e-4) - at(t - 1e-4)) / 2e-4) <= 1e-7


# --- attention maps --------------------------------------------------------------------------------------------------


@pytest.fixture
def prompt():
    net = small(depths=(1, 2), blocks=1).requires_grad_(False)
    x, t = randn(2, 4, 8, 8), torch.tensor([200.0, 700.0])
    return net, lambda tokens, **more: net(x, t, {"tokens": tokens, **more}), randn(2, 5, 12), randn(2, 5, 12)


def test_recording_shows_probabilities_and_changes_nothing(prompt):
    """Recording writes the softmax out, where the fused kernel does not: equal up to float32 rounding."""
    net, call, tokens, _ = prompt
    mask = torch.tensor([[True, True, True, True, False]] * 2)
    plain = call(tokens, mask=mask)
    with recorded_attention(net) as maps:
        assert distance(call(tokens, mask=mask), plain) <= 1e-5 * plain.abs().max()
    with_kernel(net, explicit_attention)
    plain = call(tokens, mask=mask)
    with recorded_attention(net) as maps:
        assert torch.equal(call(tokens, mask=mask), plain)
    assert len(maps) == 1 + 2 + 1 + 2 * 2 + 2 * 1  # down 1 and 2, middle, up 2 x 2 and 2 x 1
    assert all(name.endswith("cross_attention") for name in maps)
    pixels = {name: 64 if name.startswith(("down.0", "up.1")) else 16 for name in maps}
    for name, probs in maps.items():
        assert probs.shape == (2, 2, pixels[name], 5)
        assert distance(probs.sum(-1), torch.ones(2, 2, pixels[name])) <= 1e-5
        assert probs[..., 4].abs().max() == 0
    names = {name for name, module in net.named_modules() if isinstance(module, CrossAttention)}
    with recorded_attention(net, include_self=True) as everything:
        call(tokens)
    assert set(everything) == names


def test_injecting_the_recorded_maps(prompt):
    net, call, source, edited = prompt
    with recorded_attention(net) as maps:
        out = call(source)
    with controlled_attention(net, lambda layer, probs: maps[layer]):
        assert distance(call(source), out) <= 1e-5 * out.abs().max()
        injected = call(edited)
    assert distance(injected, call(edited)) > 1e-3  # the source's maps with the edited prompt's values
    assert distance(injected, out) > 1e-3
    with controlled_attention(net, lambda layer, probs: probs.flip(-1)):
        assert distance(call(source), out) > 1e-3


def test_taps_nest_and_later_ones_see_the_earlier_ones_result(prompt):
    net, call, tokens, _ = prompt
    with controlled_attention(net, lambda layer, probs: torch.zeros_like(probs)), recorded_attention(net) as maps:
        call(tokens)
    assert all(probs.abs().max() == 0 for probs in maps.values())
    with recorded_attention(net) as maps, controlled_attention(net, lambda layer, probs: torch.zeros_like(probs)):
        call(tokens)
    assert all(probs.sum(-1).min() > 0.99 for probs in maps.values())


def test_a_control_may_write_into_the_map(prompt):
    """The natural line of prompt-to-prompt: row 0 is the source, row 1 the edited prompt, in one batch."""
    net, _, source, edited = prompt
    x, t, tokens = randn(1, 4, 8, 8).expand(2, -1, -1, -1), torch.full((2,), 300.0), torch.stack([source[0], edited[0]])

    def inject(layer, probs):
        probs[1] = probs[0]
        return probs

    plain = net(x, t, {"tokens": tokens})
    with recorded_attention(net) as maps, controlled_attention(net, inject):
        out = net(x, t, {"tokens": tokens})
    assert distance(out[0], plain[0]) <= 1e-5
    assert distance(out[1], plain[1]) > 1e-3
    assert all(distance(probs[0], probs[1]) > 1e-6 for probs in maps.values())  # recorded before the injection


def test_kernels_come_back_even_after_an_error(prompt):
    net, call, tokens, _ = prompt
    layers = [module for module in net.modules() if isinstance(module, CrossAttention)]
    layers[1].kernel = explicit_attention
    before = [layer.kernel for layer in layers]
    with pytest.raises(ZeroDivisionError), controlled_attention(net, lambda layer, probs: 1 // 0):
        call(tokens)
    assert [layer.kernel for layer in layers] == before
    with pytest.raises(ShapeError, match="control must return"), controlled_attention(net, lambda layer, p: p[:1]):
        call(tokens)
    with pytest.raises(ShapeError, match="NoneType"), controlled_attention(net, lambda layer, p: None):
        call(tokens)
    assert [layer.kernel for layer in layers] == before


def test_networks_without_cross_attention():
    with (
        pytest.raises(UnknownNameError, match="CrossAttention without cross-attention"),
        recorded_attention(CrossAttention(8, 2)),
    ):
        pass
    layer = MultiHeadAttention(8, 2)
    with recorded_attention(layer, include_self=True) as maps:
        layer(randn(1, 3, 8))
    assert maps[""].shape == (1, 2, 3, 3)


def test_word_map(prompt):
    net, call, tokens, _ = prompt
    with recorded_attention(net) as maps:
        call(tokens)
    total = sum(word_map(maps, word, (8, 8)) for word in range(5))
    assert distance(total, torch.ones(2, 8, 8)) <= 1e-5
    one = {"a": torch.zeros(1, 2, 6, 3)}
    one["a"][0, :, 4, 1] = torch.tensor([1.0, 0.5])  # pixel 4 of 2 x 3 is row 1, column 1
    assert word_map(one, 1, (2, 3)).tolist() == [[[0, 0, 0], [0, 0.75, 0]]]
    assert word_map(one, 1, (4, 6)).shape == (1, 4, 6)
    with pytest.raises(RangeError, match="word: got 3"):
        word_map(one, 3, (2, 3))
    with pytest.raises(RangeError, match="maps: got none"):
        word_map({}, 0, (2, 3))
    with pytest.raises(ShapeError, match="size"):
        word_map(one, 1, (5, 5))


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": torch.zeros(2, 3, 8, 8)}, r"x must have shape \(b, 4, h, w\)"),
        ({"x": torch.zeros(2, 4, 8)}, "x must have shape"),
        ({"x": torch.zeros(2, 4, 8, 7)}, "multiples of 2"),
        ({"t": torch.zeros(3)}, r"t must have shape \(2,\)"),
        ({"t": torch.zeros(2, 1)}, "t must have shape"),
        ({"cond": None}, r"cond\['tokens'\] must have shape \(2, m, 12\), got none"),
        ({"cond": torch.zeros(2, 3, 12)}, "cond must be a dictionary"),
        ({"tokens": torch.zeros(2, 3, 11)}, r"got \(2, 3, 11\)"),
        ({"tokens": torch.zeros(1, 3, 12)}, r"got \(1, 3, 12\)"),
        ({"tokens": torch.zeros(2, 12)}, r"got \(2, 12\)"),
        ({"tokens": torch.zeros(2, 0, 12)}, r"got \(2, 0, 12\)"),
        ({"mask": torch.ones(2, 3)}, "must be bool"),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, r"shape \(2, 3\)"),
        ({"vector": torch.zeros(2, 4)}, r"cond\['vector'\] must have shape \(2, 5\)"),
        ({"vector": torch.zeros(1, 5)}, r"cond\['vector'\]"),
    ],
)
def test_bad_input_is_named(change, words):
    net = small(vector_dim=5)
    cond = {"tokens": torch.zeros(2, 3, 12), "vector": torch.zeros(2, 5)}
    cond |= {name: value for name, value in change.items() if name in {"tokens", "mask", "vector"}}
    x, t = change.get("x", torch.zeros(2, 4, 8, 8)), change.get("t", torch.zeros(2))
    with pytest.raises(ShapeError, match=words):
        net(x, t, change.get("cond", cond))


def test_bad_names_and_plans_are_named():
    net = small()
    with pytest.raises(UnknownNameError, match=r"\['text'\].*\['mask', 'tokens'\]"):
        net(torch.zeros(1, 4, 8, 8), torch.zeros(1), {"tokens": torch.zeros(1, 2, 12), "text": torch.zeros(1)})
    for options, words in [
        ({"depths": (1,)}, "depths"),
        ({"multipliers": (), "depths": ()}, "depths"),
        ({"groups": 3}, "groups"),
        ({"heads": 3}, "heads must divide"),
        ({"head_dim": 3}, "head_dim"),
    ]:
        with pytest.raises(ShapeError, match=words):
            TextUNet(**{**SMALL, **options})
    with pytest.raises(ShapeError, match="dim must be a multiple of heads"):
        CrossAttention(8, 3)
    for context in (None, torch.zeros(1, 2, 5), torch.zeros(2, 6)):
        with pytest.raises(ShapeError, match=r"context must have shape \(b, m, 6\)"):
            CrossAttention(8, 2, context_dim=6)(torch.zeros(1, 3, 8), context)
    with pytest.raises(ShapeError, match="size must be a multiple of 2"):
        block_table(net, 7)
    pair = torch.zeros(2, 2)
    for bad in [(pair[0], pair, pair), (pair, pair[:1], pair), (pair, pair, torch.zeros(2, 3))]:
        with pytest.raises(ShapeError, match="must have shape"):
            size_features(*bad)
