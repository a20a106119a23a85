"""Text encoders: tokens, who sees whom, padding, the contrastive loss, missing spans, joined conditions."""

from __future__ import annotations

import dataclasses
import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lecture_lib.core.conditions import check_cond, expand_cond
from lecture_lib.data.shapes import COLOURS, VOCABULARY, captioned
from lecture_lib.errors import RangeError, ShapeError, UnknownNameError
from lecture_lib.families import gloss_loss, info_nce, remove_span, same_texts, span_loss
from lecture_lib.nets import (
    ContrastivePair,
    GlossWriter,
    ImageEncoder,
    JointText,
    MaskedAttention,
    Penultimate,
    SpanDenoiser,
    TextEncoder,
    TextFeatures,
    Tokenizer,
    causal_mask,
    full_mask,
    parameter_count,
    sd3_condition,
)
from lecture_lib.nets.tokenizer import END, MASK, PAD, START
from lecture_lib.training import adamw, train
from lecture_lib.zoo.shapes_text import CLIP, LANGUAGE, shapes_glosses
from lecture_lib.zoo.workshop import initial

G = torch.Generator().manual_seed(0)
TOKENIZER = Tokenizer(VOCABULARY)
TEXTS = ["a small red circle", "a large blue square left of a small pink ring on a black background", ""]
TOKENS = TOKENIZER.encode(TEXTS)


def encoder(visible=causal_mask, **changes):
    """An encoder whose norms, biases and positions all matter."""
    net = TextEncoder(len(TOKENIZER), **{"dim": 16, "heads": 2, "visible": visible} | changes)
    for p in net.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=G)
    return net.eval()


# Tokenizer


def test_tokens_are_start_words_end_padding():
    row = TOKENIZER.encode("A small, RED circle.")[0].tolist()
    words = [TOKENIZER.ids[word] for word in ("a", "small", "red", "circle")]
    assert row == [START, *words, END] + [PAD] * 18
    assert TOKENIZER.encode("").tolist() == [[START, END] + [PAD] * 22]
    assert (PAD, START, END, MASK) == (0, 1, 2, 3)
    assert len(TOKENIZER) == len(VOCABULARY) + 4 and min(words) >= 4


def test_every_caption_fits_and_comes_back():
    captions = list(captioned(1000, torch.Generator().manual_seed(1)).captions)
    tokens = TOKENIZER.encode(captions)
    assert tokens.dtype == torch.int64 and tokens.shape == (1000, 24)
    assert TOKENIZER.decode(tokens) == captions
    assert TOKENIZER.decode(TOKENIZER.encode("a <mask> circle")) == ["a <mask> circle"]


