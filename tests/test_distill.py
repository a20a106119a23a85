"""Flow maps and consistency functions: boundaries, jumps, and the one loss, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

from lecture_lib.core import EDM, EPS, VELOCITY, X0, Denoiser, RectifiedFlow, Trigonometric, V, VPCosine, VPLinear, edm
from lecture_lib.distill import (
    ConsistencyFunction,
    FlowMapModel,
    Leg,
    consistency_scalings,
    exact_consistency,
    huber,
    latent_scalings,
    pseudo_huber,
    semigroup_loss,
    shared_noise,
    solved,
    squared,
    stay,
    towards,
)
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.oracles import GaussianMixture, flow_map
from lecture_lib.samplers import DDIM, DPMSolverPP2M, Heun


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Wild(nn.Module):
    """A network that says the same large numbers whatever it is asked, and remembers what it heard."""

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(7.0, dtype=torch.float64))

    def forward(self, x, t, cond=None):
        self.heard = t, cond
        return self.level * torch.ones_like(x) + x.roll(1, 1)


@pytest.fixture
def x():
    return torch.randn(5, 3, generator=seeded(), dtype=torch.float64)


@pytest.mark.parametrize(
    ("path", "parameterization", "end"),
    [
        (EDM(), consistency_scalings(0.5, 0.002), 0.002),
        (EDM(), edm(0.5), 0.0),
        (EDM(), consistency_scalings(0.5, 0.0), 0.0),
        (Trigonometric(), V, 0.0),
        (RectifiedFlow(), VELOCITY, 0.0),
        (VPLinear(), EPS, 0.0),
        (VPLinear(), latent_scalings(EPS), 0.0),
    ],
    ids=lambda value: getattr(value, "name", None) or str(value),
)
def test_the_boundary_holds_whatever_the_network_says(path, parameterization, end, x):
    """At the end itself the identity; a hair above it, next to it: f is continuous there."""
    f = ConsistencyFunction(Denoiser(Wild(), path, parameterization), end=end)
    assert torch.equal(f(x, torch.full((5,), end, dtype=torch.float64)), x)
    near = f(x, torch.full((5,), end + 1e-7, dtype=torch.float64))
    assert torch.allclose(near, x, atol=5e-2) and not torch.equal(near, x)
    far = f(x, torch.full((5,), 0.5 * path.t_max, dtype=torch.float64))
    assert (far - x).abs().max() > 0.1


def test_x0_prediction_is_the_one_that_has_no_boundary(x):
    f = ConsistencyFunction(Denoiser(Wild(), EDM(), X0))
    assert (f(x, torch.full((5,), 1e-5, dtype=torch.float64)) - x).abs().max() > 1


def test_published_scalings():
    c = EDM().coeffs(torch.tensor([0.002, 1.0, 80.0], dtype=torch.float64))
    skip, out = consistency_scalings(0.5, 0.002).scalings(c)
    assert skip[0] == 1 and out[0] == 0
    assert skip[1].item() == pytest.approx(0.25 / (0.998**2 + 0.25), rel=1e-12)
    assert out[1].item() == pytest.approx(0.5 * 0.998 / math.sqrt(1.25), rel=1e-12)
    off_skip, off_out = consistency_scalings(0.5, 0.0).scalings(EDM().coeffs(c.time[:1]))  # EDM's own miss it
    assert (off_skip.item(), off_out.item()) == pytest.approx((0.999984, 0.0020), abs=1e-6)
    k19 = VPLinear().coeffs(torch.tensor([0.019], dtype=torch.float64))
    skip, out = latent_scalings(EPS).scalings(k19)
    assert (skip.item(), out.item()) == pytest.approx((6.9e-6, 0.999997), rel=5e-3)


def test_boundaries_encode_what_they_decode(x):
    """``row`` and ``inverse`` are one system, and EDM's F is the boundary at end = 0."""
    t = torch.tensor([0.3, 1.0, 5.0, 20.0, 79.0], dtype=torch.float64)
    path, eps = EDM(), torch.randn(5, 3, generator=seeded(1), dtype=torch.float64)
    c = path.coeffs(t)
    for kind in (consistency_scalings(0.5, 0.002), consistency_scalings(0.5, 0.0), edm(0.5)):
        y, x_t = kind.encode(x, eps, c), path.mix(x, eps, t)
        x0, noise = kind.decode(y, x_t, c)
        assert torch.allclose(x0, x, atol=1e-11) and torch.allclose(noise, eps, atol=1e-11)
    assert torch.allclose(consistency_scalings(0.5, 0.0).encode(x, eps, c), edm(0.5).encode(x, eps, c), atol=1e-11)
    on_vp, t = VPLinear(), t / 80
    c = on_vp.coeffs(t)
    f = latent_scalings(EPS).decode(eps, on_vp.mix(x, eps, t), c)[0]
    skip, out = latent_scalings(EPS).scalings(c)
    assert torch.allclose(f, skip[:, None] * on_vp.mix(x, eps, t) + out[:, None] * x, atol=1e-10)


