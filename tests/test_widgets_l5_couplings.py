"""The coupling explorer: every control matters; costs and crossings are those of POT, scipy and counting."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import ot
import pytest
import torch
from widget_laws import (
    every_value_has_its_picture,
    one_thread,  # noqa: F401 - a fixture
    the_picture_goes_out_with_the_widget,
)

from lecture_lib import widgets
from lecture_lib.core import RectifiedFlow
from lecture_lib.oracles import flow_map
from lecture_lib.widgets import couplings as shown
from lecture_lib.widgets.catalogue import START, WORLDS, time_at

WORLD = "three classes"


def test_every_control_changes_the_picture_at_every_value():
    explorer = widgets.coupling_explorer()
    assert not explorer.failed and explorer.caption and explorer.alt
    for argument in explorer.controls:
        every_value_has_its_picture(explorer, argument)


def test_the_same_settings_give_the_same_picture_and_the_picture_goes_out_with_the_widget(monkeypatch):
    the_picture_goes_out_with_the_widget(widgets.coupling_explorer, monkeypatch)


def told(explorer):
    """(cost, crossings, share in percent) as the note has them."""
    return tuple(
        float(v)
        for v in re.search(r"cost (\S+) \(.*?; (\d+) of \d+ pairs of lines cross, (\S+)%", explorer.note).groups()
    )


def cross(a, b, c, d):
    """Whether the segments a-b and c-d meet: solve for the two places on the lines."""
    places = np.linalg.solve(np.stack([b - a, c - d], 1), c - a)
    return bool(((places > 0) & (places < 1)).all())


@pytest.mark.parametrize("setting", [{"coupling": shown.INDEPENDENT}, {"coupling": shown.BATCHED, "batch": 4}])
def test_cost_and_crossings_of_the_note_are_counted_line_by_line(setting):
    explorer = widgets.coupling_explorer().set(**setting, seed=5)
    x0, x1 = shown.coupled(WORLD, 5, setting["coupling"], setting.get("batch", 0))
    lines = list(zip(x0.numpy(), x1.numpy(), strict=True))
    met = sum(cross(*one, *two) for one, two in combinations(lines, 2))
    cost = np.mean([((a - b) ** 2).sum() for a, b in lines])
    assert told(explorer) == pytest.approx((cost, met, 100 * met / (64 * 63 / 2)), abs=0.051)


def test_a_batch_of_everything_is_pots_optimal_plan_and_a_batch_of_one_changes_nothing():
    x0, x1 = shown.drawn(WORLD, 1)
    all_of_it = shown.coupled(WORLD, 1, shown.BATCHED, 64)
    assert all_of_it.cost == pytest.approx(ot.emd2([], [], ot.dist(x0.numpy(), x1.numpy())), rel=1e-9)
    assert torch.equal(shown.coupled(WORLD, 1, shown.BATCHED, 1).x1, x1)
    costs = [shown.coupled(WORLD, 1, shown.BATCHED, k).cost for k in shown.BATCHES]
    assert costs == sorted(costs, reverse=True)  # each batch is a union of the smaller ones
    assert {tuple(row) for row in all_of_it.x1.tolist()} == {tuple(row) for row in x1.tolist()}


def test_the_entropic_coupling_costs_what_pots_plan_costs_on_average():
    """Mean over 300 draws of 64 partners each, against <P, C>; the standard error is below 0.02."""
    x0, x1 = shown.drawn(WORLD, 1)
    cost = ot.dist(x0.numpy(), x1.numpy())
    for sigma in (0.4, 1.6):
        plan = ot.sinkhorn([], [], cost, 2 * sigma**2)
        pairing = shown.EntropicPairing(sigma)
        drawn = [shown.Pairs(x0, pairing(x0, x1, torch.Generator().manual_seed(k))).cost for k in range(300)]
        assert np.mean(drawn) == pytest.approx((plan * cost).sum(), abs=4 * np.std(drawn) / 300**0.5 + 0.002)
        assert (
            shown.coupled(WORLD, 0, shown.ENTROPIC, sigma).cost == shown.coupled(WORLD, 0, shown.ENTROPIC, sigma).cost
        )


def test_reflow_joins_each_noise_with_the_end_of_its_exact_flow():
    """Against oracles.flow_map with eleven digits; the widget's solver is good to 0.005."""
    pairs, law, path = shown.coupled(WORLD, 2, shown.REFLOW), WORLDS[WORLD](), RectifiedFlow()
    start, end = (torch.full((6,), t, dtype=torch.float64) for t in (time_at(path, START), 0.0))
    exact = flow_map(law.denoise(path), path, pairs.x1[:6], start, end, tolerance=1e-7)
    assert (pairs.x0[:6] - exact).norm(dim=1).max() < 0.005
    assert torch.equal(pairs.x1, shown.drawn(WORLD, 2).x1)
    explorer = widgets.coupling_explorer().set(coupling=shown.REFLOW)
    assert told(explorer)[0] < 0.5 and told(explorer)[1] < 20 < 300 < told(explorer.set(coupling=shown.INDEPENDENT))[1]


def test_sigma_leads_from_transport_to_independence():
    """Crossings and cost rise along sigma, and no mean over seeds lies below the optimum: Sinkhorn has converged."""
    line = shown.line_of(WORLD, 0, shown.ENTROPIC)
    assert line[0].share < 0.01 and line[0].share < line[4].share < line[-1].share
    seeds = range(12)
    mean = [sum(shown.coupled(WORLD, k, shown.ENTROPIC, sigma).cost for k in seeds) / 12 for sigma in shown.SIGMAS]
    best = sum(shown.coupled(WORLD, k, shown.BATCHED, 64).cost for k in seeds) / 12
    assert best < mean[0] < 1.15 * best and mean == sorted(mean)
    explorer = widgets.coupling_explorer().set(coupling=shown.ENTROPIC, sigma=0.4)
    used = len({tuple(row) for row in shown.coupled(WORLD, 0, shown.ENTROPIC, 0.4).x1.tolist()})
    assert f"{used} of 64 points of noise are taken" in explorer.note
