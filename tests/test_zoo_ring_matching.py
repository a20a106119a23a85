"""Students of straight paths, matched distributions and critics: exact resume, and what their weights do."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from lecture_lib import zoo
from lecture_lib.core import uniform_grid
from lecture_lib.metrics import count_modes
from lecture_lib.samplers import Heun, last, sample
from lecture_lib.training import checkpoint
from lecture_lib.zoo import ring_matching
from lecture_lib.zoo.evaluate_plane import _bends, distance, generator, plane_rows
from lecture_lib.zoo.plane import STD, ring
from lecture_lib.zoo.ring_matching import ACM, DMD, FLOW, GAN, INSTAFLOW, LINE, REFLOW, RING_MATCHING
from lecture_lib.zoo.workshop import initial

NAMES = [recipe.name for recipe in RING_MATCHING]


def final(directory, name):
    content = checkpoint.read(directory / f"{name}.ckpt")
    return content["parts"]["model"] | {f"ema {k}": v for k, v in content["parts"]["ema"]["average"].items()}


@pytest.mark.parametrize("recipe", [DMD, ACM, GAN, REFLOW], ids=lambda recipe: recipe.name)
def test_games_resume_to_the_same_bits(recipe, tmp_path, monkeypatch):
    """Interrupted within a round of turns: whose turn it is follows from the number of updates alone."""
    monkeypatch.setattr(ring_matching, "PAIRS", 64)
    tiny = replace(recipe, name="tiny", steps=14, batch_size=8, warmup=2)
    list(zoo.train(tiny, tmp_path / "whole", save_every=100))
    for stop in (4, 5, 14):
        list(itertools.islice(zoo.train(tiny, tmp_path / "parts", save_every=2), stop))
    whole, parts = final(tmp_path / "whole", "tiny"), final(tmp_path / "parts", "tiny")
    assert whole.keys() == parts.keys() and all(torch.equal(whole[k], parts[k]) for k in whole)


def test_both_networks_of_a_game_learn():
    """Each in its own turns, and only there: a momentum of the optimiser does not move the one that waits."""
    tiny = replace(DMD, name="tiny", steps=30, batch_size=8, warmup=1, lr=1e-3)
    model, moved = initial(tiny), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    seed, batches = torch.Generator().manual_seed(0), tiny.batches()
    for done in range(12):
        before = [p.clone() for p in model.student.parameters()], [p.clone() for p in model.fake.parameters()]
        optimizer.zero_grad(set_to_none=True)
        tiny.loss_at(done)(model, batches.draw(seed), seed).mean().backward()
        optimizer.step()
        after = list(model.student.parameters()), list(model.fake.parameters())
        moved.append(
            [any(not torch.equal(a, b) for a, b in zip(*both, strict=True)) for both in zip(before, after, strict=True)]
        )
    assert moved == ([[False, True]] * 2 + [[True, False]]) * 4


@pytest.mark.parametrize("name", NAMES)
def test_weights_do_what_their_figures_say(name):
    kind = zoo.recipe(name)
    recorded = {line.name: line.metrics for line in zoo.status()}[name]
    steps = kind.few[-1]
    points = kind.draw(zoo.load(name), 4000, steps=steps, generator=generator(7))
    said = float(recorded[f"sliced Wasserstein distance, {steps} step{'s' * (steps > 1)}"].split()[0])
    assert distance(points, generator(8)) == pytest.approx(said, abs=0.03)


def test_reflow_straightens():
    first, second = _bends(zoo.load("ring-flow"), (0,)), _bends(zoo.load("ring-reflow"), (0,))
    for before, after in zip(first, second, strict=True):
        assert after[0] < 0.1 * before[0]


def test_the_second_flow_keeps_the_exact_ones_ends():
    """One Euler step of the reflowed network against 64 Heun steps of the exact denoiser, noise by noise."""
    eps = torch.randn(1000, 2, generator=generator(3))
    exact = last(sample(ring().denoise(LINE), LINE, Heun(), uniform_grid(LINE, 64), eps))
    one = ring_matching.by_euler(zoo.load("ring-reflow"), eps, 1)
    assert (one - exact).norm(dim=1).median() < 0.05
    first = ring_matching.by_euler(zoo.load("ring-flow"), eps, 1)
    assert (first - exact).norm(dim=1).median() > 0.8  # the mean of all data, whatever the noise


@pytest.mark.parametrize("recipe", [REFLOW, INSTAFLOW, DMD, ACM], ids=lambda recipe: recipe.name)
def test_modes_of_one_step_students(recipe):
    points = recipe.draw(zoo.load(recipe.name), 4000, steps=1, generator=generator(5))
    _, covered, between = count_modes(points, ring().means, 3 * STD)
    assert covered == 8 and between < 0.2


def test_rows_of_flows_have_bars_from_the_first_flow():
    rows = {row.measure: row for row in plane_rows(REFLOW.name, (0,))}
    bars = {measure: row.bar for measure, row in rows.items() if row.bar is not None}
    assert set(bars) == {"straightness, 0 is straight", "distance of one Euler step from 64"}
    assert all(rows[measure].passed for measure in bars)
    assert rows["modes covered of 8, 1 step"].mean == 8
    assert FLOW.few == (1, 2, 4)


def test_the_judged_student_is_compared_over_sixteenths_of_the_path():
    leg = ACM._leg(ring().sample(400, generator=generator(8)), generator(9))
    assert torch.equal(leg.t - leg.u, torch.full((400,), 1 / 16, dtype=torch.float64))
    assert leg.u.min() == 0 and leg.t.max() == 1 and len(leg.t.unique()) == 16
