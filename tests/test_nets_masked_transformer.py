"""The masked transformer: diffusers' blocks with the same weights, who sees whom, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets import (
    FSQ,
    KLAutoencoder,
    MaskedTransformer,
    TokenAutoencoder,
    VectorQuantizer,
    recorded_attention,
)

G = torch.Generator().manual_seed(5)
NAMES = (("self_attention", "attn1"), ("cross_attention", "attn2"), (".out.", ".to_out.0."))
MORE = (("feed_forward.inner", "ff.net.0.proj"), ("feed_forward.outer", "ff.net.2"))


def randn(*shape):
    return torch.randn(*shape, generator=G)


def shaken(net):
    for p in net.parameters():
        p.data.normal_(std=0.3, generator=G)
    return net.eval()


def small(**options):
    return shaken(MaskedTransformer(10, 6, dim=16, depth=2, heads=2, **options))


def text(b=3):
    mask = torch.arange(4)[None] < torch.tensor([4, 2, 1])[:b, None]
    return {"tokens": randn(b, 4, 12), "mask": mask, "vector": randn(b, 5)}


def theirs(block):
    other = BasicTransformerBlock(16, 2, 8, cross_attention_dim=12).eval()
    state = block.state_dict()
    for ours, name in (*NAMES, *MORE):
        state = {key.replace(ours, name): value for key, value in state.items()}
    for letter in "qkv":
        state = {key.replace(f".{letter}.", f".to_{letter}."): value for key, value in state.items()}
    other.load_state_dict(state)
    return other


def test_equals_diffusers_blocks_between_embedding_and_tied_readout():
    net, cond = small(context_dim=12, vector_dim=5), text()
    tokens = torch.randint(11, (3, 6), generator=G)
    with torch.no_grad():
        h = torch.stack([net.table.weight[row] + net.positions for row in tokens])
        h = h + (cond["vector"] @ net.vector.weight.T + net.vector.bias)[:, None]
        for block in net.blocks:
            mask = torch.where(cond["mask"], 0.0, -1e4)[:, None]  # theirs is added to the logits
            h = theirs(block)(h, encoder_hidden_states=cond["tokens"], encoder_attention_mask=mask)
        mean, std = h.mean(-1, keepdim=True), h.var(-1, unbiased=False, keepdim=True)
        h = (h - mean) / (std + 1e-5).sqrt() * net.norm.weight + net.norm.bias
        expected = torch.stack([h @ net.table.weight[k] + net.bias[k] for k in range(10)], -1)
        got = net(tokens, cond)
    assert got.shape == (3, 6, 10)  # no logit for the mask
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_every_place_hears_every_other():
    net = small()
    start = torch.full((1, 6), net.mask)
    with torch.no_grad():
        plain = net(start)
        for i in range(6):
            changed = start.clone()
            changed[0, i] = 3
            assert ((net(changed) - plain).abs().amax(-1) > 1e-4).all()


def test_places_are_told_apart_by_position_alone():
    net, order = small(), torch.randperm(6, generator=G)
    tokens = torch.randint(11, (2, 6), generator=G)
    with torch.no_grad():
        assert (net(tokens[:, order]) - net(tokens)[:, order]).abs().max() > 1e-2
        net.positions.zero_()
        assert (net(tokens[:, order]) - net(tokens)[:, order]).abs().max() <= 1e-5


def test_padding_of_the_text_is_not_read_and_words_are():
    net, cond = small(context_dim=12), text()
    tokens = torch.randint(11, (3, 6), generator=G)
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
    tokens = torch.zeros(3, 6, dtype=torch.long)
    with pytest.raises(ShapeError, match=r"\(b, 6\)"):
        net(torch.zeros(3, 5, dtype=torch.long), text())
    with pytest.raises(ShapeError, match="float32"):
        net(tokens.float(), text())
    with pytest.raises(RangeError, match=r"0\.\.10, the last of which is the mask"):
        net(tokens + 11, text())
    with pytest.raises(ShapeError, match=r"cond\['vector'\]: got None, expected shape \(3, 5\)"):
        net(tokens)
    with pytest.raises(ShapeError, match="context"):
        net(tokens, {"vector": randn(3, 5)})


# --- the autoencoder that makes the tokens ---------------------------------------------------------------------------


def token_autoencoder(quantiser):
    return shaken(
        TokenAutoencoder(
            KLAutoencoder(latent_channels=2, channels=8, multipliers=(1, 2), blocks=1, groups=4), quantiser
        )
    )


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
    model.autoencoder.decode = lambda codes: seen.append(codes)
    model.decode(index)
    assert torch.equal(model.quantiser.index(seen[0]), torch.tensor([[[0, 1], [2, 3]]]))


def test_gradients_pass_the_rounding():
    model = token_autoencoder(FSQ((4, 3)))
    model(randn(2, 3, 8, 8))[0].square().mean().backward()
    assert model.autoencoder.encoder.enter.weight.grad.abs().max() > 0


def test_masks_and_odd_lengths_are_refused():
    model = token_autoencoder(FSQ((4, 3)))
    with pytest.raises(RangeError, match=r"expected 0\.\.11"):
        model.decode(torch.full((1, 16), 12))
    with pytest.raises(ShapeError, match="square number"):
        model.decode(torch.zeros(1, 15, dtype=torch.long))
