"""Concepts inside a transformer: directions, steering, and ConceptAttention's maps, against hooks and definitions."""

from __future__ import annotations

import pytest
import torch

from lecture_lib.errors import ShapeError, UnknownNameError
from lecture_lib.nets import (
    DiT,
    Flux,
    LabelEmbedding,
    MMDiT,
    concept_direction,
    concept_maps,
    random_direction,
    steered,
)

G = torch.Generator().manual_seed(6)
T = torch.tensor([10.0, 600.0], dtype=torch.float64)


def randn(*shape):
    return torch.randn(*shape, generator=G, dtype=torch.float64)


def shaken(net):
    for p in net.parameters():
        p.data.normal_(std=0.3, generator=G)
    return net.double().eval()


def distance(a, b):
    return (a - b).abs().max().item()


NETS = {
    "mmdit": lambda: MMDiT(4, dim=24, depth=3, heads=2, context_dim=12, vector_dim=7, grid=6),
    "flux": lambda: Flux(4, dim=24, double=3, single=1, heads=2, axes=(4, 4, 4), context_dim=12, vector_dim=7),
}


@pytest.fixture(params=NETS)
def net(request):
    return shaken(NETS[request.param]())


def condition(b=2, m=5):
    return {"tokens": randn(b, m, 12), "vector": randn(b, 7)}


def outputs(net, layer, x, t, cond):
    """What the block puts out: text and image tokens."""
    seen = []
    handle = dict(net.named_modules())[layer].register_forward_hook(lambda m, i, out: seen.append(out))
    with torch.no_grad():
        result = net(x, t, cond)
    handle.remove()
    return *seen[0], result


def test_a_direction_is_the_mean_difference_of_image_tokens(net):
    x, cond, without = randn(2, 4, 8, 8), condition(), condition()
    _, image, _ = outputs(net, "blocks.1", x, T, cond)
    _, other, _ = outputs(net, "blocks.1", x, T, without)
    direction = concept_direction(net, "blocks.1", x, T, cond, without)
    assert distance(direction, (image - other).mean(dim=(0, 1))) <= 1e-9
    assert distance(concept_direction(net, "blocks.1", x, T, without, cond), -direction) <= 1e-9
    assert concept_direction(net, "blocks.1", x, T, cond, cond).abs().max() == 0


def test_steering_adds_to_the_image_and_not_to_the_text(net):
    x, cond, v = randn(2, 4, 8, 8), condition(), randn(24)
    text, image, plain = outputs(net, "blocks.1", x, T, cond)
    strength = torch.tensor([0.0, -1.5]).double()
    with steered(net, "blocks.1", v, strength):
        text_then, image_then, moved = outputs(net, "blocks.1", x, T, cond)
    assert torch.equal(text_then, text)
    assert distance(image_then - image, strength[:, None, None] * v) <= 1e-9
    assert torch.equal(moved[0], plain[0]) and distance(moved[1], plain[1]) > 1e-2
    assert torch.equal(outputs(net, "blocks.1", x, T, cond)[2], plain)  # and it ends
    with steered(net, "blocks.1", v, 0.0):
        assert torch.equal(outputs(net, "blocks.1", x, T, cond)[2], plain)


def test_steering_ends_after_an_error(net):
    before = outputs(net, "blocks.0", x := randn(2, 4, 8, 8), T, cond := condition())[2]
    with pytest.raises(ZeroDivisionError), steered(net, "blocks.0", randn(24), 1.0):
        raise ZeroDivisionError
    assert torch.equal(outputs(net, "blocks.0", x, T, cond)[2], before)


def test_steering_finds_the_class_of_a_linear_world():
    """A DiT's last block: the direction of a class, added in full, turns the mean token of one into the other's."""
    net = shaken(DiT(8, 1, dim=16, depth=2, heads=2, condition=LabelEmbedding(3, 16)))
    x, one, two = randn(2, 1, 8, 8), torch.tensor([1, 1]), torch.tensor([2, 2])
    direction = concept_direction(net, "blocks.1", x, T, two, one)
    means = []
    handle = net.blocks[1].register_forward_hook(lambda m, i, out: means.append(out.mean(dim=(0, 1))))
    with torch.no_grad():
        net(x, T, two)
        net(x, T, one)
    handle.remove()
    assert distance(means[1] + direction, means[0]) <= 1e-9


