"""Laws of the samplers: orders, marginals, ends, counting, purity. The mixture oracle is the model."""

from __future__ import annotations

import gc
import math
import weakref
from itertools import pairwise

import pytest
import torch
from worlds import F64, PATH_NAMES, PATHS, Counted, gap, normal, plane, seeded, times, tiny_pictures

from lecture_lib.core import (
    EDM,
    Discrete,
    Prediction,
    RectifiedFlow,
    Trigonometric,
    V,
    VPCosine,
    VPLinear,
    ddpm_linear,
    karras_grid,
    linear_interpolant,
    logsnr_grid,
    sine_noise,
    stable_diffusion,
    timestep_grid,
    trigonometric_interpolant,
    uniform_grid,
)
from lecture_lib.errors import NonFiniteError, RangeError, ShapeError, SingularError
from lecture_lib.guidance import cached, extrapolate
from lecture_lib.oracles import GaussianBridge, GaussianMixture
from lecture_lib.samplers import (
    B1,
    DDIM,
    DDPM,
    FPNDM,
    LMS,
    NOISE,
    PLMS,
    RK45,
    ConsistencyMultistep,
    DPMSolver1,
    DPMSolver2,
    DPMSolver3,
    DPMSolverPP2M,
    DPMSolverPP2S,
    DPMSolverPP3M,
    DPMSolverPP3S,
    DPMSolverV3,
    EDMChurn,
    Euler,
    EulerAncestral,
    EulerMaruyama,
    ExponentialAdams,
    Heun,
    PredictorCorrector,
    SDEDPMSolverPP1,
    SDEDPMSolverPP2M,
    SDEDPMSolverPP3M,
    Statistics,
    UniPC,
    bump_diffusion,
    consistency,
    forward_diffusion,
    forward_variance,
    last,
    no_diffusion,
    one_step,
    sample,
    sigma_diffusion,
)
from lecture_lib.samplers.base import Watched
from lecture_lib.tensors import randn_like


def unit_diffusion(c):
    return 1.0


def twice_forward(c):
    return 2 * forward_diffusion(c)


HALF = torch.full((2,), 0.5, dtype=F64)  # the same statistics at every level and for every dimension
STATISTICS = Statistics(times(-4, 4), HALF, 0.4 * HALF, 0.2 * HALF)
DETERMINISTIC = [
    Euler(),
    Heun(),
    LMS(2),
    LMS(4),
    RK45(),
    DDIM(),
    PLMS(),
    FPNDM(),
    DPMSolver1(),
    DPMSolver2(),
    DPMSolver3(),
    DPMSolverPP2S(),
    DPMSolverPP3S(),
    DPMSolverPP2M(),
    DPMSolverPP3M(),
    DPMSolverV3(STATISTICS),
    UniPC(1),
    UniPC(2),
    UniPC(3),
    UniPC(3, B1, NOISE),
    ExponentialAdams(2),
    ExponentialAdams(4),
    ExponentialAdams(4, NOISE),
]
STOCHASTIC = [
    DDIM(0.5),
    DDIM(1.0),
    DDPM(),
    DDPM(forward_variance),
    EulerAncestral(),
    EulerMaruyama(sigma_diffusion),
    EulerMaruyama(bump_diffusion),
    PredictorCorrector(DDPM()),
    EDMChurn(0.2),
    SDEDPMSolverPP1(),
    SDEDPMSolverPP2M(),
    SDEDPMSolverPP3M(),
    ConsistencyMultistep(),
]
ALL = DETERMINISTIC + STOCHASTIC
every_sampler = pytest.mark.parametrize("sampler", ALL, ids=repr)


# Steps by hand