def test_the_exact_consistency_function_of_a_gaussian():
    """f(x, 80) = x s / sqrt(s^2 + 80^2): FORMULAS.md's number, and a mixture's against a second solver."""
    path, s = EDM(), 0.5
    world = GaussianMixture([1.0], [[0.0]], [s**2])
    x = torch.tensor([[80.0], [-40.0]], dtype=torch.float64)
    f = exact_consistency(world.denoise(path), path)(x, torch.full((2,), 80.0, dtype=torch.float64))
    assert torch.allclose(f / x, torch.full_like(x, 0.0062499), atol=1e-7)


def test_the_exact_consistency_function_of_a_mixture_against_another_solver():
    path = EDM()
    world = GaussianMixture([0.3, 0.5, 0.2], [[-1.2], [0.4], [1.5]], [0.02, 0.05, 0.01])
    x = torch.linspace(-150, 150, 9, dtype=torch.float64)[:, None]
    f = exact_consistency(world.denoise(path), path, 0.002)(x, torch.full((9,), 80.0, dtype=torch.float64))

    def slope(t, y):  # dx/dt = -t score(x), written out here, in its own coordinates
        means, variances = world.means[:, 0].numpy(), world.variances[:, 0].numpy() + t**2
        z = (y[:, None] - means) / np.sqrt(variances)
        p = world.weights.numpy() * np.exp(-0.5 * (z**2 - (z**2).min(1, keepdims=True))) / np.sqrt(variances)
        return t * (p * z / np.sqrt(variances)).sum(1) / p.sum(1)

    for i in range(9):
        end = solve_ivp(slope, (80.0, 0.002), x[i].numpy(), method="Radau", rtol=1e-12, atol=1e-13).y[:, -1]
        assert abs(f[i].item() - end[0]) < 1e-8


class Told(nn.Module):
    """Says where it was told to jump."""

    def forward(self, x, t, cond):
        return (cond["s"] / 1000)[:, None].expand_as(x) + 0 * t[:, None]


def test_a_flow_map_is_a_ddim_step_and_hears_its_target(x):
    path, null = RectifiedFlow(), {"s": torch.tensor(0.0, dtype=torch.float64)}
    model = FlowMapModel(Denoiser(Told(), path, VELOCITY, null=null))
    t, s = torch.full((5,), 0.8, dtype=torch.float64), torch.linspace(0, 0.8, 5, dtype=torch.float64)
    x_s = model(x, t, s)
    assert torch.equal(x_s[-1], x[-1])  # s = t: not moved by a single bit
    assert torch.allclose(x_s, x - (t - s)[:, None] * s[:, None], atol=1e-12)  # the average velocity is what it said
    assert torch.equal(towards(model, s)(x, t), x_s)
    assert torch.equal(model.given(None)(x, t, s), x_s)
    with pytest.raises(ShapeError, match="'s'"):
        FlowMapModel(Denoiser(Told(), path, VELOCITY, null=torch.tensor(3)))


def test_a_jump_of_no_length_moves_nothing_where_the_sum_would_round():
    """On the quarter circle the weight of x_t in the sum is cos^2 t + sin^2 t, which is 1 but for the last bit."""
    null = {"s": torch.tensor(0.0, dtype=torch.float64)}
    model = FlowMapModel(Denoiser(Told(), Trigonometric(), V, null=null))
    t = torch.linspace(0.01, 1.5, 500, dtype=torch.float64)
    x = torch.randn(500, 3, generator=seeded(4), dtype=torch.float64)
    assert (t.cos() ** 2 + t.sin() ** 2 != 1).any()
    assert torch.equal(model(x, t, t), x)


