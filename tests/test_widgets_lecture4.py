"""The widgets of Lecture 4: every control matters, and what is shown is what the functions return."""

from __future__ import annotations

import math
import re

import pytest
import torch
from widget_laws import (
    every_value_has_its_picture,
    one_thread,  # noqa: F401 - a fixture
    the_picture_goes_out_with_the_widget,
)

from lecture_lib import widgets
from lecture_lib.core import EDM
from lecture_lib.distill import LogNormalPairs, RatioPairs, exact_consistency
from lecture_lib.distill.exact import ct_slopes, flow_slopes
from lecture_lib.metrics import sliced_wasserstein
from lecture_lib.oracles import flow_map
from lecture_lib.widgets import curricula, flow_maps, steps
from lecture_lib.widgets.catalogue import ring
from lecture_lib.zoo import plane

F64 = torch.float64


def shrunk(x, t):
    """A student that says: straight inwards, to radius one."""
    return x / x.norm(dim=1, keepdim=True)


def noisy(n, count, generator):
    """Samples that get better with the number of steps, to a limit."""
    x = plane.ring().sample(n, generator=generator)
    return x + (0.1 + 0.3 / count) * torch.randn(x.shape, generator=generator)


STUDENTS = {"inwards": shrunk, "exact denoiser": flow_maps.denoiser_mean()}
DRAWS = {
    "noisy": noisy,
    "the ring": lambda n, count, generator: plane.ring().sample(n + count, generator=generator)[count:],
}
MAKE = {
    "flow_map_explorer": lambda: widgets.flow_map_explorer(STUDENTS),
    "curriculum_explorer": widgets.curriculum_explorer,
    "steps_explorer": lambda: widgets.steps_explorer(DRAWS),
}


@pytest.mark.parametrize("name", MAKE)
def test_every_control_changes_the_picture_at_every_value(name):
    explorer = MAKE[name]()
    assert not explorer.failed and explorer.caption and explorer.alt
    for argument in explorer.controls:
        every_value_has_its_picture(explorer, argument)


@pytest.mark.parametrize("name", MAKE)
def test_the_same_settings_give_the_same_picture_and_the_picture_goes_out_with_the_widget(name, monkeypatch):
    the_picture_goes_out_with_the_widget(MAKE[name], monkeypatch)


# Flow maps ----------------------------------------------------------------------------------------------------------


def test_tracks_are_the_exact_flow():
    """Against oracles.flow_map from the same starting points, at three noise levels, and along one another."""
    tracks, path, some = flow_maps.tracks(), EDM(), [3, 20, 50]
    start = tracks[0, some]
    assert start.norm(dim=1).tolist() == pytest.approx([80 * math.sqrt(2)] * 3)
    assert torch.atan2(start[:, 1], start[:, 0]).rad2deg()[0].item() == pytest.approx(3 * flow_maps.ANGLE)
    for level in (flow_maps.LEVELS[8], flow_maps.LEVELS[20], 0.002):
        there = (*flow_maps.LEVELS, 0.002).index(level)
        exact = flow_map(ring().denoise(path), path, start, *(torch.full((3,), v, dtype=F64) for v in (80.0, level)),
                         tolerance=1e-7)  # fmt: skip
        assert (tracks[there, some] - exact).norm(dim=1).max() < 0.005


def test_what_the_note_says_is_the_distance_from_the_exact_end():
    explorer = widgets.flow_map_explorer(STUDENTS).set(level=flow_maps.LEVELS[10], angle=100)
    level = flow_maps.LEVELS[10]
    x = flow_maps.tracks()[10, 20][None]
    end = exact_consistency(ring().denoise(EDM()), EDM(), 0.002, tolerance=1e-8)(x, torch.full((1,), level, dtype=F64))
    mean = ring().denoise(EDM())(x, torch.full((1,), level, dtype=F64)).x0
    said = [
        float(v) for v in re.findall(r"(\d+\.\d{3}) data units from|mean, (\d+\.\d{3})", explorer.note) for v in v if v
    ]
    assert said == pytest.approx([(shrunk(x, None) - end).norm().item(), (mean - end).norm().item()], abs=0.006)


