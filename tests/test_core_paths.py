"""Paths: derivatives, clocks, forward SDEs, the famous tables, the two ends."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from worlds import F64, PATH_NAMES, PATHS, gap, inner_times, normal, times

from lecture_lib.core import (
    EDM,
    Discrete,
    RectifiedFlow,
    Trigonometric,
    VPCosine,
    VPLinear,
    ddpm_linear,
    karras_grid,
    logsnr_grid,
    quadratic_grid,
    stable_diffusion,
    timestep_grid,
    uniform_grid,
    zero_terminal_snr,
)

every_path = pytest.mark.parametrize("path", PATHS, ids=PATH_NAMES)
CONTINUOUS = {
    "rf": (RectifiedFlow(), lambda t: 1 - t, lambda t: t, lambda t: -1 + 0 * t, lambda t: 1 + 0 * t),
    "trig": (Trigonometric(), torch.cos, torch.sin, lambda t: -torch.sin(t), torch.cos),
    "edm": (EDM(), torch.ones_like, lambda t: t, torch.zeros_like, torch.ones_like),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_coefficients_have_their_closed_forms(name):
    path, *expected = CONTINUOUS[name]
    t = inner_times(path)
    c = path.coeffs(t)
    for got, f in zip((c.alpha, c.sigma, c.dalpha, c.dsigma), expected, strict=True):
        assert gap(got, f(t)) <= 1e-14


@every_path
def test_derivatives_match_finite_differences(path):
    # Times of a table's grid sit inside cells here, since a table is only piecewise smooth.
    t = (inner_times(path) / path.t_max * 1000).floor() / 1000 * path.t_max + 3e-4 * path.t_max
    h = 1e-6 * path.t_max
    c = path.coeffs(t)
    assert gap(c.dalpha, (path.alpha(t + h) - path.alpha(t - h)) / (2 * h)) <= 1e-7
    assert gap(c.dsigma, (path.sigma(t + h) - path.sigma(t - h)) / (2 * h)) <= 1e-7


@every_path
def test_data_at_zero_and_falling_signal_to_noise(path):
    t = torch.linspace(0, path.t_max, 501, dtype=F64)
    assert gap(path.alpha(t[:1]), times(1.0)) <= 1e-15
    assert path.sigma(t[:1]) == 0
    assert (path.lam(t)[1:-1].diff() < 0).all()
    assert (path.alpha(t) >= 0).all()


@pytest.mark.parametrize("path", [p for p in PATHS if p != EDM() and p != RectifiedFlow()], ids=repr)
def test_variance_is_preserved(path):
    t = torch.linspace(0, path.t_max, 333, dtype=F64)
    assert gap(path.alpha(t) ** 2 + path.sigma(t) ** 2, torch.ones_like(t)) <= 1e-15


@every_path
def test_time_of_inverts_lam(path):
    t = inner_times(path, 101)
    assert gap(path.time_of(path.lam(t)), t) <= 1e-12 * max(1, path.t_max)


@every_path
def test_time_of_is_finite_and_clamped_at_both_ends(path):
    ends = path.time_of(times(math.inf, -math.inf))
    assert gap(ends, times(0.0, path.t_max)) <= 1e-12


@every_path
def test_general_bisection_agrees_with_the_closed_inverse(path):
    lam = path.lam(inner_times(path, 21))
    generic = super(type(path), path).time_of(lam)
    assert gap(generic, path.time_of(lam)) <= 1e-12 * max(1, path.t_max)


def test_lam_is_half_the_log_snr():
    # MISTAKES A62: log(alpha_bar/sqrt(1 - alpha_bar)) would be -0.347 here.
    path = Discrete(torch.tensor([0.5, 0.25], dtype=F64))
    assert gap(path.lam(times(0.5)), times(0.0)) <= 1e-15


# Song et al. 2021, Eq. 32-33 and App. B: f and g^2 of VP and VE.


def test_forward_sde_of_vp_is_songs():
    path, t = VPLinear(), inner_times(VPLinear())
    beta = 0.1 + t * (20 - 0.1)
    f, g2 = path.drift_diffusion(t)
    assert gap(f, -beta / 2) <= 1e-12
    assert gap(g2, beta) <= 1e-11


def test_forward_sde_of_ve_is_songs():
    path, t = EDM(), inner_times(EDM())
    f, g2 = path.drift_diffusion(t)
    assert gap(f, torch.zeros_like(t)) == 0
    assert gap(g2, 2 * t) <= 1e-12


@every_path
def test_forward_sde_has_the_paths_marginals(path):
    # alpha' = f alpha and d(sigma^2)/dt = 2 f sigma^2 + g^2
    t = inner_times(path)
    c = path.coeffs(t)
    f, g2 = path.drift_diffusion(t)
    scale = max(1.0, path.t_max)
    assert gap(f * c.alpha, c.dalpha) <= 1e-12
    assert gap(2 * f * c.sigma**2 + g2, 2 * c.sigma * c.dsigma) <= 1e-12 * scale
    assert (g2 > 0).all()


def test_signal_ends_at_exactly_zero():
    # 6e-17 instead of 0 passes every test for a singularity and then multiplies noise by 1e16.
    for path in (RectifiedFlow(), Trigonometric(), VPCosine(), Discrete(zero_terminal_snr(ddpm_linear()))):
        end = times(path.t_max)
        assert path.alpha(end) == 0 and path.lam(end) == -math.inf
        assert torch.isinf(path.drift_diffusion(end)[1]).all()


def test_a_float32_quarter_turn_keeps_its_slope():
    path = Trigonometric()
    end = torch.full((1,), math.pi / 2)  # float32: a little more than pi/2
    assert end.double() > math.pi / 2
    assert gap(path.coeffs(end).dalpha, times(-1.0)) <= 1e-12
    assert path.alpha(end.double()) == 0


def test_near_data_nothing_cancels():
    t = times(1e-13)
    assert gap(VPLinear().sigma(t) / (0.1 * t).sqrt(), times(1.0)) <= 1e-9
    small = 0.5 * math.pi * 1e-13 / 1.008
    a0 = 0.5 * math.pi * 0.008 / 1.008
    assert gap(VPCosine().sigma(t) / math.sqrt(2 * small * math.tan(a0)), times(1.0)) <= 1e-9


@every_path
@pytest.mark.parametrize("shape", [(9, 2), (9, 1, 8, 8)])
def test_mix_broadcasts_one_time_per_sample(path, shape):
    x0, eps, t = normal(*shape, seed=1), normal(*shape, seed=2), inner_times(path)
    x_t = path.mix(x0, eps, t)
    for i in range(9):
        by_hand = float(path.alpha(t[i : i + 1])) * x0[i] + float(path.sigma(t[i : i + 1])) * eps[i]
        assert gap(x_t[i], by_hand) <= 1e-12 * max(1, path.t_max)
    assert path.mix(x0.float(), eps.float(), t).dtype == torch.float32


@every_path
def test_coefficients_in_inference_mode_and_from_views(path):
    t = inner_times(path, 1)
    expected = path.coeffs(t.expand(4).contiguous())
    with torch.inference_mode():
        c = path.coeffs((t * 1.0).expand(4))
        got = c.alpha, c.sigma, c.dalpha, c.dsigma
    for a, b in zip(got, (expected.alpha, expected.sigma, expected.dalpha, expected.dsigma), strict=True):
        assert torch.equal(a, b)


# Tables: constants of FORMULAS, part 5, and diffusers' own function.


def test_constants_of_the_famous_tables():
    ddpm, sd = ddpm_linear(), stable_diffusion()
    assert float(ddpm[-1]) == pytest.approx(4.035830e-5, rel=1e-6)
    assert float(sd[-1]) == pytest.approx(4.660099e-3, rel=1e-6)
    assert float(sd[-1].sqrt()) == pytest.approx(0.0682649, rel=1e-5)
    assert float(((1 - sd[-1]) / sd[-1]).sqrt()) == pytest.approx(14.61464, rel=1e-6)
    assert float(sd[199]) == pytest.approx(0.755238, rel=1e-5)
    assert float(sd[199] / (1 - sd[199])) == pytest.approx(3.0856, rel=1e-4)
    snr = sd / (1 - sd)
    assert int((snr - 1).abs().argmin()) + 1 == 355
    assert int((snr - 0.11).abs().argmin()) + 1 == 675


def test_zero_terminal_snr_constants():
    sd = stable_diffusion()
    z = zero_terminal_snr(sd)
    assert z[-1] == 0
    assert float(z[0].sqrt()) == pytest.approx(0.9995749, rel=1e-6)
    assert float(sd[499]) == pytest.approx(0.2776697, rel=1e-6)
    assert float(z[499]) == pytest.approx(0.2423592, rel=1e-6)
    assert float(z[998] / (1 - z[998])) == pytest.approx(1.97e-7, rel=5e-3)
    assert float(z[899]) == pytest.approx(3.0e-3, rel=0.02)  # rescaling alpha_bar itself would give 9.7e-3


def test_tables_agree_with_diffusers():
    from diffusers import DDIMScheduler
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    sd = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    assert gap(stable_diffusion().float(), sd.alphas_cumprod) <= 1e-6
    assert gap(ddpm_linear().float(), DDIMScheduler(beta_schedule="linear").alphas_cumprod) <= 1e-6
    betas = 1 - stable_diffusion() / torch.cat([times(1.0), stable_diffusion()[:-1]])
    assert gap(zero_terminal_snr(stable_diffusion()), (1 - rescale_zero_terminal_snr(betas)).cumprod(0)) <= 1e-12


@pytest.mark.parametrize("table", [ddpm_linear(), stable_diffusion(), zero_terminal_snr(stable_diffusion())])
def test_discrete_path_passes_through_its_table(table):
    path, t = Discrete(table), torch.arange(1, 1001, dtype=F64) / 1000
    assert gap(path.alpha(t) ** 2, table) <= 1e-14
    assert gap(path.sigma(t) ** 2, 1 - table) <= 1e-14
    between = path.alpha(t[:-1] + 5e-4) ** 2
    assert ((between < table[:-1]) & (between > table[1:])).all()


def test_equal_tables_are_equal_paths():
    # A deep copy (an EMA) of a denoiser carries a copy of its path; it must still be the same path.
    path = Discrete(ddpm_linear())
    assert path == copy.deepcopy(path) and hash(path) == hash(copy.deepcopy(path))
    assert path != Discrete(stable_diffusion())


# Grids


@every_path
def test_grids_have_one_time_more_than_steps(path):
    for steps in (1, 2, 3, 10):
        for grid in (uniform_grid(path, steps), quadratic_grid(path, steps)):
            assert grid.dtype == F64 and grid.shape == (steps + 1,)
            assert grid[0] == pytest.approx(path.t_max) and grid[-1] == 0
            assert (grid.diff() < 0).all()
        top = 0.9 * float(torch.exp(-path.lam(times(0.999 * path.t_max))))
        assert len(karras_grid(path, steps, sigma_max=top, sigma_min=1e-2)) == steps + 1


def test_uniform_grid_is_uniform_in_time_and_quadratic_in_its_root():
    assert gap(uniform_grid(RectifiedFlow(), 4), times(1, 0.75, 0.5, 0.25, 0)) <= 1e-15
    assert gap(quadratic_grid(RectifiedFlow(), 4), times(1, 9 / 16, 1 / 4, 1 / 16, 0)) <= 1e-15


def test_karras_grid_is_the_papers():
    n, rho = 18, 7
    i = torch.arange(n, dtype=F64)
    sigma = (80 ** (1 / rho) + i / (n - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho  # Eq. 5
    assert gap(karras_grid(EDM(), n), torch.cat([sigma, times(0.0)])) <= 1e-11


def test_karras_grid_on_any_path_has_the_same_noise_levels():
    reference = karras_grid(EDM(), 12, sigma_max=10.0)[:-1]
    for path in (RectifiedFlow(), Trigonometric(), VPLinear(), VPCosine(), Discrete(stable_diffusion())):
        t = karras_grid(path, 12, sigma_max=10.0)[:-1]
        assert gap(torch.exp(-path.lam(t)) / reference, torch.ones(12, dtype=F64)) <= 1e-10


@every_path
def test_logsnr_grid_has_equal_steps_in_lam(path):
    grid = logsnr_grid(path, 20, start=0.95 * path.t_max, end=0.01 * path.t_max)
    h = path.lam(grid).diff()
    assert gap(h, h.mean().expand(20)) <= 1e-9
    assert gap(grid[[0, -1]], times(0.95, 0.01) * path.t_max) <= 1e-10 * max(1, path.t_max)


def test_timestep_grid_reads_a_table():
    path = Discrete(stable_diffusion())
    grid = timestep_grid(path, [999, 499, 0])
    assert gap(path.alpha(grid[:3]) ** 2, stable_diffusion()[[999, 499, 0]]) <= 1e-14
    assert grid[-1] == 0 and len(grid) == 4


@every_path
def test_moments_of_a_grid_are_those_of_its_times(path):
    # Computed together, with and without the times per sample ready, or one by one: the same numbers.
    grid, x = uniform_grid(path, 6, end=0.05 * path.t_max), torch.zeros(3, 2)
    for time, bare, ready in zip(grid.tolist(), path.along(grid), path.along(grid, x), strict=True):
        alone, each = path.at(time), path.coeffs(times(time, time, time))
        for name in ("alpha", "sigma", "lam", "dalpha", "dsigma"):
            value = getattr(bare, name)
            assert value == getattr(ready, name) and value == pytest.approx(getattr(alone, name), rel=1e-12)
            assert getattr(each, name).tolist() == pytest.approx([value] * 3, rel=1e-9)
        for moment in (bare, ready, alone, each):
            assert torch.equal(moment.batch(x), times(time, time, time)) and moment.batch(x).dtype == F64
