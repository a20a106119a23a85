"""The models of the shapes world, as they ship: small samples of what `course zoo --evaluate` measures at length."""

from __future__ import annotations

import pytest
import torch

from lecture_lib import zoo
from lecture_lib.data.shapes import captioned, judge_captions
from lecture_lib.families import LatentSpace
from lecture_lib.zoo.evaluate_shapes import (
    autoencoder_rows,
    contrastive_rows,
    draw_prompts,
    fresh_scenes,
    language_rows,
)
from lecture_lib.zoo.shapes_text import shapes_tokenizer
from lecture_lib.zoo.shapes_text_to_image import SCALE, SHIFT, shapes_space, shapes_text

LECTURE_1 = ["shapes-kl-f2", "shapes-kl-f4", "shapes-kl-f8", "shapes-clip", "shapes-lm", "shapes-text-to-image"]
LECTURE_3 = ["digits-dit-eps", "digits-dit-v", "shapes-mmdit", "shapes-vq", "shapes-maskgit", "shapes-controlnet"]

LECTURE_4 = ["digits-dit-one-step", "shapes-lcm", "shapes-lcm-lora", *(n for n in zoo.names() if n.startswith("ring-"))]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("names", [LECTURE_1, LECTURE_3, LECTURE_4])
def test_a_lecture_adds_few_weights(names):
    sizes = {line.name: line.bytes for line in zoo.status() if line.name in names}
    assert set(sizes) == set(names) and sum(sizes.values()) < 12e6, sizes


def test_the_latent_scale_is_the_one_of_the_autoencoder():
    space = LatentSpace.fitted(zoo.load("shapes-kl-f4"), captioned(1000, seeded(0)).images)
    assert space.scale == pytest.approx(SCALE, rel=0.02) and space.shift == pytest.approx(SHIFT, abs=0.03)
    z = shapes_space().encode(captioned(200, seeded(1)).images)
    assert abs(z.mean()) < 0.05 and abs(z.std() - 1) < 0.05


@pytest.mark.parametrize(("name", "decibels"), [("shapes-kl-f2", 34.0), ("shapes-kl-f4", 32.0), ("shapes-kl-f8", 20.0)])
def test_autoencoders_rebuild_what_they_have_not_seen(name, decibels):
    quality, read = autoencoder_rows(name, zoo.load(name), {}, (0,))
    assert quality.mean >= decibels
    assert read.mean >= {"shapes-kl-f8": 0.0}.get(name, 0.97)


def test_f8_loses_more_than_f4_loses_more_than_f2():
    quality = [next(iter(autoencoder_rows("", zoo.load(f"shapes-kl-f{f}"), {}, (0,)))).mean for f in (2, 4, 8)]
    assert quality[0] > quality[1] > quality[2]


def test_clip_finds_captions_and_the_words_of_the_language_model_know_their_thing():
    (right,) = contrastive_rows("", zoo.load("shapes-clip"), shapes_tokenizer(), (0,))
    assert right.mean > 0.85  # by chance: 1/64
    (nats,) = language_rows("", zoo.load("shapes-lm"), (0,))
    assert nats.mean < 0.01  # by chance over the vocabulary: 4.0


@pytest.mark.parametrize(("split", "two", "least"), [("test", 0.0, 0.92), ("held_out", 0.0, 0.85), ("test", 1.0, 0.80)])
def test_pictures_show_what_captions_ask_for(split, two, least):
    """Regression floors, two to three standard errors of 120 captions below what 1500 gave; see `zoo --evaluate`."""
    scenes = fresh_scenes(120, 50, split=split, two=two)
    pictures = draw_prompts(zoo.text_to_image(), scenes.captions, w=2.0, steps=10, generator=seeded(9))
    assert judge_captions(pictures, scenes.captions).all.double().mean() >= least


def test_pictures_depend_on_the_caption_and_on_the_seed_alone():
    model = zoo.text_to_image()
    first = model.generate("a small red circle", generator=seeded(0), steps=4)
    assert torch.equal(first, model.generate("a small red circle", generator=seeded(0), steps=4))
    assert not torch.allclose(first, model.generate("a small red circle", generator=seeded(1), steps=4), atol=0.1)


def test_text_encoders_are_shared_and_frozen():
    assert not any(p.requires_grad for p in shapes_text().parameters())
    assert torch.equal(shapes_text().encoders[0].table.weight, zoo.load("shapes-clip").text.table.weight)
