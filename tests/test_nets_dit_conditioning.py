"""Ways to condition a transformer block: torch's and diffusers' blocks with the same weights, published costs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock

from lecture_lib.errors import RangeError, ShapeError, UnknownNameError
from lecture_lib.nets import (
    DIT_SIZES,
    AdaLNBlock,
    CrossAttentionBlock,
    DiT,
    DiTBlock,
    InContextBlock,
    JointText,
    LabelEmbedding,
    TextDiT,
    TextDiTBlock,
    TextEncoder,
    TokenDiT,
    Tokenizer,
    explicit_attention,
    multiply_adds,
    recorded_attention,
    with_kernel,
    word_map,
)

G = torch.Generator().manual_seed(3)
DIM, HEADS = 16, 4


def randn(*shape):
    return torch.randn(*shape, generator=G)


def shaken(net, std=0.2):
    """All weights random, those that start at zero too; gains stay around 1."""
    for name, p in net.named_parameters():
        p.data.normal_(std=std, generator=G)
        if "norm" in name and name.endswith("weight"):
            p.data += 1
    return net.eval()


def distance(a, b):
    return (a - b).abs().max().item()


def tanh_gelu(x):
    return F.gelu(x, approximate="tanh")


TORCH = {"dim_feedforward": 4 * DIM, "dropout": 0.0, "activation": tanh_gelu, "layer_norm_eps": 1e-6}
TORCH |= {"batch_first": True, "norm_first": True}


def copy(to, source):
    to.weight.data, to.bias.data = source.weight.data, source.bias.data


def copy_self_attention_and_mlp(theirs, mine):
    theirs.self_attn.in_proj_weight.data = mine.attention.qkv.weight.data
    theirs.self_attn.in_proj_bias.data = mine.attention.qkv.bias.data
    copy(theirs.self_attn.out_proj, mine.attention.out)
    copy(theirs.linear1, mine.feed_forward.inner)
    copy(theirs.linear2, mine.feed_forward.outer)


# --- torch's transformer layers with the same weights ----------------------------------------------------------------


def encoder_twin(mine):
    theirs = torch.nn.TransformerEncoderLayer(DIM, HEADS, **TORCH).train()  # train: in eval torch takes a fast path
    copy_self_attention_and_mlp(theirs, mine)
    copy(theirs.norm1, mine.norm1)
    copy(theirs.norm2, mine.norm2)
    return theirs


def test_in_context_is_torchs_encoder_layer_on_one_sequence():
    mine = shaken(InContextBlock(DIM, HEADS))
    x, c = randn(3, 7, DIM), randn(3, 2, DIM)
    expected = encoder_twin(mine)(torch.cat([x, c], dim=1))
    image, heard = mine(x, c)
    assert image.shape == x.shape
    assert distance(torch.cat([image, heard], dim=1), expected) <= 1e-5


def test_cross_attention_is_torchs_decoder_layer():
    mine = shaken(CrossAttentionBlock(DIM, HEADS))
    theirs = torch.nn.TransformerDecoderLayer(DIM, HEADS, **TORCH).train()
    copy_self_attention_and_mlp(theirs, mine)
    cross = mine.cross_attention
    theirs.multihead_attn.in_proj_weight.data = torch.cat([cross.q.weight, cross.k.weight, cross.v.weight]).data
    theirs.multihead_attn.in_proj_bias.data.zero_()
    copy(theirs.multihead_attn.out_proj, cross.out)
    for norm in ("norm1", "norm2", "norm3"):
        copy(getattr(theirs, norm), getattr(mine, norm))
    x, c = randn(3, 7, DIM), randn(3, 2, DIM)
    image, heard = mine(x, c)
    assert distance(image, theirs(x, c)) <= 1e-5
    assert heard is c


def test_adaln_is_torchs_encoder_layer_whose_norms_the_condition_wrote():
    mine = shaken(AdaLNBlock(DIM, HEADS))
    x, c = randn(2, 7, DIM), randn(2, DIM)
    out = mine(x, c)
    for i in range(2):
        shift1, scale1, shift2, scale2 = mine.modulation(F.silu(c[i])).chunk(4)
        theirs = torch.nn.TransformerEncoderLayer(DIM, HEADS, **TORCH).train()
        copy_self_attention_and_mlp(theirs, mine)
        theirs.norm1.weight.data, theirs.norm1.bias.data = (1 + scale1).data, shift1.data
        theirs.norm2.weight.data, theirs.norm2.bias.data = (1 + scale2).data, shift2.data
        assert distance(out[i], theirs(x[i : i + 1])[0]) <= 1e-5


def test_adaln_zero_with_open_gates_is_adaln():
    mine, zero = shaken(AdaLNBlock(DIM, HEADS)), DiTBlock(DIM, HEADS)
    zero.load_state_dict({name: p for name, p in mine.state_dict().items() if "modulation" not in name}, strict=False)
    (shift1, scale1, shift2, scale2), closed = mine.modulation.weight.data.chunk(4), torch.zeros(DIM, DIM)
    zero.modulation.weight.data = torch.cat([shift1, scale1, closed, shift2, scale2, closed])
    (shift1, scale1, shift2, scale2), opened = mine.modulation.bias.data.chunk(4), torch.ones(DIM)
    zero.modulation.bias.data = torch.cat([shift1, scale1, opened, shift2, scale2, opened])
    x, c = randn(2, 7, DIM), randn(2, DIM)
    assert distance(zero(x, c), mine(x, c)) <= 1e-5


# --- the networks ----------------------------------------------------------------------------------------------------


def network(block, **options):
    build = DiT if block in (AdaLNBlock, DiTBlock) else TokenDiT
    return build(8, 1, block=block, dim=DIM, depth=2, heads=HEADS, condition=LabelEmbedding(10, DIM), **options)


WAYS = [InContextBlock, CrossAttentionBlock, AdaLNBlock, DiTBlock]


def test_costs_are_the_published_ones():
    """Peebles & Xie 2023, section 5, of DiT-XL/2: 119.4, 137.6, 118.6 and 118.6 "Gflops", which are multiply-adds."""
    dim, depth, heads = DIT_SIZES["XL"]
    for block, paper in zip(WAYS, (119.4, 137.6, 118.6, 118.6), strict=True):
        build = DiT if block in (AdaLNBlock, DiTBlock) else TokenDiT
        options = {"block": block, "dim": dim, "depth": depth, "heads": heads, "out_channels": 8}
        with torch.device("meta"):
            net = build(32, 4, condition=LabelEmbedding(1000, dim), **options)
            count = multiply_adds(net, torch.zeros(1, 4, 32, 32), torch.zeros(1))
        assert count / 1e9 == pytest.approx(paper, abs=0.06)  # one decimal printed


@pytest.mark.parametrize("block", WAYS)
def test_time_and_label_reach_every_pixel_and_only_their_own_sample(block):
    net = shaken(network(block))
    x, t, label = randn(3, 1, 8, 8), torch.tensor([100.0, 500.0, 900.0]), torch.tensor([1, 4, 10])
    with torch.no_grad():
        out = net(x, t, label)
        later, other = net(x, t + torch.tensor([0.0, 40, 0]), label), net(x, t, torch.tensor([1, 5, 10]))
    for changed in (later, other):
        difference = (changed - out).abs()
        assert difference[1].min() > 1e-7
        assert difference[[0, 2]].max() == 0


@pytest.mark.parametrize("block", WAYS)
def test_zero_at_birth_and_the_kernel_is_an_object(block):
    net, x, t = network(block), randn(2, 1, 8, 8), torch.tensor([3.0, 800.0])
    assert torch.equal(net(x, t, torch.tensor([0, 9])), torch.zeros_like(x))
    shaken(net)
    with torch.no_grad():
        fused = net(x, t)
        assert distance(with_kernel(net, explicit_attention)(x, t), fused) <= 1e-5


def test_only_adaln_zero_begins_as_the_identity():
    x, c = randn(2, 5, DIM), randn(2, DIM)
    for mine in network(DiTBlock).blocks:
        shaken(mine.attention), shaken(mine.feed_forward)  # whatever the branches say, the gates are shut
        assert torch.equal(mine(x, c), x)
    assert distance(network(AdaLNBlock).blocks[0](x, c), x) > 0.1
    for block in (InContextBlock, CrossAttentionBlock):
        assert distance(network(block).blocks[0](x, randn(2, 2, DIM))[0], x) > 0.1


def test_in_context_tokens_go_through_all_blocks_and_are_dropped():
    net = shaken(network(InContextBlock))
    x, t, label = randn(2, 1, 8, 8), torch.tensor([100.0, 500.0]), torch.tensor([1, 10])
    patches = F.unfold(x, 2, stride=2).transpose(1, 2)  # one channel: features in the order of ``patchify``
    sequence = torch.cat(
        [net.embed(patches) + net.positions, torch.stack([net.time(t), net.condition(label, 2)], 1)], 1
    )
    for block in net.blocks:
        sequence = encoder_twin(block)(sequence)
    tokens = net.final.linear(net.final.norm(sequence[:, :16]))
    expected = F.fold(tokens.transpose(1, 2), (8, 8), 2, stride=2)
    assert distance(net(x, t, label), expected) <= 1e-5


@pytest.mark.parametrize("block", [InContextBlock, CrossAttentionBlock])
def test_sizes_that_do_not_fit_are_named(block):
    with pytest.raises(ShapeError, match="size must be a multiple of patch, got size=9, patch=2"):
        TokenDiT(9, 1, block=block)
    with pytest.raises(ShapeError, match=r"x must be \(b, 1, 8, 8\), got \(2, 1, 8, 6\)"):
        network(block)(torch.zeros(2, 1, 8, 6), torch.zeros(2))


# --- words -----------------------------------------------------------------------------------------------------------


def diffusers_twin(mine):
    """PixArt's block as diffusers has it."""
    theirs = BasicTransformerBlock(
        DIM,
        HEADS,
        DIM // HEADS,
        cross_attention_dim=6,
        activation_fn="gelu-approximate",
        attention_bias=True,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
    ).eval()
    theirs.scale_shift_table.data.zero_()  # its modulation comes from outside only
    for i, layer in enumerate((theirs.attn1.to_q, theirs.attn1.to_k, theirs.attn1.to_v)):
        layer.weight.data = mine.attention.qkv.weight.data.chunk(3)[i]
        layer.bias.data = mine.attention.qkv.bias.data.chunk(3)[i]
    copy(theirs.attn1.to_out[0], mine.attention.out)
    for letter in "qkv":
        layer = getattr(theirs.attn2, f"to_{letter}")
        layer.weight.data = getattr(mine.cross_attention, letter).weight.data
        layer.bias.data.zero_()
    copy(theirs.attn2.to_out[0], mine.cross_attention.out)
    copy(theirs.ff.net[0].proj, mine.feed_forward.inner)
    copy(theirs.ff.net[2], mine.feed_forward.outer)
    return theirs