def test_unknown_words_are_named_and_similar_ones_offered():
    with pytest.raises(UnknownNameError, match=r"'sqare'.*square"):
        TOKENIZER.encode("a small red sqare")
    with pytest.raises(UnknownNameError, match="'<end>'"):
        TOKENIZER.encode("a <end> circle")


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: TOKENIZER.encode("a " * 23), ShapeError, "texts: got 23 words"),
        (lambda: TOKENIZER.encode([]), ShapeError, "texts"),
        (lambda: TOKENIZER.decode(TOKENS[0]), ShapeError, "tokens"),
        (lambda: TOKENIZER.decode(TOKENS + 40), RangeError, "tokens"),
        (lambda: Tokenizer(["a", "a"]), RangeError, "words"),
        (lambda: Tokenizer(["Red"]), RangeError, "Red"),
        (lambda: Tokenizer(["<mask>"]), RangeError, "<mask>"),
        (lambda: Tokenizer(["a"], length=1), RangeError, "length"),
    ],
)
def test_tokenizer_refuses(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_twenty_two_words_still_fit():
    assert TOKENIZER.encode("a " * 22)[0, -1] == END


# Encoder


def copied(net: TextEncoder, block) -> nn.TransformerEncoderLayer:
    """PyTorch's own layer with the weights of one of ours."""
    theirs = nn.TransformerEncoderLayer(
        net.dim,
        block.attention.heads,
        4 * net.dim,
        dropout=0.0,
        activation=functools.partial(F.gelu, approximate="tanh"),
        batch_first=True,
        norm_first=True,
    )
    theirs.self_attn.in_proj_weight.data = torch.cat([block.attention.q.weight, block.attention.kv.weight]).data
    theirs.self_attn.in_proj_bias.data = torch.cat([block.attention.q.bias, block.attention.kv.bias]).data
    for mine, other in (
        (block.attention.out, theirs.self_attn.out_proj),
        (block.norm1, theirs.norm1),
        (block.norm2, theirs.norm2),
        (block.feed_forward.inner, theirs.linear1),
        (block.feed_forward.outer, theirs.linear2),
    ):
        other.load_state_dict(mine.state_dict())
    return theirs  # in training mode, so that no fused path zeroes padding; there is no dropout


@pytest.mark.parametrize("visible", [causal_mask, full_mask])
def test_encoder_equals_pytorchs_layers(visible):
    net = encoder(visible, depth=3)
    mine = net(TOKENS)
    x = net.table.weight[TOKENS] + net.positions
    for block in net.blocks:
        before = x
        x = copied(net, block)(x, src_mask=~visible(24), src_key_padding_mask=TOKENS == PAD)
    theirs = F.layer_norm(x, (16,), net.norm.weight, net.norm.bias)
    assert (mine.tokens - theirs).abs().max() < 1e-5
    assert (mine.penultimate - before).abs().max() < 1e-5
    assert (mine.mask == (TOKENS != PAD)).all()
    ends = [5, 15, 1]
    assert (mine.pooled == mine.tokens[range(3), ends]).all()


def test_cross_attention_equals_pytorchs():
    mine = MaskedAttention(12, 3, context=20)
    theirs = nn.MultiheadAttention(12, 3, kdim=20, vdim=20, batch_first=True)
    key, value = mine.kv.weight.data.chunk(2)
    theirs.q_proj_weight.data, theirs.k_proj_weight.data, theirs.v_proj_weight.data = mine.q.weight.data, key, value
    theirs.in_proj_bias.data = torch.cat([mine.q.bias, mine.kv.bias]).data
    theirs.out_proj.load_state_dict(mine.out.state_dict())
    x, context = torch.randn(2, 5, 12, generator=G), torch.randn(2, 7, 20, generator=G)
    mask = torch.rand(2, 5, 7, generator=G) < 0.6
    mask[..., 0] = True
    expected = theirs(x, context, context, attn_mask=~mask.repeat_interleave(3, 0), need_weights=False)[0]
    assert (mine(x, context, mask) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("visible", [causal_mask, full_mask])
def test_padding_changes_nothing(visible):
    net = encoder(visible)
    wide, short = net(TOKENS), net(TOKENS[:, :16])
    true = short.mask
    assert (wide.tokens[:, :16][true] - short.tokens[true]).abs().max() < 1e-5
    assert (wide.pooled - short.pooled).abs().max() < 1e-5


def changed_later() -> torch.Tensor:
    """The texts with another third word."""
    tokens = TOKENS[:2].clone()
    tokens[:, 3] = TOKENIZER.ids["green"]
    return tokens


def test_causal_tokens_never_see_later_words():
    net = encoder(causal_mask)
    a, b = net(TOKENS[:2]), net(changed_later())
    assert torch.equal(a.tokens[:, :3], b.tokens[:, :3]) and torch.equal(a.penultimate[:, :3], b.penultimate[:, :3])
    assert ((a.tokens - b.tokens)[:, 3:6].abs().amax(-1) > 1e-4).all()
    assert ((a.pooled - b.pooled).abs().amax(-1) > 1e-4).all()


def test_bidirectional_tokens_see_them():
    net = encoder(full_mask)
    assert ((net(TOKENS[:2]).tokens - net(changed_later()).tokens)[:, :3].abs().amax(-1) > 1e-4).all()


@pytest.mark.parametrize(
    ("tokens", "error"),
    [
        (TOKENS.float(), ShapeError),
        (TOKENS[0], ShapeError),
        (F.pad(TOKENS, (0, 1)), ShapeError),
        (TOKENS + 44, RangeError),
        (TOKENS - 1, RangeError),
        (TOKENS[:, :10], RangeError),  # the second text is cut off before its <end>
        (TOKENS.flip(1), RangeError),
    ],
)
def test_encoder_refuses(tokens, error):
    with pytest.raises(error, match="tokens: got"):
        encoder()(tokens)


def test_heads_must_divide_the_width():
    with pytest.raises(ShapeError, match="dim"):
        TextEncoder(9, dim=10, heads=4)


# CLIP


def pair():
    return ContrastivePair(encoder(), ImageEncoder(20, width=8), 12)


def test_similarity_is_scaled_cosines():
    clip = pair()
    images = torch.randn(3, 3, 32, 32, generator=G)
    u, v = clip.image_projection(clip.image(images)), clip.text_projection(clip.text(TOKENS).pooled)
    cosines = torch.stack([F.cosine_similarity(row, v) for row in u])
    assert (clip.similarity(images, TOKENS) - cosines / 0.07).abs().max() < 1e-4
    assert clip.text_projection.bias is None and clip.image_projection.bias is None


def test_the_scale_is_clipped_and_comes_back():
    clip = pair()
    images = torch.randn(3, 3, 32, 32, generator=G)
    clip.log_scale.data.fill_(9.0)
    cosines = clip.embed_images(images) @ clip.embed_texts(TOKENS).T
    similarity = clip.similarity(images, TOKENS)
    assert (similarity - 100 * cosines).abs().max() < 1e-3
    similarity.sum().backward()
    assert clip.log_scale.grad.abs() > 0 and clip.log_scale.item() == pytest.approx(math.log(100))


def test_images_have_a_size():
    with pytest.raises(ShapeError, match="images"):
        ImageEncoder(8)(torch.zeros(1, 3, 28, 28))


def test_info_nce_by_hand():
    s = torch.log(torch.tensor([[2.0, 1.0, 1.0], [1.0, 3.0, 4.0], [5.0, 2.0, 1.0]]))
    # rows: 2/4, 3/8, 1/8; columns: 2/8, 3/6, 1/6
    expected = [-(math.log(r) + math.log(c)) / 2 for r, c in ((2 / 4, 2 / 8), (3 / 8, 3 / 6), (1 / 8, 1 / 6))]
    assert info_nce(s).tolist() == pytest.approx(expected)


def test_info_nce_equals_cross_entropy():
    s, labels = 5 * torch.randn(7, 7, generator=G), torch.arange(7)
    expected = (F.cross_entropy(s, labels, reduction="none") + F.cross_entropy(s.T, labels, reduction="none")) / 2
    assert torch.allclose(info_nce(s), expected, atol=1e-5)


def test_equal_captions_share_the_target():
    tokens = TOKENIZER.encode(["a small red circle", "a small red circle", "a large red circle"])
    same = same_texts(tokens)
    assert same.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    s = torch.tensor([[9.0, 9.0, -9.0], [9.0, 9.0, -9.0], [-9.0, -9.0, 9.0]])
    soft, hard = info_nce(s, same), info_nce(s)
    assert soft[:2].tolist() == pytest.approx([math.log(2)] * 2, abs=1e-6)
    s.requires_grad_()
    assert torch.autograd.grad(info_nce(s, same).sum(), s)[0].abs().max() < 1e-5  # the perfect answer is left alone
    skewed = torch.tensor([[9.0, 3.0, -9.0], [3.0, 9.0, -9.0], [-9.0, -9.0, 9.0]])
    assert info_nce(skewed)[0] < hard[0]  # without `same` telling the two apart would pay
    assert info_nce(skewed, same)[0] > soft[0]


@pytest.mark.parametrize("arguments", [(torch.zeros(2, 3),), (torch.zeros(3, 3), torch.eye(2, dtype=torch.bool))])
def test_info_nce_refuses(arguments):
    with pytest.raises(ShapeError, match="expected"):
        info_nce(*arguments)


# T5


def test_a_removed_span_fits_back_into_its_gap():
    captions = list(captioned(500, torch.Generator().manual_seed(2)).captions)
    gapped, span = remove_span(TOKENIZER.encode(captions), G)
    texts, words = TOKENIZER.decode(gapped), TOKENIZER.decode(span)
    assert [t.replace("<mask>", w.removeprefix("<mask> ")) for t, w in zip(texts, words, strict=True)] == captions
    lengths = torch.tensor([len(w.split()) - 1 for w in words])
    assert set(lengths.tolist()) == {1, 2, 3, 4, 5} and 2.7 < lengths.double().mean() < 3.3
    starts = {t.split().index("<mask>") for t in texts}
    assert starts >= set(range(12)) and any(t.endswith("<mask>") for t in texts)
    assert ((span == END).sum(1) == 1).all() and ((gapped == END).sum(1) == 1).all()


def test_the_null_text_has_an_empty_span():
    gapped, span = remove_span(TOKENIZER.encode(""), G)
    assert gapped[0, :4].tolist() == [START, MASK, END, PAD] and span[0].tolist() == [MASK, END] + [PAD] * 5


def denoiser():
    model = SpanDenoiser(encoder(full_mask), heads=2)
    for p in model.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=G)
    return model.eval()


def test_the_decoder_writes_from_left_to_right_and_looks_at_the_text():
    model = denoiser()
    gapped, span = remove_span(TOKENS[:2], torch.Generator().manual_seed(0))
    written = span[:, :-1].clone()
    logits = model(gapped, written)
    assert logits.shape == (2, 6, len(TOKENIZER))
    written[:, 2] = TOKENIZER.ids["green"]
    later = model(gapped, written)
    assert torch.equal(logits[:, :2], later[:, :2]) and (logits - later)[:, 2:].abs().amax(-1).min() > 1e-5
    other = gapped.clone()
    other[:, 1] = TOKENIZER.ids["green"]
    assert (model(other, span[:, :-1]) - logits).abs().amax(-1).min() > 1e-5
    assert (model(F.pad(gapped[:, :20], (0, 2)), span[:, :-1]) - logits).abs().max() < 1e-4  # padding is not seen


def test_span_loss_counts_every_token_of_the_span_once():
    model = denoiser()
    losses = span_loss(model, TOKENS, torch.Generator().manual_seed(4))
    gapped, span = remove_span(TOKENS, torch.Generator().manual_seed(4))
    for i in range(3):
        size = int((span[i] != PAD).sum())  # <mask>, words, <end>
        log_p = model(gapped[i : i + 1], span[i : i + 1, : size - 1])[0].log_softmax(-1)
        expected = -sum(log_p[j, span[i, j + 1]] for j in range(size - 1)) / (size - 1)
        assert losses[i].item() == pytest.approx(expected.item(), abs=1e-4)


def test_the_decoder_has_a_length():
    with pytest.raises(ShapeError, match="written"):
        denoiser()(TOKENS, TOKENS[:, :7])


# Glosses


def glosser():
    model = GlossWriter(encoder(full_mask), heads=2)
    for p in model.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=G)
    return model.eval()


