"""Distances between clouds, against closed forms and independent implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from lecture_lib.errors import NonFiniteError, RangeError, ShapeError
from lecture_lib.metrics import (
    GaussianKernel,
    PolynomialKernel,
    frechet_distance,
    frechet_gaussians,
    frechet_infinity,
    median_bandwidth,
    mmd2,
    sliced_wasserstein,
    wasserstein_1d,
)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(seed, d):
    a = normal(seed, d, d + 2)
    return a @ a.T / d


def test_frechet_of_gaussians_equals_scipy():
    linalg = pytest.importorskip("scipy.linalg")
    m1, m2, c1, c2 = normal(0, 6), normal(1, 6), covariance(2, 6), covariance(3, 6)
    root = linalg.sqrtm((c1 @ c2).numpy()).real
    expected = float((m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * np.trace(root))
    assert float(frechet_gaussians(m1, c1, m2, c2)) == pytest.approx(expected, rel=1e-10)


def test_frechet_by_hand_and_singular():
    zero, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    # Diagonal covariances commute: |m|^2 + sum (s1 - s2)^2 = 2 + (3 - 1)^2 + (0 - 2)^2
    c1, c2 = torch.diag(torch.tensor([9.0, 0.0])).double(), torch.diag(torch.tensor([1.0, 4.0])).double()
    assert float(frechet_gaussians(zero, c1, one, c2)) == pytest.approx(10.0, abs=1e-12)
    x = normal(4, 50, 3)
    assert abs(frechet_distance(x, x)) < 1e-10


class Scaled(nn.Module):
    """A feature extractor that torchmetrics accepts."""

    num_features = 5

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(12, 5).double()

    def forward(self, x):
        return self.map(x.double().flatten(1))


def test_frechet_distance_equals_torchmetrics_with_the_same_features():
    fid = pytest.importorskip("torchmetrics.image.fid")
    features = Scaled()
    x, y = torch.rand(60, 3, 2, 2), torch.rand(45, 3, 2, 2) ** 2
    metric = fid.FrechetInceptionDistance(feature=features, normalize=True).set_dtype(torch.float64)
    metric.update(x, real=True)
    metric.update(y, real=False)
    assert frechet_distance(x, y, features) == pytest.approx(float(metric.compute()), rel=1e-6)


def test_frechet_distance_is_biased_upwards_for_few_samples():
    few = frechet_distance(normal(5, 200, 64), normal(6, 200, 64))
    many = frechet_distance(normal(5, 2000, 64), normal(6, 2000, 64))
    assert few == pytest.approx(11, abs=1.5) and many == pytest.approx(1.07, abs=0.2)  # MISTAKES B20 gives 11.1 at 200


def test_frechet_at_infinity_is_the_distance_of_the_law_itself():
    # Draws from a known Gaussian against a fixed set: the limit is a closed form; a finite set lies well above it.
    d, y = 32, normal(1, 500, 32) + 0.1
    exact = float(frechet_gaussians(torch.zeros(d).double(), torch.eye(d).double(), y.mean(0), torch.cov(y.T)))
    clouds = [normal(100 + seed, 1400, d) for seed in range(40)]
    plain, limit = (np.array([f(x, y) for x in clouds]) - exact for f in (frechet_distance, frechet_infinity))
    error = limit.std() / math.sqrt(len(limit))
    assert abs(limit.mean()) < 3 * error
    assert plain.mean() > 10 * error > 0
    with pytest.raises(RangeError, match="parts"):
        frechet_infinity(y[:5], y, parts=3)
    with pytest.raises(RangeError, match="parts"):
        frechet_infinity(y, y, parts=1)


def test_mmd_closed_form_of_a_unit_shift():
    """E k over Gaussians: 2/sqrt(3) (1 - exp(-1/6)) = 0.1773 (MISTAKES B149)."""
    exact = 2 / math.sqrt(3) * (1 - math.exp(-1 / 6))
    assert exact == pytest.approx(0.1773, abs=5e-5)
    got = mmd2(normal(7, 3000, 1), normal(8, 3000, 1) + 1, GaussianKernel(1.0))
    assert got == pytest.approx(exact, abs=0.012)


def test_mmd_is_unbiased_for_equal_distributions():
    values = [mmd2(normal(2 * s, 50, 2), normal(2 * s + 1, 50, 2), GaussianKernel(1.0)) for s in range(200)]
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error and error < 0.002  # the biased version would be off by about 0.015
    assert min(values) < 0


def test_mmd_with_cubic_kernel_equals_torchmetrics_kid():
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = normal(9, 40, 7), normal(10, 40, 7) * 1.3
    expected = float(kid.poly_mmd(x, y, degree=3, coef=1.0))
    assert mmd2(x, y, PolynomialKernel(3)) == pytest.approx(expected, rel=1e-9)


def test_mmd_default_bandwidth_and_its_range():
    x = torch.tensor([[0.0], [1.0], [3.0]])
    assert median_bandwidth(x) == pytest.approx(2.0)
    assert mmd2(normal(1, 30, 2), normal(2, 20, 2)) < 0.2
    with pytest.raises(RangeError):
        GaussianKernel(0.0)


def test_wasserstein_on_the_line_equals_pot_for_unequal_sizes():
    ot = pytest.importorskip("ot")
    x, y = normal(11, 30, 1), 2 * normal(12, 17, 1) + 0.5
    expected = ot.wasserstein_1d(x[:, 0].numpy(), y[:, 0].numpy(), p=2)
    assert float(wasserstein_1d(x, y)) == pytest.approx(float(expected), rel=1e-9)


def test_sliced_wasserstein_closed_forms():
    x, shift = normal(13, 4000, 3), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    moved = sliced_wasserstein(x[:20], x[:20] + shift, directions=20_000, generator=g)
    assert moved == pytest.approx(float(shift.square().sum()) / 3, rel=0.02)
    # Isotropic Gaussians of standard deviation 1 and 2: every projection is (2 - 1)^2.
    wide = sliced_wasserstein(x, 2 * normal(14, 4000, 3), directions=64, generator=g)
    assert wide == pytest.approx(1.0, abs=0.08)
    assert sliced_wasserstein(x, x, directions=3, generator=g) == 0


def test_sliced_wasserstein_equals_pot():
    ot = pytest.importorskip("ot")
    x, y = normal(15, 40, 4), normal(16, 40, 4) + 0.3
    theirs = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), n_projections=20_000, seed=0) ** 2
    mine = sliced_wasserstein(x, y, directions=20_000, generator=torch.Generator().manual_seed(0))
    assert mine == pytest.approx(float(theirs), rel=0.02)


@pytest.mark.parametrize("metric", [frechet_distance, mmd2, sliced_wasserstein])
def test_clouds_that_cannot_be_compared_are_refused(metric):
    good = normal(0, 5, 2)
    with pytest.raises(ShapeError):
        metric(good, normal(0, 5, 3))
    with pytest.raises(ShapeError):
        metric(good[:0], good)
    with pytest.raises(NonFiniteError):
        metric(good, good / 0)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-11), (torch.float32, 2e-3)])
def test_flat_gaussians_are_at_no_distance_from_themselves(dtype, most):
    """Rounding errors of zero eigenvalues must not be seen through a square root: that gave -4e-7 and -0.05."""
    x = normal(3, 20, 64)
    x = (x - x.mean(0)).to(dtype)
    cov = x.T @ x / 19
    assert frechet_gaussians(x[0], cov, x[0], cov).abs() < most


@pytest.mark.parametrize("points", [torch.zeros(9, 2), torch.zeros(1, 2)], ids=["collapsed", "one"])
def test_no_bandwidth_of_points_that_do_not_differ(points):
    with pytest.raises(RangeError, match="median"):
        median_bandwidth(points)
