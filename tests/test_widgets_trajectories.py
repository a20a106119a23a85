"""The widgets of sampling: what they show is what the driver did, and what they call exact is the flow map."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections import deque

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image
from worlds import F64, Counted, gap

from lecture_lib import samplers, viz, widgets
from lecture_lib.core import EDM, Discrete, RectifiedFlow, VPCosine, VPLinear, ddpm_linear, logsnr_grid, uniform_grid
from lecture_lib.errors import SingularError, UnknownNameError
from lecture_lib.oracles import flow_map
from lecture_lib.samplers import DDIM, RK45, Heun, Sampler, sample
from lecture_lib.viz import as_picture
from lecture_lib.widgets import catalogue, convergence
from lecture_lib.widgets import trajectories as shown
from lecture_lib.widgets.catalogue import GRIDS, PATHS, SAMPLERS, START, WORLDS, build

RING = "ring of eight"
HOME = {"world": RING, "sampler": "Heun", "path": "VP linear", "grid": "uniform in t", "steps": 6, "seed": 3}
# Names of one method: at equal noise their runs agree to rounding, which may still tint a pixel. (DPM-Solver-fast
# differs from 3 in its last step alone, and not even there when that goes to clean data.)
TWINS = [
    {"DDIM", "DPM-Solver-1"},
    {"DDPM, posterior variance", "Euler ancestral", "SDE-DPM-Solver++(1)"},
    {"DPM-Solver-3", "DPM-Solver-fast"},
]


def some_values(control: ipywidgets.Widget) -> list:
    """Both ends and the middle of a slider, every option of a list, on and off."""
    if isinstance(control, ipywidgets.Dropdown):
        return [value for _, value in control._options_full]
    if isinstance(control, ipywidgets.Checkbox):
        return [True, False]
    return [control.min, (control.min + control.max) // 2, control.max]


def one(name: str) -> str:
    """The first name of the method that ``name`` stands for."""
    return next((min(twins) for twins in TWINS if name in twins), name)


@pytest.fixture
def shots(monkeypatch):
    """Every ``Shot`` that is drawn."""
    seen, draw = [], shown.film_shot
    monkeypatch.setattr(shown, "film_shot", lambda stage, shot: (seen.append(shot), draw(stage, shot))[1])
    return seen


@pytest.fixture
def fresh():
    """Nothing remembered from other tests, and nothing left to them."""
    for remembered in (shown.film, convergence.measured):
        remembered.cache_clear()
    yield
    for remembered in (shown.film, convergence.measured):
        remembered.cache_clear()


# The table of names -------------------------------------------------------------------------------------------------


def test_every_sampler_of_the_library_is_in_the_table():
    classes = {
        c for _, c in inspect.getmembers(samplers, inspect.isclass) if issubclass(c, Sampler) and c is not Sampler
    }
    assert {type(build(name, catalogue.ring(), 4)) for name in SAMPLERS} == classes
    with pytest.raises(UnknownNameError, match="UniPC-3"):
        build("Runge", catalogue.ring(), 4)


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_the_budgeted_sampler_fills_its_steps(steps):
    assert len(build("DPM-Solver-fast", catalogue.ring(), steps).orders) == steps


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("path", PATHS)
def test_grids_start_at_one_noise_level_and_have_the_steps_asked_for(path, grid):
    for steps in (1, 2, 50):
        moments = PATHS[path].along(GRIDS[grid](PATHS[path], steps, START))
        assert len(moments) == steps + 1 and moments[0].level == pytest.approx(START, rel=1e-9)
        assert moments[-1].level == pytest.approx(0.01 if "log-SNR" in grid else 0.0, rel=1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_runs_on_every_path_and_grid(sampler):
    for world, path, grid in ((w, p, g) for w in WORLDS for p in PATHS for g in GRIDS):
        run = shown.film(world, sampler, path, grid, 2, 1)
        assert run.z.shape == (3, shown.POINTS, 2) and torch.isfinite(run.z).all(), (world, path, grid)


def test_the_consistency_model_is_the_flow_map_to_a_hundredth():
    for world, path, level in ((w, p, v) for w in WORLDS for p in (VPLinear(), EDM()) for v in (60.0, 1.0, 0.005)):
        law, t = WORLDS[world](), catalogue.time_at(path, level)
        x = path.mix(law.sample(16, generator=torch.Generator().manual_seed(1)), shown.starting_noise(2)[0],
                     torch.full((16,), t, dtype=F64))  # fmt: skip
        times = torch.full((16,), t, dtype=F64)
        exact = flow_map(law.denoise(path), path, x, times, 0 * times, tolerance=1e-7)
        assert float((catalogue.flow_end(law, path, x, t) - exact).norm(dim=1).median()) <= 1e-2


# Trajectories: every control ----------------------------------------------------------------------------------------


def test_every_control_changes_the_picture_at_every_value():
    explorer = widgets.trajectories_explorer()
    assert not explorer.failed and explorer.caption and explorer.alt
    for argument, control in explorer.controls.items():
        home, pictures = explorer.values, {}
        for value in some_values(control):
            pictures[value] = explorer.set(**{argument: value}).picture
            assert not explorer.failed and pictures[value].startswith(b"\x89PNG"), (argument, value, explorer.note)
        explorer.set(**home)
        wanted = {one(name) if argument == "sampler" else name: picture for name, picture in pictures.items()}
        assert len(set(wanted.values())) == len(wanted), argument


@pytest.mark.parametrize("twins", TWINS, ids=min)
def test_twins_are_one_method_under_several_names(twins):
    first, *others = (shown.film(**{**HOME, "sampler": name}) for name in sorted(twins))
    assert all(gap(first.z, run.z) <= 1e-12 and first.nfe == run.nfe for run in others)


def test_the_step_slider_ends_where_the_run_ends():
    explorer = widgets.trajectories_explorer()
    explorer.set(steps=50, step=50)
    assert explorer.note.startswith("Step 50 of 50")
    explorer.set(steps=4)
    assert explorer.controls["step"].max == 4 == explorer.values["step"] and explorer.note.startswith("Step 4 of 4")
    explorer.set(steps=20)
    assert explorer.values["step"] == 4 and explorer.note.startswith("Step 4 of 20")


def test_moved_in_the_browser_both_sliders_follow():
    explorer = widgets.trajectories_explorer()

    async def move():
        explorer.controls["steps"].set_state({"value": 3})
        await explorer._task

    asyncio.run(move())
    assert explorer.values["step"] == 3 and explorer.note.startswith("Step 3 of 3")


def test_the_same_settings_give_the_same_picture(fresh):
    first = widgets.trajectories_explorer().set(sampler="DDPM, posterior variance").picture
    shown.film.cache_clear()
    assert widgets.trajectories_explorer().set(sampler="DDPM, posterior variance").picture == first


def test_words_for_those_who_do_not_see_it():
    explorer = widgets.trajectories_explorer()
    assert explorer.alt in explorer.described() and explorer.note in explorer.described()
    assert "sixteen" in explorer.alt and shown.POINTS == 16
    for settings in ("sampler = DDIM", "time grid = uniform in t", "step shown = 7"):
        assert settings in explorer.described()
    assert "sixteen sampling trajectories" in explorer.message.value


# Trajectories: what is shown is what happened -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Heun", "DPM-Solver++(2M)", "DDPM, forward variance", "UniPC-3"])
@pytest.mark.parametrize("path", ["VP linear", "EDM (exploding)"])
def test_the_step_slider_shows_the_frames_of_the_driver(name, path, shots):
    law, road, generator = WORLDS[RING](), PATHS[path], torch.Generator().manual_seed(3)
    noise = torch.randn(16, 2, generator=generator, dtype=F64)
    grid = uniform_grid(road, 6, start=float(road.time_of(torch.tensor([-np.log(80.0)]))))
    x_T = road.at(float(grid[0])).sigma * noise
    frames = list(sample(law.denoise(road), road, SAMPLERS[name], grid, x_T, generator=generator))
    explorer = widgets.trajectories_explorer().set(**{**HOME, "sampler": name, "path": path})
    explorer._seen.clear()  # step 6 of 6 was drawn on the way here
    for step, frame in enumerate(frames):
        explorer.set(step=step)
        shot, scale = shots[-1], road.at(frame.t).alpha + road.at(frame.t).sigma
        assert shot.past.shape == (step + 1, 16, 2) and gap(scale * shot.past[-1], frame.x) <= 1e-12
        assert f"Step {step} of 6: {frame.nfe} network" in explorer.note and f"t = {frame.t:.3g}," in shot.title
        assert shot.predicted is None if step == 0 else gap(shot.predicted, frame.x0) == 0


@pytest.mark.parametrize("name", ["Heun", "DPM-Solver-3", "DPM-Solver++(3M)", "DPM-Solver-fast", "predictor-corrector"])
def test_evaluations_in_the_note_are_those_counted(name, fresh, monkeypatch):
    counted = []

    def denoiser(*args):
        counted.append(Counted(catalogue.denoiser(*args)))
        return counted[-1]

    monkeypatch.setattr(shown, "denoiser", denoiser)
    explorer = widgets.trajectories_explorer().set(**{**HOME, "sampler": name, "step": 6})
    assert int(re.search(r": (\d+) network", explorer.note).group(1)) == counted[-1].calls > 6


def test_moving_through_a_run_asks_the_network_nothing(fresh, monkeypatch):
    explorer = widgets.trajectories_explorer().set(**HOME)
    draws = explorer.draws
    monkeypatch.setattr(shown, "sample", None)  # any further run would fail
    for step in (0, 3, 5):  # 6 was drawn when the slider's end moved there
        explorer.set(step=step)
    assert explorer.draws == draws + 3
    before = explorer.set(step=3).picture
    assert explorer.draws == draws + 3 and explorer.set(step=3).picture == before


@pytest.mark.parametrize("path", [VPLinear(), VPCosine(), RectifiedFlow(), EDM(), Discrete(ddpm_linear())], ids=repr)
@pytest.mark.parametrize("world", WORLDS)
def test_what_is_called_exact_is_the_flow_map_of_every_path(world, path):
    law, t = WORLDS[world](), torch.full((16,), catalogue.time_at(path, START), dtype=F64)
    for seed, level in ((3, 0.7), (14, 0.0)):  # two batches of seeds
        s = torch.full((16,), 0.0 if level == 0 else catalogue.time_at(path, level), dtype=F64)
        x = flow_map(
            law.denoise(path), path, path.sigma(t)[:, None] * shown.starting_noise(seed)[0], t, s, tolerance=1e-8
        )
        apart = x / (path.alpha(s) + path.sigma(s))[:, None] - torch.from_numpy(shown.exact(world, seed, [level])[0])
        assert float(apart.norm(dim=1).median()) <= 2 * shown._EXACT_TO and float(apart.abs().max()) <= 5e-5


def test_the_dashed_lines_are_exact_and_stochastic_samplers_have_none(shots):
    explorer = widgets.trajectories_explorer().set(**HOME, step=4)
    run, shot = shown.film(**HOME), shots[-1]
    assert np.allclose(shot.exact_now, shown.exact(RING, 3, [run.levels[4]])[0])
    assert np.allclose(shot.exact[0], run.z[0], atol=1e-12) and np.allclose(
        shot.exact[-1], shown.exact(RING, 3, [0.0])[0]
    )
    apart = float(np.median(np.linalg.norm(run.z[4].numpy() - shot.exact_now, axis=1)))
    assert f"exact flow {apart:.2g} data units" in explorer.note
    explorer.set(sampler="EDM churn")
    assert shots[-1].exact is None is shots[-1].exact_now and "no exact trajectory" in explorer.note


def test_an_exact_sampler_has_no_error_and_a_finer_grid_a_smaller_one():
    def error(sampler, steps):
        run = shown.film(RING, sampler, "VP linear", "uniform in log-SNR", steps, 3)
        return float(np.median(np.linalg.norm(run.z[-1].numpy() - shown.exact(RING, 3, run.levels[-1:])[0], axis=1)))

    assert error("RK45 (adaptive)", 5) <= 1e-4
    assert error("DDIM", 40) < 0.4 * error("DDIM", 10) and error("UniPC-3", 40) < 0.05 * error("DDIM", 40)


@pytest.mark.parametrize("path", PATHS)
def test_ddim_goes_straight_towards_what_was_predicted(path):
    run = shown.film(RING, "DDIM", path, "Karras (rho = 7)", 8, 2)
    way, aim = run.z[1:] - run.z[:-1], run.x0 - run.z[:-1]
    assert float((way[..., 0] * aim[..., 1] - way[..., 1] * aim[..., 0]).abs().max()) <= 1e-12
    assert ((way * aim).sum(-1) >= 0).all()


def test_arrows_follow_the_exact_flow():
    level, h = 0.8, 1e-4
    spline = [shown.exact(RING, 3, [v])[0] for v in (level, level * (1 - h))]
    points, arrows = shown.flow_field(RING, level)
    near = np.linalg.norm(points[:, None] - spline[0], axis=2)
    path, t = RectifiedFlow(), torch.full((16,), level / (1 + level), dtype=F64)
    here = -WORLDS[RING]().denoise(path)(torch.from_numpy(spline[0]), t).velocity.numpy()
    moved = spline[1] - spline[0]
    assert (np.sum(moved * here, 1) / np.linalg.norm(moved, axis=1) / np.linalg.norm(here, axis=1)).min() > 0.999
    close = near.min(0) < 0.12  # where a lattice point is near, its arrow tells the same direction
    cosine = np.sum(moved * arrows[near.argmin(0)], 1) / np.linalg.norm(moved, axis=1)
    assert close.any() and (cosine[close] > 0).all() and shown.flow_field(RING, 0.0) is None


def test_a_singular_start_is_explained_and_the_next_setting_draws(fresh, monkeypatch):
    monkeypatch.setitem(GRIDS, "uniform in t", lambda path, steps, level: uniform_grid(path, steps))
    explorer = widgets.trajectories_explorer()
    explorer.set(path="VP cosine", sampler="reverse SDE (Euler-Maruyama)")
    assert explorer.failed and "alpha = 0" in explorer.note
    with pytest.raises(SingularError, match="alpha = 0"):
        shown.trajectory_scene(**{**explorer.values})
    assert not explorer.set(sampler="DDIM").failed


def test_runaway_points_are_counted():
    scene = shown.trajectory_scene(**{**HOME, "seed": 1}, step=0)
    far = int((shown.film(**{**HOME, "seed": 1}).z[0].abs() > shown.EXTENT[1]).any(1).sum())
    assert far > 0 and f"{far} of 16 points lie outside the window" in scene.note


# Error against cost -------------------------------------------------------------------------------------------------


def test_every_control_of_the_errors_changes_the_picture():
    explorer = widgets.error_nfe_explorer()
    assert not explorer.failed and explorer.caption and explorer.alt in explorer.described()
    for argument, control in explorer.controls.items():
        home, pictures = control.value, []
        for value in some_values(control):
            pictures.append(explorer.set(**{argument: value}).picture)
            assert not explorer.failed, (argument, value, explorer.note)
        explorer.set(**{argument: home})
        assert len(set(pictures)) == len(pictures), argument


@pytest.mark.parametrize(("name", "sampler"), [("DDIM", DDIM()), ("Heun", Heun())])
def test_errors_and_costs_are_those_of_the_driver(name, sampler):
    path, law = Discrete(ddpm_linear()), catalogue.ring()
    noise = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    ones = torch.ones(64, dtype=F64)
    end = float(path.time_of(torch.tensor([-np.log(0.01)], dtype=F64)))
    x_T = path.sigma(ones)[:, None] * noise
    counted = Counted(law.denoise(path))
    final = deque(sample(counted, path, sampler, logsnr_grid(path, 7, start=1.0, end=end), x_T), maxlen=1)[0]
    exact = flow_map(law.denoise(path), path, x_T, ones, end * ones, tolerance=1e-10)
    nfe, error = convergence.measured(name, "uniform in log-SNR", 7)
    assert nfe == counted.calls and error == pytest.approx(float((final.x - exact).norm(dim=1).median()), abs=1e-7)


def test_a_toggle_measures_only_what_is_new(fresh, monkeypatch):
    explorer = widgets.error_nfe_explorer()
    known = convergence.measured.cache_info().misses
    explorer.set(plms=True)
    assert known < convergence.measured.cache_info().misses <= known + len(convergence.STEPS)
    monkeypatch.setattr(convergence, "sample", None)
    explorer.set(heun=False).set(ddim=False, plms=False)
    assert not explorer.failed


def test_orders_show_on_the_logsnr_grid():
    def slope(name, few, many):
        (n, a), (m, b) = (convergence.measured(name, "uniform in log-SNR", steps) for steps in (few, many))
        return np.log(a / b) / np.log(m / n)

    assert slope("DDIM", 50, 100) == pytest.approx(1.0, abs=0.15)
    assert slope("DPM-Solver++(2M)", 50, 100) == pytest.approx(2.0, abs=0.3)
    assert slope("DPM-Solver++(3M)", 50, 100) == pytest.approx(3.0, abs=0.4)


def test_the_note_names_the_best_within_each_budget():
    lines = [viz.CostLine("a", [2, 5, 9], [1.0, 0.5, 0.1], {}), viz.CostLine("b", [4, 8], [0.7, 0.2], {})]
    note = convergence._note(lines)
    assert "5 NFE: 0.5 (a); 10 NFE: 0.1 (a)" in note and "50 NFE: 0.1 (a)" in note
    explorer = widgets.error_nfe_explorer().set(**dict.fromkeys(convergence.TOGGLES, False))
    assert explorer.note == "No sampler is switched on."


def test_only_samplers_with_an_error_against_the_flow_are_offered():
    offered = {*widgets.error_nfe_explorer().controls["more"].options, *convergence.TOGGLES.values()} - {
        convergence.NONE
    }
    assert offered == {n for n in SAMPLERS if (s := build(n, catalogue.ring(), 4)).deterministic and s != RK45()}


def test_slow_lines_show_themselves_on_the_way(fresh, monkeypatch):
    monkeypatch.setattr(convergence, "_PATIENCE", 0.0)
    on = {key: key in convergence.SHOWN_FIRST for key in convergence.TOGGLES}
    scenes = list(convergence.convergence_scenes("Karras (rho = 7)", convergence.NONE, **on))
    assert [scene.progress for scene in scenes] == [0.25, 0.5, 0.75, 1.0]


# The figures --------------------------------------------------------------------------------------------------------


def stages():
    return {"film": shown._stage(RING), "cost": convergence._stage("uniform in t")}


@pytest.mark.parametrize("name", ["film", "cost"])
def test_axes_carry_units_and_pictures_fit_a_notebook(name):
    stage = stages()[name]
    for ax in stage.figure.axes:
        labels = [label for label in (ax.get_xlabel(), ax.get_ylabel()) if label]
        assert labels and all("(data units)" in v or "(count)" in v or "(dimensionless)" in v for v in labels)
    assert stage.paint([]).width <= 800


def test_painting_leaves_no_trace():
    stage = shown._stage(RING)
    before = [len(ax.get_children()) for ax in stage.figure.axes]
    blank = np.asarray(stage.paint([]))
    first, other = (shown.trajectory_scene(**HOME, step=step).png for step in (5, 2))
    assert first != other and first == shown.trajectory_scene(**HOME, step=5).png
    assert [len(ax.get_children()) for ax in stage.figure.axes] == before
    assert (np.asarray(stage.paint([])) == blank).all()


def test_colours_mean_what_they_mean_everywhere():
    def count(picture, colour):
        wanted = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
        return int((np.asarray(as_picture(picture).convert("RGB")) == wanted).all(2).sum())

    still, moving = shown._stage(RING).paint([]), shown.trajectory_scene(**HOME, step=3).png
    for colour in (viz.DATA, viz.NOISE, viz.EXACT, viz.SAMPLED):  # more than the legend and the contours have
        assert count(moving, colour) > count(still, colour) + 50, colour
    meanings = {viz.DATA, viz.NOISE, viz.UNCOND, viz.COND, viz.GUIDED, viz.EXACT, viz.STUDENT}
    assert viz.SAMPLED not in meanings


def test_a_run_that_explodes_is_still_drawn():
    shot = viz.Shot(past=1e30 * torch.ones(3, 16, 2), levels=[80.0, 1.0, 0.0], title="far away")
    assert isinstance(viz.film_shot(shown._stage(RING), shot), Image.Image)
