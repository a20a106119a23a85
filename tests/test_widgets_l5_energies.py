"""The energy landscape: every control matters; exact levels, forces and the bias of the chain against closed forms."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn
from widget_laws import (
    every_value_has_its_picture,
    one_thread,  # noqa: F401 - a fixture
    the_picture_goes_out_with_the_widget,
)

from lecture_lib import widgets
from lecture_lib.errors import NonFiniteError
from lecture_lib.widgets import energies as shown
from lecture_lib.widgets.plane import three_classes

F64 = torch.float64


def test_every_control_changes_the_picture_at_every_value():
    explorer = widgets.energy_landscape()
    assert not explorer.failed and explorer.caption and explorer.alt
    for argument in explorer.controls:
        every_value_has_its_picture(explorer, argument)


def test_the_same_settings_give_the_same_picture_and_the_picture_goes_out_with_the_widget(monkeypatch):
    the_picture_goes_out_with_the_widget(widgets.energy_landscape, monkeypatch)


def test_on_a_gaussian_the_level_and_the_density_at_a_temperature_are_known():
    """E = x^2/(2 s^2) + log 2 pi s^2 in two dimensions: E[E] = T + log 2 pi s^2, x_1 ~ N(0, T s^2)."""
    land = widgets.exact_landscapes()[shown.GAUSSIAN]
    for temperature in (0.25, 1.0, 2.0):
        assert land.mean(temperature) == pytest.approx(temperature + np.log(2 * np.pi * shown.VARIANCE), abs=1e-6)
        axis = np.linspace(-4, 4, 161)
        density = land.weights(temperature).sum(0).numpy() / 0.05
        assert np.abs(density - norm.pdf(axis, 0, (temperature * shown.VARIANCE) ** 0.5)).max() < 1e-6
    assert land.lowest == (0.0, 0.0)


def test_the_level_of_a_mixture_is_its_integral():
    """T = 1: the entropy of the three classes by Gauss and Legendre's rule, 100 x 100 nodes."""
    nodes, w = np.polynomial.legendre.leggauss(100)
    x, y = np.meshgrid(4 * nodes, 4 * nodes)
    log_p = three_classes().log_prob(torch.from_numpy(np.stack([x.ravel(), y.ravel()], 1))).numpy()
    entropy = -(16 * np.outer(w, w).ravel() * np.exp(log_p) * log_p).sum()
    assert widgets.exact_landscapes()["three classes"].mean(1.0) == pytest.approx(entropy, abs=1e-5)


def test_without_a_force_the_gradient_of_the_energy_is_taken():
    """Of a mixture it is the score; of a network it is what differences say."""
    law, x = three_classes(), torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert (widgets.Landscape(lambda y: -law.log_prob(y), dtype=F64).push(x) - law.score(x)).abs().max() < 1e-10
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 1)).double()
    land = widgets.Landscape(lambda y: network(y)[:, 0], dtype=F64)
    step = 1e-5 * torch.eye(2, dtype=F64)
    slopes = torch.stack([(land.of(x + e) - land.of(x - e)) / 2e-5 for e in step], dim=1)
    assert (land.push(x) + slopes).abs().max() < 1e-8


@pytest.mark.parametrize(("size", "temperature"), [(0.1, 1.0), (0.3, 1.0), (0.2, 0.5)])
def test_the_chain_settles_where_the_recursion_does(size, temperature):
    """v <- (1 - h/s^2)^2 v + 2 h T, iterated; and 500 particles x 2 coordinates are within 4 standard errors of it."""
    v = 2.0
    for _ in range(2000):
        v = (1 - size / shown.VARIANCE) ** 2 * v + 2 * size * temperature
    assert shown.settled_variance(shown.VARIANCE, size, temperature) == pytest.approx(v, rel=1e-9)
    explorer = widgets.energy_landscape().set(name=shown.GAUSSIAN, size=size, temperature=temperature, steps=200)
    told = re.search(r"coordinate (\S+); .* = (\S+), and .* = (\S+) would", explorer.note).groups()
    variance, settled, right = (float(value) for value in told)
    assert settled == pytest.approx(v, abs=6e-4) and right == pytest.approx(temperature * 0.25, abs=6e-4)
    assert variance == pytest.approx(v, rel=4 * (2 / 1000) ** 0.5)


def test_the_mean_energy_of_the_note_is_that_of_the_particles_and_long_steps_stay_high():
    explorer, land = widgets.energy_landscape(), widgets.exact_landscapes()["three classes"]
    levels = {}
    for size in (0.02, 0.3):
        note = explorer.set(size=size, steps=400).note
        levels[size], exact = (float(v) for v in re.search(r"mean energy (\S+) nats; .* has (\S+) nats", note).groups())
        frames = explorer.draw.__self__.walk("three classes", shown.SPREAD, size, 1.0, 0).until(400)
        assert levels[size] == pytest.approx(float(land.of(frames[-1]).mean()), abs=6e-3)
        assert exact == pytest.approx(land.mean(1.0), abs=6e-3)
    # At T = 1 a Gaussian's energy has standard deviation 1 here: 500 particles tell 0.045.
    assert abs(levels[0.02] - exact) < 0.18 and levels[0.3] > exact + 1


def test_cold_particles_stay_in_their_valley_and_warm_ones_find_the_others():
    """From the lowest place, 400 steps of 0.05; half of the three valleys' mass lies below x_2 = 0.3, about."""
    walks = shown.Walks(widgets.exact_landscapes())
    ends = [walks.walk("three classes", shown.LOWEST, 0.05, t, 0).until(400)[-1] for t in (0.1, 2.0)]
    low = [float((x[:, 1] < 0.2).double().mean()) for x in ends]
    assert low[0] < 0.01 and 0.5 < low[1] < 0.75


def test_a_walk_is_the_same_whether_it_is_asked_once_or_in_parts():
    make = lambda: shown.Walks(widgets.exact_landscapes()).walk("three classes", shown.SPREAD, 0.05, 1.0, 3)  # noqa: E731
    parts, whole = make(), make()
    parts.until(5), parts.until(20)
    assert torch.equal(parts.until(50), whole.until(50)) and len(parts.until(5)) == 6


def test_chains_that_run_away_say_so_and_go_on_saying_so():
    """h = 0.3 against variances of 0.01: each step multiplies the distance by -29 until floats end."""
    explorer = widgets.energy_landscape().set(name="ring of eight", size=0.3, steps=10)
    assert not explorer.failed and "running away" in explorer.note
    assert explorer.set(steps=400).failed and explorer.note.startswith("step size: got 0.3, expected a shorter one")
    walk = explorer.draw.__self__.walk("ring of eight", shown.SPREAD, 0.3, 1.0, 0)
    for _ in range(2):
        with pytest.raises(NonFiniteError):
            walk.until(400)
    assert len(walk.until(10)) == 11


def test_a_trained_energy_joins_the_exact_ones():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 1))
    trained = widgets.Landscape(lambda x: network(x)[:, 0] + x.square().sum(1))
    explorer = widgets.energy_landscape({"trained": trained})
    assert not explorer.failed and explorer.controls["name"].options == ("trained",)