def test_solved_legs_are_the_samplers_own_steps_one_time_per_sample(x):
    world, path = GaussianMixture([1.0], [[0.5] * 3], [4.0]), VPLinear()
    teacher = world.denoise(path)
    t, u = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5], dtype=torch.float64), torch.full((5,), 0.2, dtype=torch.float64)
    leg = solved(teacher, path, DDIM(), x, t, u, steps=2)
    for i in range(5):
        middle = (t[i] + u[i]) / 2
        p = teacher(x[i : i + 1], t[i : i + 1])
        at = path.coeffs(middle[None])
        x_m = at.alpha * p.x0 + at.sigma * p.eps
        p, at = teacher(x_m, middle[None]), path.coeffs(u[i : i + 1])
        assert torch.allclose(leg.x_u[i], at.alpha * p.x0[0] + at.sigma * p.eps[0], atol=1e-12)
    with pytest.raises(RangeError, match="u <= t"):
        solved(teacher, path, Heun(), x, u, t)
    with pytest.raises(ShapeError, match="steps a batch together"):
        solved(teacher, path, DPMSolverPP2M(), x, t, u)


@pytest.mark.parametrize("sampler", [DDIM(), Heun()], ids=["DDIM", "Heun"])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_solved_legs_end_at_u_itself(steps, sampler):
    """``t - t k/k`` is not always 0: a step to 1e-17 beside it divides noise by noise, or leaves the path."""
    world, path = GaussianMixture([1.0], [[0.5] * 3], [0.25]), VPCosine()
    t = torch.linspace(0.1, 0.99, 200, dtype=torch.float64)
    x, asked = torch.randn(200, 3, generator=seeded(), dtype=torch.float64), []

    def teacher(x, t):
        asked.append(t)
        return world.denoise(path)(x, t)

    found = solved(teacher, path, sampler, x, t, torch.zeros_like(t), steps=steps).x_u
    assert torch.isfinite(found).all()
    assert torch.stack(asked).min() > 1e-3  # the data end is a place to arrive at, not to ask


def test_the_loss_is_zero_for_the_truth_and_stops_the_gradient_at_the_target(x):
    path, world = EDM(), GaussianMixture([1.0], [[0.0] * 3], [0.25])
    exact = exact_consistency(world.denoise(path), path)
    t, u = torch.full((5,), 3.0, dtype=torch.float64), torch.full((5,), 1.0, dtype=torch.float64)
    truth = Leg(x, t, flow_map(world.denoise(path), path, x, t, u), u)
    assert semigroup_loss(exact, exact, truth).max() < 1e-16
    a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    leg = shared_noise(path, x, torch.randn(5, 3, generator=seeded(2), dtype=torch.float64), t, u)
    loss = semigroup_loss(lambda x, t: a * x, lambda x, t: a * x, leg, weight=torch.full((5,), 2.0)).sum()
    (slope,) = torch.autograd.grad(loss, a)
    by_hand = (2.0 * 2 * (0.5 * leg.x_t - 0.5 * leg.x_u) * leg.x_t / 3).sum()
    assert slope.item() == pytest.approx(by_hand.item(), rel=1e-12)
    assert semigroup_loss(stay, stay, leg).sum() > 0


def test_distances_by_hand():
    a, b = torch.tensor([[3.0, 4.0, 0.0, 0.0]]), torch.zeros(1, 4)
    assert squared(a, b).item() == pytest.approx(25 / 4)
    assert pseudo_huber(0.0)(a, b).item() == pytest.approx(5.0)
    assert pseudo_huber(12.0)(a, b).item() == pytest.approx(1.0)  # sqrt(25 + 144) - 12: the norm of the whole sample
    c = 0.00054 * math.sqrt(4)
    assert pseudo_huber()(a, b).item() == pytest.approx(math.sqrt(25 + c**2) - c)
    assert huber(0.001)(a, b).item() == pytest.approx((3 + 4 - 2 * 0.001) / 4, abs=1e-6)
    twin = torch.zeros(1, 4, requires_grad=True)
    pseudo_huber(0.0)(twin, b).sum().backward()
    assert torch.isfinite(twin.grad).all()
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):  # where both are the same
        twin = torch.zeros(1, 4, dtype=dtype, requires_grad=True)
        pseudo_huber(0.0)(twin, torch.zeros(1, 4, dtype=dtype)).sum().backward()
        assert torch.equal(twin.grad, torch.zeros_like(twin))
