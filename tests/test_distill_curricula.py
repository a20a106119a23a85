"""Pair laws and curricula of consistency models, against published numbers, quadrature and counted draws."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats
from worlds import F64, seeded, times

from lecture_lib.core import EDM, LearnedSchedule, RectifiedFlow, Trigonometric, VPLinear
from lecture_lib.distill import (
    EqualPairs,
    LogNormalPairs,
    NeighbourPairs,
    RatioPairs,
    ct_decay,
    ct_points,
    ect_stage,
    ict_points,
    rising_grid,
)
from lecture_lib.errors import RangeError


def test_the_grid_is_the_papers():
    """``t_i = (eps^(1/7) + (i-1)/(N-1) (T^(1/7) - eps^(1/7)))^7``, written out; on other paths the same levels."""
    n = 18
    by_hand = [(0.002 ** (1 / 7) + i / (n - 1) * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7 for i in range(n)]
    assert torch.allclose(rising_grid(EDM(), n), torch.tensor(by_hand, dtype=F64), rtol=1e-12)
    for path in (VPLinear(), RectifiedFlow()):
        levels = torch.exp(-path.lam(rising_grid(path, n)))
        assert torch.allclose(levels, torch.tensor(by_hand, dtype=F64), rtol=1e-9)
    rising_grid(EDM(), n).zero_(), NeighbourPairs(EDM(), n).grid.zero_()  # a grid is its caller's own
    assert torch.allclose(rising_grid(EDM(), n), torch.tensor(by_hand, dtype=F64), rtol=1e-12)
    with pytest.raises(RangeError, match="points"):
        rising_grid(EDM(), 1)


def test_the_grid_follows_a_path_that_learns():
    path = LearnedSchedule()
    first = rising_grid(path, 6, 10.0)
    with torch.no_grad():
        for weight in path.parameters():
            weight += torch.randn(weight.shape, generator=seeded())
        levels = torch.exp(-path.lam(rising_grid(path, 6, 10.0)))
        assert levels[-1].item() == pytest.approx(10) != torch.exp(-path.lam(first))[-1].item()


def test_ict_doubles_as_published():
    """FORMULAS.md: K = 400 000 and k = 0, 50k, 100k, 200k, 300k, 399 999."""
    at = (0, 49_999, 50_000, 100_000, 200_000, 300_000, 399_999, 400_000)
    assert [ict_points(k, 400_000) for k in at] == [11, 11, 21, 41, 161, 641, 1281, 1281]


def test_ict_reaches_its_last_grid_whatever_it_is():
    """s_1/s_0 = 6 is no power of two: K' = floor(100/(log2 6 + 1)) = 27, so the last 19 updates have 61 points."""
    assert [ict_points(k, 100, last=60) for k in (0, 26, 27, 53, 54, 80, 81, 100)] == [11, 11, 21, 21, 41, 41, 61, 61]


def test_ct_grows_from_2_to_151_and_its_average_slows_down():
    assert [ct_points(k, 800_000) for k in (0, 800_000)] == [2, 151]
    assert ct_points(1, 4) == math.ceil(math.sqrt((151**2 - 4) / 4 + 4) - 1) + 1 == 76
    assert ct_decay(2) == pytest.approx(0.9, rel=1e-12)
    assert ct_decay(151) == pytest.approx(0.9 ** (2 / 151), rel=1e-12)
    grown = [ct_points(k, 100) for k in range(101)]
    assert grown == sorted(grown)


def test_ect_stages_are_equally_long():
    assert [ect_stage(k, 80) for k in (0, 9, 10, 79, 80)] == [1, 1, 2, 8, 8]
    with pytest.raises(RangeError, match="done <= total"):
        ect_stage(81, 80)