def test_text_block_is_pixarts_in_diffusers():
    mine = shaken(TextDiTBlock(DIM, HEADS, context_dim=6))
    theirs = diffusers_twin(mine)
    x, c, words = randn(2, 9, DIM), randn(2, DIM), randn(2, 5, 6)
    mask = torch.tensor([[True, True, True, False, False], [True] * 5])
    modulation = mine.modulation(F.silu(c))
    bias = -10_000.0 * (~mask[:, None]).float()
    for ours, seen in ((mine(x, c, words, mask), bias), (mine(x, c, words), None)):
        options = {"encoder_hidden_states": words, "encoder_attention_mask": seen, "timestep": modulation}
        expected = theirs(x, **options)
        assert distance(ours, expected) <= 1e-5
    assert distance(mine(x, c, words, mask), mine(x, c, words)) > 1e-3


def small(**options):
    return TextDiT(4, dim=DIM, depth=2, heads=HEADS, context_dim=6, vector_dim=5, grid=6, **options)


def heard(b=2, m=7):
    mask = torch.arange(m)[None] < torch.tensor([3, 5])[:b, None]
    return {"tokens": randn(b, m, 6), "mask": mask, "vector": randn(b, 5)}


def test_text_network_begins_with_blocks_that_are_the_identity():
    net, cond = small(), heard()
    x, tokens = randn(2, 4, 8, 8), randn(2, 16, DIM)
    assert torch.equal(net(x, torch.tensor([1.0, 900.0]), cond), torch.zeros_like(x))
    for block in net.blocks:
        assert torch.equal(block(tokens, randn(2, DIM), cond["tokens"], cond["mask"]), tokens)


