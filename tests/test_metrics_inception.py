"""Inception-style score against numbers known in closed form, torchmetrics, and its own limits."""

from __future__ import annotations

import math

import pytest
import torch

from lecture_lib.errors import NonFiniteError, ShapeError
from lecture_lib.metrics import inception_score


def test_known_numbers():
    """All alike: 1. Each of k classes clearly and equally often: k. One of two classes with odds q: a binary KL."""
    assert inception_score(torch.zeros(50, 10)) == pytest.approx(1, abs=1e-12)
    assert inception_score(1e4 * torch.eye(10).repeat(3, 1)) == pytest.approx(10, abs=1e-9)
    q = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    kl = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert inception_score(q.log()) == pytest.approx(math.exp(kl), rel=1e-12)


def test_smoothed_one_hot_predictions():
    """Perfect predictions with 1e-4 of smoothing score 9.90, not 10 (MISTAKES B124)."""
    p = torch.full((10, 10), 1e-4, dtype=torch.float64).fill_diagonal_(1 - 9e-4)
    assert inception_score(p.log()) == pytest.approx(9.90, abs=0.03)


@pytest.mark.filterwarnings("ignore")  # of buffers and of one split
def test_as_torchmetrics():
    from torchmetrics.image.inception import InceptionScore

    logits = torch.randn(200, 10, generator=torch.Generator().manual_seed(0))

    class Known(torch.nn.Module):
        def forward(self, images):
            return logits

    reference = InceptionScore(feature=Known(), splits=1)
    reference.update(torch.zeros(200, 3, 4, 4, dtype=torch.uint8))
    assert inception_score(logits) == pytest.approx(reference.compute()[0].item(), rel=1e-5)  # float32 there


def test_refusals():
    with pytest.raises(ShapeError, match="logits"):
        inception_score(torch.zeros(10))
    with pytest.raises(ShapeError, match="logits"):  # a NaN until now
        inception_score(torch.zeros(0, 10))
    with pytest.raises(NonFiniteError, match="logits"):
        inception_score(torch.full((2, 2), torch.nan))
