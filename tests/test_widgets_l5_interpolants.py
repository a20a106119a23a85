"""The interpolant explorer: every control matters, and what is drawn is the exact bridge and honest particles of it."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.stats import kstest, norm
from widget_laws import (
    every_value_has_its_picture,
    one_thread,  # noqa: F401 - a fixture
    the_picture_goes_out_with_the_widget,
)

from lecture_lib import widgets
from lecture_lib.core import RectifiedFlow, VPLinear
from lecture_lib.errors import RangeError
from lecture_lib.widgets import ways as shown

STRAIGHT, BROWNIAN, TWO, WHITE = "straight", "a sqrt(t (1 - t))", "two other modes", "noise N(0, 1)"
ODE, SDE = "ODE (epsilon = 0)", "SDE, epsilon = 2"


def test_every_control_changes_the_picture_at_every_value():
    explorer = widgets.interpolant_explorer()
    assert not explorer.failed and explorer.caption and explorer.alt
    for argument in set(explorer.controls) - {"way"}:
        every_value_has_its_picture(explorer, argument)


def test_every_way_has_its_picture_with_the_gamma_that_all_of_them_allow():
    explorer = widgets.interpolant_explorer().set(noise="a sin^2(pi t)")
    every_value_has_its_picture(explorer, "way")


def test_the_same_settings_give_the_same_picture_and_the_picture_goes_out_with_the_widget(monkeypatch):
    the_picture_goes_out_with_the_widget(widgets.interpolant_explorer, monkeypatch)


def by_hand(x, t, a):
    """p_t and E[dx_t/dt | x_t] of the straight way with Brownian gamma between the two laws, component by component."""
    gamma = a * np.sqrt(t * (1 - t))
    slopes = -1.0, 1.0, a * (1 - 2 * t) / (2 * np.sqrt(t * (1 - t)))
    p = moved = 0.0
    for w0, m0 in ((0.35, -1.3), (0.65, 1.1)):
        for w1, m1 in ((0.5, -0.4), (0.5, 1.9)):
            v0, v1 = 0.06, 0.09
            mean, var = (1 - t) * m0 + t * m1, (1 - t) ** 2 * v0 + t**2 * v1 + gamma**2
            part = w0 * w1 * norm.pdf(x, mean, np.sqrt(var))
            cov = slopes[0] * (1 - t) * v0 + slopes[1] * t * v1 + slopes[2] * gamma  # Cov(dx_t/dt, x_t)
            p = p + part
            moved = moved + part * (m1 - m0 + cov / var * (x - mean))
    return p, moved / p


@pytest.mark.parametrize("row", [20, 100, 171])
def test_density_and_velocity_of_the_tables_are_those_of_gaussian_conditioning(row):
    found = shown.tables(STRAIGHT, BROWNIAN, 0.7, TWO)
    p, b = by_hand(shown.PLACES, found.times[row], 0.7)
    seen = p > 1e-6
    assert np.abs(found.density[row] - p).max() < 1e-12
    assert np.abs(found.velocity[row] - b)[seen].max() < 1e-9


def test_the_score_of_the_tables_is_the_slope_of_the_log_density():
    """By differences of the density by hand, an error of 1e-6 or so; where x1 is the noise, the mixture's own score."""
    found = shown.tables(STRAIGHT, BROWNIAN, 0.7, TWO)
    up, down = (np.log(by_hand(shown.PLACES + h, found.times[100], 0.7)[0]) for h in (1e-4, -1e-4))
    assert np.abs(found.score[100] - (up - down) / 2e-4)[30:115].max() < 1e-5
    found = shown.tables("VP linear (DDPM)", "none", 0.7, WHITE)
    x, t = (
        torch.from_numpy(shown.PLACES)[:, None],
        torch.full((len(shown.PLACES),), found.times[30], dtype=torch.float64),
    )
    assert np.abs(found.score[30] - shown.DATA_LAW.score(x, VPLinear(), t)[:, 0].numpy()).max() < 1e-9


