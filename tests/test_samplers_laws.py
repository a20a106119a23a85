"""Laws of the samplers: orders, marginals, ends, counting, purity. The mixture oracle is the model."""

from __future__ import annotations

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
    VPCosine,
    VPLinear,
    ddpm_linear,
    karras_grid,
    logsnr_grid,
    stable_diffusion,
    timestep_grid,
    uniform_grid,
)
from lecture_lib.errors import NonFiniteError, SingularError
from lecture_lib.guidance import cached, extrapolate
from lecture_lib.oracles import GaussianMixture, flow_map
from lecture_lib.samplers import (
    DDIM,
    DDPM,
    DPMSolverPP2M,
    Euler,
    EulerMaruyama,
    Heun,
    forward_diffusion,
    forward_variance,
    last,
    sample,
)


def no_diffusion(path, t):
    return torch.zeros_like(t)


def unit_diffusion(path, t):
    return torch.ones_like(t)


def sigma_diffusion(path, t):
    return path.sigma(t)


def twice_forward(path, t):
    return 2 * forward_diffusion(path, t)


DETERMINISTIC = [Euler(), Heun(), DDIM(), DPMSolverPP2M()]
STOCHASTIC = [DDIM(0.5), DDIM(1.0), DDPM(), DDPM(forward_variance), EulerMaruyama(sigma_diffusion)]
ALL = DETERMINISTIC + STOCHASTIC
every_sampler = pytest.mark.parametrize("sampler", ALL, ids=repr)


# Orders of convergence on a mixture, against the exact flow.


def global_slope(sampler, path, grid_of, n):
    t, s = grid_of(1)[[0, -1]]
    x_T = path.mix(plane().sample(12, generator=seeded(1)), normal(12, 2), t.expand(12))
    exact = flow_map(plane().denoise(path), path, x_T, t.expand(12), s.expand(12))
    errors = [gap(last(sample(plane().denoise(path), path, sampler, grid_of(k), x_T)), exact) for k in (n, 2 * n)]
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize(
    ("sampler", "path", "n"),
    [
        (Euler(), RectifiedFlow(), 200),
        (Euler(), EDM(), 200),
        (Heun(), RectifiedFlow(), 100),
        (Heun(), EDM(), 100),
        (DDIM(), VPLinear(), 160),
        (DDIM(), Trigonometric(), 160),
        (DPMSolverPP2M(), VPLinear(), 160),
        (DPMSolverPP2M(), RectifiedFlow(), 160),
        (EulerMaruyama(no_diffusion), Trigonometric(), 160),
    ],
    ids=repr,
)
def test_global_order(sampler, path, n):
    start, end = path.time_of(times(-3.0, 2.5)).tolist()
    slope = global_slope(sampler, path, lambda k: logsnr_grid(path, k, start=start, end=end), n)
    assert slope == pytest.approx(sampler.order, abs=0.1)


