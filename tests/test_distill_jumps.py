"""Jumps between any two times, against flow maps that are known exactly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from worlds import F64, normal, seeded, times

from lecture_lib.core import EDM, VELOCITY, Denoiser, RectifiedFlow, Trigonometric, V, VPLinear, edm, uniform_grid
from lecture_lib.distill import (
    FlowMapModel,
    ctm_loss,
    diagonal_loss,
    dyadic_jumps,
    jump_along,
    mean_flow_loss,
    noise_velocity,
    normalised,
    shortcut_loss,
    squared,
    stopped,
)
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.oracles import GaussianMixture, flow_map
from lecture_lib.samplers import ConsistencyMultistep, consistency, last, sample

RF = RectifiedFlow()
MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.3], [0.8, -0.4]], [0.1, 0.2])
GAUSSIAN = GaussianMixture([1.0], [[0.0, 0.0]], [0.25])


class ExactVelocity(nn.Module):
    """The average velocity of a world's flow from t to s by many small steps of RK4, plus a wrong part of our choice.

    Written in torch operations throughout, so that jvp goes through it; ``wrong`` is where gradients are read.
    """

    def __init__(self, world, steps=24):
        super().__init__()
        self.world, self.steps = world, steps
        self.wrong = nn.Parameter(torch.zeros(3, dtype=F64))

    def forward(self, x, t, cond):
        t, s = t / 1000, cond["s"] / 1000

        def v(x, t):
            p = self.world.denoise(RF)(x, t.clamp(min=0))
            return p.eps - p.x0

        y, h = x, (s - t) / self.steps
        for k in range(self.steps):
            a, dt = t + k * h, h[:, None]
            k1 = v(y, a)
            k2 = v(y + dt / 2 * k1, a + h / 2)
            k3 = v(y + dt / 2 * k2, a + h / 2)
            k4 = v(y + dt * k3, a + h)
            y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        length = torch.where(t > s, t - s, torch.ones_like(t))[:, None]
        u = torch.where((t > s)[:, None], (x - y) / length, v(x, t))
        return u + self.wrong[0] + self.wrong[1] * t[:, None] * x + self.wrong[2] * s[:, None]


def exact(world, steps=24):
    null = {"s": torch.tensor(0.0, dtype=F64)}
    return FlowMapModel(Denoiser(ExactVelocity(world, steps), RF, VELOCITY, null=null))


X, T, U, S = normal(4, 2), times(0.95, 0.8, 0.6, 0.3), times(0.7, 0.5, 0.3, 0.2), times(0.4, 0.2, 0.0, 0.1)


def test_the_exact_network_is_exact():
    there = flow_map(MIXTURE.denoise(RF), RF, X, T, S)
    assert torch.allclose(exact(MIXTURE)(X, T, S), there, atol=1e-7)
    at = RF.coeffs(T), RF.coeffs(S)
    std = [(0.25 * c.alpha**2 + c.sigma**2).sqrt()[:, None] for c in at]
    assert torch.allclose(exact(GAUSSIAN)(X, T, S), X * std[1] / std[0], atol=1e-7)


@pytest.mark.parametrize("world", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
def test_the_exact_map_loses_nothing(world):
    """CTM, shortcut and MeanFlow losses are zero for it, and not for a map that is a little off."""
    model = exact(world)
    v = model.predict(X, T, T).velocity.detach()
    losses = {
        "ctm": lambda: ctm_loss(model, world.denoise(RF), X, T, U, S, steps=64),
        "shortcut": lambda: shortcut_loss(model, X, T, S),
        "mean flow": lambda: mean_flow_loss(model, X, T, S, v, distance=squared),
    }
    bounds = {"ctm": 1e-8, "shortcut": 1e-11, "mean flow": 1e-10}  # squares: the teacher's Heun, RK4, RK4's slope
    for name, loss in losses.items():
        with torch.no_grad():
            assert loss().max() < bounds[name], name
        (pull,) = torch.autograd.grad(loss().sum(), model.denoiser.network.wrong)
        assert pull.abs().max() < 10 * bounds[name] ** 0.5, name
    with torch.no_grad():
        model.denoiser.network.wrong += times(0.1, -0.2, 0.3)
        for name, loss in losses.items():
            assert loss().max() > 1e-4, name


def test_the_mean_flow_identity_on_solved_trajectories():
    """u = v - (t - s) du/dt, with du/dt by central differences along trajectories of scipy's solver."""
    denoise, h = MIXTURE.denoise(RF), 1e-4
    ends = flow_map(denoise, RF, X, T, S)
    u = (X - ends) / (T - S)[:, None]
    ahead, behind = (flow_map(denoise, RF, X, T, T + k * h) for k in (1, -1))
    slope = ((ahead - ends) / (T + h - S)[:, None] - (behind - ends) / (T - h - S)[:, None]) / (2 * h)
    assert torch.allclose(denoise(X, T).velocity - (T - S)[:, None] * slope, u, atol=1e-6)