def test_2m_by_hand():
    # One step written out with the formula of Lu et al. 2022b, Alg. 2, at r = 2.
    path, x = VPLinear(), normal(3, 2, seed=1)
    lam = times(-1.0, -0.4, -0.1)
    t_prev, t, s = (path.at_lam(float(v)) for v in lam)
    x0_prev, x0 = normal(3, 2, seed=2), normal(3, 2, seed=3)
    before, answer = (Prediction(path, times(c.time).expand(3), x, y, y) for c, y in ((t_prev, x0_prev), (t, x0)))
    got, (kept, _) = one_step(
        DPMSolverPP2M(), lambda *_: answer, path, x, t.time, s.time, state=(before, t.lam - t_prev.lam)
    )
    D = 1.25 * x0 - 0.25 * x0_prev  # 1 + 1/(2 r) with r = 0.6/0.3
    assert gap(got, s.sigma / t.sigma * x - s.alpha * (math.exp(-0.3) - 1) * D) <= 1e-12
    assert kept is answer


# Gaussian data: a run is affine in x_T and in every noise drawn, so mean and variance are read off, without sampling.

MEAN, VAR = 1.5, 0.25
GAUSSIAN = GaussianMixture([1.0], [[MEAN]], [VAR])


def propagate(sampler, path, grid, mean, var, data=GAUSSIAN):
    """Mean and variance of the result: a batch of unit inputs, one for x_T and one for each draw of noise."""
    n = len(grid) + 1
    x, draws = torch.zeros(n, 1, dtype=F64), iter(range(2, n))
    x[1] = 1.0  # row 0 keeps all inputs at zero

    def unit():
        z = torch.zeros(n, 1, dtype=F64)
        z[next(draws)] = 1.0
        return z

    state, denoise, moments = None, Watched(data.denoise(path), path), path.along(grid)
    for t, s in pairwise(moments):
        x, state = sampler.step(denoise, x, t, s, state, unit)
    effect = (x[1:] - x[0]).squeeze(1)
    return float(x[0, 0] + effect[0] * mean), float(effect[0] ** 2 * var + (effect[1:] ** 2).sum())


def marginal(path, t):
    alpha, sigma = float(path.alpha(t[None])), float(path.sigma(t[None]))
    return alpha * MEAN, alpha**2 * VAR + sigma**2


MARGINAL_CASES = [
    *[
        (s, p)
        for s in (DDIM(0.0), DDIM(0.4), DDIM(1.0), DDPM(), Euler(), EulerAncestral(0.4), SDEDPMSolverPP1())
        for p in ("rf", "vp", "edm")
    ],
    (DDPM(forward_variance), "vp"),
    (DDPM(forward_variance), "edm"),
    (DDIM(1.0), "sd"),
    *[
        (EulerMaruyama(w), p)
        for w in (no_diffusion, sigma_diffusion, bump_diffusion, forward_diffusion, twice_forward)
        for p in ("rf", "vp")
    ],
    (EulerMaruyama(unit_diffusion), "trig"),
    (EulerMaruyama(unit_diffusion), "cosine"),
    (EulerMaruyama(forward_diffusion), "edm"),
]


@pytest.mark.parametrize(("sampler", "name"), MARGINAL_CASES, ids=repr)
def test_marginals_are_kept_by_every_amount_of_noise(sampler, name):
    path = PATHS[PATH_NAMES.index(name)]
    start, end = path.time_of(times(-2.5, 1.5)).tolist()
    errors = []
    for n in (80, 160):
        grid = logsnr_grid(path, n, start=start, end=end)
        mean, var = propagate(sampler, path, grid, *marginal(path, grid[0]))
        exact_mean, exact_var = marginal(path, grid[-1])
        errors.append((abs(mean - exact_mean), abs(var - exact_var)))
    (mean_coarse, var_coarse), (mean_fine, var_fine) = errors
    assert mean_fine <= 0.03 and var_fine <= 0.03
    # weak order one: the error halves (an error that stays is a wrong variance, not a coarse grid)
    assert mean_fine <= max(0.6 * mean_coarse, 3e-4)
    assert var_fine <= max(0.6 * var_coarse, 3e-4)


# Weak order: the error of the variance, from the exact marginal at the start to the exact one at the end.
WEAK = [
    *[(s, 1) for s in (DDIM(0.5), DDIM(1.0), DDPM(), DDPM(forward_variance), EulerAncestral(0.5), SDEDPMSolverPP1())],
    (EulerMaruyama(), 1),
    (EulerMaruyama(sigma_diffusion), 1),
    (SDEDPMSolverPP2M(), 2),
    (SDEDPMSolverPP3M(), 2),
]


