"""Our samplers against `diffusers`, which we did not write: same grid, same noise, same model (the mixture oracle)."""

from __future__ import annotations

import pytest
import torch
from worlds import F64, gap, normal, plane, seeded, times, tiny_pictures

from lecture_lib.core import EDM, Discrete, RectifiedFlow, edm, stable_diffusion, timestep_grid, zero_terminal_snr
from lecture_lib.samplers import (
    DDIM,
    DDPM,
    FPNDM,
    LMS,
    PLMS,
    DPMSolverPP2M,
    Euler,
    EulerAncestral,
    Heun,
    forward_variance,
    last,
    sample,
)

diffusers = pytest.importorskip("diffusers", reason="the oracle needs `diffusers`")
diffusers.logging.set_verbosity_error()
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs, with numpy 2

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TABLE = stable_diffusion()
PATH = Discrete(TABLE)
WORLDS = {"plane": (plane, (6, 2)), "pictures": (tiny_pictures, (2, 1, 8, 8))}


def ask(mixture, path, x, t, row="eps"):
    """The oracle as a network of the given output, in the dtype of x."""
    p = mixture.denoise(path)(x, times(float(t)).expand(len(x)))
    return getattr(p, row)


def theirs(scheduler, mixture, path, x, row="eps", **options):
    for i in scheduler.timesteps:
        x = scheduler.step(ask(mixture, path, x, (int(i) + 1) / 1000, row), i, x, **options).prev_sample
    return x


def ours(mixture, path, sampler, grid, x, seed=0):
    return last(sample(mixture.denoise(path), path, sampler, grid, x, generator=seeded(seed)))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [10, 50])
def test_ddim(world, eta, steps):
    mixture, shape = WORLDS[world][0](), WORLDS[world][1]
    scheduler = diffusers.DDIMScheduler(**SD, clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    x_T = normal(*shape, dtype=torch.float32)
    expected = theirs(scheduler, mixture, PATH, x_T, eta=eta, generator=seeded(5))
    got = ours(mixture, PATH, DDIM(eta), timestep_grid(PATH, scheduler.timesteps), x_T, seed=5)
    assert got.dtype == torch.float32 and gap(got, expected) <= 1e-5


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_in_float64_with_the_same_table(eta):
    scheduler = diffusers.DDIMScheduler(**SD, clip_sample=False, timestep_spacing="trailing")
    scheduler.alphas_cumprod = TABLE
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=F64)
    scheduler.set_timesteps(50)
    x_T = normal(16, 2)
    expected = theirs(scheduler, plane(), PATH, x_T, eta=eta, generator=seeded(5))
    got = ours(plane(), PATH, DDIM(eta), timestep_grid(PATH, scheduler.timesteps), x_T, seed=5)
    assert gap(got, expected) <= 1e-10


def test_ddim_with_v_prediction_from_zero_terminal_snr():
    table = zero_terminal_snr(TABLE)
    path = Discrete(table)
    scheduler = diffusers.DDIMScheduler(
        **SD, clip_sample=False, timestep_spacing="trailing", prediction_type="v_prediction"
    )
    scheduler.alphas_cumprod = table
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=F64)
    scheduler.set_timesteps(50)
    assert scheduler.timesteps[0] == 999
    x_T = normal(16, 2)
    expected = theirs(scheduler, plane(), path, x_T, row="v")
    assert gap(ours(plane(), path, DDIM(), timestep_grid(path, scheduler.timesteps), x_T), expected) <= 1e-10


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("kind", "variance"), [("fixed_small", None), ("fixed_large", forward_variance)])
@pytest.mark.parametrize("steps", [20, 100])
def test_ddpm(world, kind, variance, steps):
    mixture, shape = WORLDS[world][0](), WORLDS[world][1]
    scheduler = diffusers.DDPMScheduler(**SD, clip_sample=False, variance_type=kind)
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps[-1] == 0  # their last noise is switched off by t = 0, not by the step being last
    x_T = normal(*shape, dtype=torch.float32)
    expected = theirs(scheduler, mixture, PATH, x_T, generator=seeded(5))
    sampler = DDPM() if variance is None else DDPM(variance)
    got = ours(mixture, PATH, sampler, timestep_grid(PATH, scheduler.timesteps), x_T, seed=5)
    assert gap(got, expected) <= 1e-5


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_dpm_solver_pp_2m(world, steps):
    mixture, shape = WORLDS[world][0](), WORLDS[world][1]
    scheduler = diffusers.DPMSolverMultistepScheduler(**SD, solver_order=2, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    x_T = normal(*shape, dtype=torch.float32)
    expected = theirs(scheduler, mixture, PATH, x_T)
    got = ours(mixture, PATH, DPMSolverPP2M(), timestep_grid(PATH, scheduler.timesteps), x_T)
    assert gap(got, expected) <= 1e-5


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("steps", [1, 2, 18])
def test_euler_on_edm(world, steps):
    # Their network is Karras' F behind the preconditioning with sigma_data = 0.5: this checks our edm row as well.
    mixture, shape, path = WORLDS[world][0](), WORLDS[world][1], EDM()
    scheduler = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=20.0, sigma_data=0.5)
    scheduler.set_timesteps(steps)
    x_T = x = 20 * normal(*shape, dtype=torch.float32)
    for i, timestep in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[i].double()
        scheduler.scale_model_input(x, timestep)
        p = mixture.denoise(path)(x.double(), sigma.expand(len(x)))
        output = edm(0.5).encode(p.x0, p.eps, path.coeffs(p.t)).float()
        x = scheduler.step(output, timestep, x).prev_sample
    got = ours(mixture, path, Euler(), scheduler.sigmas.double(), x_T)
    assert gap(got, x) <= 1e-5


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("steps", [1, 2, 18])
def test_heun_on_edm(world, steps):
    mixture, shape, path = WORLDS[world][0](), WORLDS[world][1], EDM()
    scheduler = diffusers.HeunDiscreteScheduler(**SD, use_karras_sigmas=steps > 1)
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas.double()
    x_T = x = float(sigmas[0]) * normal(*shape, dtype=torch.float32)
    for i, timestep in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(x, timestep)
        x = scheduler.step(ask(mixture, path, x, sigmas[i]), timestep, x).prev_sample
    grid = torch.cat([sigmas[0::2], sigmas[-1:]])  # theirs repeats every inner sigma
    assert len(grid) == steps + 1
    assert gap(ours(mixture, path, Heun(), grid, x_T), x) <= 1e-5


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 28])
@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_euler_on_rectified_flow(world, steps, shift):
    mixture, shape, path = WORLDS[world][0](), WORLDS[world][1], RectifiedFlow()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    x_T = x = normal(*shape, dtype=torch.float32)
    for i, timestep in enumerate(scheduler.timesteps):
        x = scheduler.step(ask(mixture, path, x, scheduler.sigmas[i], "velocity"), timestep, x).prev_sample
    got = ours(mixture, path, Euler(), scheduler.sigmas.double(), x_T)
    assert gap(got, x) <= 1e-5