def test_mean_flow_needs_no_teacher():
    """With the velocity of single pairs the loss is not zero, but the gradient at the truth is, on average."""
    model, gap = exact(MIXTURE), normal(4, 2, seed=3)
    v = model.predict(X, T, T).velocity.detach()
    pairs = [mean_flow_loss(model, X, T, S, v + k * gap, distance=squared) for k in (1, -1)]
    assert min(pair.min() for pair in pairs) > 1e-3
    (pull,) = torch.autograd.grad((pairs[0] + pairs[1]).sum(), model.denoiser.network.wrong, retain_graph=True)
    (alone,) = torch.autograd.grad(pairs[0].sum(), model.denoiser.network.wrong)
    assert pull.abs().max() < 1e-5 * alone.abs().max()


def test_mean_flow_without_length_is_flow_matching():
    model, x0, eps = exact(MIXTURE), normal(4, 2, seed=1), normal(4, 2, seed=2)
    x_t, v = RF.mix(x0, eps, T), noise_velocity(RF, x0, eps, T)
    assert torch.equal(v, eps - x0)
    flow = mean_flow_loss(model, x_t, T, T, v, distance=squared)
    assert torch.allclose(flow, diagonal_loss(model, x0, eps, T), atol=1e-12)
    assert torch.allclose(flow, (model.predict(x_t, T, T).velocity - v).square().mean(1), atol=1e-12)
    square = 2 * flow
    assert torch.allclose(mean_flow_loss(model, x_t, T, T, v), square / (square + 1e-3), atol=1e-12)
    assert torch.allclose(normalised(0.0)(x0, eps), 2 * squared(x0, eps), atol=1e-12)
    twin, gap = x0.clone().requires_grad_(), x0 - eps
    (slope,) = torch.autograd.grad(normalised(0.5, 0.1)(twin, eps).sum(), twin)
    assert torch.allclose(slope, 2 * gap / (gap.square().sum(1, keepdim=True) + 0.1).sqrt(), atol=1e-12)
    (slope,) = torch.autograd.grad(normalised(1.0, 1e-12)(twin, eps).sum(), twin)
    assert torch.allclose(slope.norm(dim=1), 2 / gap.norm(dim=1), rtol=1e-9)  # the worst sample pulls least
    with pytest.raises(ShapeError, match="RectifiedFlow"):
        null = {"s": torch.tensor(0.0, dtype=F64)}
        mean_flow_loss(FlowMapModel(Denoiser(ExactVelocity(MIXTURE), EDM(), edm(0.5), null=null)), X, T, S, v)


@pytest.mark.parametrize(
    ("path", "kind"),
    [(RF, VELOCITY), (Trigonometric(), V), (EDM(), edm(0.5)), (VPLinear(), V)],
    ids=["rf", "trig", "edm", "vp"],
)
def test_the_diagonal_is_the_plain_loss_and_reach_the_lever(path, kind):
    """Both read through another door: the network's raw output, and the jump of two outputs that differ by one."""

    class Constant(nn.Module):
        level = 0.0

        def forward(self, x, t, cond):
            return torch.full_like(x, self.level)

    network, null = Constant(), {"s": torch.tensor(0.0, dtype=F64)}
    model = FlowMapModel(Denoiser(network, path, kind, null=null))
    t, s, x0, eps = T * path.t_max, S * path.t_max, normal(4, 2, seed=1), normal(4, 2, seed=2)
    target = kind.encode(x0, eps, path.coeffs(t))
    assert torch.allclose(diagonal_loss(model, x0, eps, t), target.square().mean(1), rtol=1e-12)
    low = model(X, t, s)
    network.level = 1.0
    assert torch.allclose((model(X, t, s) - low).abs(), model.reach(t, s)[:, None].expand_as(X), atol=1e-12)


def test_shortcut_loss_by_hand():
    model = exact(MIXTURE)
    with torch.no_grad():
        model.denoiser.network.wrong += times(0.1, -0.2, 0.3)
    u = lambda x, t, s: model.predict(x, t, s).velocity  # noqa: E731
    d = ((T - S) / 2)[:, None]
    first = u(X, T, T - d[:, 0])
    second = u(X - d * first, T - d[:, 0], S)
    by_hand = (u(X, T, S) - (first + second) / 2).square().mean(1)
    assert torch.allclose(shortcut_loss(model, X, T, S), by_hand, rtol=1e-10)
    assert by_hand.min() > 1e-5
    with pytest.raises(RangeError, match="s < t"):
        shortcut_loss(model, X, T, T)


