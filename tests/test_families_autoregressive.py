"""The chain rule: probabilities of all strings add up to 1, draws follow them, no pixel is left out or peeked at."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from scipy.stats import chisquare

from lecture_lib.errors import NotDefined, RangeError, ShapeError
from lecture_lib.families import AutoregressiveTransformer, Levels, PixelCNN, fit, sharpened
from lecture_lib.families.autoregressive import drawn
from lecture_lib.nets import CausalTransformer, GatedPixelCNN, left_mask
from tests.likelihood_laws import NoisePictures, assert_no_better_than_entropy

G = torch.Generator().manual_seed(5)
ALL = torch.tensor(list(product([-1.0, 1.0], repeat=4)))  # the 16 strings of 4 bits


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def shaken(model, std=0.5):
    for p in model.parameters():
        p.data.normal_(std=std, generator=G)
    return model.double().eval()


def bits(kind, n_classes=2):
    """A model of 2 x 2 black and white pictures or of strings of 4 bits, with wild weights."""
    null = n_classes or None
    if kind is PixelCNN:
        network = GatedPixelCNN(2, (2, 2), width=8, depth=2, kernel=3, n_classes=n_classes)
        return shaken(PixelCNN(network, (1, 2, 2), levels=2, null=null))
    network = CausalTransformer(2, 4, dim=8, depth=2, heads=2, n_classes=n_classes)
    return shaken(AutoregressiveTransformer(network, (4,), levels=2, null=null))


def every(model):
    return ALL.double().reshape(16, *model.event)


BOTH = pytest.mark.parametrize("kind", [PixelCNN, AutoregressiveTransformer], ids=lambda kind: kind.__name__)


@BOTH
def test_all_strings_together_have_probability_one(kind):
    model = bits(kind)
    for label in (None, 0, 1):
        cond = None if label is None else torch.full((16,), label)
        found = model.log_prob(every(model), cond)
        assert found.kind == "exact" and found.of == "probability"
        assert found.nats.exp().sum().item() == pytest.approx(1.0, abs=1e-12)


@BOTH
def test_without_the_first_term_they_have_two(kind):
    """The popular sum from i = 2 (or i = 1 .. n - 1) leaves out log p(x_1): each first value then counts in full."""
    model = bits(kind)
    each = model.log_probs(every(model))
    assert each[:, 1:].sum(1).exp().sum().item() == pytest.approx(2.0, abs=1e-12)


@BOTH
def test_the_chain_rule_by_marginals(kind):
    """log p(x_i | x_<i) is the ratio of two sums over the table of all 16 probabilities."""
    model = bits(kind)
    table = model.log_prob(every(model)).nats.exp().reshape(2, 2, 2, 2)
    each = model.log_probs(every(model)).exp()
    for number, x in enumerate(product([0, 1], repeat=4)):
        for i in range(4):
            expected = table[x[: i + 1]].sum() / table[x[:i]].sum()
            assert each[number, i].item() == pytest.approx(expected.item(), rel=1e-10)


@BOTH
def test_draws_follow_the_probabilities(kind):
    """20,000 draws against the 16 exact probabilities, for one class: Pearson's test; and not those of the other."""
    model, n = bits(kind), 20_000
    x = model.sample(n, torch.zeros(n, dtype=torch.long), generator=seeded())
    seen = ((x.reshape(n, 4) > 0).long() @ torch.tensor([8, 4, 2, 1])).bincount(minlength=16).numpy()
    p, other = (model.log_prob(every(model), torch.full((16,), label)).nats.exp().numpy() for label in (0, 1))
    assert chisquare(seen, n * p / p.sum()).pvalue > 1e-3
    assert chisquare(seen, n * other / other.sum()).pvalue < 1e-6


@BOTH
def test_step_by_step_is_all_at_once(kind):
    """The memory of sampling (keys and values, or what the rows above say) changes no logit."""
    model = kind.digits(**({"width": 8, "depth": 3} if kind is PixelCNN else {"dim": 16, "depth": 2}), n_classes=3)
    model = shaken(model, 0.2)
    x, labels = 2 * torch.randint(17, (3, 1, 8, 8), generator=G).double() / 16 - 1, torch.tensor([0, 2, 3])
    with torch.no_grad():
        whole = model.logits(x, model.levels.numbers(x).flatten(1), labels)
        steps = torch.stack(list(model.read(x, labels)), 1)
    assert (steps - whole).abs().max() <= 1e-11 * whole.abs().max()


@BOTH
def test_frames_fill_in_the_picture(kind):
    model = bits(kind)
    frames = list(model.reverse_process(model.prior(5, generator=seeded()).double(), generator=seeded()))
    assert len(frames) == model.steps == 4
    for place, frame in enumerate(frames):
        flat = frame.reshape(5, 4)
        assert (flat[:, : place + 1].abs() == 1).all() and (flat[:, place + 1 :] == 0).all()
        assert torch.equal(flat[:, : place + 1], frames[-1].reshape(5, 4)[:, : place + 1])