def test_uniform_neighbours():
    """They are neighbours, and each of the nine pairs comes as often as chance allows."""
    law = NeighbourPairs(EDM(), 10)
    t, u = law.sample(20_000, generator=seeded())
    n = torch.searchsorted(law.grid, u)
    assert torch.equal(law.grid[n], u) and torch.equal(law.grid[n + 1], t)
    assert stats.chisquare(n.bincount(minlength=9).numpy()).pvalue > 1e-3


def test_equal_neighbours_reach_both_ends():
    """Neighbours on k t_max/n, each equally often; pure noise and clean data are among them."""
    path = Trigonometric()
    t, u = EqualPairs(path, 5).sample(20_000, generator=seeded())
    assert torch.allclose(t - u, torch.full_like(t, path.t_max / 5), rtol=1e-12) and t.max() == path.t_max
    k = torch.round(5 * u / path.t_max).long()
    assert u.min() == 0 and stats.chisquare(k.bincount(minlength=5).numpy()).pvalue > 1e-3
    with pytest.raises(RangeError, match="steps"):
        EqualPairs(path, 0)


def test_lognormal_neighbours_have_the_normal_mass_between_them():
    """p(n) is scipy's normal mass of [log t_n, log t_{n+1}], renormalised; draws follow it."""
    law = LogNormalPairs(EDM(), 11)
    mass = stats.norm(-1.1, 2.0).cdf(law.grid.log().numpy())
    expected = (mass[1:] - mass[:-1]) / (mass[-1] - mass[0])
    assert law.odds().numpy() == pytest.approx(expected, rel=1e-10)
    _, u = law.sample(20_000, generator=seeded())
    counts = torch.searchsorted(law.grid, u).bincount(minlength=10).numpy()
    assert stats.chisquare(counts, 20_000 * expected).pvalue > 1e-3
    on_vp = LogNormalPairs(VPLinear(), 11)  # the law is one of noise levels, whatever the clock
    assert on_vp.odds().numpy() == pytest.approx(expected, rel=1e-7)


def test_ects_lower_time_by_hand():
    """q = 2, k = 8, b = 1: at a = 3 and t = 1, ``n = 1 + 8/(1 + e^-1^-1...)`` written out; at a = 1 small t give 0."""
    level = times(0.1, 1.0, 10.0, 80.0)
    by_hand = [t * (1 - (1 + 8 / (1 + math.exp(t))) / 8) for t in level.tolist()]
    assert RatioPairs(EDM(), 3).lower(level).tolist() == pytest.approx(by_hand, rel=1e-12)
    assert RatioPairs(EDM(), 1).lower(level)[0] == 0  # 1 - 4.8/2 < 0
    ratios = [float(RatioPairs(EDM(), a).lower(times(10.0))) / 10 for a in range(1, 9)]
    assert all(1 - b == pytest.approx((1 - a) / 2) for a, b in pairwise(ratios))  # the gap halves at every stage


@pytest.mark.parametrize("path", [EDM(), VPLinear(), RectifiedFlow()], ids=["edm", "vp", "rf"])
def test_ect_draws_levels_lognormally_on_any_path(path):
    t, u = RatioPairs(path, 4).sample(4000, generator=seeded())
    level, below = torch.exp(-path.lam(t)), torch.exp(-path.lam(u))
    assert stats.kstest(level.log().numpy(), stats.norm(-1.1, 2.0).cdf).pvalue > 1e-3
    assert level.max() <= 80 * (1 + 1e-9)
    assert (u < t).all() and torch.allclose(below, RatioPairs(path, 4).lower(level), rtol=1e-6, atol=1e-9)
    _, first = RatioPairs(path, 1).sample(1000, generator=seeded())
    assert (first == 0).any()  # exactly the data, not nearly


def test_pairs_depend_on_their_generator_alone():
    for law in (NeighbourPairs(EDM(), 7), LogNormalPairs(EDM(), 7), RatioPairs(EDM(), 2)):
        a, b = law.sample(5, generator=seeded(3)), law.sample(5, generator=seeded(3))
        assert torch.equal(a.t, b.t) and torch.equal(a.u, b.u) and a.t.dtype == F64
