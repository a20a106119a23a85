"""Tokens of the shapes world as they ship, and the road from a caption to a picture through them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lecture_lib import zoo
from lecture_lib.data.shapes import captioned, judge_captions
from lecture_lib.errors import UnknownNameError
from lecture_lib.families import MaskedTextToImage, RandomOrder
from lecture_lib.zoo.evaluate_masked import draw_masked, token_rows
from lecture_lib.zoo.evaluate_shapes import fresh_scenes
from lecture_lib.zoo.library import shapes_text, shapes_tokenizer
from lecture_lib.zoo.shapes_masked import MASKED, token_scenes
from lecture_lib.zoo.workshop import initial

PROMPTS = ("a small red circle", "a large blue square above a small green ring", "")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def untrained():
    """The whole pipeline around a model that knows nothing yet."""
    model = initial(MASKED).eval()
    for weight in model.parameters():  # as it starts it does not hear the text
        torch.nn.init.normal_(weight, std=0.3, generator=seeded(1))
    return MaskedTextToImage(model, zoo.load("shapes-vq"), shapes_text(), shapes_tokenizer())


def test_the_oracle_reads_pictures_from_their_tokens():
    quality, read, used = token_rows("shapes-vq", zoo.load("shapes-vq"), {}, (0,))
    assert quality.mean >= 32 and read.mean >= 0.95 and 20 < used.mean < 80


def test_tokens_are_those_of_the_training_scenes_and_their_captions():
    tokens, captions = token_scenes(60, 3, 0.5)
    scenes = captioned(60, seeded(3), two=0.5)
    assert torch.equal(captions, shapes_tokenizer().encode(scenes.captions))
    rebuilt = zoo.load("shapes-vq").decode(tokens).clamp(-1, 1)
    assert judge_captions(rebuilt, scenes.captions).all.double().mean() > 0.9
    step = MASKED.loss(initial(MASKED), (tokens, captions), seeded(0))
    assert step.shape == (60,) and step.min() > 0 and step.max() < 8  # at most log 1000, and a little more


def test_from_caption_to_picture_step_by_step():
    model = untrained()
    frames = list(model.frames(PROMPTS, w=2.0, steps=5, generator=seeded(2)))
    assert [f.step for f in frames] == [1, 2, 3, 4, 5] and not frames[-1].hidden.any()
    for frame in frames:
        picture = model.picture(frame)
        assert picture.shape == (3, 3, 32, 32) and picture.abs().max() <= 1 and not picture.requires_grad
    again = model.generate(PROMPTS, w=2.0, steps=5, generator=seeded(2))
    assert torch.equal(again, model.picture(frames[-1]))
    assert not torch.equal(again, model.generate(PROMPTS, w=2.0, steps=5, generator=seeded(3)))
    assert torch.equal(draw_masked(model, PROMPTS, w=2.0, steps=5, generator=seeded(2)), again)
    with pytest.raises(UnknownNameError, match="sheep"):
        model.generate("a small sheep", generator=seeded())


def test_a_picture_is_completed_around_what_is_there():
    """The left half stays token by token; hidden places alone are filled."""
    model, mask = untrained(), MASKED.network.keywords["size"]
    start = zoo.load("shapes-vq").tokens(captioned(1, seeded(4)).images).reshape(1, 8, 8)
    kept = start[..., :4].clone()
    start[..., 4:] = mask
    options = {"start": start.flatten(1), "order": RandomOrder(), "steps": 3, "generator": seeded(5)}
    *_, end = model.frames("a small red circle", **options)
    assert torch.equal(end.tokens.reshape(1, 8, 8)[..., :4], kept) and end.tokens.max() < mask


def test_guidance_reaches_the_tokens_and_empty_words_do_nothing():
    model, options = untrained(), {"steps": 2, "generator": None}
    pictures = {w: model.generate(PROMPTS, **(options | {"w": w, "generator": seeded(6)})) for w in (0.0, 1.0, 4.0)}
    assert not torch.equal(pictures[1.0][:2], pictures[4.0][:2])
    assert torch.allclose(pictures[1.0][2], pictures[0.0][2], atol=1e-4)  # "" is the null condition, whatever w is


def test_one_step_of_training(tmp_path):
    step = next(zoo.train(replace(MASKED, batch_size=4, scenes=8), tmp_path))
    assert 3 < step.loss < 8


def test_what_ships_paints_what_it_is_told():
    """The bar, loosely, on a few captions: 0.8 of single things right in all attributes, in 12 steps."""
    scenes = fresh_scenes(60, 5, split="test", two=0.0)
    pictures = draw_masked(zoo.masked_text_to_image(), scenes.captions, generator=seeded(7))
    assert judge_captions(pictures, scenes.captions).all.double().mean() > 0.7
    strangers = scenes.captions[1:] + scenes.captions[:1]
    assert judge_captions(pictures, strangers).all.double().mean() < 0.2
