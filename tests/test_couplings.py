"""Pairings of two ends: Sinkhorn against POT, its limits, labels, crossings; and the two-sample test."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from worlds import F64, normal, seeded

from lecture_lib.core import EntropicPairing, as_drawn, independent, minibatch_ot, optimal_pairing, sinkhorn, within
from lecture_lib.core.couplings import squared_cost
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.metrics import GaussianKernel, crossings, mmd2, two_sample_test
from lecture_lib.oracles import GaussianSchrodinger


@pytest.mark.parametrize("regularization", [0.05, 0.5, 5.0])
def test_sinkhorn_equals_pot(regularization):
    x, y = normal(40, 2), normal(30, 2, seed=1)
    cost = squared_cost(x, y)
    weights = np.full(40, 1 / 40), np.full(30, 1 / 30)
    expected = ot.sinkhorn(
        *weights, cost.numpy(), regularization, method="sinkhorn_log", numItermax=20_000, stopThr=1e-12
    )
    got = sinkhorn(cost, regularization, iterations=20_000, tolerance=1e-10)
    assert (got - torch.from_numpy(expected)).abs().max() < 1e-8
    assert torch.allclose(got.sum(0), got.new_tensor(1 / 30), atol=1e-12)
    assert torch.allclose(got.sum(1), got.new_tensor(1 / 40), atol=1e-9)


def test_sinkhorn_does_not_underflow_and_stops_when_told():
    cost = squared_cost(100 * normal(20, 2), 100 * normal(20, 2, seed=1))
    assert torch.isfinite(sinkhorn(cost, 1e-3, iterations=5)).all()
    with pytest.raises(RangeError, match="regularization"):
        sinkhorn(cost, 0.0)
    with pytest.raises(ShapeError, match="x1"):
        squared_cost(normal(4, 2), normal(4, 3))


def test_a_constant_cost_gives_the_independent_plan():
    assert torch.allclose(sinkhorn(torch.ones(3, 5, dtype=F64), 0.1), torch.tensor(1 / 15, dtype=F64))


def test_optimal_pairing_is_that_of_pot_and_permutes():
    x0, x1 = normal(50, 3), normal(50, 3, seed=1)
    paired = optimal_pairing(x0, x1)
    expected = ot.emd2(np.full(50, 1 / 50), np.full(50, 1 / 50), squared_cost(x0, x1).numpy())
    assert (x0 - paired).square().sum(1).mean().item() == pytest.approx(expected, rel=1e-10)
    assert sorted(paired.tolist()) == sorted(x1.tolist())
    assert torch.equal(
        minibatch_ot(x0, seeded(3)), optimal_pairing(x0, torch.randn(50, 3, generator=seeded(3), dtype=F64))
    )


def test_entropic_pairs_have_the_covariance_of_the_bridge():
    """N(0, 1) to N(0, 1/4) with sigma = 1: 0.2071; with the regularization for the other cost it would be 0.30."""
    x0, x1 = normal(3000, 1), 0.5 * normal(3000, 1, seed=1)
    got = (x0 * EntropicPairing(1.0)(x0, x1, seeded(2))).mean().item()
    one = torch.eye(1, dtype=F64)
    zero = torch.zeros(1, dtype=F64)
    expected = GaussianSchrodinger(zero, one, zero, 0.25 * one, 1.0).cross_covariance.item()
    assert got == pytest.approx(expected, abs=0.03)  # three standard errors of 3000 draws
    assert expected == pytest.approx(0.2071, abs=1e-4)


def test_entropic_pairing_lies_between_the_two_others():
    x0, x1 = normal(100, 2), normal(100, 2, seed=1)
    cost = lambda pairing: (x0 - pairing(x0, x1, seeded())).square().sum(1).mean().item()  # noqa: E731
    little, much = cost(EntropicPairing(0.1, iterations=500)), cost(EntropicPairing(30.0))
    assert little == pytest.approx(cost(optimal_pairing), rel=0.15)
    assert much == pytest.approx(cost(as_drawn), rel=0.2)
    assert cost(optimal_pairing) < cost(EntropicPairing(0.5)) < 0.9 * much


def test_pairs_across_labels_make_the_noise_of_a_class_unfair():
    """Class 0 lies left: paired across classes its noise does too, within them it is white."""
    labels = torch.arange(512) % 2
    x0 = torch.stack([4.0 * labels - 2, torch.zeros(512)], 1).double()
    eps = independent(x0, seeded(1))
    across, apart = optimal_pairing(x0, eps), within(labels, optimal_pairing)(x0, eps)
    left = labels == 0
    assert across[left, 0].mean() < -0.7 and across[left, 0].mean().item() == pytest.approx(
        -math.sqrt(2 / math.pi), abs=0.1
    )
    assert abs(apart[left, 0].mean()) < 0.15 and torch.equal(apart[left].sort(0).values, eps[left].sort(0).values)
    with pytest.raises(ShapeError, match="labels"):
        within(labels[:3], optimal_pairing)(x0, eps)


# Crossings


def test_crossings_on_the_line_are_inversions():
    x0 = torch.arange(4.0)[:, None]
    for order, share in (((0, 1, 2, 3), 0.0), ((3, 2, 1, 0), 1.0), ((1, 0, 2, 3), 1 / 6), ((2, 0, 3, 1), 3 / 6)):
        assert crossings(x0, torch.tensor(order).float()[:, None]) == pytest.approx(share)


def test_crossings_in_the_plane_by_hand():
    x0 = torch.tensor([[0.0, 0.0], [0.0, 1.0], [5.0, 0.0]])
    crossed = torch.tensor([[1.0, 1.0], [1.0, 0.0], [6.0, 0.0]])
    assert crossings(x0, crossed) == pytest.approx(1 / 3)
    assert crossings(x0, crossed[[1, 0, 2]]) == 0.0
    with pytest.raises(ShapeError, match="x0, x1"):
        crossings(torch.zeros(3, 3), torch.zeros(3, 3))


def test_couplings_by_their_crossings():
    """Independent ends in one dimension cross half of the time; optimal ones never; entropic ones in between."""
    x0, x1 = normal(300, 1), 0.5 * normal(300, 1, seed=1) + 3
    shares = [crossings(x0, p(x0, x1, seeded(2))) for p in (as_drawn, EntropicPairing(0.7), optimal_pairing)]
    assert shares[0] == pytest.approx(0.5, abs=0.04) and shares[2] == 0.0
    assert 0.05 < shares[1] < 0.45
    plane = [crossings(normal(300, 2), p(normal(300, 2), normal(300, 2, seed=1))) for p in (as_drawn, optimal_pairing)]
    assert plane[1] < 0.15 * plane[0]


# The two-sample test


def test_the_test_keeps_its_level_and_sees_a_shift():
    alarms = 0
    for seed in range(100):
        x, y = normal(60, 2, seed=2 * seed), normal(60, 2, seed=2 * seed + 1)
        alarms += not two_sample_test(x, y, permutations=100, generator=seeded(seed)).same
    assert 0 <= alarms <= 12  # binomial(100, .05): more than 12 once in 700
    shifted = two_sample_test(normal(300, 2), normal(300, 2, seed=1) + 0.3, generator=seeded())
    assert not shifted.same and shifted.p_value == pytest.approx(1 / 201)


def test_its_statistic_is_the_mmd():
    x, y, kernel = normal(40, 2), normal(50, 2, seed=1) + 0.2, GaussianKernel(0.7)
    result = two_sample_test(x, y, kernel, generator=seeded())
    assert result.mmd2 == pytest.approx(mmd2(x, y, kernel), rel=1e-9)
    again = two_sample_test(x, y, kernel, generator=seeded())
    assert result == again
    with pytest.raises(RangeError, match="permutations"):
        two_sample_test(x, y, permutations=0, generator=seeded())
