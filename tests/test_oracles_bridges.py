"""The Gaussian Schroedinger bridge and the Fokker-Planck solver: against POT, optimality and exact densities."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from worlds import F64, normal, seeded, times

from lecture_lib.core import (
    BrownianNoise,
    RectifiedFlow,
    linear_interpolant,
    mirrored,
    trigonometric_interpolant,
    uniform_grid,
)
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.oracles import GaussianBridge, GaussianMixture, GaussianSchrodinger, fokker_planck
from lecture_lib.samplers import ConstantDiffusion, EulerMaruyama, last, sample

ONE = torch.eye(1, dtype=F64)


def on_the_line(sigma: float, s0: float = 1.0, s1: float = 0.5) -> GaussianSchrodinger:
    """N(0, s0^2) to N(3, s1^2): the case of FORMULAS, U26."""
    return GaussianSchrodinger(times(0.0), s0**2 * ONE, times(3.0), s1**2 * ONE, sigma)


def in_space(sigma: float, d: int = 3) -> GaussianSchrodinger:
    """Two Gaussians with covariances that do not commute."""
    a, b = normal(d, d, seed=1), normal(d, d, seed=2)
    one = torch.eye(d, dtype=F64)
    return GaussianSchrodinger(normal(d), a @ a.mT + 0.3 * one, normal(d, seed=3), b @ b.mT + 0.2 * one, sigma)


# The coupling


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_on_the_line_it_is_the_formula(sigma):
    bridge, s0, s1 = on_the_line(sigma), 1.0, 0.5
    expected = (math.sqrt(4 * s0**2 * s1**2 + sigma**4) - sigma**2) / 2
    assert bridge.cross_covariance.item() == pytest.approx(expected, rel=1e-12)
    half = 0.25 * (s0**2 + s1**2) + 0.5 * expected + sigma**2 / 4
    assert bridge.moments(0.5)[1].item() == pytest.approx(half, rel=1e-12)


def test_the_numbers_of_b136():
    bridge = on_the_line(1.0)
    assert bridge.cross_covariance.item() == pytest.approx(0.20711, abs=1e-5)
    assert bridge.moments(0.5)[1].item() == pytest.approx(0.666, abs=5e-4)  # slerp has 0.625, and no sigma at all


def test_sinkhorn_of_pot_finds_the_same_covariance():
    x, y = np.linspace(-5, 5, 301), np.linspace(0.5, 5.5, 301)
    a, b = np.exp(-(x**2) / 2), np.exp(-((y - 3) ** 2) / 0.5)
    plan = ot.sinkhorn(a / a.sum(), b / b.sum(), (x[:, None] - y) ** 2, reg=2.0, numItermax=2000)
    assert (plan * x[:, None] * (y - 3)).sum() == pytest.approx(on_the_line(1.0).cross_covariance.item(), abs=1e-4)


@pytest.mark.parametrize("sigma", [0.2, 1.0, 3.0])
def test_in_space_the_plan_has_the_form_of_a_schroedinger_bridge(sigma):
    """Its density must be f(x0) g(x1) exp(-|x0 - x1|^2/2 sigma^2): the mixed block of the precision is -I/sigma^2."""
    bridge = in_space(sigma)
    c = bridge.cross_covariance
    joint = torch.cat([torch.cat([bridge.cov0, c], 1), torch.cat([c.mT, bridge.cov1], 1)])
    precision = torch.linalg.inv(joint)
    assert torch.allclose(precision[:3, 3:], -torch.eye(3, dtype=F64) / sigma**2, atol=1e-8 / sigma**2, rtol=1e-8)


def test_without_noise_it_is_the_optimal_transport_of_pot():
    bridge, x = in_space(0.0), normal(5, 3, seed=4)
    matrix, offset = ot.gaussian.bures_wasserstein_mapping(
        *(p.numpy() for p in (bridge.mean0, bridge.mean1, bridge.cov0, bridge.cov1))
    )
    assert torch.allclose(bridge.map(x), x @ torch.from_numpy(matrix) + torch.from_numpy(offset), atol=1e-8)
    near = in_space(1e-2)
    assert torch.allclose(near.map(x), bridge.map(x), atol=1e-3)


def test_much_noise_makes_the_ends_independent():
    assert in_space(100.0).cross_covariance.abs().max() < 1e-3


def test_ends_are_drawn_from_the_plan():
    bridge = in_space(1.0)
    x0, x1 = bridge.sample_ends(40_000, generator=seeded())
    got = torch.cov(torch.cat([x0, x1], 1).mT)
    assert torch.allclose(got[:3, 3:], bridge.cross_covariance, atol=0.06)
    assert torch.allclose(got[3:, 3:], bridge.cov1, atol=0.08) and torch.allclose(x1.mean(0), bridge.mean1, atol=0.03)


@pytest.mark.parametrize("sigma", [0.2, 3.0])
def test_ends_are_those_of_the_joint_covariance(sigma):
    bridge, c = in_space(sigma), in_space(sigma).cross_covariance
    joint = torch.cat([torch.cat([bridge.cov0, c], 1), torch.cat([c.mT, bridge.cov1], 1)])
    z = torch.randn(7, 6, generator=seeded()).double()
    expected = torch.cat([bridge.mean0, bridge.mean1]) + z @ torch.linalg.cholesky(joint).mT
    assert torch.allclose(torch.cat(bridge.sample_ends(7, generator=seeded()), 1), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_ends_of_transport_without_noise_are_drawn_and_at_any_noise_in_float32(dtype):
    """At sigma = 0 the joint covariance is singular, and Cholesky refused it; in float32 already at 1e-4."""
    some = in_space(1.0)
    ends = [part.to(dtype) for part in (some.mean0, some.cov0, some.mean1, some.cov1)]
    for sigma in (0.0, 1e-6, 1e-4, 1e-2, 100.0, 1e4):
        bridge = GaussianSchrodinger(*ends, sigma)
        x0, x1 = bridge.sample_ends(20_000, generator=seeded())
        assert torch.allclose(torch.cov(x1.mT), bridge.cov1, atol=0.12) and torch.allclose(
            x1.mean(0), bridge.mean1, atol=0.05
        )
        assert sigma > 0.0 or torch.equal(x1, bridge.map(x0))
    # s0^2 s1^2/sigma^2 to leading order; as a difference of two large numbers it came out 0
    assert on_the_line(1e4).cross_covariance.item() == pytest.approx(0.25e-8, rel=1e-6)


# The process


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_drift_and_marginals_are_those_of_draws(t):
    """E[x1 - x_t | x_t]/(1 - t) by regression on draws of the plan and its Brownian bridge; the bar is 2 %."""
    bridge, n = in_space(0.8), 200_000
    x0, x1 = bridge.sample_ends(n, generator=seeded(5))
    x_t = bridge.path.interpolate(x0, x1, normal(n, 3, seed=6), times(t).expand(n))
    mean, cov = bridge.moments(t)
    assert torch.allclose(x_t.mean(0), mean, atol=0.02) and torch.allclose(torch.cov(x_t.mT), cov, rtol=0.02, atol=0.02)
    ones = torch.cat([x_t, torch.ones(n, 1, dtype=F64)], 1)
    fitted = torch.linalg.lstsq(ones, (x1 - x_t) / (1 - t)).solution
    at = mean + normal(50, 3, seed=7) @ torch.linalg.cholesky(cov).mT
    exact = bridge.drift(at, times(t).expand(50))
    error = (torch.cat([at, torch.ones(50, 1, dtype=F64)], 1) @ fitted - exact).norm() / exact.norm()
    assert error < 0.02


def test_means_are_consistent_and_the_score_is_that_of_the_marginal():
    bridge, t = in_space(0.8), 0.3
    x, now = normal(7, 3), times(t).expand(7)
    p = bridge.denoise(bridge.path)(x, now)
    assert torch.allclose(bridge.path.interpolate(p.x0, p.x1, p.z, now), x, atol=1e-10)
    mean, cov = bridge.moments(t)
    assert torch.allclose(p.score, -torch.linalg.solve(cov, (x - mean).mT).mT, atol=1e-10)


@pytest.mark.parametrize("direction", ["inward", "outward"])
def test_its_sde_joins_the_ends_as_the_plan_does(direction):
    """Started at one end it stops at the other, and the two are correlated as the plan says: in both directions."""
    bridge, n = on_the_line(1.0), 20_000
    path, denoise = bridge.path, bridge.denoise(bridge.path)
    start, mean, std = 3 + 0.5 * normal(n, 1), 0.0, 1.0
    if direction == "outward":
        path, denoise = path.mirrored(), mirrored(denoise, path)
        start, mean, std = normal(n, 1), 3.0, 0.5
    grid = uniform_grid(path, 200, start=1 - 1e-4, end=0)
    end = last(sample(denoise, path, EulerMaruyama(ConstantDiffusion(1.0)), grid, start, generator=seeded(1)))
    assert end.mean().item() == pytest.approx(mean, abs=0.03) and end.std().item() == pytest.approx(std, rel=0.02)
    covariance = torch.cov(torch.cat([start, end], 1).mT)[0, 1].item()
    assert covariance == pytest.approx(0.2071, abs=0.015)


def test_the_trigonometric_interpolant_is_no_bridge():
    """B136: it carries the ends over as well, but its variance half way is another, whatever sigma one has in mind."""
    ends = (GaussianMixture([1.0], [[0.0]], [1.0]), GaussianMixture([1.0], [[3.0]], [0.25]))
    x = torch.linspace(-6, 10, 4001, dtype=F64)
    path = trigonometric_interpolant(lambda t: 0 * t)
    p = GaussianBridge(*ends).log_prob(x[:, None], path, times(0.5).expand(4001)).exp()
    mean = torch.trapezoid(x * p, x)
    variance = torch.trapezoid((x - mean) ** 2 * p, x).item()
    assert variance == pytest.approx(0.625, abs=1e-6)
    assert abs(on_the_line(1.0).moments(0.5)[1].item() - variance) > 0.04


def test_rounding_is_no_asymmetry_and_asymmetry_of_small_covariances_is():
    turned, _ = torch.linalg.qr(normal(16, 16, dtype=torch.float32))
    cov, mean = (turned * torch.linspace(0.1, 100, 16)) @ turned.mT, torch.zeros(16)
    GaussianSchrodinger(mean, cov, mean, cov)
    skew = times(1.0, 0.9, -0.9, 1.0).reshape(2, 2)
    with pytest.raises(RangeError, match="cov1"):
        GaussianSchrodinger(times(0.0, 0.0), 1e-9 * torch.eye(2, dtype=F64), times(0.0, 0.0), 1e-9 * skew)


def test_bad_ends_are_named():
    with pytest.raises(RangeError, match="cov1"):
        GaussianSchrodinger(times(0.0), ONE, times(0.0), -ONE)
    with pytest.raises(ShapeError, match="mean1"):
        GaussianSchrodinger(times(0.0), ONE, times(0.0, 1.0), ONE)
    with pytest.raises(ShapeError, match="path"):
        on_the_line(1.0).denoise(linear_interpolant(BrownianNoise(2.0)))
    with pytest.raises(RangeError, match="sigma"):
        _ = on_the_line(0.0).path


# Densities on a grid

X = torch.linspace(-6, 9, 751, dtype=F64)
MIXED = GaussianBridge(
    GaussianMixture([0.4, 0.6], [[-1.5], [1.0]], [0.1, 0.3]), GaussianMixture([0.5, 0.5], [[0.0], [4.0]], [0.4, 0.6])
)
SMOOTH = trigonometric_interpolant(BrownianNoise(1.0))


def exact(t: float) -> torch.Tensor:
    """The density of the bridge at one time."""
    return MIXED.log_prob(X[:, None], SMOOTH, times(t).expand(len(X))).exp()


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("falling", [True, False])
def test_ode_and_sdes_have_the_exact_marginals(epsilon, falling):
    """One marginal flow, many processes; to 5e-4 in total variation (L1/2), measured 2e-5 to 3.4e-4."""
    grid = torch.linspace(0.98, 0.02, 201, dtype=F64)
    grid = grid if falling else grid.flip(0)
    p = fokker_planck(MIXED.denoise(SMOOTH), X, exact(float(grid[0])), grid, epsilon=epsilon)
    h = float(X[1] - X[0])
    for k in (50, 100, 150, 200):
        distance = 0.5 * h * (p[k] - exact(float(grid[k]))).abs().sum().item()
        assert distance < 5e-4, f"{distance:.1e} at t = {float(grid[k]):.2f}"
    assert (p.sum(1) - p[0].sum()).abs().max().item() * h < 1e-12  # mass is kept


def test_the_wrong_sign_of_the_score_is_seen():
    class Wrong:
        def __init__(self, p):
            self.velocity, self.score = p.velocity, -p.score

    grid = torch.linspace(0.9, 0.5, 101, dtype=F64)
    p = fokker_planck(lambda x, t: Wrong(MIXED.denoise(SMOOTH)(x, t)), X, exact(0.9), grid, epsilon=0.5)
    assert 0.5 * (X[1] - X[0]) * (p[-1] - exact(0.5)).abs().sum() > 0.05


def test_second_order_in_both_steps():
    def error(points, steps):
        x = torch.linspace(-6, 9, points, dtype=F64)
        at = lambda t: MIXED.log_prob(x[:, None], SMOOTH, times(t).expand(points)).exp()  # noqa: E731
        p = fokker_planck(
            MIXED.denoise(SMOOTH), x, at(0.8), torch.linspace(0.8, 0.3, steps + 1, dtype=F64), epsilon=0.5
        )
        return ((x[1] - x[0]) * (p[-1] - at(0.3)).abs().sum()).item()

    ratio = error(251, 25) / error(501, 50)
    assert 3.5 < ratio < 4.5


def test_a_path_of_the_other_kind_works_too():
    world, path = GaussianMixture([0.3, 0.7], [[-2.0], [1.0]], [0.2, 0.1]), RectifiedFlow()
    grid = torch.linspace(0.9, 0.1, 301, dtype=F64)
    at = lambda t: world.log_prob(X[:, None], path, times(t).expand(len(X))).exp()  # noqa: E731
    p = fokker_planck(world.denoise(path), X, at(0.9), grid, epsilon=0.5)
    assert 0.5 * (X[1] - X[0]) * (p[-1] - at(0.1)).abs().sum() < 2e-3


def test_a_bad_grid_is_named():
    with pytest.raises(RangeError, match="equal"):
        fokker_planck(MIXED.denoise(SMOOTH), X**3, exact(0.9), times(0.9, 0.8))
    with pytest.raises(RangeError, match="times"):
        fokker_planck(MIXED.denoise(SMOOTH), X, exact(0.9), times(0.9, 0.8, 0.85))
    with pytest.raises(ShapeError, match="density"):
        fokker_planck(MIXED.denoise(SMOOTH), X, exact(0.9)[1:], times(0.9, 0.8))
