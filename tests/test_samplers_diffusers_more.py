"""The log-SNR family and the consistency samplers against `diffusers`: same grid, same noise, same oracle."""

from __future__ import annotations

import pytest
import torch
from test_samplers_diffusers import PATH, SD, WORLDS, ask, ours, theirs
from worlds import F64, gap, normal, seeded

from lecture_lib.core import EDM, RectifiedFlow, edm, timestep_grid
from lecture_lib.samplers import (
    B1,
    B2,
    DATA,
    DDIM,
    NOISE,
    ConsistencyMultistep,
    DPMSolver1,
    DPMSolver2,
    DPMSolverPP2M,
    DPMSolverPP2S,
    ExponentialAdams,
    SDEDPMSolverPP1,
    SDEDPMSolverPP2M,
    UniPC,
    consistency,
    last,
    one_step,
    sample,
)

diffusers = pytest.importorskip("diffusers", reason="the oracle needs `diffusers`")
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*algorithm_type.*:FutureWarning"),
]

# Grids. At sigma = 0 their last step is of order 1, as ours is; at a last sigma > 0 theirs is so only by an option,
# ``lower_order_final``, which is switched off. Theirs in the noise form refuses to end at 0, ours makes the DDIM step.
TO_ZERO = {
    "zero": {},
    "trailing": {"timestep_spacing": "trailing"},
    "karras": {"use_karras_sigmas": True},
}
TO_NOISE = {"sigma_min": {"final_sigmas_type": "sigma_min", "lower_order_final": False}}
ALL = TO_ZERO | TO_NOISE


def label(value):
    """A readable test id."""
    return getattr(value, "__name__", str(value))


def log_snr(scheduler, mixture, x, **options):
    """Their run on the variance-preserving path through the sigma/alpha that they list, and that grid in our times."""
    grid = PATH.time_of(-scheduler.sigmas.double().log())
    scheduler.sigmas = (-PATH.lam(grid)).exp()  # unrounded: float32 sigmas alone move the noise form by 1e-5
    for i, timestep in enumerate(scheduler.timesteps):
        x = scheduler.step(ask(mixture, PATH, x, grid[i]), timestep, x, **options).prev_sample
    return x, grid


def compare(scheduler, run, world, steps, dtype=torch.float32, **options):
    """Whether their run and ``run(mixture, grid, x_T)`` agree."""
    mixture, shape = WORLDS[world][0](), WORLDS[world][1]
    scheduler.set_timesteps(steps)
    x_T = normal(*shape, dtype=dtype)
    expected, grid = log_snr(scheduler, mixture, x_T, **options)
    got = run(mixture, grid, x_T)
    assert got.dtype == expected.dtype == dtype
    assert gap(got, expected) <= (1e-5 if dtype == torch.float32 else 1e-10)


def of(sampler):
    """A sampler as a run."""
    return lambda mixture, grid, x: ours(mixture, PATH, sampler, grid, x, seed=5)


def precisions(form, steps):
    """Few steps in the noise form multiply rounding by e^h, up to 500: there float32 says nothing, for either side."""
    return (F64,) if form is NOISE and steps < 20 else (F64, torch.float32)


FORMS, BS = {DPMSolverPP2S: DATA, DPMSolver2: NOISE}, {"bh1": B1, "bh2": B2}
PP, P = {"algorithm_type": "dpmsolver++"}, {"algorithm_type": "dpmsolver"}
MULTISTEP = {
    "pp1 = DDIM": (DDIM(), PP | {"solver_order": 1}, ALL),
    "pp2m": (DPMSolverPP2M(), PP | {"solver_order": 2, "solver_type": "midpoint"}, ALL),
    "pp2m taylor": (ExponentialAdams(2, DATA), PP | {"solver_order": 2, "solver_type": "heun"}, ALL),
    "p1": (DPMSolver1(), P | {"solver_order": 1}, TO_NOISE),
    "p1 = DDIM": (DDIM(), P | {"solver_order": 1}, TO_NOISE),
    "p2m taylor": (ExponentialAdams(2, NOISE), P | {"solver_order": 2, "solver_type": "heun"}, TO_NOISE),
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("kind", "end"), [(kind, end) for kind, (*_, ends) in MULTISTEP.items() for end in ends])
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_dpm_solver_multistep(world, kind, end, steps):
    sampler, options, ends = MULTISTEP[kind]
    scheduler = diffusers.DPMSolverMultistepScheduler(**SD, **options, **ends[end])
    compare(scheduler, of(sampler), world, steps)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("sampler", "order"), [(SDEDPMSolverPP1(), 1), (SDEDPMSolverPP2M(), 2)], ids=repr)
@pytest.mark.parametrize("end", ALL)
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 50])
def test_sde_dpm_solver(world, sampler, order, end, steps):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **SD, **ALL[end], algorithm_type="sde-dpmsolver++", solver_order=order, solver_type="midpoint"
    )
    compare(scheduler, of(sampler), world, steps, generator=seeded(5))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("sampler", "order"), [(DDIM(), 1), (DPMSolverPP2M(), 2)], ids=repr)
@pytest.mark.parametrize("steps", [2, 3, 20])
def test_karras_grid_to_sigma_min_is_a_step_shorter(world, sampler, order, steps):
    # Theirs lists sigma_min twice and spends its last evaluation on a step of length zero; our grids must fall.
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **SD, **TO_NOISE["sigma_min"], use_karras_sigmas=True, solver_order=order
    )

    def run(mixture, grid, x):
        assert len(grid) == steps + 1 and abs(grid[-1] - grid[-2]) < 1e-9
        return of(sampler)(mixture, grid[:-1], x)

    compare(scheduler, run, world, steps)