def test_a_gloss_is_written_from_one_vector_and_from_left_to_right():
    model = glosser()
    features, written = model.encoder(TOKENS).tokens[:, 3], TOKENS[:, :8].clone()
    logits = model(features, written)
    written[:, 5] = TOKENIZER.ids["green"]
    later = model(features, written)
    assert torch.equal(logits[:, :5], later[:, :5]) and (logits - later)[:, 5:].abs().amax(-1).min() > 1e-5
    # Reading is a sum: the vector moves all positions by the same W feature, before the last norm.
    hidden = model.block(model.encoder.table(written) + model.positions[:8], causal_mask(8)[None])
    by_hand = F.linear(
        model.norm(hidden + F.linear(features, model.read.weight, model.read.bias)[:, None]), model.encoder.table.weight
    )
    assert (later - by_hand).abs().max() < 1e-5


def test_gloss_loss_asks_single_tokens():
    model, (tokens, owner, told) = glosser(), shapes_glosses(TEXTS[:2])
    features = model.encoder(tokens).tokens
    each = torch.zeros(2, 24)
    for i in range(2):
        for at in range(int((tokens[i] != PAD).sum())):
            gloss = told[i, owner[i, at]]
            size = int((gloss != PAD).sum())
            log_p = model(features[i, at][None], gloss[None, : size - 1])[0].log_softmax(-1)
            each[i, at] = -sum(log_p[j, gloss[j + 1]] for j in range(size - 1)) / (size - 1)
    one = torch.stack([gloss_loss(model, tokens, owner, told, G, asked=1, noise=0.0) for _ in range(300)])
    for i in range(2):  # every loss is that of one token, and every token is asked, padding never
        distance = (one[:, i, None] - each[i, : int((tokens[i] != PAD).sum())]).abs()
        assert distance.amin(1).max() < 1e-4 and distance.amin(0).max() < 1e-4
    assert (
        gloss_loss(model, tokens, owner, told, G, asked=2000, noise=0.0)
        .sub(torch.stack([each[i][tokens[i] != PAD].mean() for i in range(2)]))
        .abs()
        .max()
        < 0.1 * each.std()
    )


