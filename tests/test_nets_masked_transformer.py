"""The masked transformer: what is around its blocks, who sees whom, and what it refuses; and the tokens it is for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lecture_lib.errors import RangeError, ShapeError, UnknownNameError
from lecture_lib.nets import (
    FSQ,
    Decoder,
    DiTBlock,
    MaskedTransformer,
    TextDiTBlock,
    TokenAutoencoder,
    VectorQuantizer,
    WindowEncoder,
    positions_2d,
    recorded_attention,
)

G = torch.Generator().manual_seed(5)


def randn(*shape):
    return torch.randn(*shape, generator=G)


def shaken(net):
    for p in net.parameters():
        p.data.normal_(std=0.3, generator=G)
    return net.eval()


def small(**options):
    return shaken(MaskedTransformer(10, (3, 3), dim=16, depth=2, heads=2, **options))


def text(b=3):
    mask = torch.arange(4)[None] < torch.tensor([4, 2, 1])[:b, None]
    return {"tokens": randn(b, 4, 12), "mask": mask, "vector": randn(b, 5)}


def test_embedding_blocks_and_tied_readout_by_hand():
    """The blocks are ``TextDiTBlock``, compared with diffusers' PixArt elsewhere; here is what is around them."""
    net, cond = small(context_dim=12, vector_dim=5), text()
    tokens = torch.randint(11, (3, 9), generator=G)
    with torch.no_grad():
        h = torch.stack([4.0 * net.table.weight[row] + net.positions for row in tokens])  # sqrt(16)
        c = cond["vector"] @ net.hear.weight.T + net.hear.bias
        for block in net.blocks:
            h = block(h, c, cond["tokens"], cond["mask"])
        mean, std = h.mean(-1, keepdim=True), h.var(-1, unbiased=False, keepdim=True)
        h = (h - mean) / (std + 1e-5).sqrt() * net.norm.weight + net.norm.bias
        expected = torch.stack([h @ net.table.weight[k] + net.bias[k] for k in range(10)], -1)
        got = net(tokens, cond)
    assert got.shape == (3, 9, 10)  # no logit for the mask
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert isinstance(net.blocks[0], TextDiTBlock) and isinstance(small().blocks[0], DiTBlock)


def test_a_fresh_network_is_a_plain_transformer_that_hears_no_text():
    net = MaskedTransformer(10, (3, 3), dim=16, depth=2, heads=2, context_dim=12, vector_dim=5)
    tokens, cond = torch.randint(11, (3, 9), generator=G), text()
    with torch.no_grad():
        h = 4.0 * net.table(tokens) + positions_2d(3, 3, 16)
        for block in net.blocks:  # shift 0, scale 0, gate 1
            h = h + block.attention(block.norm1(h))
            h = h + block.feed_forward(block.norm2(h))
        plain = F.linear(net.norm(h), net.table.weight[:10])
        assert torch.allclose(net(tokens, cond), plain, atol=1e-5)
    wide = MaskedTransformer(10, (2, 5), dim=16, heads=2)
    assert wide.length == 10 and torch.equal(wide.positions, positions_2d(2, 5, 16))


def test_every_place_hears_every_other():
    net = small()
    start = torch.full((1, 9), net.mask)
    with torch.no_grad():
        plain = net(start)
        for i in range(9):
            changed = start.clone()
            changed[0, i] = 3
            assert ((net(changed) - plain).abs().amax(-1) > 1e-4).all()


def test_places_are_told_apart_by_position_alone():
    net, order = small(), torch.randperm(9, generator=G)
    tokens = torch.randint(11, (2, 9), generator=G)
    with torch.no_grad():
        assert (net(tokens[:, order]) - net(tokens)[:, order]).abs().max() > 1e-2
        net.positions.zero_()
        assert (net(tokens[:, order]) - net(tokens)[:, order]).abs().max() <= 1e-5


def test_padding_of_the_text_is_not_read_and_words_are():
    net, cond = small(context_dim=12), {name: value for name, value in text().items() if name != "vector"}
    tokens = torch.randint(11, (3, 9), generator=G)
    with torch.no_grad():
        plain = net(tokens, cond)
        padding = cond | {"tokens": torch.where(cond["mask"][..., None], cond["tokens"], randn(3, 4, 12))}
        assert (net(tokens, padding) - plain).abs().max() <= 1e-6
        assert (net(tokens, cond | {"tokens": cond["tokens"] + 1}) - plain).abs().amax((1, 2)).min() > 1e-3
        with recorded_attention(net) as record:
            net(tokens, cond)
    assert len(record) > 0


