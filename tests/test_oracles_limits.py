"""Rate-distortion of a Gaussian, and the theorem about the number of steps with three counterexamples that run."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import minimize
from worlds import normal

from lecture_lib.core import EDM, RectifiedFlow, VPLinear, karras_grid, then_clean
from lecture_lib.distill import exact_consistency
from lecture_lib.errors import RangeError
from lecture_lib.metrics import sliced_wasserstein
from lecture_lib.oracles import (
    GaussianMixture,
    binary_entropy,
    flow_map,
    gaussian_information,
    one_evaluation,
    ring_of_modes,
    steps_demanded,
    water_filling,
)
from lecture_lib.samplers import Heun, last, sample

F64 = torch.float64


def test_one_gaussian():
    rate, left = water_filling(torch.tensor([2.0]), 0.5)
    assert rate == pytest.approx(0.5 * math.log(4)) and left.tolist() == [0.5]
    assert water_filling(torch.tensor([2.0]), 3.0).rate == 0


def test_water_filling_by_hand_and_against_an_optimiser():
    # level 0.5: the first two are under water, 0.1 + 0.3 + 2 * 0.5 = 1.4
    rate, left = water_filling(torch.tensor([4.0, 0.1, 1.0, 0.3]), 1.4)
    assert left.tolist() == pytest.approx([0.5, 0.1, 0.5, 0.3])
    assert rate == pytest.approx(0.5 * (math.log(8) + math.log(2)))
    variances = torch.tensor([3.0, 1.0, 0.4, 0.2, 0.05], dtype=F64)
    for total in (0.1, 0.7, 1.9, 4.5):
        by_hand = minimize(
            lambda d: 0.5 * sum(math.log(s / e) for s, e in zip(variances.tolist(), d, strict=True)),
            variances.numpy() * total / float(variances.sum()),
            bounds=[(1e-6, s) for s in variances.tolist()],
            constraints={"type": "eq", "fun": lambda d, total=total: d.sum() - total},
            options={"ftol": 1e-14, "maxiter": 1000},
        )
        got = water_filling(variances, total)
        assert got.rate == pytest.approx(by_hand.fun, abs=1e-6)
        assert got.distortions.sum().item() == pytest.approx(total) and (got.distortions <= variances).all()


def test_the_curve_falls_and_is_convex():
    variances = torch.tensor([3.0, 1.0, 0.4, 0.2], dtype=F64)
    rates = torch.tensor([water_filling(variances, d).rate for d in torch.linspace(0.1, 4.6, 46, dtype=F64).tolist()])
    assert (rates.diff() <= 1e-12).all() and (rates.diff().diff() >= -1e-9).all() and rates[-1] < 1e-9
    for wrong in (0.0, -1.0):
        with pytest.raises(RangeError, match="distortion"):
            water_filling(variances, wrong)
    with pytest.raises(RangeError, match="variances"):
        water_filling(torch.tensor([1.0, 0.0]), 1.0)


def test_the_numbers_of_the_argument():
    """MISTAKES.md A144, A145, A148: 248 bits (172 nats), 1591 in one unit, 2296 in two, 0.52 by its own budget."""
    bits = math.log(2)
    entropy = 8 * 3072 * bits
    assert 3072 * binary_entropy(0.01) / bits == pytest.approx(248, abs=0.3)
    assert 3072 * binary_entropy(0.01) == pytest.approx(172, abs=0.1)
    assert steps_demanded(entropy, 3072, 0.01, 80 / 0.002) == pytest.approx(1591, abs=0.5)
    assert steps_demanded(entropy, 3072, 0.01, 80 / 0.002) / bits == pytest.approx(2296, abs=0.5)
    assert steps_demanded(entropy, 3072, 0.01, 80 / 0.002) / 3072 == pytest.approx(0.52, abs=0.005)
    assert gaussian_information(0.25, 80.0, 3072) / bits == pytest.approx(0.087, abs=5e-4)
    assert binary_entropy(0.0) == 0 and binary_entropy(0.5) == pytest.approx(bits)
    with pytest.raises(RangeError, match="noise_ratio"):
        steps_demanded(1.0, 1, 0.1, 1.0)


@pytest.mark.parametrize("path", [EDM(), RectifiedFlow(), VPLinear()])
def test_for_a_gaussian_one_evaluation_of_the_denoiser_is_exact(path):
    mean, std = torch.tensor([0.4, -1.0], dtype=F64), 0.5
    denoise = GaussianMixture([1.0], mean[None], [std**2]).denoise(path)
    x, t, end = normal(6, 2), torch.full((6,), 0.9 * path.t_max, dtype=F64), torch.full((6,), 0.01, dtype=F64)
    assert torch.allclose(one_evaluation(denoise(x, t), mean, std, end), flow_map(denoise, path, x, t, end), atol=1e-9)


def test_the_published_jump():
    """MISTAKES.md A139: x_end = m + (D(x_T) - m) sqrt((s^2 + T^2)(s^2 + end^2))/s^2."""
    path, s, end = EDM(), 0.5, 0.002
    p = GaussianMixture([1.0], [[0.3]], [s**2]).denoise(path)(normal(4, 1) * 80, torch.full((4,), 80.0, dtype=F64))
    expected = 0.3 + (p.x0 - 0.3) * math.sqrt((s**2 + 80**2) * (s**2 + end**2)) / s**2
    got = one_evaluation(p, torch.tensor([0.3], dtype=F64), s, torch.full((4,), end, dtype=F64))
    assert torch.allclose(got, expected, rtol=1e-12)


def test_two_counterexamples_on_the_ring():
    """At 16 bits a number the argument demands more steps than the solver takes, and than the flow map does: one.

    The third counterexample is a network: ``ring-instaflow`` of the zoo.
    """
    world, path = ring_of_modes(), EDM()
    demanded = steps_demanded(16 * 2 * math.log(2), 2, 0.01, 80 / 0.002)
    assert demanded > 2
    denoise, x_T = world.denoise(path), 80 * normal(2000, 2)
    fresh = world.sample(2000, generator=torch.Generator().manual_seed(5))
    noise_floor = sliced_wasserstein(world.sample(2000, generator=torch.Generator().manual_seed(6)), fresh)
    one_step = exact_consistency(denoise, path, tolerance=1e-6)(x_T, torch.full((2000,), 80.0, dtype=F64))
    solver = last(sample(denoise, path, Heun(), then_clean(karras_grid(path, 18)[:-1]), x_T))  # EDM: 35 evaluations
    for drawn in (one_step, solver):
        assert sliced_wasserstein(drawn, fresh) < 3 * noise_floor