def weak_slope(sampler_of, path, n):
    start, end = path.time_of(times(-2.5, 1.5)).tolist()
    errors = []
    for steps in (n, 2 * n):
        grid = logsnr_grid(path, steps, start=start, end=end)
        _, var = propagate(sampler_of(steps), path, grid, *marginal(path, grid[0]))
        errors.append(abs(var - marginal(path, grid[-1])[1]))
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize(("sampler", "order"), WEAK, ids=repr)
def test_weak_order(sampler, order):
    assert (
        weak_slope(lambda _: sampler, VPLinear(), 160 * order**2) == pytest.approx(order, abs=0.1)
        and sampler.order == order
    )


@pytest.mark.parametrize("churn", [0, 10, 40])
def test_weak_order_of_churn(churn):
    # S_churn fixed, so that each step's share of it shrinks with the steps, as in the paper.
    assert weak_slope(lambda steps: EDMChurn.of(churn, steps), EDM(), 320) == pytest.approx(2, abs=0.15)


def test_too_much_noise_is_too_much():
    # S_noise above 1 widens the samples on purpose, here by 0.6 % at S_churn 40; 1 is exact in the limit.
    data, path = GaussianMixture([1.0], [[0.0]], [0.09]), EDM()
    grid = karras_grid(path, 512, sigma_max=80.0)
    start = (0.0, 80.0**2 + 0.09)
    exact, inflated = (propagate(EDMChurn.of(40, 512, inflate=k), path, grid, *start, data)[1] for k in (1.0, 1.003))
    assert exact == pytest.approx(0.0900, abs=1e-4) and inflated == pytest.approx(0.0906, abs=1e-4)


@pytest.mark.parametrize("path", [VPLinear(), EDM()], ids=repr)
def test_langevin_corrections_pull_a_wrong_marginal_back(path):
    # Twice too wide, in a step too short for the predictor to matter. On Gaussian data one correction of size e takes
    # the variance v to (1 - e/home)^2 v + 2 e, where e = 2 (snr home)^2 / v in a batch that large.
    t, s = (float(v) for v in path.time_of(times(0.0, 1e-6)))
    mean, home = marginal(path, times(s)[0])
    n, snr, var = 100_000, 0.3, 4 * home
    x = (
        mean
        + var**0.5 * torch.nn.functional.normalize(normal(n, 1, seed=4) - normal(n, 1, seed=4).mean(), dim=0) * n**0.5
    )
    for corrections in (1, 8):
        sampler, generator = PredictorCorrector(DDIM(), snr=snr, corrections=corrections), seeded(5)
        got, _ = one_step(sampler, GAUSSIAN.denoise(path), path, x, t, s, noise=lambda g=generator: randn_like(x, g))
        expected = var
        for _ in range(corrections):
            e = 2 * (snr * home) ** 2 / expected
            expected = (1 - e / home) ** 2 * expected + 2 * e
        assert float(got.var()) / home == pytest.approx(expected / home, rel=0.02)
        assert float(got.mean()) == pytest.approx(mean, abs=0.02)


@pytest.mark.parametrize("path", [linear_interpolant(sine_noise), trigonometric_interpolant()], ids=repr)
@pytest.mark.parametrize(
    "sampler", [Euler(), Heun(), EulerMaruyama(sigma_diffusion), EulerMaruyama(bump_diffusion)], ids=repr
)
def test_interpolants_go_through_the_same_samplers(path, sampler):
    # From N(-1, 0.09) at t = 1 to N(1.5, 0.25) at t = 0, by the ODE and by SDEs: one law, whatever the diffusion. It is
    # known at every time, so the run may start and stop a little inside, where Brownian noise has finite slopes.
    bridge = GaussianBridge(GAUSSIAN, GaussianMixture([1.0], [[-1.0]], [0.09]))

    def law(t):
        t = times(t)
        a, b, c = (float(f(t)) for f in (path.alpha, path.beta, path.gamma))
        return a * MEAN - b, a * a * VAR + b * b * 0.09 + c * c

    errors = []
    for n in (200, 400):
        mean, var = propagate(sampler, path, uniform_grid(path, n, start=0.98, end=0.02), *law(0.98), bridge)
        errors.append(max(abs(mean - law(0.02)[0]), abs(var - law(0.02)[1])))
    assert errors[1] <= 6e-3 and errors[1] <= 0.6 * errors[0]  # first order: they halve


