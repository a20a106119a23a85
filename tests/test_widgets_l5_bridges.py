"""The bridge explorer: every control matters; coupling, band and particles against POT and direct simulation."""

from __future__ import annotations

import re

import numpy as np
import ot
import pytest
from scipy.stats import kstest, norm
from widget_laws import (
    every_value_has_its_picture,
    one_thread,  # noqa: F401 - a fixture
    the_picture_goes_out_with_the_widget,
)

from lecture_lib import widgets
from lecture_lib.widgets import bridges as shown


def test_every_control_changes_the_picture_at_every_value():
    explorer = widgets.bridge_explorer()
    assert not explorer.failed and explorer.caption and explorer.alt
    for argument in explorer.controls:
        every_value_has_its_picture(explorer, argument)


def test_the_same_settings_give_the_same_picture_and_the_picture_goes_out_with_the_widget(monkeypatch):
    the_picture_goes_out_with_the_widget(widgets.bridge_explorer, monkeypatch)


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_the_coupling_is_pots_entropic_plan_on_a_lattice(sigma):
    """Cost |x0 - x1|^2 with regularization 2 sigma^2; 121 cells of 5 standard deviations to each side."""
    x0, x1 = np.linspace(-1 - 2, -1 + 2, 121), np.linspace(1 - 4, 1 + 4, 121)
    a, b = (p / p.sum() for p in (norm.pdf(x0, -1, 0.4), norm.pdf(x1, 1, 0.8)))
    plan = ot.sinkhorn(a, b, (x0[:, None] - x1) ** 2, 2 * sigma**2, numItermax=5000, stopThr=1e-10)
    covariance = (plan * np.outer(x0 + 1, x1 - 1)).sum()
    assert float(shown.bridge(sigma, 0.4, 0.8).cross_covariance) == pytest.approx(covariance, abs=1e-4)


@pytest.mark.parametrize("sigma", [0.05, 0.75, 3.0])
def test_the_particles_have_the_marginals_of_the_band_and_the_coupling_of_the_ellipse(sigma):
    """600 particles: Kolmogorov-Smirnov p > 0.001 at four times, covariance within 5 standard errors.

    At sigma = 3 the last of Euler's steps adds 0.09 where Var(x1 | x_0.99) is 0.079: the end is 1 in 100 too wide.
    """
    found, x, t = shown.bridge(sigma, 0.4, 0.8), shown.walked(sigma, 0.4, 0.8, 1), np.linspace(0, 1, 101)
    exact = float(found.cross_covariance)
    std = shown.band(found, exact, t)
    for k in (0, 30, 60, 100):
        mean, cov = found.moments(t[k])
        assert std[k] == pytest.approx(float(cov) ** 0.5, rel=1e-9)
        assert kstest(x[k], norm(float(mean), std[k]).cdf).pvalue > 0.001
    error = (0.4**2 * 0.8**2 + exact**2) ** 0.5 / 600**0.5
    assert np.cov(x[0], x[-1])[0, 1] == pytest.approx(exact, abs=5 * error)


def test_the_way_is_a_brownian_bridge_between_its_ends():
    """Var(x_1/2 - (x_0 + x_1)/2) = sigma^2/4, whatever the coupling; 600 draws tell it to 6 in 100."""
    x = shown.walked(0.75, 0.4, 0.8, 2)
    assert np.var(x[50] - (x[0] + x[100]) / 2) == pytest.approx(0.75**2 / 4, rel=0.2)
    steps = np.diff(x, axis=0)
    assert (steps**2).sum(0).mean() == pytest.approx(0.75**2, rel=0.1)  # quadratic variation


def test_the_band_of_independent_ends_is_that_of_the_interpolant():
    """(1 - t) x0 + t x1 + sigma sqrt(t (1 - t)) z with three independent normals."""
    random, t = np.random.default_rng(0), 0.3
    x0, x1, z = (
        0.4 * random.standard_normal(200_000),
        0.8 * random.standard_normal(200_000),
        random.standard_normal(200_000),
    )
    x = (1 - t) * x0 + t * x1 + 0.75 * np.sqrt(t * (1 - t)) * z
    assert shown.band(shown.bridge(0.75, 0.4, 0.8), 0.0, np.array([t]))[0] == pytest.approx(x.std(), rel=0.01)


def test_the_ellipse_lies_two_standard_deviations_out():
    found = shown.bridge(0.75, 0.4, 0.8)
    cov = np.array([[0.16, float(found.cross_covariance)], [float(found.cross_covariance), 0.64]])
    around = shown.ellipse(found, cov[0, 1]) - np.array([[-1.0], [1.0]])
    assert np.einsum("ik,ij,jk->k", around, np.linalg.inv(cov), around) == pytest.approx(np.full(90, 4.0))


def test_sigma_leads_from_transport_to_independence_and_the_note_says_so():
    explorer, told = widgets.bridge_explorer(), {}
    for sigma in (0.05, 3.0):
        found = re.search(r"x1: (\S+) in closed form.* and (\S+) of 600", explorer.set(sigma=sigma).note)
        told[sigma] = [float(v) for v in found.groups()]
        x = shown.walked(sigma, 0.4, 0.8, 0)
        assert told[sigma][1] == pytest.approx(np.cov(x[0], x[-1])[0, 1], abs=6e-4)
    assert told[0.05][0] == pytest.approx(0.32, abs=0.002) and abs(told[3.0][0]) < 0.02
    assert "optimal transport has 0.320" in explorer.note
