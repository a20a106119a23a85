"""Bits per dimension, and the case that exposes a likelihood without its normalisers."""

from __future__ import annotations

import math

import pytest
import torch
from likelihood_laws import ENTROPY, GAUSSIAN, LEVELS, STEP, NoisePictures, assert_no_better_than_entropy, noise_bits

from lecture_lib.data import Dequantised
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.families import GenerativeModel, LogProb
from lecture_lib.metrics import bits_per_dim


@pytest.mark.parametrize(("levels", "width", "offset"), [(256, 1, 8), (256, 2, 7), (17, 17 / 8, 3)])
def test_offsets_of_the_usual_scales(levels, width, offset):
    """The uniform density over all cells is worth log2(levels) bits on every scale; the offsets are those of B125."""
    step = width / levels
    nats = torch.full((3,), -10 * math.log(width), dtype=torch.float64)  # of a uniform density in 10 dimensions
    assert bits_per_dim(nats, 10, step) == pytest.approx([math.log2(levels)] * 3, abs=1e-12)
    assert bits_per_dim(nats * 0, 10, step) == pytest.approx([offset] * 3, abs=1e-12)


def test_probabilities_need_no_offset():
    assert bits_per_dim(torch.tensor([-64 * math.log(17)]), 64) == pytest.approx(ENTROPY, abs=1e-6)
    # binarised MNIST: 81.3 nats of 784 pixels are 0.150 bits (B128), not the 0.78 of a table that mixed the units
    assert bits_per_dim(torch.tensor([-81.3]), 784).item() == pytest.approx(0.150, abs=5e-4)


def test_a_sum_over_the_batch_is_refused():
    with pytest.raises(ShapeError, match="one log-probability per sample"):
        bits_per_dim(torch.tensor(-3.0), 64)
    with pytest.raises(RangeError, match="dims"):
        bits_per_dim(torch.zeros(2), 0)
    with pytest.raises(RangeError, match="step"):
        bits_per_dim(torch.zeros(2), 4, 0.0)


class Independent(GenerativeModel):
    """One learned Gaussian per number: the least model with a density, and a normaliser that can be left out."""

    formula, source = "x", "here"
    event = (1, 8, 8)
    normaliser = math.log(2 * math.pi) / 2

    def __init__(self):
        super().__init__()
        self.mean, self.log_std = (torch.nn.Parameter(torch.zeros(1, 8, 8)) for _ in range(2))

    def loss(self, batch, phase="all", *, generator):
        each = ((batch[0] - self.mean) * torch.exp(-self.log_std)).square() / 2 + self.log_std + self.normaliser
        return each.flatten(1).sum(1)

    def log_prob(self, x, cond=None, *, generator=None):
        return LogProb(-self.loss((x,), generator=generator).detach().double(), "exact")

    @classmethod
    def small(cls):
        return cls(), Dequantised(NoisePictures()), 100


def test_the_best_gaussian_costs_a_quarter_of_a_bit():
    """sigma^2 of 17 levels with their cells is (17/8)^2/12, and 1/2 log2(2 pi e/12) = 0.2546: near enough to expose
    everything else."""
    mean = assert_no_better_than_entropy(Independent(), steps=150, lr=0.02)
    assert mean - ENTROPY == pytest.approx(math.log2(2 * math.pi * math.e / 12) / 2, abs=0.03)


def test_a_missing_normaliser_is_caught():
    model = Independent()
    model.normaliser = 0.0
    with pytest.raises(AssertionError, match="not normalised"):
        assert_no_better_than_entropy(model, steps=150, lr=0.02)


def test_a_forgotten_offset_is_caught():
    batches = Dequantised(NoisePictures(batch_size=256), STEP)
    model = Independent()
    model.log_std.data.fill_(math.log(LEVELS * STEP / 12**0.5))
    right, wrong = noise_bits(model, batches, STEP)[0], noise_bits(model, batches, None)[0]
    assert right > ENTROPY > wrong and right - wrong == pytest.approx(3, abs=1e-9)


def test_a_model_too_bad_to_be_tested_is_refused():
    model = Independent()
    model.log_std.data.fill_(3.0)  # spread over 20 times the width of the data
    with pytest.raises(AssertionError, match="no test"):
        assert_no_better_than_entropy(model, steps=1)
    assert pytest.approx(1.3257, abs=1e-4) == GAUSSIAN