@pytest.mark.parametrize("kernel", [None, explicit_attention])
def test_padding_says_nothing(kernel):
    net = shaken(small() if kernel is None else small(kernel=kernel))  # None: the default, which is fused
    x, t, cond = randn(2, 4, 8, 8), torch.tensor([20.0, 700.0]), heard()
    with torch.no_grad():
        out = net(x, t, cond)
        loud = torch.where(cond["mask"][..., None], cond["tokens"], 1e3)
        assert torch.equal(net(x, t, cond | {"tokens": loud}), out)
        for i, length in enumerate((3, 5)):  # and is as good as absent
            row = slice(i, i + 1)
            alone = {"tokens": cond["tokens"][row, :length], "vector": cond["vector"][row]}
            assert distance(net(x[row], t[row], alone), out[row]) <= 1e-5
        spoken = torch.where(cond["mask"][..., None], cond["tokens"] + 0.5, cond["tokens"])
        assert distance(net(x, t, cond | {"tokens": spoken}), out) > 1e-3
        assert distance(with_kernel(net, explicit_attention)(x, t, cond), out) <= 1e-5


def test_all_the_conditions_reach_the_output_and_any_shape_is_served():
    net, cond = shaken(small()), heard()
    x, t = randn(2, 4, 6, 12), torch.tensor([20.0, 700.0])
    with torch.no_grad():
        out = net(x, t, cond)
        assert out.shape == x.shape
        assert distance(net(x, t + 30, cond), out) > 1e-3
        assert distance(net(x, t, cond | {"vector": cond["vector"] + 1}), out) > 1e-3
        assert distance(net(x.flip(-1), t, cond).flip(-1), out) > 1e-3  # tokens know where they stand
    with pytest.raises(RangeError, match="width"):
        net(randn(2, 4, 4, 14), t, cond)