def test_the_staircase_has_eight_steps_and_angles_are_not_torn_apart():
    """At 80 the exact ends' angles stay within half a step of where they came from, and dwell at the modes."""
    angles = flow_maps.turned(flow_maps.exact_ends(80.0))
    assert (abs(angles - flow_maps._DEGREES) < 22.5).all()
    away = (angles + 22.5) % 45 - 22.5
    assert (abs(away) < 8).mean() > 0.75 and (abs(flow_maps._DEGREES[:-1] % 45 - 22.5) < 14.5).mean() > 0.6


# Curricula ----------------------------------------------------------------------------------------------------------


def test_what_would_be_learned_is_the_recursion_on_the_grid_that_is_drawn():
    explorer = widgets.curriculum_explorer().set(method="iCT", done=0.5)
    grid = LogNormalPairs(EDM(), 161).grid
    error = 1 - float(ct_slopes(EDM(), grid, 0.5)[-1] / flow_slopes(EDM(), grid, 0.5)[-1])
    assert "N = 161 points, 160 jumps" in explorer.note and f"short by {error:.1%}" in explorer.note


def test_ects_chain_follows_its_law_down_to_clean_data():
    for stage in (1, 3, 8):
        law = RatioPairs(EDM(), stage)
        grid = curricula.chain(law)
        assert grid[0] == 0 and grid[-1] == 80 and (grid.diff() > 0).all()
        assert torch.allclose(law.lower(grid[2:]), grid[1:-1], rtol=1e-12)
        assert law.lower(grid[1:2]) < curricula.CUT < grid[1]  # the cut is where it says
    assert "81%" in widgets.curriculum_explorer().set(method="ECT", done=0.1).note  # of 400: targets that are data
    assert "In 1%" in widgets.curriculum_explorer().set(method="ECT", done=0.5).note


# Steps --------------------------------------------------------------------------------------------------------------


def test_the_distance_shown_is_the_sliced_wasserstein_distance_of_the_samples_shown():
    explorer = widgets.steps_explorer(DRAWS).set(student="noisy", steps=4, seed=3)
    points = noisy(steps.POINTS, 4, torch.Generator().manual_seed(3))
    fresh = plane.ring().sample(20_000, generator=torch.Generator().manual_seed(1))
    expected = sliced_wasserstein(points, fresh, generator=torch.Generator().manual_seed(2)) ** 0.5
    shown = float(re.search(r"distance (\d\.\d{3})", explorer.note).group(1))
    assert shown == pytest.approx(expected, abs=2 * steps.floor())
    assert f"Of the {len(steps.STEPS)} step counts measured, 12 is best" in explorer.note
    truth = widgets.steps_explorer(DRAWS).set(student="the ring").note
    assert float(re.search(r"distance (\d\.\d{3})", truth).group(1)) < 2.5 * steps.floor()


def test_samples_are_shown_before_all_distances_are_known(monkeypatch):
    monkeypatch.setattr(steps, "_PATIENCE", 0.0)
    scenes = list(steps.Sweep(DRAWS).scenes("noisy", 2, 0))
    progress = [scene.progress for scene in scenes]
    assert len(scenes) > 3 and progress == sorted(progress) and progress[0] < 0.5 and progress[-1] == 1
    assert all("noisy, 2 steps" in scene.note for scene in scenes)


# The zoo ------------------------------------------------------------------------------------------------------------


def test_without_students_the_zoo_is_asked():
    offered = {name: widgets.__dict__[name]().controls["student"].options for name in MAKE if "curr" not in name}
    assert "ring-ict" in offered["flow_map_explorer"] and "ring-teacher" not in offered["flow_map_explorer"]
    assert {"ring-ict", "ring-teacher"} <= set(offered["steps_explorer"])
