"""The measures of the table of families, on families of which every number is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lecture_lib import zoo
from lecture_lib.data import digits
from lecture_lib.errors import NotDefined, NotTractable
from lecture_lib.families import GenerativeModel, LogProb
from lecture_lib.metrics import frechet_distance
from lecture_lib.zoo import evaluate_families
from lecture_lib.zoo.evaluate_families import draw, family_rows, held_out_bits
from lecture_lib.zoo.families_flow import FLOW_MATCHING


class Known(GenerativeModel):
    """Draws training digits of the asked class; says what it is told to say about likelihoods."""

    formula, source, event = "x", "here", (1, 8, 8)

    def __init__(self, says=None):
        super().__init__()
        self.unit, self.says = nn.Parameter(torch.zeros(())), says

    def loss(self, batch, phase="all", *, generator):
        return batch[0].flatten(1).sum(1) * self.unit

    def sample(self, n, cond=None, *, steps=None, generator):
        train = digits("train")
        pools = [train.of(int(c)) for c in cond]
        return torch.stack([p[torch.randint(len(p), (), generator=generator)] for p in pools]) * 1.5

    def log_prob(self, x, cond=None, *, generator=None):
        if self.says is None:
            raise NotTractable("log_prob: nobody knows, expected somebody")
        nats, kind, of = self.says
        return LogProb(torch.full((len(x),), nats, dtype=torch.float64), kind, of)

    @classmethod
    def small(cls):
        raise NotImplementedError


UNIFORM = -64 * math.log(17)  # 17 levels, all equally likely
FLAT = -64 * math.log(17 / 8)  # the same as a density: 1/width of [-17/16, 17/16]


@pytest.mark.parametrize(
    ("says", "kind"),
    [
        ((UNIFORM, "exact", "probability"), "exact"),
        ((UNIFORM, "lower bound", "probability"), "lower bound"),
        ((FLAT, "exact", "density"), "lower bound"),  # of the levels it is a bound, by Jensen
        ((FLAT, "estimate", "density"), "estimate"),
    ],
)
def test_uniform_levels_cost_log2_17_however_they_are_said(says, kind):
    found = held_out_bits(Known(says), labelled=True)
    assert found.mean == pytest.approx(math.log2(17), rel=1e-12)
    assert found.error == pytest.approx(0, abs=1e-12) and found.kind == kind


def test_a_density_is_asked_about_pictures_within_their_cells():
    asked = []

    class Curious(Known):
        def log_prob(self, x, cond=None, *, generator=None):
            asked.append(x)
            return super().log_prob(x, cond, generator=generator)

    held_out_bits(Curious((FLAT, "exact", "density")), labelled=True)
    first, *rest = asked  # the first picture, as it is, to find out what the model speaks of
    noisy = torch.cat(rest)
    images = digits("test").images.repeat(evaluate_families.DEQUANTISED, 1, 1, 1)
    assert len(first) == 1 and torch.equal((noisy * 8).round() / 8, images)
    assert not torch.equal(noisy[:355], noisy[355:710])  # fresh noise each time


def test_draws_are_clipped_and_of_the_asked_class():
    labels = torch.arange(300) % 10
    drawn = draw(Known(), labels, labelled=True, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (300, 1, 8, 8) and drawn.abs().max() == 1
    assert zoo.judge().accuracy(drawn, labels) > 0.95


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setattr(evaluate_families, "recipe", lambda name: FLOW_MATCHING)
    real = evaluate_families.load

    def rows(model):
        monkeypatch.setattr(evaluate_families, "load", lambda name: model if name == "known" else real(name))
        return {row.measure: row for row in family_rows("known", (0, 1))}

    return rows


def test_rows_of_a_family_that_draws_the_training_digits(rows):
    """Its distance is that of as many draws, recomputed; what it has no likelihood for has no row."""
    found = rows(Known())
    features, test, labels = zoo.load("digits-features"), digits("test").images, digits("train").labels
    again = draw(Known(), labels, labelled=True, generator=torch.Generator().manual_seed(1))
    expected = frechet_distance(again, test, features.features)
    assert found["Frechet distance to test digits"].values[1] == pytest.approx(expected, rel=1e-6)
    assert not any("bits" in measure for measure in found)
    assert found["judge accuracy"].bar == 0.95 and found["judge accuracy"].passed
    assert 8 < found["inception score of a digit classifier"].mean <= 10
    assert found["precision, 355 of each"].mean > 0.5 and found["recall, 355 of each"].mean > 0.5


def test_a_family_that_does_not_sample_has_likelihood_rows_at_most(rows):
    class Mute(Known):
        def sample(self, n, cond=None, *, steps=None, generator):
            raise NotDefined("sample: draws nothing, expected a family that does")

    assert list(rows(Mute())) == []
    assert list(rows(Mute((UNIFORM, "exact", "probability")))) == ["bits per dimension of test digits, exact"]