def test_errors_say_what_is_wrong():
    net = small(context_dim=12, vector_dim=5)
    tokens = torch.zeros(3, 9, dtype=torch.long)
    with pytest.raises(ShapeError, match=r"\(b, 9\)"):
        net(torch.zeros(3, 5, dtype=torch.long), text())
    with pytest.raises(ShapeError, match="float32"):
        net(tokens.float(), text())
    with pytest.raises(RangeError, match=r"0\.\.10, the last of which is the mask"):
        net(tokens + 11, text())
    with pytest.raises(ShapeError, match=r"cond\['tokens'\] must have shape \(3, m, 12\), got none"):
        net(tokens)
    with pytest.raises(ShapeError, match=r"cond\['vector'\] must have shape \(3, 5\)"):
        net(tokens, text() | {"vector": randn(3, 4)})
    with pytest.raises(UnknownNameError, match="vector"):
        small(context_dim=12)(tokens, text())


# --- the autoencoder that makes the tokens ---------------------------------------------------------------------------


def token_autoencoder(quantiser):
    decoder = Decoder(2, 3, channels=8, multipliers=(1, 2), blocks=1, groups=4)
    return shaken(TokenAutoencoder(WindowEncoder(2, factor=2, window=4, width=8), quantiser, decoder))


def test_a_window_encoder_has_seen_its_window_and_nothing_else():
    """One pixel at a time: place (1, 1) of a map with f = 2 and windows of 4 reads rows and columns 1 to 4."""
    encoder, x = shaken(WindowEncoder(3, factor=2, window=4, width=8)), randn(1, 3, 8, 8).requires_grad_()
    (slope,) = torch.autograd.grad(encoder(x)[0, :, 1, 1].sum(), x)
    seen = slope.abs().amax((0, 1)) > 0
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[1:5, 1:5] = True
    assert torch.equal(seen, expected)
    flat = encoder(torch.full((1, 3, 8, 8), 0.3)).detach()
    assert torch.allclose(flat, flat[..., :1, :1].expand_as(flat), atol=1e-5)  # borders look like the inside
    with pytest.raises(ShapeError, match="4 plus an even number"):
        WindowEncoder(3, factor=4, window=7)
    with pytest.raises(ShapeError, match="multiples of 2"):
        encoder(torch.zeros(1, 3, 7, 8))


@pytest.mark.parametrize("quantiser", [FSQ((4, 3)), VectorQuantizer(12, 2, generator=torch.Generator().manual_seed(0))])
def test_tokens_are_the_whole_latent(quantiser):
    model, x = token_autoencoder(quantiser), randn(2, 3, 8, 8)
    with torch.no_grad():
        rebuilt, quantised = model(x)
        tokens = model.tokens(x)
        assert tokens.shape == (2, 16) and model.size == 12 and model.factor == 2
        assert torch.equal(tokens, quantised.index.flatten(1))
        assert torch.allclose(model.decode(tokens), rebuilt, atol=1e-5)
        other = tokens.clone()
        other[:, 5] = (other[:, 5] + 1) % 12
        assert (model.decode(other) - rebuilt).abs().max() > 1e-4


def test_rows_come_first():
    """Token 1 is the place to the right of token 0: a mark there is brightest in the upper right."""
    model, index = token_autoencoder(FSQ((4, 3))), torch.arange(4)[None]
    seen = []
    model.decoder.register_forward_pre_hook(lambda _decoder, inputs: seen.append(inputs[0]))
    model.decode(index)
    assert torch.equal(model.quantiser.index(seen[0]), torch.tensor([[[0, 1], [2, 3]]]))


def test_gradients_pass_the_rounding():
    model = token_autoencoder(FSQ((4, 3)))
    model(randn(2, 3, 8, 8))[0].square().mean().backward()
    assert model.encoder.look.weight.grad.abs().max() > 0


def test_masks_and_odd_lengths_are_refused():
    model = token_autoencoder(FSQ((4, 3)))
    with pytest.raises(RangeError, match=r"expected 0\.\.11"):
        model.decode(torch.full((1, 16), 12))
    with pytest.raises(ShapeError, match="square number"):
        model.decode(torch.zeros(1, 15, dtype=torch.long))