@pytest.mark.parametrize("ratio", [1 / 3, 1.0, 3.0])
def test_local_order_of_2m_at_unequal_steps(ratio):
    # Trap 13: on equal steps an inverted step ratio is invisible; the local error tells, it must fall like h^3.
    path, oracle, lam0 = RectifiedFlow(), plane().denoise(RectifiedFlow()), -0.3
    x_start = normal(8, 2, seed=3)

    def at(lam):
        t = path.time_of(times(lam)).expand(8)
        return flow_map(oracle, path, x_start, torch.full((8,), 0.9, dtype=F64), t), t

    errors = []
    for h in (0.08, 0.04):
        (x_prev, t_prev), (x, t), (exact, s) = at(lam0 - ratio * h), at(lam0), at(lam0 + h)
        state = (oracle(x_prev, t_prev).x0, path.lam(t) - path.lam(t_prev))
        got, _ = DPMSolverPP2M().step(oracle, path, x, t, s, state, None)
        errors.append(float((got - exact).abs().mean()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(3, abs=0.25)


def test_2m_by_hand():
    # One step written out with the formula of Lu et al. 2022b, Alg. 2, at r = 2.
    path, x = VPLinear(), normal(3, 2, seed=1)
    lam = times(-1.0, -0.4, -0.1)
    t_prev, t, s = path.time_of(lam)[:, None].expand(3, 3)
    x0_prev, x0 = normal(3, 2, seed=2), normal(3, 2, seed=3)
    answer = Prediction(path, t, x, x0, x0)
    got, (kept, _) = DPMSolverPP2M().step(
        lambda *_: answer, path, x, t, s, (x0_prev, path.lam(t) - path.lam(t_prev)), None
    )
    D = 1.25 * x0 - 0.25 * x0_prev  # 1 + 1/(2 r) with r = 0.6/0.3
    sigma_t, sigma_s, alpha_s = (float(v) for v in (path.sigma(t)[0], path.sigma(s)[0], path.alpha(s)[0]))
    assert gap(got, sigma_s / sigma_t * x - alpha_s * (math.exp(-0.3) - 1) * D) <= 1e-12
    assert gap(kept, x0) == 0


# Gaussian data: every step is x -> a x + b + c z, so that mean and variance propagate exactly, without sampling.

MEAN, VAR = 1.5, 0.25
GAUSSIAN = GaussianMixture([1.0], [[MEAN]], [VAR])


def affine(sampler, path, t, s, state):
    """(a, b, c) of one step, read off three inputs: (x, z) = (0, 0), (1, 0), (0, 1)."""
    x, z = times(0, 1, 0)[:, None], times(0, 0, 1)[:, None]
    out, state = sampler.step(GAUSSIAN.denoise(path), path, x, t.expand(3), s.expand(3), state, lambda: z)
    b, a_plus_b, b_plus_c = out.flatten().tolist()
    return a_plus_b - b, b, b_plus_c - b


def propagate(sampler, path, grid, mean, var):
    for t, s in pairwise(grid):
        a, b, c = affine(sampler, path, t, s, None)
        mean, var = a * mean + b, a * a * var + c * c
    return mean, var


def marginal(path, t):
    alpha, sigma = float(path.alpha(t[None])), float(path.sigma(t[None]))
    return alpha * MEAN, alpha**2 * VAR + sigma**2


MARGINAL_CASES = [
    *[(s, p) for s in (DDIM(0.0), DDIM(0.4), DDIM(1.0), DDPM(), Euler()) for p in ("rf", "vp", "edm")],
    (DDPM(forward_variance), "vp"),
    (DDPM(forward_variance), "edm"),
    (DDIM(1.0), "sd"),
    *[
        (EulerMaruyama(w), p)
        for w in (no_diffusion, sigma_diffusion, forward_diffusion, twice_forward)
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


def test_reference_values_on_the_ddpm_table():
    # FORMULAS U13, N(2, 0.5^2): mean and standard deviation after the chain.
    path = Discrete(ddpm_linear())
    data = GaussianMixture([1.0], [[2.0]], [0.25])

    def chain(sampler, n):
        grid = timestep_grid(path, range(999, -1, -1000 // n))
        mean, var = 0.0, 1.0
        for t, s in pairwise(grid):
            x, z = times(0, 1, 0)[:, None], times(0, 0, 1)[:, None]
            out, _ = sampler.step(data.denoise(path), path, x, t.expand(3), s.expand(3), None, lambda z=z: z)
            b, ab, bc = out.flatten().tolist()
            mean, var = (ab - b) * mean + b, (ab - b) ** 2 * var + (bc - b) ** 2
        return mean, math.sqrt(var)

    assert chain(DDIM(), 50) == pytest.approx((1.994, 0.470), abs=6e-3)
    assert chain(DDIM(), 1000) == pytest.approx((1.994, 0.499), abs=2e-3)
    assert chain(DDPM(), 1000) == pytest.approx((2.001, 0.496), abs=3e-3)


def test_eta_one_is_ddpm_with_the_posterior_variance():
    for path in (RectifiedFlow(), VPLinear(), EDM(), Trigonometric()):
        t, s = path.time_of(times(-1.0, 0.5))
        x, z = normal(5, 2, seed=1), normal(5, 2, seed=2)
        a, _ = DDIM(1.0).step(plane().denoise(path), path, x, t.expand(5), s.expand(5), None, lambda z=z: z)
        b, _ = DDPM().step(plane().denoise(path), path, x, t.expand(5), s.expand(5), None, lambda z=z: z)
        assert gap(a, b) <= 1e-12


def test_first_order_steps_coincide():
    # DDIM = first step of DPM-Solver++ = Euler on the EDM clock.
    path, x = EDM(), 5 * normal(6, 2)
    t, s = times(3.0).expand(6), times(1.2).expand(6)
    steps = [k.step(plane().denoise(path), path, x, t, s, None, None)[0] for k in (DDIM(), DPMSolverPP2M(), Euler())]
    assert gap(steps[0], steps[1]) <= 1e-12 and gap(steps[0], steps[2]) <= 1e-12


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
        got, _ = sampler.step(plane().denoise(path), path, x, t, s, None, lambda: z)
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


@pytest.mark.parametrize("sampler", STOCHASTIC, ids=repr)
@pytest.mark.parametrize("path", [VPLinear(), EDM(), RectifiedFlow()], ids=repr)
def test_no_noise_at_the_last_step(sampler, path):
    t = path.time_of(times(0.0)).expand(5)
    x, s = normal(5, 2), times(0.0).expand(5)
    quiet, loud = (
        sampler.step(plane().denoise(path), path, x, t, s, None, lambda k=k: torch.full((5, 2), k, dtype=F64))[0]
        for k in (0.0, 100.0)
    )
    assert gap(quiet, loud) == 0
    if not isinstance(sampler, EulerMaruyama):
        assert gap(quiet, plane().denoise(path)(x, t).x0) <= 1e-12


@pytest.mark.parametrize("sampler", [*DETERMINISTIC, DDPM(), DDIM(1.0)], ids=repr)
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
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pictures_in_any_precision(sampler, dtype):
    path, mixture = RectifiedFlow(), tiny_pictures()
    grid = uniform_grid(path, 3, start=0.99)
    x = last(sample(mixture.denoise(path), path, sampler, grid, normal(2, 1, 8, 8).to(dtype), generator=seeded()))
    assert x.shape == (2, 1, 8, 8) and x.dtype == dtype


@every_sampler
def test_frames_and_evaluations_are_counted(sampler):
    path = RectifiedFlow()
    denoise = Counted(plane().denoise(path))
    frames = list(sample(denoise, path, sampler, uniform_grid(path, 5), normal(3, 2), generator=seeded()))
    expected = 9 if isinstance(sampler, Heun) else 5
    assert [f.step for f in frames] == [0, 1, 2, 3, 4, 5]
    assert [f.t for f in frames] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])
    assert frames[-1].nfe == expected == denoise.calls
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
