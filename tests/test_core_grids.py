"""Grids: their lengths and ends, that one is another, and the timesteps and sigmas of `diffusers`."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from worlds import F64, PATH_NAMES, PATHS, gap, normal, plane, times

from lecture_lib.core import (
    EDM,
    Discrete,
    RectifiedFlow,
    ShiftedTimes,
    Trigonometric,
    UniformTimes,
    VPCosine,
    VPLinear,
    check_grid,
    ddpm_linear,
    exponential_grid,
    karras_grid,
    leading_grid,
    linspace_grid,
    logsnr_grid,
    quadratic_grid,
    shift_times,
    shifted_grid,
    stable_diffusion,
    then_clean,
    trailing_grid,
    uniform_grid,
)
from lecture_lib.errors import RangeError, ShapeError

every_path = pytest.mark.parametrize("path", PATHS, ids=PATH_NAMES)
RF, SD = RectifiedFlow(), Discrete(stable_diffusion())
TABLE_GRIDS = {"trailing": trailing_grid, "leading": leading_grid, "linspace": linspace_grid}
SPACED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def levels(path, grid):
    """sigma/alpha at the times of a grid."""
    return torch.exp(-path.lam(grid))


# Laws


@every_path
@pytest.mark.parametrize("steps", [1, 2, 3, 17])
def test_every_grid_has_one_time_more_than_steps_and_ends_clean(path, steps):
    top = 0.9 * float(levels(path, times(0.999 * path.t_max)))
    grids = [uniform_grid(path, steps), quadratic_grid(path, steps)]
    grids += [grid(path, steps, sigma_max=top, sigma_min=0.01) for grid in (karras_grid, exponential_grid)]
    if isinstance(path, Discrete):
        grids += [grid(path, steps) for grid in TABLE_GRIDS.values()]
    for grid in grids:
        assert grid.shape == (steps + 1,) and grid.dtype == F64 and grid[-1] == 0
        assert (grid.diff() < 0).all() and grid[0] <= path.t_max


@every_path
@pytest.mark.parametrize("steps", [1, 2, 3, 17])
def test_every_grid_can_end_at_a_noise_level(path, steps):
    start, end = 0.9 * path.t_max, 0.1 * path.t_max
    top, bottom = levels(path, times(start, end)).tolist()
    grids = [grid(path, steps, start=start, end=end) for grid in (uniform_grid, quadratic_grid, logsnr_grid)]
    grids += [grid(path, steps + 1, sigma_max=top, sigma_min=bottom)[:-1] for grid in (karras_grid, exponential_grid)]
    for grid in grids:
        assert len(check_grid(grid)) == steps + 1
        assert gap(grid[[0, -1]], times(start, end)) <= 1e-9 * path.t_max


def test_then_clean_is_undone_by_a_slice():
    grid = logsnr_grid(RF, 5, start=0.9, end=0.1)
    longer = then_clean(grid)
    assert len(longer) == 7 and longer[-1] == 0 and torch.equal(longer[:-1], grid)
    with pytest.raises(RangeError, match="grid"):  # a last step from 0 to 0 would waste a call
        then_clean(longer)


@every_path
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_exponential_is_the_lu_grid(path, steps):
    # log(sigma/alpha) = -lam: equal steps in the one are equal steps in the other.
    start, end = 0.9 * path.t_max, 0.02 * path.t_max
    top, bottom = levels(path, times(start, end)).tolist()
    lu = logsnr_grid(path, steps, start=start, end=end)
    assert gap(exponential_grid(path, steps + 1, sigma_max=top, sigma_min=bottom), then_clean(lu)) <= 1e-9 * path.t_max


def test_exponential_falls_by_one_factor():
    grid = exponential_grid(EDM(), 6, sigma_max=32.0, sigma_min=1.0)
    assert gap(grid, times(32, 16, 8, 4, 2, 1, 0)) <= 1e-12


def test_exponential_is_karras_with_a_large_rho():
    gaps = [
        gap(karras_grid(EDM(), 12, rho=rho).log()[:-1], exponential_grid(EDM(), 12).log()[:-1]) for rho in (1e3, 1e4)
    ]
    assert gaps[1] <= 3e-3 and 8 <= gaps[0] / gaps[1] <= 12  # first order in 1/rho


@pytest.mark.parametrize("name", TABLE_GRIDS)
def test_timesteps_need_a_table_that_has_them(name):
    with pytest.raises(ShapeError, match="path"):
        TABLE_GRIDS[name](RF, 10)
    for steps in (0, 1001, 2.5, True):
        with pytest.raises(RangeError, match="steps"):
            TABLE_GRIDS[name](SD, steps)


def test_levels_must_be_on_the_path():
    for grid in (karras_grid, exponential_grid):
        with pytest.raises(RangeError, match="sigma_max"):
            grid(SD, 10)  # ends at 14.6, not at 80
        with pytest.raises(RangeError, match="sigma_min"):
            grid(EDM(), 10, sigma_min=0.0)
        with pytest.raises(RangeError, match="sigma_min"):
            grid(EDM(), 10, sigma_min=90.0)
    for offset in (-1, 0.5, None):
        with pytest.raises(RangeError, match="offset"):
            leading_grid(SD, 10, offset)
    with pytest.raises(RangeError, match="timesteps"):
        leading_grid(SD, 1000, 1)  # timestep 1000 of 0..999; diffusers hands it out


# Resolution shift

KAPPAS = (0.5, 1.0, 3.0)


@pytest.mark.parametrize("kappa", KAPPAS)
def test_shift_on_rectified_flow_is_the_papers(kappa):
    t = torch.linspace(0, 1, 101, dtype=F64)
    assert gap(shift_times(RF, t, kappa), kappa * t / (1 + (kappa - 1) * t)) <= 1e-15


@every_path
@pytest.mark.parametrize("kappa", KAPPAS)
def test_shift_multiplies_every_noise_level(path, kappa):
    t = torch.linspace(0.01, 0.3, 20, dtype=F64) * path.t_max
    assert gap(levels(path, shift_times(path, t, kappa)) / levels(path, t), torch.full_like(t, kappa)) <= 1e-9
    assert gap(shift_times(path, shift_times(path, t, kappa), 1 / kappa), t) <= 1e-9 * path.t_max


@every_path
@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_shifted_grids_keep_their_steps_and_ends(path, kappa, steps):
    grid = uniform_grid(path, steps)
    shifted = shifted_grid(path, grid, kappa)
    assert shifted.shape == grid.shape and shifted[-1] == 0 and (shifted.diff() < 0).all()
    if kappa >= 1 or path.alpha(grid[:1]) == 0:
        assert shifted[0] == pytest.approx(path.t_max, rel=1e-12)
    if kappa == 1:
        assert gap(shifted, grid) <= 1e-12 * path.t_max


def test_what_passes_the_end_is_spread_before_it():
    grid = times(80, 60, 40, 10, 0)  # three times as noisy: 240, 180, 120, 30
    assert gap(shifted_grid(EDM(), grid, 3.0), times(80, 80 - 50 / 3, 80 - 100 / 3, 30, 0)) <= 1e-12
    with pytest.raises(RangeError, match="kappa"):
        shifted_grid(EDM(), times(80, 60), 3.0)
    with pytest.raises(RangeError, match="grid"):
        shifted_grid(RF, times(2.0, 1.0), 3.0)
    for kappa in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(RangeError, match="kappa"):
            shifted_grid(RF, uniform_grid(RF, 3), kappa)
        with pytest.raises(RangeError, match="kappa"):
            ShiftedTimes(RF, UniformTimes(), kappa)


def test_shifted_times_are_the_times_shifted():
    times_ = ShiftedTimes(RF, UniformTimes(), 3.0)
    t = UniformTimes().sample(100, generator=torch.Generator().manual_seed(4))
    assert gap(times_.sample(100, generator=torch.Generator().manual_seed(4)), 3 * t / (1 + 2 * t)) <= 1e-15


# diffusers


def timesteps(grid):
    return (grid[:-1] * 1000).round().long() - 1


@pytest.mark.parametrize(("spacing", "offset"), [("trailing", 0), ("leading", 0), ("leading", 1), ("linspace", 0)])
def test_timesteps_are_those_of_diffusers(spacing, offset):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**SPACED, timestep_spacing=spacing, steps_offset=offset)
    for steps in [*range(2, 151), 200, 250, 333, 500, 501, 750, 999, 1000 - offset]:
        scheduler.set_timesteps(steps)
        grid = leading_grid(SD, steps, offset) if offset else TABLE_GRIDS[spacing](SD, steps)
        # Rounding gives `trailing` one timestep too many there at 61, 103, 121 and other numbers of steps: -1.
        assert torch.equal(timesteps(grid), scheduler.timesteps[:steps]), steps
        assert (scheduler.timesteps[steps:] == -1).all()


def test_one_step_of_each_spacing():
    assert timesteps(trailing_grid(SD, 1)).tolist() == [999]
    assert timesteps(leading_grid(SD, 1)).tolist() == [0]  # as in diffusers; useless, and the docstring says so
    assert timesteps(linspace_grid(SD, 1)).tolist() == [999]  # diffusers: 0, the clean end, for x_T of pure noise


def dpm(steps, **options):
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(**SPACED, **options)
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize(
    ("option", "grid"),
    [
        ("use_karras_sigmas", karras_grid),
        ("use_exponential_sigmas", exponential_grid),
        ("use_lu_lambdas", exponential_grid),
    ],
)
@pytest.mark.parametrize("steps", [2, 3, 10, 50])
def test_noise_levels_are_those_of_diffusers(option, grid, steps):
    theirs = dpm(steps, final_sigmas_type="zero", **{option: True}).sigmas.double()
    top, bottom = levels(SD, times(1.0, 0.001)).tolist()
    ours = levels(SD, grid(SD, steps, sigma_max=top, sigma_min=bottom))
    assert ours[-1] == 0 and theirs[-1] == 0
    assert gap(ours[:-1] / theirs[:-1], torch.ones(steps, dtype=F64)) <= 2e-5  # their table is float32


@pytest.mark.parametrize("option", ["use_karras_sigmas", "use_lu_lambdas"])
def test_no_level_twice(option):
    # To stop at sigma_min, diffusers appends it to levels that end there already: the last of the n calls moves
    # nothing. Ours are n + 1 different levels, and n steps that each move.
    scheduler = dpm(6, final_sigmas_type="sigma_min", **{option: True})
    theirs = scheduler.sigmas.double()
    assert len(theirs) == 7 and float(theirs[-1] / theirs[-2]) == pytest.approx(1, rel=1e-5)
    x, oracle, before = normal(4, 2), plane().denoise(SD), None
    for i, t in enumerate(scheduler.timesteps):
        before, at = x, SD.time_of(-theirs[i : i + 1].log())
        x = scheduler.step(oracle(x, at.expand(4)).eps, t, x).prev_sample
    assert gap(x, before) <= 1e-4 * float(before.abs().max())
    grid = {"use_karras_sigmas": karras_grid, "use_lu_lambdas": exponential_grid}[option]
    top, bottom = levels(SD, times(1.0, 0.001)).tolist()
    ours = levels(SD, grid(SD, 7, sigma_max=top, sigma_min=bottom)[:-1])
    assert len(ours) == 7 and all(a > 1.2 * b for a, b in pairwise(ours.tolist()))
    assert float(ours[-1]) == pytest.approx(float(theirs[-1]), rel=2e-5)


@pytest.mark.parametrize("steps", [2, 4, 28])
def test_shift_is_that_of_diffusers(steps):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    grid = uniform_grid(RF, steps)
    scheduler.set_timesteps(sigmas=grid[:-1].tolist())
    assert gap(shifted_grid(RF, grid, 3.0), scheduler.sigmas.double()) <= 1e-6
    # With a number of steps it starts from the levels 1 ... sigma_min, of which sigma_min is shifted already.
    scheduler.set_timesteps(steps)
    grid = then_clean(uniform_grid(RF, steps - 1, end=float(scheduler.sigma_min)))
    assert gap(shifted_grid(RF, grid, 3.0), scheduler.sigmas.double()) <= 1e-6


@pytest.mark.parametrize("path", [Trigonometric(), VPLinear(), VPCosine(), EDM(), Discrete(ddpm_linear())], ids=repr)
def test_a_shifted_grid_is_the_same_on_every_path(path):
    # The same noise levels, whatever the clock: 3 times those of the levels 1, 1/2, 1/4.
    grid = torch.cat([path.time_of(-times(1, 0.5, 0.25).log()), times(0)])
    assert gap(levels(path, shifted_grid(path, grid, 3.0)), times(3, 1.5, 0.75, 0)) <= 1e-9