def test_encoded_glosses_stand_at_the_tokens_of_their_words():
    tokens, owner, told = shapes_glosses(TEXTS[:2])
    for row, owners, glosses in zip(tokens.tolist(), owner.tolist(), told, strict=True):
        texts = TOKENIZER.decode(glosses)
        for token, number in zip(row, owners, strict=True):
            if TOKENIZER.words[token] in COLOURS:
                assert TOKENIZER.words[token] in texts[number]
            if token in (START, END, PAD):
                assert number == 0


def test_vectors_are_read_through_noise():
    model, batch = glosser(), shapes_glosses(TEXTS[:2])
    asked = []
    model.register_forward_pre_hook(lambda _, args: asked.append(args[0]))
    for noise in (0.0, 0.5):
        gloss_loss(model, *batch, torch.Generator().manual_seed(7), asked=500, noise=noise)
    added = asked[1] - asked[0]
    assert abs(added.std() - 0.5) < 0.01 and abs(added.mean()) < 0.01  # 16,000 numbers: standard errors .003 and .004


def test_gloss_writer_refuses():
    model = glosser()
    with pytest.raises(ShapeError, match="written"):
        model(torch.zeros(3, 16), TOKENS[:, :16])
    with pytest.raises(ShapeError, match="feature"):
        model(torch.zeros(3, 8), TOKENS[:, :8])