def in_pairs(kind, orders):
    """Our singlestep run on their grid: the second of a pair with orders 1, 2 starts anew from where the first did.

    The point in between is the middle then, wherever it lies.
    """

    def run(mixture, grid, x):
        denoise, lam, i = mixture.denoise(PATH), PATH.lam(grid), 0
        while i < len(orders):
            stop = i + 2 if orders[i + 1 : i + 2] == [2] else i + 1
            r = float((lam[i + 1] - lam[i]) / (lam[stop] - lam[i]))
            x, _ = one_step(kind(r=r) if stop == i + 2 else DDIM(), denoise, PATH, x, float(grid[i]), float(grid[stop]))
            i = stop
        return x

    return run


SINGLESTEP = [(DPMSolverPP2S, DATA, name, n) for name in ("zero", "karras") for n in (1, 2, 3, 4, 19, 20)]
# To sigma_min with even numbers, so that the orders are 1, 2, 1, 2, ... to the end; with odd ones theirs ends in 1.
SINGLESTEP += [(kind, form, "sigma_min", n) for kind, form in FORMS.items() for n in (2, 4, 20)]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("kind", "form", "end", "steps"), SINGLESTEP, ids=label)
def test_dpm_solver_singlestep(world, kind, form, end, steps):
    options = {"lower_order_final": True} | ALL[end] | (PP if form is DATA else P)
    for dtype in precisions(form, steps):
        scheduler = diffusers.DPMSolverSinglestepScheduler(**SD, **options, solver_order=2, solver_type="midpoint")
        scheduler.set_timesteps(steps)
        compare(scheduler, in_pairs(kind, scheduler.order_list), world, steps, dtype)


# Their order rises as ours does: 1 at the first step; the corrector has the order of the step that it corrects.
# To sigma = 0 they are defined only as bh2 in the data form: B(tau) of bh1 and the noise form's e^h are infinite.
UNIPC = [("bh2", DATA, end) for end in TO_ZERO] + [(B, form, "sigma_min") for B in BS for form in (DATA, NOISE)]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("B", "form", "end"), UNIPC, ids=label)
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_unipc(world, order, B, form, end, steps):
    options = {"solver_order": order, "solver_type": B, "predict_x0": form is DATA}
    for dtype in precisions(form, steps):
        scheduler = diffusers.UniPCMultistepScheduler(**SD, **ALL[end], **options)
        compare(scheduler, of(UniPC(order, BS[B], form)), world, steps, dtype)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize("clip", [False, True])
def test_consistency_multistep_on_edm(world, steps, clip):
    mixture, shape, path, data = WORLDS[world][0](), WORLDS[world][1], EDM(), 0.5
    scheduler = diffusers.CMStochasticIterativeScheduler(clip_denoised=clip)
    scheduler.set_timesteps(steps)
    end = float(scheduler.sigmas[-1])

    def F(x, t):  # any function can stand for the trained network; this one is Karras' F of the oracle
        p = mixture.denoise(path)(x.double(), t)
        return edm(data).encode(p.x0, p.eps, path.coeffs(t)).float()

    def f(x, t):  # their scheduler does this by itself
        sigma = float(t[0])
        skip, out = data**2 / ((sigma - end) ** 2 + data**2), (sigma - end) * data / (sigma**2 + data**2) ** 0.5
        jumped = skip * x + out * F(x, t)
        return jumped.clamp(-1, 1) if clip else jumped

    x_T = x = 80 * normal(*shape, dtype=torch.float32)
    generator = seeded(5)
    for i, timestep in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(x, timestep)
        output = F(x, scheduler.sigmas[i].double().expand(len(x)))
        x = scheduler.step(output, timestep, x, generator=generator).prev_sample
    sampler, grid = ConsistencyMultistep(end), scheduler.sigmas.double()
    got = last(sample(consistency(f, path), path, sampler, grid, x_T, generator=seeded(5)))
    assert gap(got, x) <= 1e-5


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 8])
@pytest.mark.parametrize("scaling", [10.0, 0.01])  # at 10, as shipped, c_skip is below 1e-5 at every timestep used
def test_latent_consistency(world, steps, scaling):
    mixture, shape, data = WORLDS[world][0](), WORLDS[world][1], 0.5
    scheduler = diffusers.LCMScheduler(**SD, timestep_scaling=scaling)
    scheduler.set_timesteps(steps)

    def f(x, t):
        scaled = scaling * (1000 * float(t[0]) - 1)
        skip, out = data**2 / (scaled**2 + data**2), scaled / (scaled**2 + data**2) ** 0.5
        return skip * x + out * mixture.denoise(PATH)(x, t).x0

    x_T = normal(*shape, dtype=torch.float32)
    expected = theirs(scheduler, mixture, PATH, x_T, generator=seeded(5))
    grid = timestep_grid(PATH, scheduler.timesteps)
    got = last(sample(consistency(f, PATH), PATH, ConsistencyMultistep(), grid, x_T, generator=seeded(5)))
    assert gap(got, expected) <= 1e-5


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 28])
def test_all_noise_fresh_on_rectified_flow(world, steps):
    mixture, shape, path = WORLDS[world][0](), WORLDS[world][1], RectifiedFlow()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
    scheduler.set_timesteps(steps)
    x_T = x = normal(*shape, dtype=torch.float32)
    generator = seeded(5)
    for i, timestep in enumerate(scheduler.timesteps):
        output = ask(mixture, path, x, scheduler.sigmas[i], "velocity")
        x = scheduler.step(output, timestep, x, generator=generator).prev_sample
    got = ours(mixture, path, ConsistencyMultistep(), scheduler.sigmas.double(), x_T, seed=5)
    assert gap(got, x) <= 1e-5