def test_dyadic_jumps_halve():
    t, s = dyadic_jumps(4000, 5, generator=seeded())
    k = -(t - s).log2()
    assert torch.equal(k, k.round()) and set(k.tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}
    assert torch.equal(t * 2**k, (t * 2**k).round()) and s.min() == 0 and t.max() == 1
    assert all(abs((k == level).double().mean() - 0.2) < 0.03 for level in range(5))
    with pytest.raises(RangeError, match=r"^levels: got 0"):
        dyadic_jumps(4, 0)


def test_ctm_by_hand_and_where_its_gradient_goes():
    """Three jumps and a solver's step, written out; the last jump lends its slope but not its weights."""
    model, teacher = exact(MIXTURE), MIXTURE.denoise(RF)
    wrong = model.denoiser.network.wrong
    with torch.no_grad():
        wrong += times(0.1, -0.2, 0.3)
    loss = ctm_loss(model, teacher, X, T, U, S)
    h = (U - T)[:, None]
    slope = teacher(X, T).velocity
    x_u = X + h / 2 * (slope + teacher(X + h * slope, U).velocity)  # Heun
    zero = torch.zeros_like(S)
    behind = model(model(x_u, U, S), S, zero).detach()
    ahead = stopped(model)(model(X, T, S), S, zero)
    assert torch.allclose(loss, (ahead - behind).square().mean(1), rtol=1e-10)
    (pull,) = torch.autograd.grad(loss.sum(), wrong)
    for k in range(3):  # by differences in the first jump's weights alone
        values = []
        for sign in (1, -1):
            twin = exact(MIXTURE)
            with torch.no_grad():
                twin.denoiser.network.wrong.copy_(wrong)
                twin.denoiser.network.wrong[k] += sign * 1e-5
                values.append((stopped(model)(twin(X, T, S), S, zero) - behind).square().mean(1).sum())
        assert pull[k].item() == pytest.approx(((values[0] - values[1]) / 2e-5).item(), rel=1e-6)
    with pytest.raises(RangeError, match="s <= u"):
        ctm_loss(model, teacher, X, T, S, U)


def test_gamma_sampling_between_its_two_ends():
    """gamma = 0 composes to one jump; gamma = 1 is the consistency sampler; between them the law is kept too."""
    path, world = EDM(), GaussianMixture([1.0], [[0.5]], [0.25])
    jump = lambda x, t, s: flow_map(world.denoise(path), path, x, t, s)  # noqa: E731
    grid = torch.tensor([80.0, 3.0, 0.5, 0.0], dtype=F64)
    x_T = 80 * normal(6, 1)
    direct = jump(x_T, grid[:1].expand(6), torch.zeros(6, dtype=F64))
    assert torch.allclose(last(jump_along(jump, path, grid, x_T)), direct, atol=1e-8)
    f = consistency(lambda x, t: jump(x, t, torch.zeros_like(t)), path)
    theirs = last(sample(f, path, ConsistencyMultistep(), grid, x_T, generator=seeded(5)))
    ours = last(jump_along(jump, path, grid, x_T, gamma=1.0, generator=seeded(5)))
    assert torch.allclose(ours, theirs, atol=1e-8)

    def closed(x, t, s):  # of a Gaussian on any path
        std = lambda t: (0.25 * path.alpha(t) ** 2 + path.sigma(t) ** 2).sqrt()[:, None]  # noqa: E731
        return 0.5 * path.alpha(s)[:, None] + std(s) / std(t) * (x - 0.5 * path.alpha(t)[:, None])

    for path, moments in ((RF, [1, 0.6, 0.3, 0]), (EDM(), [80, 3, 0.5, 0]), (VPLinear(), [1, 0.5, 0.2, 0])):
        grid = torch.tensor(moments, dtype=F64)
        start = closed(0.5 + 0.5 * normal(200_000, 1), grid[-1:], grid[:1])
        for frame in jump_along(closed, path, grid, start, gamma=0.7, generator=seeded(1)):
            t = torch.tensor([frame.t], dtype=F64)
            std = float((0.25 * path.alpha(t) ** 2 + path.sigma(t) ** 2).sqrt())
            assert frame.x.std().item() == pytest.approx(std, rel=8e-3)  # 5 standard errors
            assert abs(frame.x.mean().item() - 0.5 * float(path.alpha(t))) < 5 * std / math.sqrt(200_000)
        assert frame.nfe == frame.step == 3


def test_gamma_sampling_refuses_at_the_call():
    with pytest.raises(RangeError, match="gamma"):
        jump_along(lambda x, t, s: x, RF, uniform_grid(RF, 2), X, gamma=1.1)
    with pytest.raises(RangeError, match="grid"):
        jump_along(lambda x, t, s: x, RF, torch.tensor([2.0, 0.0]), X)