# Several encoders together


def test_joint_text_joins_widths_and_freezes():
    clip, t5 = encoder(), encoder(full_mask, dim=24)
    joint = JointText([Penultimate(clip), t5])
    cond = joint(TOKENS)
    assert {k: tuple(v.shape) for k, v in cond.items()} == {"tokens": (3, 24, 40), "mask": (3, 24), "vector": (3, 40)}
    assert torch.equal(cond["tokens"][..., :16], clip(TOKENS).penultimate)
    assert torch.equal(cond["tokens"][..., 16:], t5(TOKENS).tokens)
    assert torch.equal(cond["vector"], torch.cat([clip(TOKENS).pooled, t5(TOKENS).pooled], -1))
    assert not any(p.requires_grad for p in joint.parameters()) and not cond["tokens"].requires_grad


def test_null_is_one_sample_of_the_empty_text():
    joint = JointText([encoder(), encoder(full_mask)])
    cond, null = joint(TOKENS), joint.null
    assert null["mask"].tolist() == [True, True] + [False] * 22
    for key, value in null.items():
        assert value.shape == cond[key].shape[1:]
        assert torch.allclose(value.float(), cond[key][2].float(), atol=1e-6)  # the third text is ""
    assert expand_cond(check_cond(None, null), 5)["tokens"].shape == (5, 24, 32)


def test_encoders_share_a_length():
    with pytest.raises(ShapeError, match=r"\[12, 24\]"):
        JointText([encoder(), encoder(length=12)])
    with pytest.raises(ShapeError, match="encoders"):
        JointText([])


def features(b, n, d):
    x = torch.randn(2, b, n, d, generator=G)
    return TextFeatures(x[0], x[1], x[0, :, -1], torch.rand(b, n, generator=G) < 0.7)


def test_sd3_pads_the_width_and_appends_the_sequence():
    first, second, third = features(2, 77, 6), features(2, 77, 10), features(2, 50, 32)
    cond = sd3_condition(first, second, third)
    assert cond["tokens"].shape == (2, 127, 32) and cond["vector"].shape == (2, 16)
    assert torch.equal(cond["tokens"][:, :77, :6], first.tokens) and torch.equal(
        cond["tokens"][:, :77, 6:16], second.tokens
    )
    assert (cond["tokens"][:, :77, 16:] == 0).all() and torch.equal(cond["tokens"][:, 77:], third.tokens)
    assert torch.equal(cond["mask"], torch.cat([first.mask, third.mask], 1))
    with pytest.raises(ShapeError, match="third: got width 10, expected at least 38"):
        sd3_condition(first, features(2, 77, 32), second)
    with pytest.raises(ShapeError, match="second: got length 50, expected 77"):
        sd3_condition(first, third, second)


# Recipes


@pytest.mark.parametrize("recipe", [CLIP, LANGUAGE])
def test_recipes_are_small_and_learn(recipe):
    recipe = dataclasses.replace(recipe, scenes=256, batch_size=16)
    model = initial(recipe)
    assert parameter_count(model) < 250_000
    steps = train(
        model,
        recipe.loss,
        recipe.batches(),
        steps=25,
        optimizer=adamw(model, 3e-3),
        generator=torch.Generator().manual_seed(0),
    )
    losses = [step.loss for step in steps]
    assert sum(losses[-5:]) < 0.92 * sum(losses[:5])
    assert recipe.describe()["name"] == recipe.name
