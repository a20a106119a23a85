"""Orders of convergence against the exact flow of a mixture: global, with the usual start, and step by step."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from worlds import F64, gap, normal, plane, seeded, times

from lecture_lib.benchmarks.samplers.orders import CORRECTED, MULTISTEP, SINGLESTEP, Problem
from lecture_lib.core import EDM, RectifiedFlow, Trigonometric, VPLinear, logsnr_grid, uniform_grid
from lecture_lib.samplers import (
    B1,
    B2,
    DATA,
    DDIM,
    FPNDM,
    LMS,
    NOISE,
    PLMS,
    RK45,
    DPMSolver1,
    DPMSolver2,
    DPMSolverFast,
    DPMSolverPP2M,
    DPMSolverPP3M,
    DPMSolverV3,
    Euler,
    EulerAncestral,
    EulerMaruyama,
    ExponentialAdams,
    Heun,
    Statistics,
    UniPC,
    last,
    measure_statistics,
    no_diffusion,
    sample,
)
from lecture_lib.samplers.base import Watched
from lecture_lib.samplers.weights import adams_weights, matching, phi, phis

PATH = VPLinear()
PROBLEM = Problem.of(plane(), PATH, 12, lam=(-3.0, 2.5), seed=1)
START, END, X_T = PROBLEM.start, PROBLEM.end, PROBLEM.x_T
exact, run, global_slope = PROBLEM.exact, PROBLEM.run, PROBLEM.order


def constant_statistics(l: float, s: float, b: float) -> Statistics:
    ones = torch.ones(2, 2, dtype=F64)
    return Statistics(times(-4.0, 4.0), l * ones, s * ones, b * ones)


SINGLE = [
    *SINGLESTEP,
    (EulerAncestral(0.0), 160, 1),
    (EulerMaruyama(no_diffusion), 160, 1),
    (DPMSolver2(0.3), 160, 2),
]


@pytest.mark.parametrize(("sampler", "n", "order"), SINGLE, ids=repr)
def test_singlestep_methods(sampler, n, order):
    assert global_slope(sampler, n) == pytest.approx(order, abs=0.1) and sampler.order == order


MULTI = [
    *MULTISTEP,
    *[(DPMSolverV3(constant_statistics(1.0, 0.0, 0.0), k), 160 * k, k) for k in (1, 2)],
    *[(DPMSolverV3(constant_statistics(0.6, 0.2, 0.1), k), 320, k) for k in (1, 2, 3)],
    (DPMSolverV3(constant_statistics(0.3, -0.4, 0.2), 3), 320, 3),
]


@pytest.mark.parametrize(("sampler", "n", "order"), MULTI, ids=repr)
def test_multistep_methods_from_an_exact_start(sampler, n, order):
    slope = global_slope(sampler, n, exact_steps=order - 1)
    assert slope == pytest.approx(order, abs=0.1) and sampler.order == order


@pytest.mark.parametrize(("sampler", "n", "order"), CORRECTED, ids=repr)
def test_unipc_corrects_to_one_order_more_at_no_evaluation_more(sampler, n, order):
    slope = global_slope(sampler, n, exact_steps=order - 2, correct_last=True)
    assert slope == pytest.approx(order, abs=0.1) and sampler.order == order - 1


# What users get: the run starts from x_T alone.
USUAL = [
    (DPMSolverPP3M(), 320, 3.0, 0.1),  # its first step is 2S, which keeps the third order
    (UniPC(2), 160, 3.0, 0.1),
    (ExponentialAdams(3), 640, 2.0, 0.25),  # one step of order 1 costs the whole run its third order ...
    (ExponentialAdams(4), 320, 2.0, 0.1),
    (ExponentialAdams(4, NOISE), 320, 2.0, 0.1),
    (LMS(4), 640, 2.2, 0.3),
    (UniPC(3, B1, NOISE), 320, 3.45, 0.2),  # ... or part of the fourth
]


@pytest.mark.parametrize(("sampler", "n", "order", "within"), USUAL, ids=repr)
def test_order_with_the_usual_start(sampler, n, order, within):
    assert global_slope(sampler, n) == pytest.approx(order, abs=within)


@pytest.mark.parametrize("sampler", [PLMS(), FPNDM()], ids=repr)
def test_pndm_is_second_order_in_spite_of_its_coefficients(sampler):
    for exact_steps in (0, 3):  # an exact start changes nothing
        assert global_slope(sampler, 160, uniform_grid, exact_steps=exact_steps) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    ("sampler", "path"),
    [
        (Euler(), RectifiedFlow()),
        (Euler(), EDM()),
        (Heun(), RectifiedFlow()),
        (Heun(), EDM()),
        (DDIM(), Trigonometric()),
    ],
    ids=repr,
)
def test_orders_hold_on_other_clocks(sampler, path):
    start, end = path.time_of(times(-3.0, 2.5)).tolist()
    scale = (path.at(start).alpha ** 2 + path.at(start).sigma ** 2) ** 0.5
    x_T, errors = scale * X_T, []  # the same trajectories: X_T lies on a path of radius 1, at the same log-SNR
    target = (path.at(end).alpha ** 2 + path.at(end).sigma ** 2) ** 0.5 * exact(END)
    for n in (160, 320):
        grid = logsnr_grid(path, n, start=start, end=end)
        errors.append(gap(last(sample(plane().denoise(path), path, sampler, grid, x_T)), target))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(sampler.order, abs=0.1)


# Trap 13: on equal steps an inverted step ratio is invisible. The error of one step after exact ones must fall like
# h^(p + 1) however the steps before it were spaced.
LOCAL = [
    LMS(2),
    LMS(3),
    LMS(4),
    DPMSolverPP2M(),
    DPMSolverPP3M(),
    ExponentialAdams(2, NOISE),
    ExponentialAdams(3),
    ExponentialAdams(4),
    UniPC(2),
    UniPC(3),
    UniPC(3, B1, NOISE),
    DPMSolverV3(constant_statistics(0.6, 0.2, 0.1), 3),
]


@pytest.mark.parametrize("ratio", [1 / 3, 1.0, 3.0])
@pytest.mark.parametrize("sampler", LOCAL, ids=repr)
def test_local_order_at_unequal_steps(sampler, ratio):
    errors = []
    for h in (0.015, 0.0075):
        lam = [-0.3 - k * ratio * h for k in range(sampler.order - 1, 0, -1)] + [-0.3, -0.3 + h]
        grid = PATH.time_of(times(*lam))
        moments, state, denoise = PATH.along(grid), None, Watched(plane().denoise(PATH), PATH)
        for t, s in pairwise(moments):
            if isinstance(sampler, UniPC) and state is not None:
                state = state._replace(t=PATH.at(0.0))
            x, state = sampler.step(denoise, exact(t.time), t, s, state, None)
        errors.append(float((x - exact(moments[-1].time)).abs().mean()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(sampler.order + 1, abs=0.25)


def test_measured_statistics_leave_less_to_approximate():
    # DPM-Solver-v3's claim, where it can be checked: at few steps its order 1 and 2 beat both fixed choices of l.
    world = plane()
    lam = torch.linspace(-3.2, 2.7, 60, dtype=F64)
    data = world.sample(4000, generator=seeded(2))
    statistics = measure_statistics(world.denoise(PATH), PATH, data, lam, generator=seeded(3))
    grid = logsnr_grid(PATH, 20, start=START, end=END)

    def error(sampler):
        return float((run(sampler, grid) - exact(END)).abs().mean())

    for order in (1, 2):
        rivals = [error(ExponentialAdams(order, form)) for form in (DATA, NOISE)]
        assert error(DPMSolverV3(statistics, order)) < min(rivals)


def test_statistics_of_a_gaussian_are_closed_forms():
    # One Gaussian N(0, v): eps = sigma x/(alpha^2 v + sigma^2) is all linear, so l is that slope, and nothing is left.
    from lecture_lib.oracles import GaussianMixture

    v, lam = 0.3, times(-1.5, -0.5, 0.5, 1.5)
    world = GaussianMixture([1.0], [[0.0, 0.0]], [v])
    data = world.sample(500, generator=seeded(2))
    found = measure_statistics(world.denoise(PATH), PATH, data, lam, generator=seeded(3))
    c = PATH.coeffs(PATH.time_of(lam))
    expected = c.sigma**2 / (c.alpha**2 * v + c.sigma**2)
    assert gap(found.l, expected[:, None].expand(4, 2)) <= 1e-12
    # With l exact at every level f vanishes, and one step of any length is exact.
    fine = torch.linspace(-3.0, 2.5, 2001, dtype=F64)
    c = PATH.coeffs(PATH.time_of(fine))
    l = (c.sigma**2 / (c.alpha**2 * v + c.sigma**2))[:, None].expand(-1, 2)
    sampler = DPMSolverV3(Statistics(fine, l, torch.zeros_like(l), torch.zeros_like(l)), 1)
    x = normal(5, 2)
    grid = PATH.time_of(times(-3.0, 0.0, 2.5))
    got = last(sample(world.denoise(PATH), PATH, sampler, grid, x))
    first, final = (PATH.at(float(t)) for t in grid[[0, -1]])
    scale = ((final.alpha**2 * v + final.sigma**2) / (first.alpha**2 * v + first.sigma**2)) ** 0.5
    assert gap(got, scale * x) <= 1e-5  # the table is linear in between: 2000 cells of 0.0028


def test_identities_between_methods():
    # Methods that are one and the same under two names, from the same x_T, to rounding.
    grid = logsnr_grid(PATH, 12, start=START, end=END)

    def same(a, b, tolerance=1e-12):
        assert gap(run(a, grid), run(b, grid)) <= tolerance

    same(DDIM(), DPMSolver1())
    same(DDIM(), ExponentialAdams(1, NOISE))
    same(DDIM(), EulerAncestral(0.0))
    same(ExponentialAdams(3), DPMSolverV3(constant_statistics(1.0, 0.0, 0.0), 3), 1e-9)
    same(ExponentialAdams(3, NOISE), DPMSolverV3(constant_statistics(0.0, -1.0, 0.0), 3), 1e-9)
    # A system of three or more coefficients cancels B: then UniPC's two choices are one method.
    by_hand = [UniPC(3, B).coefficients([-1.0, -2.5, 1.0], -0.4) for B in (B1, B2)]
    scaled = [[B(-0.4) * rho for rho in row] for B, row in zip((B1, B2), by_hand, strict=True)]
    assert scaled[0] == pytest.approx(scaled[1], rel=1e-12)
    # The corrected 3M is exponential Adams of order 3, from the same two points on.
    assert gap(run(DPMSolverPP3M(), grid, exact_steps=2), run(ExponentialAdams(3), grid, exact_steps=2)) <= 1e-12


def test_the_adaptive_reference_is_as_good_as_its_tolerance():
    grid = logsnr_grid(PATH, 3, start=START, end=END)
    errors = [gap(run(RK45(tolerance), grid), exact(END)) for tolerance in (1e-3, 1e-6, 1e-9)]
    assert errors[0] <= 1e-2 and errors[1] <= 1e-5 and errors[2] <= 1e-8
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


@pytest.mark.parametrize("nfe", range(1, 14))
def test_the_fast_budget_is_spent_to_the_last_evaluation(nfe):
    sampler = DPMSolverFast(nfe)
    grid = logsnr_grid(PATH, len(sampler.orders), start=START, end=END)
    *_, final = sample(plane().denoise(PATH), PATH, sampler, grid, X_T)
    assert final.nfe == nfe == sum(sampler.orders)


def test_the_fast_budget_converges_like_order_three():
    def error(nfe):
        sampler = DPMSolverFast(nfe)
        return gap(run(sampler, logsnr_grid(PATH, len(sampler.orders), start=START, end=END)), exact(END))

    # The last two of its steps are of order 2 and 1: their share falls like h^2, and sets in late.
    assert math.log2(error(120) / error(240)) > 1.8


@pytest.mark.parametrize("tau", [-30.0, -4.0, -1.0, -0.3, 0.0, 1e-9, 0.7, 1.0, 6.0])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_phi_functions_are_their_integrals(k, tau):
    def integrand(u):
        return math.exp((1 - u) * tau) * u ** (k - 1) / math.factorial(k - 1)

    exact, _ = quad(integrand, 0, 1, epsabs=0, epsrel=1e-13)
    assert phi(k, tau) == pytest.approx(exact, rel=1e-11)
    assert phis(6, tau)[k - 1] == pytest.approx(exact, rel=1e-11)


@pytest.mark.parametrize("tau", [-4.0, 0.0, 2.5])
def test_adams_weights_integrate_lagrange_polynomials(tau):
    nodes = [0.0, -0.4, -1.7, -2.0]
    for j, weight in enumerate(adams_weights(nodes, tau)):
        others = [node for i, node in enumerate(nodes) if i != j]

        def basis(u, j=j, others=others):
            return math.exp((1 - u) * tau) * math.prod((u - v) / (nodes[j] - v) for v in others)

        assert weight == pytest.approx(quad(basis, 0, 1)[0], rel=1e-9)
    assert adams_weights([0.0, -1.0, -2.0, -3.0], 0.0) == pytest.approx([55 / 24, -59 / 24, 37 / 24, -9 / 24])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_moments_are_matched_as_by_a_matrix_solver(n):
    nodes = [0.0, -0.4, -1.7, 1.0, -2.6][:n]
    moments = [1.0, -0.3, 0.8, 0.1, 2.0][:n]
    given = list(moments)
    exact = np.linalg.solve(np.vander(nodes, n, increasing=True).T, moments)
    assert matching(nodes, moments) == pytest.approx(exact, rel=1e-12, abs=1e-13)
    assert moments == given
