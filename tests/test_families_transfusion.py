"""Transfusion: who sees whom by perturbation, captions by enumeration, losses in their limits, the oracle of shapes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.stats import chisquare
from torch import nn
from worlds import normal, seeded

from lecture_lib.core import Trigonometric
from lecture_lib.data.shapes import judge_captions
from lecture_lib.errors import NotTractable, RangeError, ShapeError
from lecture_lib.families import CaptionedThings, Transfusion, enlarged, fit, thing_words
from lecture_lib.nets import MixedTransformer, mixed_mask
from lecture_lib.nets.tokenizer import PAD, START

DRAWS = 20_000
FREE = torch.tensor(
    [(START, *rest) for rest in itertools.product(range(4), repeat=2)]
)  # all captions of 4 words, m = 3


@pytest.fixture(autouse=True)
def same_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def tiny(**options):
    """Four words, captions of three (the first is <start>), pictures of 4x4 pixels, weights far from their start."""
    model = Transfusion(4, 3, (3, 4, 4), patch=2, dim=16, depth=1, heads=2, **options).eval()
    for i, weight in enumerate(model.parameters()):
        weight.data += 0.2 * normal(*weight.shape, seed=i).float()
    return model


def painting(depth=3):
    """Nine words, five at most on each side, pictures of 8x8 pixels; its last layer is not zero any more."""
    net = MixedTransformer(9, 5, (3, 8, 8), patch=4, dim=32, depth=depth).eval()
    net.paint.weight.data += 0.1 * normal(*net.paint.weight.shape).float()
    return net


# --- who sees whom ---------------------------------------------------------------------------------------------------


def test_the_mask_is_causal_and_full_inside_the_picture():
    found = mixed_mask(3, 4, 2)
    for i, j in itertools.product(range(9), repeat=2):
        assert bool(found[i, j]) is (j <= i or (3 <= i < 7 and 3 <= j < 7))


def test_words_before_a_picture_do_not_depend_on_it():
    """By changing each part in turn, exactly: a part hears those before it and itself, and nothing after it."""
    net = painting(depth=2)
    words, t = torch.tensor([[1, 4, 5]]), torch.tensor([300.0])
    x, after = normal(1, 3, 8, 8).float(), torch.tensor([[2, 3]])
    with torch.no_grad():
        here = net(words, x, t, after)
        other_picture, other_time = net(words, x + 1, t, after), net(words, x, t + 50, after)
        other_end, other_start = net(words, x, t, after + 1), net(words + 1, x, t, after)
    for found in (other_picture, other_time):
        assert torch.equal(found.before, here.before)
        assert (found.image != here.image).any() and (found.after != here.after).any()
    assert torch.equal(other_end.before, here.before) and torch.equal(other_end.image, here.image)
    assert (other_start.image != here.image).any() and (other_start.after != here.after).any()


def test_a_word_hears_those_before_it_only():
    net = painting()
    before, after = torch.tensor([[1, 4, 5, 2]]), torch.tensor([[2, 3, 6, 7]])
    x, t = normal(1, 3, 8, 8).float(), torch.zeros(1)
    with torch.no_grad():
        here = net(before, x, t, after)
        for i in range(4):
            for name in ("before", "after"):
                words = {"before": before.clone(), "after": after.clone()}
                words[name][0, i] = 8
                found = getattr(net(words["before"], x, t, words["after"]), name)
                same = (found == getattr(here, name)).all(-1)[0]
                assert same[:i].all() and not same[i:].any()


def test_every_patch_sees_every_patch():
    net, x = painting(), normal(1, 3, 8, 8).float().requires_grad_()
    y = net(torch.tensor([[1, 2]]), x, torch.zeros(1)).image
    (slope,) = torch.autograd.grad(y[0, :, :4, :4].sum(), x)  # of the first patch
    assert (slope.abs().sum(1) > 0).all()


def test_places_before_and_after_a_picture_are_different_ones():
    """Three words before and two after, of five at most: each logit hears the places of its own side that are taken."""
    net, x = painting(depth=1), normal(1, 3, 8, 8).float()
    said = net(torch.tensor([[1, 4, 5]]), x, torch.zeros(1), torch.tensor([[2, 3]]))

    def heard(logits):
        (slope,) = torch.autograd.grad(logits.square().sum(), net.places, retain_graph=True)
        return slope.any(1).nonzero()[:, 0].tolist()

    assert heard(said.before) == [0, 1, 2]
    assert heard(said.after) == [0, 1, 2, 5, 6]


def test_the_width_of_the_convolutions_is_not_that_of_the_picture():
    net = MixedTransformer(9, 5, (3, 8, 4), patch=4, width=24, dim=32, depth=1)
    assert net.enter.weight.shape == (24, 3, 3, 3) and net.embed.in_features == 4 * 4 * 24
    nn.init.normal_(net.paint.weight)
    x = normal(1, 3, 8, 4).float().requires_grad_()
    (slope,) = torch.autograd.grad(net(torch.tensor([[1]]), x, torch.zeros(1)).image[..., 0, 0].sum(), x)
    assert (slope.abs().sum(1) > 0).all()  # all of a picture that is no square is seen


# --- the loss --------------------------------------------------------------------------------------------------------


def test_the_loss_is_words_plus_lambda_times_picture():
    batch = CaptionedThings(8).draw(seeded())
    model = Transfusion(len(thing_words()), 6, dim=32, depth=1)
    parts = model.parts(batch, generator=seeded(1))
    for weight in (0.0, 5.0, 1e6):
        model.weight = weight
        torch.testing.assert_close(model.loss(batch, generator=seeded(1)), parts["words"] + weight * parts["image"])


def test_without_lambda_no_gradient_reaches_the_pixels_and_words_alone_move():
    """lambda = 0 is a language model: the way out of the picture gets nothing. The picture alone trains no logits."""
    model, batch = Transfusion(len(thing_words()), 6, dim=32, depth=1), CaptionedThings(8).draw(seeded())
    ends = (model.transformer.paint.weight, model.transformer.logits.weight)
    parts = model.parts(batch, generator=seeded())
    of_pixels, of_words = torch.autograd.grad(parts["words"].mean(), ends, allow_unused=True, retain_graph=True)
    assert of_pixels is None and of_words.any()
    of_pixels, of_words = torch.autograd.grad(parts["image"].mean(), ends, allow_unused=True)
    assert of_pixels.any() and of_words is None


def test_logits_are_shifted_by_one():
    """Logits that name the next word cost nothing, those that repeat the present one cost all; uniform ones log k."""
    words = torch.tensor([[3, 1, 2, 0]])
    sharp = 50 * torch.nn.functional.one_hot(words, 5).float()
    assert Transfusion.mistaken(sharp.roll(-1, dims=1), words).item() < 1e-6
    assert Transfusion.mistaken(sharp, words).item() == pytest.approx(50, rel=1e-4)
    assert Transfusion.mistaken(0 * sharp, words).item() == pytest.approx(math.log(5))


def test_a_trained_loss_of_words_is_their_entropy():
    """Caption first nothing is known but the law of captions: the bound below is its entropy per word.

    17 word choices: size 2, colour and shape 42 pairs that occur equally often; the other words are certain.
    """
    model, batches, _ = Transfusion.small()
    model.picture_first = 0.0
    model.p_uncond = 0.0
    for _ in fit(model, batches, steps=120, lr=4e-3, generator=seeded()):
        pass
    x, captions = CaptionedThings(500).draw(seeded(9))
    with torch.no_grad():
        found = model.parts((x, captions), generator=seeded())["words"].mean().item()
    entropy = (math.log(2) + math.log(42)) / 6  # six words are predicted: a, size, colour, shape, <end>, <image>
    assert entropy - 0.01 < found < entropy + 0.15


def test_the_target_is_the_noise_that_was_drawn():
    """``(image - sqrt(1 - t^2) image)/t`` forgets the noisy picture and is off by more than 1; ours is exact."""
    path, x0, eps = Trigonometric(), normal(500, 3, seed=1), normal(500, 3)
    t = torch.full((500,), 0.6, dtype=torch.float64)
    c = path.coeffs(t)
    alpha, sigma = c.alpha[:, None], c.sigma[:, None]
    right = (path.mix(x0, eps, t) - alpha * x0) / sigma
    wrong = (x0 - alpha * x0) / sigma
    assert (right - eps).abs().max() < 1e-14
    assert (wrong - eps).square().mean().sqrt() > 1


def test_blotted_captions_teach_no_words():
    model, batch = Transfusion(len(thing_words()), 6, dim=32, depth=1, p_uncond=1.0), CaptionedThings(8).draw(seeded())
    words = model.parts(batch, generator=seeded())["words"]
    assert not words[:6].any() and words[6:].all()  # the last quarter has its picture first


# --- captions --------------------------------------------------------------------------------------------------------


def test_probabilities_of_all_captions_add_up_to_one():
    """With a picture and without: sixteen captions, 1 together, and the picture matters."""
    model, x = tiny(), normal(1, 3, 4, 4).float()
    alone = model.log_prob_words(FREE).exp()
    told = model.log_prob_words(FREE, x.expand(16, -1, -1, -1)).exp()
    for p in (alone, told):
        assert p.sum().item() == pytest.approx(1, abs=1e-6)
    assert (alone - told).abs().max() > 0.01


def test_captions_are_drawn_from_their_law():
    """Pearson's test over all sixteen, of what a picture brings and of what is written out of nothing."""
    model, x = tiny(), normal(1, 3, 4, 4).float()
    drawn = model.caption(x.expand(DRAWS, -1, -1, -1), generator=seeded())
    written = model.write(DRAWS, generator=seeded(1))
    for words, p in (
        (drawn, model.log_prob_words(FREE, x.expand(16, -1, -1, -1)).exp()),
        (written, model.log_prob_words(FREE).exp()),
    ):
        assert (words[:, 0] == START).all()
        counts = torch.bincount(words[:, 1:] @ torch.tensor([4, 1]), minlength=16)
        assert chisquare(counts, DRAWS * p / p.sum()).pvalue > 1e-3


