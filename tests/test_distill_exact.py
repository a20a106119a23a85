"""The exact limits of consistency losses, and the losses themselves: each pins the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn
from worlds import F64, seeded

from lecture_lib.core import EDM, X0, Denoiser, RectifiedFlow, VPLinear
from lecture_lib.distill import Pair, RatioPairs, cd_loss, ct_loss, ect_loss, exact_consistency, ict_loss, rising_grid
from lecture_lib.distill.distances import pseudo_huber
from lecture_lib.distill.exact import (
    cd_limit,
    cd_slopes,
    ct_curve,
    ct_slopes,
    denoiser_slopes,
    flow_slopes,
    fresh_noise_slopes,
    two_way_slopes,
    variance,
)
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.oracles import GaussianMixture
from lecture_lib.samplers import DDIM, Euler, Heun
from lecture_lib.training import Ema

S, PATH = 0.5, EDM()


def short(slopes, grid, path=PATH) -> float:
    """Relative error at the last time."""
    return abs(float(slopes[-1] / flow_slopes(path, grid, S)[-1]) - 1)


# The numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "ct", "heun"), [(10, 0.2696, 0.2196), (160, 0.0177, 5.65e-4), (2560, 0.00111, 2.15e-6)])
def test_the_constants_of_formulas(n, ct, heun):
    """Part 5 of FORMULAS.md, to its printed digits."""
    grid = rising_grid(PATH, n)
    assert short(ct_slopes(PATH, grid, S), grid) == pytest.approx(ct, rel=5e-3)
    assert short(cd_slopes(PATH, grid, S, Euler()), grid) == pytest.approx(ct, rel=5e-3)
    assert short(cd_slopes(PATH, grid, S, Heun()), grid) == pytest.approx(heun, rel=2e-3)


def test_orders_1_1_2():
    fine, finer = (rising_grid(PATH, n) for n in (1280, 2560))
    for limit, order in ((ct_slopes, 1), (lambda *a: cd_slopes(*a, Euler()), 1), (lambda *a: cd_slopes(*a, Heun()), 2)):
        rate = np.log2(short(limit(PATH, fine, S), fine) / short(limit(PATH, finer, S), finer))
        assert rate == pytest.approx(order, abs=0.01)


def test_popular_mistakes_end_where_they_are_said_to():
    grid = rising_grid(PATH, 2560)
    assert flow_slopes(PATH, grid, S)[-1] == pytest.approx(0.0062499, abs=1e-7)
    assert 1 - short(two_way_slopes(PATH, grid, S), grid) == pytest.approx(0.638, abs=5e-4)
    assert fresh_noise_slopes(PATH, grid, S)[-1] < 1e-100
    assert float(denoiser_slopes(PATH, grid, S)[-1]) == pytest.approx(0.25 / (0.25 + 6400), rel=1e-9)


def test_euler_and_ct_are_one_recursion_on_any_path():
    """On EDM's clock Euler is DDIM; DDIM on every path takes CT's conditional mean of a Gaussian."""
    for path, sampler in ((EDM(), Euler()), (RectifiedFlow(), DDIM())):
        grid = rising_grid(path, 20)
        assert torch.allclose(ct_slopes(path, grid, S), cd_slopes(path, grid, S, sampler), rtol=1e-10)


# The losses themselves ------------------------------------------------------------------------------------------------


class Lines(nn.Module):
    """f(x, t_n) = a_n x: told the path time itself."""

    def __init__(self, grid, slopes):
        super().__init__()
        self.grid, self.a = grid, nn.Parameter(slopes.clone())

    def forward(self, x, t, cond=None):
        return self.a[(t[:, None] - self.grid).abs().argmin(1), None] * x


def student(grid, slopes) -> Denoiser:
    return Denoiser(Lines(grid, slopes), PATH, X0, network_time=lambda path, t: t)


class EveryPair:
    """All neighbours, each as often as there are quadrature points: no chance left."""

    def __init__(self, grid, each):
        self.t, self.u = grid[1:].repeat_interleave(each), grid[:-1].repeat_interleave(each)

    def sample(self, n, *, generator=None, device=None):
        return Pair(self.t, self.u)


def expectation(grid, nodes=40):
    """Gauss-Hermite points (x0, eps), their weights, and the laws that feed them to a loss, per neighbour pair."""
    node, weight = np.polynomial.hermite_e.hermegauss(nodes)
    a, b = np.meshgrid(node, node)
    w = torch.tensor(np.outer(weight, weight).ravel() / weight.sum() ** 2)
    x0, eps = (torch.tensor(v.ravel())[:, None].repeat(len(grid) - 1, 1) for v in (S * a, b))
    settings = {"pairs": EveryPair(grid, nodes**2), "coupling": lambda x0, generator: eps, "generator": seeded()}
    return x0, w.repeat(len(grid) - 1), settings


def slope_of_the_loss(grid, slopes, loss) -> torch.Tensor:
    """Gradient of the expected loss with respect to a_2 .. a_N, exactly."""
    model, (x0, w, settings) = student(grid, slopes), expectation(grid)
    (w * loss(model, x0, **settings)).sum().backward()
    return model.network.a.grad[1:]


GRID = rising_grid(PATH, 8)
TEACHER = GaussianMixture([1.0], [[0.0]], [S**2]).denoise(PATH)
LOSSES = {
    "CT": (ct_loss, ct_slopes(PATH, GRID, S)),
    "CD, Euler": (lambda m, x0, **k: cd_loss(m, TEACHER, x0, sampler=Euler(), **k), cd_slopes(PATH, GRID, S, Euler())),
    "CD, Heun": (lambda m, x0, **k: cd_loss(m, TEACHER, x0, **k), cd_slopes(PATH, GRID, S, Heun())),
    # Pseudo-Huber is symmetric and a Gaussian's mean is its median: the same limit as the square's, at any c.
    "iCT": (lambda m, x0, **k: ict_loss(m, x0, distance=pseudo_huber(30.0), **k), ct_slopes(PATH, GRID, S)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_stationary_exactly_at_its_limit(name):
    loss, limit = LOSSES[name]
    at_limit, off = slope_of_the_loss(GRID, limit, loss), slope_of_the_loss(GRID, 1.01 * limit, loss)
    assert at_limit.abs().max() < 1e-6 * off.abs().max()
    assert (slope_of_the_loss(GRID, flow_slopes(PATH, GRID, S), loss).abs() > 1e4 * at_limit.abs()).any()


@pytest.mark.parametrize("mu", [0.0, 0.9])
def test_descent_gets_there_with_or_without_a_moving_average(mu):
    """From the denoiser, the loss of CT walks to the recursion, not to the flow. The target only sets the pace."""
    model, (x0, w, settings) = student(GRID, denoiser_slopes(PATH, GRID, S)), expectation(GRID, 6)
    target = Ema(model, mu)
    for _ in range(12 if mu == 0 else 400):  # a Newton step is exact for a square: one sweep fixes one more time
        model.zero_grad()
        (w * ct_loss(model, x0, target=target.average, **settings)).sum().backward()
        with torch.no_grad():
            model.network.a -= model.network.a.grad / (2 * variance(PATH, GRID, S))
        target.update(model)
    assert torch.allclose(model.network.a[1:], ct_slopes(PATH, GRID, S)[1:], rtol=1e-9)


def test_without_stop_gradient_the_two_way_limit_is_stationary():
    a = two_way_slopes(PATH, GRID, S).requires_grad_()
    x0, w, settings = expectation(GRID)
    eps, (t, u) = settings["coupling"](x0, None), settings["pairs"].sample(0)
    n = torch.arange(len(GRID) - 1).repeat_interleave(len(x0) // (len(GRID) - 1))
    apart = a[n + 1, None] * PATH.mix(x0, eps, t) - a[n, None] * PATH.mix(x0, eps, u)
    (w * apart.square()[:, 0] / (t - u)).sum().backward()
    scale = 2 * variance(PATH, GRID, S) / torch.cat([GRID[:1], GRID.diff()])
    assert (a.grad / scale)[1:].abs().max() < 1e-12 and a.grad[0].abs() > 1e-3  # the first is held at 1, not free


def test_ect_pulls_on_its_boundary_like_a_denoiser_where_u_is_0():
    """In its first stage small t have u = 0, and there the loss is the plain distance to x0 over t."""
    grid, x0 = torch.tensor([0.05, 0.2], dtype=F64), torch.tensor([[0.3], [-0.7]], dtype=F64)
    model, eps = student(grid, torch.tensor([0.9, 0.4], dtype=F64)), torch.tensor([[1.0], [-2.0]], dtype=F64)

    class Both(RatioPairs):
        def sample(self, n, *, generator=None, device=None):
            return Pair(grid, self.lower(grid))

    loss = ect_loss(model, x0, pairs=Both(PATH, 1), coupling=lambda x0, generator: eps, generator=seeded())
    by_hand = [abs(0.9 * (0.3 + 0.05) - 0.3) / 0.05, abs(0.4 * (-0.7 - 0.4) + 0.7) / 0.2]
    assert loss.tolist() == pytest.approx(by_hand, rel=1e-9)


# A mixture ------------------------------------------------------------------------------------------------------------

WORLD = GaussianMixture([0.3, 0.5, 0.2], [[-1.2], [0.4], [1.5]], [0.02, 0.05, 0.01])
Z = torch.linspace(-2, 2, 41, dtype=F64)


def frame(world, path, t):
    """Mean and standard deviation of x_t."""
    mean = float(world.weights @ world.means[:, 0])
    var = float(world.weights @ (world.variances[:, 0] + (world.means[:, 0] - mean) ** 2))
    alpha, sigma = (float(v) for v in (path.alpha(t), path.sigma(t)))
    return alpha * mean, (alpha**2 * var + sigma**2) ** 0.5


@pytest.mark.parametrize("path", [EDM(), VPLinear()], ids=["edm", "vp"])
def test_the_curve_of_a_gaussian_is_its_line(path):
    world, grid = GaussianMixture([1.0], [[0.3]], [S**2]), rising_grid(path, 40)
    _, std = frame(world, path, grid[-1])
    first = frame(world, path, grid[0])[0]
    expected = first + ct_slopes(path, grid, S)[-1] * Z * std
    assert torch.allclose(ct_curve(world, path, grid, Z), expected, atol=1e-9)


def test_one_step_of_the_curve_is_the_denoisers_step():
    """N = 2: E[x_1 | x_2 = x] is Euler's step with the exact denoiser."""
    grid = torch.tensor([0.002, 1.0], dtype=F64)
    mean, std = frame(WORLD, PATH, grid[-1])
    x = (mean + std * Z)[:, None]
    euler = cd_limit(WORLD.denoise(PATH), PATH, grid, Euler())(x, torch.ones(41, dtype=F64))[:, 0]
    assert torch.allclose(ct_curve(WORLD, PATH, grid, Z), euler, atol=1e-6)


