"""What guided samplers really produce, in closed form, by moment equations, and by our own samplers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from worlds import F64, gap, normal, seeded, times

from lecture_lib.core import EDM, RectifiedFlow, VPLinear, karras_grid, logsnr_grid
from lecture_lib.errors import RangeError
from lecture_lib.guidance import extrapolate
from lecture_lib.oracles import (
    Gaussian,
    GaussianMixture,
    Tilted,
    flow_map,
    guided_moments,
    guided_ode_variance,
    tilted_gaussian,
)
from lecture_lib.samplers import EulerMaruyama, Heun, last, one_step, sample

P, P_C, W = Gaussian(0.0, 1.0), Gaussian(1.0, 0.25), 3.0


def guided(path, w=W):
    return extrapolate(P.mixture().denoise(path), P_C.mixture().denoise(path), w)


# Reference values of the lecture (MISTAKES A20, FORMULAS part 5)


def test_reference_values():
    tilted = tilted_gaussian(P, P_C, W)
    assert (tilted.mean, tilted.var) == pytest.approx((1.2, 0.1), abs=1e-12)
    assert guided_ode_variance(P, P_C, W) == pytest.approx(0.015625, abs=1e-15)
    ode, sde = guided_moments(P, P_C, W), guided_moments(P, P_C, W, stochastic=1.0)
    assert (ode.mean, ode.var) == pytest.approx((1.5, 0.015625), abs=1e-6)
    assert guided_moments(P, P_C, W, noise=152.0).mean == pytest.approx(1.498, abs=6e-4)  # from where a VP path starts
    assert (sde.mean, sde.var) == pytest.approx((1.313, 0.0666), abs=5e-4)


def test_equal_variances_agree_nearly():
    # A20: with equal variances the two are the only easy case that agrees: mean 2.985 against 3, variance 1.
    p, p_c = Gaussian(0.0, 1.0), Gaussian(1.0, 1.0)
    assert tilted_gaussian(p, p_c, 3.0) == Gaussian(3.0, 1.0)
    assert guided_moments(p, p_c, 3.0).var == pytest.approx(1.0, abs=1e-6)


def test_two_to_the_one_minus_w():
    # FORMULAS T0: p(x|c) = N(0, 1), p = N(0, 2), scale 3: variance 2^(1 - 3) = 0.25, tempered density 0.5.
    p, p_c = Gaussian(0.0, 2.0), Gaussian(0.0, 1.0)
    assert guided_ode_variance(p, p_c, 3.0) == pytest.approx(0.25)
    assert guided_moments(p, p_c, 3.0).var == pytest.approx(0.25, abs=1e-6)
    assert tilted_gaussian(p, p_c, 3.0).var == pytest.approx(0.5)


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_moment_equations_against_the_closed_form(w):
    got = guided_moments(P, P_C, w)
    assert got.var == pytest.approx(guided_ode_variance(P, P_C, w), rel=1e-6)
    if w in (0.0, 1.0):  # no guidance: the ODE, the SDE and the tilted density are all the same law
        law = P if w == 0 else P_C
        for a in (0.0, 1.0, 2.5):
            moments = guided_moments(P, P_C, w, stochastic=a)
            assert (moments.mean, moments.var) == pytest.approx((law.mean, law.var), abs=2e-4)


# The same numbers from our own samplers. On Gaussians a deterministic one is x -> a x + b: two samples tell its law.


def affine_law(path, sampler, grid, noise_level):
    x = last(sample(guided(path), path, sampler, grid, times(0.0, 1.0)[:, None]))
    b, a = float(x[0]), float(x[1] - x[0])
    return b, (a * noise_level) ** 2


@pytest.mark.parametrize(
    ("path", "grid"),
    [
        (EDM(t_max=400.0), karras_grid(EDM(t_max=400.0), 300, sigma_max=400.0, sigma_min=1e-3)),
        (VPLinear(), logsnr_grid(VPLinear(), 250, start=1.0, end=1e-4)),
        (RectifiedFlow(), logsnr_grid(RectifiedFlow(), 400, start=0.999, end=1e-4)),
    ],
    ids=["edm", "vp", "rf"],
)
def test_guided_ode_run_by_our_sampler(path, grid):
    start = float(torch.exp(-path.lam(grid[:1])))
    expected = guided_moments(P, P_C, W, noise=start)
    mean, var = affine_law(path, Heun(), grid, float(path.sigma(grid[:1])))
    assert var == pytest.approx(expected.var, rel=0.01)
    assert mean == pytest.approx(expected.mean, abs=0.005)


def test_guided_ode_run_by_the_flow_map():
    path = EDM(t_max=1e4)
    x = flow_map(guided(path), path, times(0.0, 1e4)[:, None], times(1e4, 1e4), times(0.0, 0.0)).flatten()
    expected = guided_moments(P, P_C, W, noise=1e4)
    assert float(x[0]) == pytest.approx(expected.mean, abs=1e-6)
    assert float((x[1] - x[0]) ** 2) == pytest.approx(expected.var, rel=1e-6)


def guided_sde_law(path, grid, noise_level):
    mean, var = 0.0, noise_level**2
    for t, s in pairwise(grid):  # exact propagation: every step is a x + b + c z
        x, z = times(0, 1, 0)[:, None], times(0, 0, 1)[:, None]
        out, _ = one_step(EulerMaruyama(), guided(path), path, x, t.expand(3), s.expand(3), noise=lambda z=z: z)
        b, ab, bc = out.flatten().tolist()
        mean, var = (ab - b) * mean + b, (ab - b) ** 2 * var + (bc - b) ** 2
    return mean, var


def test_guided_sde_run_by_our_sampler():
    expected = guided_moments(P, P_C, W, stochastic=1.0)
    path = EDM(t_max=100.0)
    mean, var = guided_sde_law(path, karras_grid(path, 600, sigma_max=100.0, sigma_min=1e-3), 100.0)
    assert mean == pytest.approx(expected.mean, abs=0.02)
    assert var == pytest.approx(expected.var, rel=0.05)


# Tilted density


def test_tilted_grid_against_the_closed_form():
    for w in (-0.2, 0.0, 0.7, 1.0, 3.0, 10.0):
        grid, closed = Tilted(P.mixture(), P_C.mixture(), w), tilted_gaussian(P, P_C, w)
        assert (grid.mean(), grid.var()) == pytest.approx((closed.mean, closed.var), abs=1e-7)
        assert gap(grid.density(grid.grid), closed.density(grid.grid)) <= 1e-8
        assert float(torch.trapezoid(grid.density(grid.grid), grid.grid)) == pytest.approx(1, abs=1e-12)


def test_tilted_of_mixtures_by_hand():
    mixture = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [0.25, 0.25], labels=[0, 1])
    tilted = Tilted(mixture, mixture.given(1), 2.0)
    x = torch.linspace(-3, 3, 11, dtype=F64)

    def n(m):
        return torch.exp(-2 * (x - m) ** 2)

    ratio = n(1) ** 2 / (0.5 * n(-1) + 0.5 * n(1))
    density = tilted.density(x)
    assert gap(density / density[7], ratio / ratio[7]) <= 1e-9


def test_tilted_samples_follow_the_density():
    tilted = Tilted(P.mixture(), P_C.mixture(), 3.0)
    x = tilted.sample(20_000, generator=seeded(1))
    assert x.shape == (20_000, 1)
    assert float(x.mean()) == pytest.approx(1.2, abs=0.01) and float(x.var()) == pytest.approx(0.1, abs=0.004)
    assert torch.equal(tilted.sample(5, generator=seeded(1)), tilted.sample(5, generator=seeded(1)))


@pytest.mark.parametrize("w", [-1.0, -0.34])
def test_no_density_below_the_limit(w):
    # precision (1 - w) + 4 w <= 0 for w <= -1/3
    with pytest.raises(RangeError, match=r"w: .*not normalisable"):
        tilted_gaussian(P, P_C, w)
    with pytest.raises(RangeError, match="w: "):
        Tilted(P.mixture(), P_C.mixture(), w)


def test_no_density_when_the_condition_is_wider():
    # the conditional is wider than the whole: precision (1 - w) + w/2 is negative for w > 2
    wide = Gaussian(0.0, 2.0)
    assert tilted_gaussian(P, wide, 1.5).var == pytest.approx(1 / 0.25)
    for make in (lambda: tilted_gaussian(P, wide, 2.5), lambda: Tilted(P.mixture(), wide.mixture(), 2.5)):
        with pytest.raises(RangeError, match="w: "):
            make()


def test_a_peak_that_the_grid_cannot_see_is_an_error():
    with pytest.raises(RangeError, match="n: "):
        Tilted(P.mixture(), P_C.mixture(), 1e5)


def test_guided_marginals_are_not_the_noised_tilted_density():
    # The heart of the lecture: the guided score at t belongs to p_w,t, but these p_w,t are not the noisings of p_w.
    path, t, x = EDM(), times(1.0, 1.0), times(0.3, -0.7)[:, None]
    guided_score = guided(path)(x, t).score
    at_this_level = tilted_gaussian(Gaussian(0.0, 2.0), Gaussian(1.0, 1.25), W)  # p and p_c, noised, then tilted
    assert gap(guided_score, -(x - at_this_level.mean) / at_this_level.var) <= 1e-12
    tilted = tilted_gaussian(P, P_C, W)
    assert abs(tilted.var + 1 - at_this_level.var) > 0.3


def test_gaussian_density_and_mixture_are_the_same_law():
    g, x = Gaussian(0.5, 2.0), normal(7, 1)
    assert gap(g.density(x[:, 0]), g.mixture().log_prob(x).exp()) <= 1e-15
    assert float(g.density(times(0.5))) == pytest.approx(1 / math.sqrt(4 * math.pi))