def test_every_process_has_the_marginals_of_the_interpolant():
    """Kolmogorov-Smirnov at five times by scipy; 1500 particles, 20 tests: p > 0.001 each, with fixed seeds.

    The SDE of epsilon = 2 takes steps of 0.0025 where the variance is 0.06: too wide by 2 in 100 at the ends.
    """
    found = shown.tables(STRAIGHT, BROWNIAN, 0.7, TWO)
    for process in shown.PROCESSES:
        x = shown.particles(STRAIGHT, BROWNIAN, 0.7, TWO, process, 0)
        for row in (0, 60, 100, 140, 199):
            result = kstest(x[row], partial(np.interp, xp=shown.PLACES, fp=found.cdf(row)))
            assert result.pvalue > 0.001, (process, row, result)
            assert shown.apart(found, row, x[row]) == pytest.approx(result.statistic, abs=1e-12)


def test_the_distribution_function_is_the_integral_of_the_density():
    found = shown.tables(STRAIGHT, BROWNIAN, 0.7, TWO)
    exact = quad(lambda x: by_hand(x, found.times[70], 0.7)[0], -6, 0.6, limit=200)[0]
    assert np.interp(0.6, shown.PLACES, found.cdf(70)) == pytest.approx(exact, abs=2e-4)  # trapezia of width 1/16


def test_the_ode_of_the_particles_is_that_of_the_exact_velocity():
    """A few particles followed by scipy's DOP853 with the velocity by hand; Euler's 400 steps are off by 0.02."""
    x, times = shown.particles(STRAIGHT, BROWNIAN, 0.7, TWO, ODE, 3), shown.tables(STRAIGHT, BROWNIAN, 0.7, TWO).times
    run = solve_ivp(lambda t, y: by_hand(y, t, 0.7)[1], (times[-1], times[20]), x[-1, :10], method="DOP853", rtol=1e-8)
    assert np.abs(run.y[:, -1] - x[20, :10]).max() < 0.03


def test_flow_matching_is_the_straight_way_without_gamma_to_noise():
    """Its velocity is the oracle's of rectified flow; the note names it."""
    found = shown.tables(STRAIGHT, "none", 0.7, WHITE)
    x, t = (
        torch.from_numpy(shown.PLACES)[:, None],
        torch.full((len(shown.PLACES),), found.times[90], dtype=torch.float64),
    )
    exact = shown.DATA_LAW.denoise(RectifiedFlow())(x, t)
    assert np.abs(found.velocity[90] - (exact.eps - exact.x0)[:, 0].numpy()).max() < 1e-9
    assert "flow matching" in widgets.interpolant_explorer().set(noise="none", end=WHITE).note


def test_slow_ends_are_the_straight_way_at_other_times():
    """t^2 (3 - 2 t) = 0.25 where t = 0.3264: the same density, without gamma."""
    slow, straight = (
        shown.tables("straight, slow at its ends", "none", 1.0, TWO),
        shown.tables(STRAIGHT, "none", 1.0, TWO),
    )
    at = lambda found, t: np.array([np.interp(t, found.times, column) for column in found.density.T])  # noqa: E731
    assert np.abs(at(slow, 0.32635182) - at(straight, 0.25)).max() < 2e-3  # both interpolated between rows


def test_what_cannot_be_is_refused_in_words():
    explorer = widgets.interpolant_explorer().set(noise="none", process=SDE)
    assert explorer.failed and "score" in explorer.note
    explorer.set(end=WHITE)
    assert not explorer.failed
    with pytest.raises(RangeError, match="loses both ends"):
        shown.path_of("encoding-decoding", "none", 1.0)
    assert explorer.set(way="encoding-decoding").failed


def test_what_the_note_says_is_measured_on_the_particles_shown():
    explorer = widgets.interpolant_explorer().set(process=SDE, t=0.7, seed=2)
    x = shown.particles(STRAIGHT, BROWNIAN, 0.7, TWO, SDE, 2)[140]
    mean, std, gap = (
        float(v) for v in re.findall(r"mean ([+-]\d\.\d\d), .*deviation (\d\.\d\d);.*most (0\.\d+)", explorer.note)[0]
    )
    assert (mean, std) == pytest.approx((x.mean(), x.std()), abs=0.0051)
    assert gap == pytest.approx(
        kstest(x, lambda y: np.interp(y, shown.PLACES, shown.tables(STRAIGHT, BROWNIAN, 0.7, TWO).cdf(140))).statistic,
        abs=6e-4,
    )
    assert "alpha = 0.30, beta = 0.70, gamma = 0.32" in explorer.note