def test_a_bridge_has_no_forward_sde():
    path = linear_interpolant(sine_noise)
    bridge = GaussianBridge(GAUSSIAN, GAUSSIAN)
    grid = uniform_grid(path, 3, start=0.9, end=0.1)
    with pytest.raises(RangeError, match="no forward SDE"):
        last(sample(bridge.denoise(path), path, EulerMaruyama(), grid, normal(4, 1), generator=seeded()))


@pytest.mark.parametrize("end", [0.0, 0.002])
def test_consistency_sampling_of_an_exact_model_is_exact(end):
    # Gaussian data: the consistency function is a scaling, and every further step starts from the right marginal.
    path = EDM()

    def f(x, t):
        scale = ((VAR + end**2) / (VAR + t**2)).sqrt()
        return MEAN + scale[:, None] * (x - MEAN)

    class Exact:
        def denoise(self, path):
            return consistency(f, path)

    for n in (1, 2, 5):
        grid = times(*[80.0, 10.0, 2.0, 0.5, 0.1][:n], end)
        mean, var = propagate(ConsistencyMultistep(end), path, grid, MEAN, VAR + 80.0**2, Exact())
        assert mean == pytest.approx(MEAN, abs=1e-10) and var == pytest.approx(VAR + end**2, abs=1e-10)