def sigma_space(scheduler, mixture, x, **options):
    """Their run in x0 + sigma eps; what ``scale_model_input`` returns is the network's affair, and not used here."""
    for i, timestep in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(x, timestep)
        x = scheduler.step(ask(mixture, EDM(), x, scheduler.sigmas[i]), timestep, x, **options).prev_sample
    return x


ENDS = {
    "trailing": {"timestep_spacing": "trailing"},
    "karras": {"use_karras_sigmas": True, "timestep_spacing": "trailing"},
    "sigma_min": {"final_sigmas_type": "sigma_min", "timestep_spacing": "trailing"},
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_euler_with_stable_diffusions_sigmas(world, end, steps):
    mixture, shape = WORLDS[world][0](), WORLDS[world][1]
    scheduler = diffusers.EulerDiscreteScheduler(**SD, **ENDS[end])
    scheduler.set_timesteps(steps)
    x_T = float(scheduler.sigmas[0]) * normal(*shape, dtype=torch.float32)
    expected = sigma_space(scheduler, mixture, x_T)
    assert gap(ours(mixture, EDM(), Euler(), scheduler.sigmas.double(), x_T), expected) <= 1e-5


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 50])
def test_euler_ancestral(world, steps):
    mixture, shape = WORLDS[world][0](), WORLDS[world][1]
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**SD, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    x_T = float(scheduler.sigmas[0]) * normal(*shape, dtype=torch.float32)
    expected = sigma_space(scheduler, mixture, x_T, generator=seeded(5))
    got = ours(mixture, EDM(), EulerAncestral(), scheduler.sigmas.double(), x_T, seed=5)
    assert gap(got, expected) <= 1e-5


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("end", ["trailing", "karras"])
@pytest.mark.parametrize(("order", "steps"), [(4, 1), (4, 2), (4, 3), (4, 20), (4, 50), (2, 20), (3, 20)])
def test_lms(world, end, order, steps):
    mixture, shape = WORLDS[world][0](), WORLDS[world][1]
    scheduler = diffusers.LMSDiscreteScheduler(**SD, **ENDS[end])
    scheduler.set_timesteps(steps)
    x_T = float(scheduler.sigmas[0]) * normal(*shape, dtype=torch.float32)
    expected = sigma_space(scheduler, mixture, x_T, order=order)
    assert gap(ours(mixture, EDM(), LMS(order), scheduler.sigmas.double(), x_T), expected) <= 1e-5


# Where PNDM stops: on clean data, or, as Stable Diffusion is shipped, at the first entry of the table.
PNDM_ENDS = {
    "clean": ({"set_alpha_to_one": True}, 0.0),
    "shipped": ({"set_alpha_to_one": False, "steps_offset": 1}, 0.001),
}


# PLMS not with a single step that ends at noise > 0: theirs is DDIM then, ours asks at the end as in any first step.
# FPNDM: theirs needs four steps and an even 1000/steps, since the middle of a step has to be a timestep.
PNDM_RUNS = [(PLMS(), n, "clean") for n in (1, 2, 3, 5, 50)] + [(PLMS(), n, "shipped") for n in (2, 3, 5, 50)]
PNDM_RUNS += [(FPNDM(), n, end) for n in (4, 5, 50) for end in PNDM_ENDS]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("sampler", "steps", "end"), PNDM_RUNS, ids=str)
def test_pndm(world, sampler, steps, end):
    mixture, shape = WORLDS[world][0](), WORLDS[world][1]
    options, last_time = PNDM_ENDS[end]
    scheduler = diffusers.PNDMScheduler(**SD, **options, skip_prk_steps=isinstance(sampler, PLMS))
    scheduler.alphas_cumprod = TABLE  # Adams' weights alternate in sign: their float32 table alone would cost 1e-5
    scheduler.final_alpha_cumprod = PATH.alpha(times(last_time))[0] ** 2
    scheduler.set_timesteps(steps)
    x_T = normal(*shape, dtype=torch.float32)
    expected = theirs(scheduler, mixture, PATH, x_T)
    # The grid of the steps, not of the evaluations: equal steps of 1000 // steps, which is their "leading" spacing.
    grid = timestep_grid(PATH, sorted(scheduler._timesteps, reverse=True))
    grid[-1] = last_time
    assert gap(ours(mixture, PATH, sampler, grid, x_T), expected) <= 1e-5