def test_without_temperature_the_likeliest_words_are_taken():
    model, x = tiny(), normal(6, 3, 4, 4).float()
    once, again = (model.caption(x, generator=seeded(s), temperature=0.0) for s in (0, 1))
    assert torch.equal(once, again)


# --- pictures --------------------------------------------------------------------------------------------------------


def test_painting_is_the_transformers_own_pass():
    """The denoiser's velocity is what the picture's place says after <start> ... <image>, whatever follows."""
    model, x, t = tiny(), normal(2, 3, 4, 4).float(), torch.tensor([0.3, 0.8], dtype=torch.float64)
    captions = FREE[[3, 9]]
    before = torch.cat([captions, torch.full((2, 1), model.open)], dim=1)
    with torch.no_grad():
        found = model.denoiser(x, t, captions).velocity
        said = model.transformer(before, x, (1000 * t).float(), torch.tensor([[model.close], [model.close]])).image
    torch.testing.assert_close(found, said, rtol=0, atol=1e-5)


def test_without_captions_they_are_written_first():
    """The same seed for both: samples without a condition are those of the captions that it writes."""
    model, z = tiny(), normal(4, 3, 4, 4).float()
    *_, free = model.reverse_process(z, generator=seeded(2))
    *_, told = model.reverse_process(z, model.write(4, generator=seeded(2)), generator=seeded(3))
    torch.testing.assert_close(free, told)
    with pytest.raises(NotTractable, match="captions"):
        model.log_prob(z)


