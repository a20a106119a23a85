"""The measures of features and of words with pictures, on models of which every number is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import entropy
from torch import nn
from worlds import seeded

from lecture_lib.data import digits, moving_digits
from lecture_lib.families import VJEPA, CaptionedThings, thing_words
from lecture_lib.zoo import evaluate_patches
from lecture_lib.zoo.evaluate_patches import representation_rows, transfusion_rows, written_right

PICTURES = 60


def one_hot(labels, n=10):
    return F.one_hot(labels, n).float()


def mean_deviation(features):
    return np.std(features.numpy(), axis=0).mean()


def rank(features):
    """exp of the entropy of the normalised singular values, by numpy and scipy."""
    return np.exp(entropy(np.linalg.svd(features.numpy() - features.numpy().mean(0), compute_uv=False)))


class Seer:
    """Features of digits: the label itself for those of training, doubled; for those of test what it is told to say."""

    def __init__(self, of_test):
        self.of_test = of_test

    def features(self, x):
        if torch.equal(x, digits("train").images):
            return 2 * one_hot(digits("train").labels)
        assert torch.equal(x, digits("test").images)
        return one_hot(self.of_test)


def test_features_that_are_the_label():
    labels = digits("test").labels
    read, spread, directions = representation_rows("seer", Seer(labels))
    assert read.mean == 1.0 and read.bar == 0.90 and read.passed and read.name == "seer"
    assert spread.mean == pytest.approx(mean_deviation(one_hot(labels)), rel=1e-6)  # of test data, not of training
    assert directions.mean == pytest.approx(rank(one_hot(labels)), rel=1e-4) and 8.5 < directions.mean < 9.0001


def test_the_probe_is_fitted_on_training_digits_and_scored_on_test_digits():
    """What says the label of the digit before is right where two neighbours are alike, and below the bar."""
    labels = digits("test").labels
    read, *_ = representation_rows("late", Seer(labels.roll(1)))
    assert read.mean == pytest.approx((labels == labels.roll(1)).double().mean().item(), abs=1e-12)
    assert not read.passed


def test_collapsed_features_are_seen():
    class Blind:
        def features(self, x):
            return torch.ones(len(x), 4)

    read, spread, directions = representation_rows("blind", Blind())
    assert read.mean < 0.12 and spread.mean == 0 and directions.mean == 0


class Watcher(VJEPA):
    """Features of clips: what is in them, known by heart."""

    def __init__(self, of_clips):
        nn.Module.__init__(self)
        self.of_clips = of_clips

    def features(self, x):
        return next(features for clips, features in self.of_clips if torch.equal(clips, x))


def test_clips_are_asked_for_their_direction_and_their_digit(monkeypatch):
    """The direction as it is; the digit, on test clips, of the clip before: two rows with two known shares."""
    monkeypatch.setattr(evaluate_patches, "CLIPS", (400, 100))
    train, test = moving_digits(400, seed=1), moving_digits(100, seed=2, split="test")
    directions = int(train.directions.max()) + 1

    def seen(clips, labels):
        return torch.cat([one_hot(clips.directions, directions), one_hot(labels)], dim=1)

    late = test.labels.roll(1)
    watcher = Watcher([(train.clips, seen(train, train.labels)), (test.clips, seen(test, late))])
    moved, read, spread, rows = representation_rows("watcher", watcher)
    assert "direction" in moved.measure and moved.mean == 1.0
    assert "digit" in read.measure and read.bar is None
    assert read.mean == pytest.approx((test.labels == late).double().mean().item(), abs=1e-12)
    assert spread.mean == pytest.approx(mean_deviation(seen(test, late)), rel=1e-6)
    assert rows.mean == pytest.approx(rank(seen(test, late)), rel=1e-4)


# Words and pictures ---------------------------------------------------------------------------------------------------


def things(seed=0, n=PICTURES):
    x, captions = CaptionedThings(n).draw(seeded(1000 + seed))
    return x, captions, thing_words().decode(captions)


def test_what_is_written_right():
    x, _, texts = things()
    assert written_right(x, texts) == 1.0
    other = {"red": "green", "green": "red"}
    wrong = [" ".join(other.get(word, word) for word in text.split()) for text in texts]
    changed = sum(a != b for a, b in zip(texts, wrong, strict=True))
    assert 0 < changed < PICTURES
    assert written_right(x, wrong) == pytest.approx(1 - changed / PICTURES)


@pytest.mark.parametrize("broken", ["", "a small red", "a red small circle", "small red circle a", "a small red red"])
def test_what_is_no_caption_is_wrong_and_not_left_out(broken):
    x, _, texts = things()
    assert written_right(x, [broken] * 15 + texts[15:]) == pytest.approx(0.75)
    assert written_right(x, [broken] * PICTURES) == 0.0


class Mixed:
    """Writes ``slips`` captions of the picture after, and paints as many of the caption after; the rest is right."""

    def __init__(self, slips):
        self.slips, self.asked = slips, []

    def late(self, right):
        return torch.cat([right.roll(-1, 0)[: self.slips], right[self.slips :]])

    def caption(self, x, *, generator, temperature):
        seed = next(seed for seed in (0, 1) if torch.equal(things(seed)[0], x))
        self.asked.append((seed, temperature))
        return self.late(things(seed)[1])

    def sample(self, n, captions, *, generator):
        x, right, _ = things(self.asked[-1][0])
        assert n == PICTURES and torch.equal(captions, right)
        return self.late(x)


def test_captions_and_pictures_are_counted_by_attribute(monkeypatch):
    model = Mixed(slips=12)
    monkeypatch.setattr(evaluate_patches, "PICTURES", PICTURES)
    monkeypatch.setattr(evaluate_patches, "load", lambda name: model if name == "mixed" else None)
    found = {row.measure: row for row in transfusion_rows("mixed", (0, 1))}
    assert model.asked == [(0, 0.0), (1, 0.0)]  # the likeliest word each time, and new pictures for each seed
    for seed in (0, 1):
        captions = things(seed)[1]
        same = captions == model.late(captions)  # columns: <start> a size colour shape <end>
        for column, attribute in ((2, "size"), (3, "colour"), (4, "shape")):
            row = found[f"pictures of captions, {attribute} right"]
            assert row.values[seed] == pytest.approx(same[:, column].double().mean().item()), attribute
            assert row.bar is None
        everything = same.all(dim=1).double().mean().item()
        assert 0.75 < everything < 0.9
        assert found["captions of new pictures, all right"].values[seed] == pytest.approx(everything)
        assert found["pictures of captions, all right"].values[seed] == pytest.approx(everything)
        assert found["pictures of captions, count right"].values[seed] == 1.0
    assert not found["captions of new pictures, all right"].passed  # 0.95
    assert found["pictures of captions, all right"].bar == 0.85