def test_reference_values_on_the_ddpm_table():
    # FORMULAS U13, N(2, 0.5^2): mean and standard deviation after the chain.
    path = Discrete(ddpm_linear())
    data = GaussianMixture([1.0], [[2.0]], [0.25])

    def chain(sampler, n):
        mean, var = propagate(sampler, path, timestep_grid(path, range(999, -1, -1000 // n)), 0.0, 1.0, data)
        return mean, math.sqrt(var)

    assert chain(DDIM(), 50) == pytest.approx((1.994, 0.470), abs=6e-3)
    assert chain(DDIM(), 1000) == pytest.approx((1.994, 0.499), abs=2e-3)
    assert chain(DDPM(), 1000) == pytest.approx((2.001, 0.496), abs=3e-3)


def test_eta_one_is_ddpm_with_the_posterior_variance():
    for path in (RectifiedFlow(), VPLinear(), EDM(), Trigonometric()):
        t, s = path.time_of(times(-1.0, 0.5))
        x, z = normal(5, 2, seed=1), normal(5, 2, seed=2)
        a, b = (
            one_step(k, plane().denoise(path), path, x, t.expand(5), s.expand(5), noise=lambda z=z: z)[0]
            for k in (DDIM(1.0), DDPM())
        )
        for other in (EulerAncestral(), SDEDPMSolverPP1()):
            c, _ = one_step(other, plane().denoise(path), path, x, float(t), float(s), noise=lambda z=z: z)
            assert gap(a, c) <= 1e-12
        assert gap(a, b) <= 1e-12


PER_SAMPLE = [s for s in [*ALL, EulerMaruyama()] if s.per_sample]


@pytest.mark.parametrize("sampler", PER_SAMPLE, ids=repr)
def test_every_sample_may_be_at_a_time_of_its_own(sampler):
    # Distillation steps each sample of a batch between times of its own; the answer is that of separate steps.
    path, x, z = VPLinear(), normal(4, 2), normal(4, 2, seed=1)
    t, s = times(0.9, 0.5, 0.3, 0.7), times(0.8, 0.1, 0.29, 0.4)
    together, _ = one_step(sampler, plane().denoise(path), path, x, t, s, noise=lambda: z)
    for i in range(4):
        alone, _ = one_step(
            sampler, plane().denoise(path), path, x[[i]], float(t[i]), float(s[i]), noise=lambda i=i: z[[i]]
        )
        assert gap(together[[i]], alone) <= 1e-12


@pytest.mark.parametrize("sampler", [s for s in ALL if not s.per_sample], ids=repr)
def test_times_per_sample_are_refused_by_name_where_they_cannot_be(sampler):
    with pytest.raises(ShapeError, match="steps a batch together"):
        one_step(sampler, plane().denoise(VPLinear()), VPLinear(), normal(2, 2), times(0.9, 0.8), times(0.5, 0.4))


def test_a_steps_gradient_flows():
    path = VPLinear()
    x = normal(3, 2).requires_grad_()
    y, _ = one_step(Heun(), plane().denoise(path), path, x, times(0.9, 0.5, 0.3), times(0.8, 0.4, 0.2))
    (slope,) = torch.autograd.grad(y[1, 0], x)
    h = torch.zeros_like(x)
    h[1, 0] = 1e-6
    ends = [
        one_step(Heun(), plane().denoise(path), path, x.detach() + k * h, times(0.9, 0.5, 0.3), times(0.8, 0.4, 0.2))[0]
        for k in (1, -1)
    ]
    assert float(slope[1, 0]) == pytest.approx(float(ends[0][1, 0] - ends[1][1, 0]) / 2e-6, rel=1e-6)
    assert float(slope[[0, 2]].abs().max()) == 0


def test_first_order_steps_coincide():
    # DDIM = first step of DPM-Solver++ = Euler on the EDM clock.
    path, x = EDM(), 5 * normal(6, 2)
    samplers = (
        DDIM(),
        Euler(),
        DPMSolver1(),
        DPMSolverPP2M(),
        UniPC(2),
        ExponentialAdams(3),
        LMS(4),
        EulerAncestral(0.0),
    )
    steps = [one_step(k, plane().denoise(path), path, x, 3.0, 1.2)[0] for k in samplers]
    assert all(gap(steps[0], step) <= 1e-12 for step in steps[1:])


def test_ddpm_step_is_hos_formula():
    # x <- (x - beta/sigma eps)/sqrt(1 - beta) + sqrt(beta) z, one table step, betas from the table itself
    table = stable_diffusion()
    path, x, z = Discrete(table), normal(4, 2, seed=1), normal(4, 2, seed=2)
    i = 600
    beta = float(1 - table[i] / table[i - 1])
    t, s = times((i + 1) / 1000).expand(4), times(i / 1000).expand(4)
    eps = plane().denoise(path)(x, t).eps
    mean = (x - beta / math.sqrt(1 - table[i]) * eps) / math.sqrt(1 - beta)
    small = beta * float((1 - table[i - 1]) / (1 - table[i]))
    for sampler, var in ((DDPM(forward_variance), beta), (DDPM(), small)):
        got, _ = one_step(sampler, plane().denoise(path), path, x, t, s, noise=lambda: z)
        assert gap(got, mean + math.sqrt(var) * z) <= 1e-11


# The ends


@every_sampler
@pytest.mark.parametrize("path", PATHS, ids=PATH_NAMES)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_steps_from_pure_noise_to_clean_data(sampler, path, n):
    x_T = float(path.sigma(times(path.t_max))) * normal(4, 2)
    x = last(sample(plane().denoise(path), path, sampler, uniform_grid(path, n), x_T, generator=seeded()))
    assert torch.isfinite(x).all() and x.shape == x_T.shape and x.dtype == F64


@pytest.mark.parametrize("sampler", [DDIM(), DDIM(0.7), DDPM(), DPMSolverPP2M()], ids=repr)
@pytest.mark.parametrize("path", [RectifiedFlow(), Trigonometric(), VPCosine(), PATHS[-1]], ids=repr)
def test_one_step_from_zero_snr_lands_on_the_mean_of_the_data(sampler, path):
    mixture = plane()
    x = last(sample(mixture.denoise(path), path, sampler, uniform_grid(path, 1), normal(4, 2), generator=seeded()))
    assert gap(x, (mixture.weights @ mixture.means).expand(4, 2)) <= 1e-12


@pytest.mark.parametrize("path", [RectifiedFlow(), Trigonometric(), VPCosine(), PATHS[-1]], ids=repr)
def test_an_infinite_forward_sde_is_named(path):
    frames = sample(
        plane().denoise(path), path, EulerMaruyama(), uniform_grid(path, 5), normal(4, 2), generator=seeded()
    )
    with pytest.raises(SingularError, match="start the grid a little earlier"):
        last(frames)


# EDMChurn is not among them: its noise comes *before* the step, and the step removes it.
@pytest.mark.parametrize("sampler", [s for s in STOCHASTIC if not isinstance(s, EDMChurn)], ids=repr)
@pytest.mark.parametrize("path", [VPLinear(), EDM(), RectifiedFlow()], ids=repr)
def test_no_noise_at_the_last_step(sampler, path):
    t, x = float(path.time_of(times(0.0))), normal(5, 2)
    quiet, loud = (
        one_step(sampler, plane().denoise(path), path, x, t, 0.0, noise=lambda k=k: torch.full((5, 2), k, dtype=F64))[0]
        for k in (0.0, 100.0)
    )
    assert gap(quiet, loud) == 0
    if not isinstance(sampler, EulerMaruyama):
        assert gap(quiet, plane().denoise(path)(x, times(t).expand(5)).x0) <= 1e-12


# To sigma = 0 most methods return x0; those that extrapolate eps over the last stretch, or solve it finely, do not.
LANDING = [s for s in DETERMINISTIC if not isinstance(s, LMS | RK45 | PLMS | FPNDM)]


@pytest.mark.parametrize("sampler", [*LANDING, DDPM(), DDIM(1.0)], ids=repr)
def test_the_last_frame_is_the_last_prediction(sampler):
    path = EDM()
    *_, final = sample(
        plane().denoise(path), path, sampler, karras_grid(path, 6), 80 * normal(3, 2), generator=seeded()
    )
    assert gap(final.x, final.x0) <= 1e-12


def test_many_steps_give_samples_of_the_data():
    path, mixture = RectifiedFlow(), plane()
    exact = mixture.sample(4000, generator=seeded(9))
    for sampler in (Heun(), DPMSolverPP2M(), DDPM(), EulerMaruyama(sigma_diffusion)):
        x = last(
            sample(mixture.denoise(path), path, sampler, uniform_grid(path, 60), normal(4000, 2), generator=seeded())
        )
        assert gap(x.mean(0), exact.mean(0)) <= 0.08
        assert gap(x.T.cov(), exact.T.cov()) <= 0.12
        assert plane().log_prob(x).mean() == pytest.approx(float(plane().log_prob(exact).mean()), abs=0.08)


# The driver


@every_sampler
def test_a_sampler_explains_itself(sampler):
    text = sampler._repr_markdown_()
    assert (
        text.startswith(f"**{sampler!r}**")
        and f"order {sampler.order}" in text
        and "NFE" in text
        and text.count("$") == 2
    )
    assert ("deterministic" in text) == (sampler in DETERMINISTIC) and text.rstrip().endswith("*")


@every_sampler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pictures_in_any_precision(sampler, dtype):
    path, mixture = RectifiedFlow(), tiny_pictures()
    grid = uniform_grid(path, 3, start=0.99)
    x = last(sample(mixture.denoise(path), path, sampler, grid, normal(2, 1, 8, 8).to(dtype), generator=seeded()))
    assert x.shape == (2, 1, 8, 8) and x.dtype == dtype


# Five steps from pure noise, where alpha = 0 and methods on an infinite clock take DDIM's step, to clean data.
NFE = {
    Heun: 9,
    RK45: None,
    PLMS: 6,
    FPNDM: 1 + 3 * 4 + 1,
    DPMSolver2: 8,
    DPMSolverPP2S: 8,
    DPMSolver3: 11,
    DPMSolverPP3S: 11,
    DPMSolverPP3M: 6,
    EDMChurn: 8,
    PredictorCorrector: 9,
}


@every_sampler
def test_frames_and_evaluations_are_counted(sampler):
    path = RectifiedFlow()
    denoise = Counted(plane().denoise(path))
    frames = list(sample(denoise, path, sampler, uniform_grid(path, 5), normal(3, 2), generator=seeded()))
    expected = NFE.get(type(sampler), 5)
    assert [f.step for f in frames] == [0, 1, 2, 3, 4, 5]
    assert [f.t for f in frames] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])
    assert frames[-1].nfe == denoise.calls and expected in (None, denoise.calls)
    assert frames[0].nfe == 0 and frames[0].x0 is None and frames[1].x0 is not None
    assert all(a.nfe < b.nfe for a, b in pairwise(frames))


@pytest.mark.parametrize(("sampler", "nfe"), [(DDIM(), 10), (Heun(), 18)])
def test_guidance_counts_twice(sampler, nfe):
    path = RectifiedFlow()
    main, reference = Counted(plane().given(1).denoise(path)), Counted(plane().denoise(path))
    *_, final = sample(extrapolate(reference, main, 2.0), path, sampler, uniform_grid(path, 5), normal(3, 2))
    assert final.nfe == nfe == main.calls + reference.calls


@every_sampler
def test_noise_comes_from_the_generator_and_inputs_stay(sampler):
    path, x_T = RectifiedFlow(), normal(3, 2)
    kept, grid = x_T.clone(), uniform_grid(path, 4, start=0.95)
    kept_grid, state = grid.clone(), torch.random.get_rng_state()

    def run(seed):
        return last(sample(plane().denoise(path), path, sampler, grid, x_T, generator=seeded(seed)))

    first, again, other = run(1), run(1), run(2)
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (sampler in DETERMINISTIC)
    assert torch.equal(x_T, kept) and torch.equal(grid, kept_grid)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.gpu
@every_sampler
def test_the_same_picture_on_every_device(sampler):
    # Noise comes from a CPU generator, so the same seed gives the same picture; the oracle answers on the CPU for both.
    path, x_T = VPLinear(), normal(4, 2)
    grid = uniform_grid(path, 6, end=0.05)
    ends = [
        last(sample(plane().denoise(path), path, sampler, grid, x_T.to(device), generator=seeded()))
        for device in ("cpu", "cuda")
    ]
    assert ends[1].device.type == "cuda" and gap(ends[0], ends[1].cpu()) <= 1e-9


def test_frame_zero_is_the_noise_and_x0_the_prediction():
    path, x_T = RectifiedFlow(), normal(3, 2)
    frames = list(sample(plane().denoise(path), path, DDIM(), uniform_grid(path, 4), x_T))
    assert torch.equal(frames[0].x, x_T)
    for a, b in pairwise(frames):
        t = torch.full((3,), a.t, dtype=F64)
        assert gap(b.x0, plane().denoise(path)(a.x, t).x0) <= 1e-14


def test_only_one_frame_is_alive():
    path, alive = RectifiedFlow(), []

    def watched(frames):
        for frame in frames:
            alive.append(weakref.ref(frame.x))
            yield frame

    x_T, most = normal(3, 2), 0
    for frame in watched(sample(plane().denoise(path), path, DDIM(), uniform_grid(path, 30), x_T)):
        del frame
        most = max(most, sum(ref() is not None for ref in alive))
    assert most <= 3  # x_T, which the caller holds, the frame just made and the one before
    alive.clear()
    last(watched(sample(plane().denoise(path), path, DDIM(), uniform_grid(path, 30), x_T)))
    assert sum(ref() is not None for ref in alive) <= 1


@every_sampler
def test_a_networks_output_may_stay_as_it_is(sampler):
    # Most samplers never work out x0 and eps, but sum the network's output and x_t at once: the result is the same.
    path, oracle = VPLinear(), plane().denoise(VPLinear())

    def raw(x, t):
        p = oracle(x, t)
        return Prediction.decoded(path, t, x, V.encode(p.x0, p.eps, p.coeffs), V)

    grid, x_T = uniform_grid(path, 6, end=0.05), normal(4, 2)
    early, late = (last(sample(d, path, sampler, grid, x_T, generator=seeded())) for d in (oracle, raw))
    assert gap(early, late) <= (1e-4 if isinstance(sampler, RK45) else 1e-10)  # RK45 may choose other inner steps


@pytest.mark.parametrize("sampler", [s for s in ALL if not isinstance(s, RK45)], ids=repr)
def test_a_step_never_looks_at_the_numbers(sampler):
    # On the meta device tensors have shapes and no numbers: a step that waited for one, as `if x.any()` does, would
    # fail here, and on a GPU it would stall. RK45 is scipy's, on the CPU.
    path, meta = VPLinear(), torch.zeros(3, 2, device="meta")

    def denoise(x, t):
        assert x.device.type == t.device.type == "meta"
        return Prediction.decoded(path, t, x, meta, V)

    x, state, moments = torch.zeros(3, 2, device="meta"), None, path.along(uniform_grid(path, 5, end=0.1))
    with torch.no_grad():
        for t, s in pairwise(moments):
            x, state = sampler.step(Watched(denoise, path), x, t, s, state, lambda: torch.zeros(3, 2, device="meta"))
    assert x.device.type == "meta" and x.shape == (3, 2)


@every_sampler
def test_memory_does_not_grow_with_the_steps(sampler):
    # Tensors of the batch's shape that are alive at the last frame: as many after 24 steps as after 8.
    def alive(steps):
        path, x_T = RectifiedFlow(), normal(37, 2)
        frames = sample(plane().denoise(path), path, sampler, uniform_grid(path, steps, start=0.9, end=0.1), x_T)
        for frame in frames:
            if frame.step == steps:
                gc.collect()
                return sum(isinstance(v, torch.Tensor) and v.shape == (37, 2) for v in gc.get_objects())

    assert alive(24) <= alive(8)


def test_no_graph_is_built_and_the_callers_mode_is_left_alone():
    path = RectifiedFlow()
    frames = sample(plane().denoise(path), path, DDIM(), uniform_grid(path, 3), normal(2, 2).requires_grad_())
    next(frames)
    frame = next(frames)
    assert torch.is_grad_enabled() and not frame.x.requires_grad


def test_early_stopping_costs_nothing_more():
    path = RectifiedFlow()
    denoise = Counted(plane().denoise(path))
    frames = sample(denoise, path, DDIM(), uniform_grid(path, 100), normal(2, 2))
    for frame in frames:
        if frame.t < 0.955:
            break
    assert denoise.calls == 5


def test_a_nan_from_the_network_is_an_error_not_a_picture():
    path = RectifiedFlow()

    def broken(x, t):
        p = plane().denoise(path)(x, t)
        return Prediction(path, t, x, p.x0 * math.nan, p.eps)

    with pytest.raises(NonFiniteError, match="sample"):
        last(sample(broken, path, DDIM(), uniform_grid(path, 3), normal(2, 2)))


def test_memory_starts_anew_with_every_run():
    path = RectifiedFlow()
    denoise = cached(plane().denoise(path), plane().given(1).denoise(path), 3.0, every=3)
    runs = [last(sample(denoise, path, DDIM(), uniform_grid(path, 7), normal(3, 2))) for _ in range(2)]
    assert torch.equal(*runs)


@every_sampler
def test_samplers_introduce_themselves(sampler):
    text = sampler._repr_markdown_()
    assert type(sampler).__name__ in repr(sampler) and "$" in text and str(sampler.order) in text


@pytest.mark.parametrize(
    "sampler", [DDIM(1.0), EulerAncestral(), DDPM(), EDMChurn(0.1), ConsistencyMultistep(0.5)], ids=repr
)
def test_rounding_below_zero_under_a_root_is_zero(sampler):
    # Two times one rounding apart, and two that are eight powers of ten apart: no variance may come out as -1e-17.
    path = EDM()
    for t, s in ((0.5 + 2e-16, 0.5), (80.0, 1e-7), (1.0, 1.0 - 2e-16)):
        x, _ = one_step(sampler, plane().denoise(path), path, normal(3, 2), t, s, noise=lambda: normal(3, 2, seed=1))
        assert torch.isfinite(x).all() and not x.is_complex()