# --- the small world -------------------------------------------------------------------------------------------------


def test_the_oracle_reads_small_pictures_and_agrees_with_their_captions():
    x, tokens = CaptionedThings(300).draw(seeded())
    words = thing_words().decode(tokens)
    assert judge_captions(enlarged(x), words).all.double().mean() > 0.99
    wrong = judge_captions(enlarged(x), words[1:] + words[:1]).all.double().mean()
    assert wrong < 0.1
    assert (tokens != PAD).all() and len({len(text.split()) for text in words}) == 1


def test_what_does_not_fit_is_named():
    with pytest.raises(ShapeError, match="patch: got 3"):
        MixedTransformer(9, 5, (3, 8, 8), patch=3)
    with pytest.raises(ShapeError, match="width: got 12"):
        MixedTransformer(9, 5, (3, 8, 8), width=12)
    net, x, t = MixedTransformer(9, 5, (3, 8, 8), dim=16), torch.zeros(1, 3, 8, 8), torch.zeros(1)
    with pytest.raises(ShapeError, match="before: got"):
        net(torch.zeros(1, 6, dtype=torch.long), x, t)
    with pytest.raises(RangeError, match="after: got"):
        net(torch.zeros(1, 5, dtype=torch.long), x, t, torch.full((1, 1), 9))
    with pytest.raises(ShapeError, match="x_t: got"):
        net(torch.zeros(1, 5, dtype=torch.long), x[:, :1], t)