def test_a_first_layer_with_mask_b_beats_every_code_and_is_no_distribution():
    """It copies: on pure noise its loss falls below the entropy, and 16 'probabilities' add up to far more than 1."""
    model = PixelCNN(GatedPixelCNN(2, (2, 2), width=8, depth=2, kernel=3), (1, 2, 2), levels=2)
    noise = NoisePictures((1, 2, 2))
    noise.draw = lambda generator: (2.0 * torch.randint(2, (64, 1, 2, 2), generator=generator) - 1,)
    model.network.layers[0].horizontal.mask = left_mask(3, own=True)  # the mistake
    losses = [step.loss for step in fit(model, noise, steps=60, lr=3e-2, generator=seeded())]
    assert losses[-1] < 0.2 * math.log(2)  # nats per pixel that has one bit
    assert model.log_prob(ALL.reshape(16, 1, 2, 2)).nats.exp().sum() > 5


@BOTH
def test_no_better_than_entropy_on_noise(kind):
    options = {"width": 8, "depth": 2} if kind is PixelCNN else {"dim": 16, "depth": 1}
    assert_no_better_than_entropy(kind.digits(**options, n_classes=0), steps=30, n=128)


@BOTH
def test_labels_are_dropped_for_some(kind):
    model, x = bits(kind), every(bits(kind))
    ones, none = torch.ones(16, dtype=torch.long), torch.full((16,), 2)
    for p, label in ((0.0, ones), (1.0, none)):
        model.p_uncond = p
        assert torch.allclose(model.loss((x, ones), generator=seeded()), -model.log_prob(x, label).nats / 4)
    assert torch.equal(model.log_prob(x).nats, model.log_prob(x, none).nats)


def test_a_draw_is_where_the_distribution_function_passes_u():
    logits = torch.log(torch.tensor([0.25, 0.0, 0.5, 0.25]))
    u = torch.tensor([0.0, 0.24, 0.25, 0.74, 0.76, 1 - 2**-24])
    assert drawn(logits.expand(6, 4), u).tolist() == [0, 0, 2, 2, 3, 3]
    last = torch.log(torch.tensor([0.3, 0.7, 0.0]))  # a level of probability 0 at the end is never drawn
    assert drawn(last.expand(6, 3), u).tolist() == [0, 0, 0, 1, 1, 1]


def test_sharpened():
    logits = torch.tensor([[0.0, 2.0, 1.0, -1.0]])
    assert torch.equal(sharpened(logits), logits)
    assert torch.equal(sharpened(logits, 0.5), 2 * logits)
    assert sharpened(logits, top_k=2).tolist() == [[-math.inf, 2.0, 1.0, -math.inf]]
    assert torch.equal(sharpened(logits, top_k=7), logits)
    assert torch.isfinite(sharpened(torch.zeros(1, 5), top_k=2)).sum() == 2  # a network that starts at zero ties
    with pytest.raises(RangeError, match="temperature"):
        sharpened(logits, 0.0)
    with pytest.raises(RangeError, match="top_k"):
        sharpened(logits, top_k=0)


@BOTH
def test_sharpening_changes_the_draws_and_not_the_likelihood(kind):
    """With top_k = 1 every draw is the same greedy string; log p still speaks of the model that was trained."""
    model = bits(kind)
    z = model.prior(50, generator=seeded()).double()
    *_, greedy = model.reverse_process(z, top_k=1)
    assert (greedy == greedy[:1]).all()
    *_, plain = model.reverse_process(z)
    assert not (plain == plain[:1]).all()


def test_levels():
    levels = Levels(17)
    x = torch.linspace(-1, 1, 17)
    assert levels.numbers(x).tolist() == list(range(17)) and torch.equal(levels.values(levels.numbers(x)), x)
    with pytest.raises(RangeError, match="expected the 17 levels"):
        levels.numbers(x + 0.01)
    with pytest.raises(RangeError, match="expected the 17 levels"):
        levels.numbers(torch.tensor([1.125]))
    with pytest.raises(RangeError, match="count"):
        Levels(1)


@BOTH
def test_what_it_refuses(kind):
    model = bits(kind, n_classes=0)
    with pytest.raises(RangeError, match="steps: got 50, expected 4: one for each number"):
        model.sample(2, steps=50, generator=seeded())
    with pytest.raises(ShapeError, match="no classes"):
        model.log_prob(every(model), torch.zeros(16, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"x: got \(16, 5\)"):
        model.log_prob(torch.ones(16, 5))
    with pytest.raises(NotDefined, match="never noises"):
        model.forward_process(every(model), torch.zeros(16))