def test_a_random_direction_is_as_long_and_follows_its_seed():
    v = 7 * randn(24)
    one, same, other = (random_direction(v, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert abs(one.norm() / v.norm() - 1) <= 1e-9
    assert torch.equal(one, same) and distance(one, other) > 0.1
    many = torch.stack([random_direction(v, G) for _ in range(2000)])
    assert many.mean(0).norm() <= 0.1 * v.norm()  # no direction is preferred: expected 0.022


def attention_outputs(net, x, t, cond):
    """What text and image take from the joint attention, block by block, before it is mapped back: found by hooks."""
    o_text, o_image, handles = [], [], []
    for block in net.blocks:
        for stream, kept in ((block.attention.text, o_text), (block.attention.image, o_image)):
            handles.append(stream.out.register_forward_hook(lambda m, i, out, kept=kept: kept.append(i[0])))
    with torch.no_grad():
        net(x, t, cond)
    for handle in handles:
        handle.remove()
    return o_text, o_image


def test_maps_of_the_prompts_own_words_come_from_the_text_stream(net):
    """Concepts that are the prompt's words see what those see, so their stream is the text's."""
    x, t, cond = randn(1, 4, 8, 8), torch.tensor([300.0]).double(), condition(1)
    o_text, o_image = attention_outputs(net, x, t, cond)
    maps = concept_maps(net, x, t, cond, cond["tokens"][0])
    assert maps.shape == (3, 1, 5, 4, 4)
    for layer in range(3):
        scores = o_text[layer] @ o_image[layer].transpose(1, 2)  # (1, words, pixels)
        assert distance(maps[layer], scores.softmax(1).reshape(1, 5, 4, 4)) <= 1e-9
    assert distance(maps[0], maps[2]) > 1e-2


def test_other_concepts_meet_the_image_of_the_prompt(net):
    """In the first block, concepts see what words would that stood in their place; the image still reads the prompt."""
    x, t, cond, concepts = randn(1, 4, 8, 8), torch.tensor([300.0]).double(), condition(1), randn(3, 12)
    o_concept = attention_outputs(net, x, t, cond | {"tokens": concepts[None]})[0][0]
    o_image = attention_outputs(net, x, t, cond)[1][0]
    expected = (o_concept @ o_image.transpose(1, 2)).softmax(1).reshape(1, 3, 4, 4)
    assert distance(concept_maps(net, x, t, cond, concepts)[0], expected) <= 1e-9


def test_concepts_are_read_by_nobody(net):
    x, cond = randn(2, 4, 8, 4), condition()
    cond["mask"] = torch.tensor([[True, True, False, False, False], [True] * 5])
    before = outputs(net, "blocks.2", x, T, cond)
    maps = concept_maps(net, x, T, cond, randn(3, 12))
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(net, "blocks.2", x, T, cond), strict=True))
    assert maps.shape == (3, 2, 3, 4, 2)
    assert distance(maps.sum(2), torch.ones(3, 2, 4, 2).double()) <= 1e-9
    padding = cond | {"tokens": cond["tokens"] + ~cond["mask"][..., None] * 50.0}
    concepts = randn(2, 12)
    assert distance(concept_maps(net, x, T, cond, concepts), concept_maps(net, x, T, padding, concepts)) <= 1e-9


def test_bad_input_is_named():
    net, x, cond = shaken(NETS["flux"]()), randn(2, 4, 8, 8), condition()
    for layer in ("blocks.7", "single.0"):  # in a single-stream block there are no image tokens by themselves
        with pytest.raises(UnknownNameError, match=rf"layer: got '{layer}'.*'blocks.0'"):
            concept_direction(net, layer, x, T, cond, cond)
    with (
        pytest.raises(ShapeError, match=r"direction: got shape \(23,\), expected \(24,\)"),
        steered(net, "blocks.0", randn(23), 1.0),
    ):
        net(x, T, cond)
    three = torch.ones(3)
    with pytest.raises(ShapeError, match=r"strength: got shape \(3,\)"), steered(net, "blocks.0", randn(24), three):
        net(x, T, cond)
    with pytest.raises(ShapeError, match=r"concepts: got shape \(3, 11\), expected \(k, 12\)"):
        concept_maps(net, x, T, cond, randn(3, 11))