def test_two_steps_of_the_curve_by_scipys_quadrature():
    """N = 3 at one place: the posterior of x0 by Bayes' rule on a line, the inner step by the denoiser."""
    grid = torch.tensor([0.002, 0.3, 1.0], dtype=F64)
    mean, std = frame(WORLD, PATH, grid[-1])
    x = mean + 0.37 * std
    inner = cd_limit(WORLD.denoise(PATH), PATH, grid[:2], Euler())

    def joint(x0):
        return float(WORLD.log_prob(torch.tensor([[x0]], dtype=F64)).exp()) * stats.norm(x0, 1.0).pdf(x)

    def moved(x0):
        x_u = torch.tensor([[0.3 * x + 0.7 * x0]], dtype=F64)
        return joint(x0) * float(inner(x_u, torch.full((1,), 0.3, dtype=F64)))

    top, mass = (
        integrate.quad(h, -2.5, 2.5, points=[-1.2, 0.4, 1.5], epsabs=1e-9, limit=200)[0] for h in (moved, joint)
    )
    got = ct_curve(WORLD, PATH, grid, torch.tensor([0.37], dtype=F64), nodes=24)
    assert float(got) == pytest.approx(top / mass, abs=1e-6)


def test_cd_is_its_solver_and_ct_stays_behind_it_between_modes():
    """Orders again, on a mixture: Heun's 2; and the blur of CT, which no Gaussian shows."""
    mean, std = frame(WORLD, PATH, torch.tensor(80.0, dtype=F64))
    x, t = (mean + std * Z)[:, None], torch.full((41,), 80.0, dtype=F64)
    exact = exact_consistency(WORLD.denoise(PATH), PATH, 0.002, tolerance=1e-9)(x, t)[:, 0]
    error = {}
    for n in (80, 160):
        grid = rising_grid(PATH, n)
        limits = {s: cd_limit(WORLD.denoise(PATH), PATH, grid, s)(x, t)[:, 0] for s in (Euler(), Heun())}
        limits["ct"] = ct_curve(WORLD, PATH, grid, Z)
        error[n] = {name: float((value - exact).abs().median()) for name, value in limits.items()}
        assert (limits["ct"] - exact).abs().max() > 2 * (limits[Euler()] - exact).abs().max()
    assert np.log2(error[80][Heun()] / error[160][Heun()]) == pytest.approx(2, abs=0.2)
    assert np.log2(error[80][Euler()] / error[160][Euler()]) == pytest.approx(1, abs=0.2)


def test_the_curve_refuses_what_it_cannot_draw():
    plane = GaussianMixture([1.0], [[0.0, 0.0]], [1.0])
    with pytest.raises(ShapeError, match="lattice is a line"):
        ct_curve(plane, PATH, GRID, Z)
    with pytest.raises(RangeError, match="standard deviations"):
        ct_curve(WORLD, PATH, GRID, 9 * torch.ones(1, dtype=F64))
