"""Maps of joint attention: four quadrants, who reads what, per layer and word (the U-Net's: test_nets_text_unet)."""

from __future__ import annotations

import pytest
import torch

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets import (
    Flux,
    JointAttention,
    MMDiT,
    attention_layers,
    controlled_attention,
    quadrant_shares,
    quadrants,
    recorded_attention,
    tiled_attention,
    with_kernel,
    word_map,
    word_shares,
)
from lecture_lib.training import mup_attention

G = torch.Generator().manual_seed(5)
MASK = torch.tensor([[True, True, True, False, False], [True] * 5])


def randn(*shape):
    return torch.randn(*shape, generator=G)


def shaken(net):
    for p in net.parameters():
        p.data.normal_(std=0.3, generator=G)
    return net.eval()


def distance(a, b):
    return (a - b).abs().max().item()


NETS = {
    "mmdit": lambda: MMDiT(4, dim=24, depth=3, heads=2, context_dim=12, vector_dim=7, grid=6, qk_norm=True),
    "flux": lambda: Flux(4, dim=24, double=2, single=1, heads=2, axes=(4, 4, 4), context_dim=12, vector_dim=7),
}


@pytest.fixture(params=NETS)
def run(request):
    """A network, a call of it and the maps that were recorded: 5 words, 4 x 4 image tokens."""
    net = shaken(NETS[request.param]())
    x, t = randn(2, 4, 8, 8), torch.tensor([10.0, 600.0])
    cond = {"tokens": randn(2, 5, 12), "mask": MASK, "vector": randn(2, 7)}

    def call():
        with torch.no_grad():
            return net(x, t, cond)

    plain = call()
    with recorded_attention(net) as maps:
        recorded = call()
    assert distance(recorded, plain) <= 1e-5 * plain.abs().max()
    return net, call, maps


def test_every_block_leaves_a_map_of_the_whole_sequence(run):
    net, _, maps = run
    assert list(maps) == list(attention_layers(net)) and len(maps) == 3
    for probs in maps.values():
        assert probs.shape == (2, 2, 21, 21)
        assert distance(probs.sum(-1), torch.ones(2, 2, 21)) <= 1e-5
        assert probs[0, ..., 3:5].abs().max() == 0  # padding is read by nobody


def test_quadrants_are_the_corners_of_the_map_reader_first(run):
    probs = next(iter(run[2].values()))
    four = quadrants(probs, 5)
    top = torch.cat([four.text_text, four.text_image], dim=-1)
    bottom = torch.cat([four.image_text, four.image_image], dim=-1)
    assert torch.equal(torch.cat([top, bottom], dim=-2), probs)
    assert four.text_image.shape == (2, 2, 5, 16) and four.image_text.shape == (2, 2, 16, 5)


def test_the_map_is_the_softmax_of_queries_and_keys():
    """Against the definition, from the layer's own projections: a pixel's row over words and pixels."""
    layer, text, image = shaken(JointAttention(24, 2)), randn(1, 5, 24), randn(1, 16, 24)
    with recorded_attention(layer) as maps:
        layer(text, image)
    q = layer.image.read(image)[0][0, 1, 7]
    keys = torch.cat([layer.text.read(text)[1][0, 1], layer.image.read(image)[1][0, 1]])
    row = torch.softmax(keys @ q / 12**0.5, dim=0)
    assert distance(quadrants(maps[""], 5).image_text[0, 1, 7], row[:5]) <= 1e-6
    assert distance(quadrants(maps[""], 5).image_image[0, 1, 7], row[5:]) <= 1e-6


def test_shares_by_hand():
    probs = torch.zeros(1, 2, 4, 4)  # 2 words, of which the second is padding, and 2 pixels
    probs[0, :, 0, 0], probs[0, :, 0, 2] = 0.25, 0.75
    probs[0, :, 1] = 9.0  # what padding reads counts for nothing
    probs[0, 0, 2, 0], probs[0, 0, 2, 3] = 0.5, 0.5
    probs[0, 1, 2, 3] = 1.0
    probs[0, :, 3, 2] = 1.0
    mask = torch.tensor([[True, False]])
    shares = quadrant_shares({"a": probs}, mask)
    assert shares.tolist() == [[[[0.25, 0.75], [0.125, 0.875]]]]
    assert word_shares({"a": probs}, 2).tolist() == [[[0.125, 0.0]]]


def test_shares_of_a_network(run):
    maps = run[2]
    shares, words = quadrant_shares(maps, MASK), word_shares(maps, 5)
    assert distance(shares.sum(-1), torch.ones(3, 2, 2)) <= 1e-5
    assert distance(words.sum(-1), shares[..., 1, 0]) <= 1e-6
    assert words[:, 0, 3:].abs().max() == 0


def test_a_word_has_a_picture(run):
    pictures = {name: quadrants(probs, 5).image_text for name, probs in run[2].items()}
    total = sum(word_map(pictures, word, (4, 4)) for word in range(5))
    expected = torch.stack([q.sum(-1).mean(1).reshape(2, 4, 4) for q in pictures.values()]).mean(0)
    assert distance(total, expected) <= 1e-5


def test_a_quadrant_can_be_shut(run):
    """Without image_text the picture cannot depend on the words: what the lecture calls the channel of the prompt."""
    net, call, _ = run

    def shut(layer, probs):
        probs = probs.clone()
        probs[..., 5:, :5] = 0
        return probs / probs.sum(-1, keepdim=True)

    with controlled_attention(net, shut):
        deaf = call()
        with controlled_attention(net, lambda layer, probs: probs):
            net.words.weight.data += 1
            assert distance(call(), deaf) <= 1e-5 * deaf.abs().max()
    assert distance(call(), deaf) > 1e-3


def test_bad_maps_are_named():
    with pytest.raises(ShapeError, match="map of a joint attention"):
        quadrants(torch.zeros(1, 2, 16, 5), 5)
    for words in (0, 5, 6):
        with pytest.raises(RangeError, match=f"words: got {words}, expected 1..4"):
            quadrants(torch.zeros(1, 2, 5, 5), words)


@pytest.mark.parametrize("kernel", [mup_attention(3), tiled_attention])
def test_a_recorded_network_keeps_its_kernel(kernel):
    """μP's logits are q.k sqrt(base)/d: a map with sqrt(d) would be another network's."""
    net = with_kernel(shaken(NETS["mmdit"]()), kernel)
    x, t = randn(2, 4, 4, 4), torch.tensor([100.0, 700.0])
    cond = {"tokens": randn(2, 5, 12), "vector": randn(2, 7), "mask": MASK}
    expected = net(x, t, cond)
    with recorded_attention(net) as maps:
        got = net(x, t, cond)
    assert distance(got, expected) < 1e-5 * expected.abs().max()
    assert all(distance(probs.sum(-1), torch.ones(())) < 1e-5 for probs in maps.values())


def test_shares_of_no_layers_are_named():
    with pytest.raises(RangeError, match="maps"):
        quadrant_shares({}, MASK)
    with pytest.raises(RangeError, match="maps"):
        word_shares({}, 3)