def test_it_hears_what_the_text_encoders_say():
    """The condition of ``JointText`` fits as it is, the empty text too, and its words can be followed in the image."""
    tokenizer = Tokenizer(["a", "red", "square"], length=8)
    encoders = [TextEncoder(len(tokenizer), dim=8, depth=1, heads=2, length=8) for _ in range(2)]
    text = JointText(encoders)
    net = shaken(TextDiT(4, dim=DIM, depth=2, heads=HEADS, context_dim=16, vector_dim=16, grid=4))
    cond = text(tokenizer.encode(["a red square", "a square"]))
    x, t = randn(2, 4, 8, 8), torch.tensor([20.0, 700.0])
    with torch.no_grad(), recorded_attention(net) as maps:
        out = net(x, t, cond)
    assert out.isfinite().all()
    assert list(maps) == ["blocks.0.cross_attention", "blocks.1.cross_attention"]
    for probs in maps.values():
        assert probs.shape == (2, HEADS, 16, cond["mask"].shape[1])
        assert distance(probs.sum(-1), torch.ones(2, HEADS, 16)) <= 1e-5
        assert probs.transpose(1, 3)[~cond["mask"]].abs().max() == 0
    assert word_map(maps, 2, (8, 8)).shape == (2, 8, 8)
    empty = {name: value[None].expand(2, *value.shape) for name, value in text.null.items()}
    assert net(x, t, empty).isfinite().all()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"tokens": torch.zeros(2, 7, 5)}, ShapeError, r"cond\['tokens'\] must have shape \(2, m, 6\)"),
        ({"vector": torch.zeros(2, 6)}, ShapeError, r"cond\['vector'\] must have shape \(2, 5\)"),
        ({"mask": torch.ones(2, 7)}, ShapeError, r"cond\['mask'\] must be bool"),
        ({"label": torch.zeros(2)}, UnknownNameError, r"got \['label'\], this network knows"),
    ],
)
def test_bad_conditions_are_named(change, error, words):
    with pytest.raises(error, match=words):
        small()(torch.zeros(2, 4, 8, 8), torch.zeros(2), heard() | change)
    with pytest.raises(ShapeError, match=r"x must have shape \(b, 4, h, w\)"):
        small()(torch.zeros(2, 3, 8, 8), torch.zeros(2), heard())
