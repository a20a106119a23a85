"""The table of special cases: every row solved, one of each kind trained; and the schedule that is learned."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from worlds import F64, normal, seeded, times

from lecture_lib.core import (
    EPS,
    VELOCITY,
    Denoiser,
    FunctionPath,
    RectifiedFlow,
    SubVP,
    Trigonometric,
    VPLinear,
    uniform_grid,
)
from lecture_lib.data import Batches
from lecture_lib.families import fit
from lecture_lib.families.learned_interpolant import LearnedInterpolant, LearnedLine, path_energy
from lecture_lib.families.special_cases import one_sided_cases, special_cases, two_sided_cases
from lecture_lib.metrics import two_sample_test
from lecture_lib.nets import TimeMLP
from lecture_lib.oracles import GaussianMixture

DATA = GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [1.0, -0.5]], [0.1, 0.2])
OTHER = GaussianMixture([1.0], [[2.0, 1.0]], torch.tensor([[[0.5, 0.2], [0.2, 0.3]]], dtype=F64))
GAUSSIAN = GaussianMixture([1.0], [[-1.0, 0.0]], torch.tensor([[[0.3, -0.1], [-0.1, 0.2]]], dtype=F64))


@pytest.mark.parametrize("case", special_cases(), ids=lambda case: case.name)
def test_every_row_solved_draws_the_data(case):
    data = GAUSSIAN if case.sigma is not None else DATA
    got = case.solve(data, OTHER, 500, steps=100, generator=seeded(1))
    assert two_sample_test(got, data.sample(500, generator=seeded(2)), generator=seeded(3)).same


@pytest.mark.parametrize("name", ["DDPM / VP", "flow matching", "trigonometric (GVP)"])
def test_one_row_of_each_kind_trained_draws_the_data(name):
    case = next(case for case in one_sided_cases() if case.name == name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = case.model()
    data = Batches((DATA.sample(20_000, generator=seeded(1)).float(),), 256)
    for _ in fit(model, data, steps=700, generator=seeded(2), schedule=lambda k: 1 - k / 700):
        pass
    got = model.sample(400, steps=50, generator=seeded(3))
    assert two_sample_test(got, DATA.sample(400, generator=seeded(4)).float(), generator=seeded(5)).same


def test_coefficients_of_the_table():
    t = torch.linspace(0.1, 0.9, 5, dtype=F64)
    for case in special_cases():
        gamma = case.coefficients(t * case.path.t_max)[2]
        assert case.two_sided == bool((gamma > 0).all()) and case.source and case._repr_markdown_()
        assert case in (two_sided_cases() if case.two_sided else one_sided_cases())
    by_name = {case.name: case for case in special_cases()}
    vp = by_name["DDPM / VP"].coefficients(t)
    assert torch.allclose(vp[0] ** 2 + vp[1] ** 2, torch.ones(5, dtype=F64))
    below = by_name["sub-VP"].coefficients(t)  # the same mean, and sigma squared of VP's
    assert torch.allclose(below[0], vp[0]) and torch.allclose(below[1], vp[1] ** 2)
    assert torch.allclose(by_name["EDM / VE"].coefficients(t)[1], t)


def test_sub_vp_has_the_variance_of_its_sde():
    """d Var/dt = -beta Var + beta (1 - e^{-2 B}), B the integral of beta (Song et al., equation 13), by Runge-Kutta."""
    t = torch.linspace(0, 1, 2001, dtype=F64)
    beta = lambda t: 0.1 + t * 19.9  # noqa: E731
    slope = lambda t, v: beta(t) * (1 - v - torch.exp(-2 * (0.1 * t + 19.9 * t**2 / 2)))  # noqa: E731
    v, h = t.new_zeros(()), t[1]
    for u in t[:-1]:
        k1 = slope(u, v)
        k2 = slope(u + h / 2, v + h / 2 * k1)
        k3 = slope(u + h / 2, v + h / 2 * k2)
        v = v + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(u + h, v + h * k3))
        if abs(u - 0.5) < 1e-9:
            assert SubVP().sigma(times(0.5) + h).item() ** 2 == pytest.approx(v.item(), rel=1e-6)
    assert SubVP().sigma(times(1.0)).item() ** 2 == pytest.approx(v.item(), rel=1e-6)


# The learned schedule


def gaussian_energy(path, mean: float, std: float, n: int = 2001):
    """``int E|v|^2 dt`` for N(mean, std^2), exactly: v = m' + (r'/r)(x - m), r^2 = alpha^2 std^2 + sigma^2."""
    t = torch.linspace(1e-4, 1, n, dtype=F64) * path.t_max
    (alpha, sigma), (dalpha, dsigma) = (path.alpha(t), path.sigma(t)), path.slopes(t)
    r = (alpha**2 * std**2 + sigma**2).sqrt()
    slope = (alpha * dalpha * std**2 + sigma * dsigma) / r
    return path.t_max * torch.trapezoid((dalpha * mean) ** 2 + slope**2, t)  # on a clock from 0 to 1


def test_no_schedule_is_below_optimal_transport_and_a_learned_one_comes_near():
    """N(1.5, 0.4^2) to N(0, 1): W_2^2 = 1.5^2 + 0.6^2; its schedule is alpha = 1 - t, sigma^2 = t^2 + 2 s t (1 - t)."""
    mean, std, least = 1.5, 0.4, 1.5**2 + 0.6**2
    path = LearnedLine()
    straight = gaussian_energy(path, mean, std).item()
    optimizer = torch.optim.Adam(path.parameters(), 0.05)
    for _ in range(250):
        optimizer.zero_grad()
        gaussian_energy(path, mean, std, 301).backward()
        optimizer.step()
    with torch.no_grad():
        learned = gaussian_energy(path, mean, std).item()
    assert straight == pytest.approx(gaussian_energy(RectifiedFlow(), mean, std).item(), rel=1e-9)
    assert least - 1e-3 < learned < least + 0.25 * (straight - least)
    best = FunctionPath(lambda t: 1 - t, lambda t: (t**2 + 2 * std * t * (1 - t)).clamp(min=1e-30).sqrt() * (t > 0))
    assert gaussian_energy(best, mean, std).item() == pytest.approx(least, rel=2e-3)
    for other in (RectifiedFlow(), Trigonometric(), VPLinear()):
        assert gaussian_energy(other, mean, std) > learned


def test_the_game_has_the_energy_as_its_value():
    """At the mean velocity its value is E|v|^2, and any other velocity gives less."""
    world, path, n = GaussianMixture([1.0], [[1.5]], [0.16]), Trigonometric(), 40_000
    x0, eps, t = (
        world.sample(n, generator=seeded(1)),
        normal(n, 1, seed=2),
        torch.rand(n, generator=seeded(3), dtype=F64) * path.t_max,
    )
    v = world.denoise(path)(path.mix(x0, eps, t), t).velocity
    value = lambda k: path.t_max**2 * path_energy(path, k * v, x0, eps, t).mean().item()  # noqa: E731
    assert value(1.0) == pytest.approx(gaussian_energy(path, 1.5, 0.4).item(), rel=0.02)
    assert value(1.0) > max(value(0.95), value(1.05))


def test_learning_lowers_the_energy_on_a_known_world():
    """On N(1.5, 0.4^2), where the exact energy of any schedule is known: the excess above W_2^2 falls by half."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LearnedInterpolant(Denoiser(TimeMLP(1, width=32, depth=1), LearnedLine(), VELOCITY), (1,))
    before = gaussian_energy(model.denoiser.path, 1.5, 0.4).item()
    x = (1.5 + 0.4 * normal(5000, 1)).float()
    for _ in fit(model, Batches((x,), 256), steps=700, generator=seeded(1)):
        pass
    with torch.no_grad():
        after = gaussian_energy(model.denoiser.path, 1.5, 0.4).item()
    least = 1.5**2 + 0.6**2
    assert least - 1e-3 < after < least + 0.5 * (before - least)


def test_a_learned_line_is_a_path_whatever_its_logits():
    for seed in range(3):
        path = LearnedLine()
        with torch.no_grad():
            path.alpha_logits.copy_(3 * normal(12, seed=seed))
            path.sigma_logits.copy_(3 * normal(12, seed=seed + 10))
        t = torch.linspace(0, 1, 200, dtype=F64)
        alpha, sigma = path.alpha(t).detach(), path.sigma(t).detach()
        assert alpha[-1] == 0 and sigma[0] == 0
        assert alpha[0].item() == pytest.approx(1) and sigma[-1].item() == pytest.approx(1)
        assert (alpha.diff() < 0).all() and (sigma.diff() > 0).all()
    assert isinstance(path, nn.Module) and EPS and uniform_grid(path, 3)[0] == 1.0
