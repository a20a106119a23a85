"""Continuous-time consistency: tangents against differences, stationary points against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from worlds import F64, normal, times

from lecture_lib.core import EDM, VELOCITY, Denoiser, RectifiedFlow, Trigonometric, V, VPLinear
from lecture_lib.distill import (
    ConsistencyFunction,
    LogWeight,
    continuous_loss,
    noise_velocity,
    residual_loss,
    scm_loss,
    scm_tangent,
    tangent,
)
from lecture_lib.errors import NotDifferentiableError, ShapeError
from lecture_lib.nets import DiT, TimeMLP, explicit_attention
from lecture_lib.oracles import GaussianMixture

CIRCLE = Trigonometric()


def slow(path, t):
    """A network time in which central differences with a step of 1e-5 are good to nine digits."""
    return 10 * t / path.t_max


def awake(net):
    """No layer at zero, all in float64: a network whose output depends on everything."""
    with torch.no_grad():
        for k, weight in enumerate(net.parameters()):
            weight += 0.1 * normal(*weight.shape, seed=k).to(weight)
    return net.double()


def differences(f, x, t, v, h=1e-5):
    """The derivative along the straight line with slope v: to first order that is the trajectory."""
    with torch.no_grad():
        return (f(x + h * v, t + h) - f(x - h * v, t - h)) / (2 * h)


@pytest.fixture(scope="module")
def mlp():
    return Denoiser(awake(TimeMLP(2, width=16, depth=2)), CIRCLE, V, network_time=slow)


def dit(**kernel):
    return Denoiser(awake(DiT(4, 1, dim=16, depth=2, heads=2, **kernel)), CIRCLE, V, network_time=slow)


X, TIMES, VEL = normal(4, 2), times(0.05, 0.5, 1.0, 1.5), normal(4, 2, seed=1)


def test_tangents_are_derivatives(mlp):
    """Bar: 1e-5. A network's v and a consistency function, of an MLP and of a transformer."""
    pictures, speed = normal(4, 1, 4, 4), normal(4, 1, 4, 4, seed=1)
    for model, x, v in ((mlp, X, VEL), (dit(kernel=explicit_attention), pictures, speed)):
        for f in (lambda x, t: model(x, t).velocity, ConsistencyFunction(model)):  # noqa: B023
            value, slope = tangent(f, x, TIMES, v)
            assert torch.equal(value, f(x, TIMES))
            assert not value.requires_grad and not slope.requires_grad
            assert slope.abs().min() > 1e-4
            assert torch.allclose(slope, differences(f, x, TIMES, v), atol=1e-8)


def test_fused_attention_is_refused_by_name():
    model = dit()
    with pytest.raises(NotDifferentiableError, match=r"stops at \S*attention\S*; .*explicit_attention"):
        tangent(ConsistencyFunction(model), normal(4, 1, 4, 4), TIMES, normal(4, 1, 4, 4, seed=1))


def test_other_refusals_and_other_errors(mlp):
    """A path that differentiates its own slopes is refused where they are asked for; a plain mistake stays itself."""
    on_vp = Denoiser(mlp.network, VPLinear(), V, network_time=slow)
    with pytest.raises(NotDifferentiableError, match="velocity"):
        tangent(lambda x, t: on_vp(x, t).velocity, X, TIMES / 2, VEL)
    f = ConsistencyFunction(on_vp)
    assert torch.allclose(tangent(f, X, TIMES / 2, VEL)[1], differences(f, X, TIMES / 2, VEL), atol=1e-7)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        tangent(lambda x, t: x @ torch.zeros(7, 7, dtype=F64), X, TIMES, VEL)


def test_expanded_views_and_functions_that_do_not_move():
    value, slope = tangent(lambda x, t: x * t[:, None], X[:1].expand(4, 2), TIMES[:1].expand(4), VEL[:1].expand(4, 2))
    assert torch.allclose(slope, VEL[:1] * TIMES[0] + X[:1]) and torch.allclose(value, X[:1] * TIMES[0])
    assert torch.equal(tangent(lambda x, t: torch.ones_like(x.detach()), X, TIMES, VEL)[1], torch.zeros_like(X))


def test_the_gradient_is_the_papers_pseudo_loss(mlp):
    """2 w f^T sg(df/dt), mean over dimensions; the value is w |df/dt|^2."""
    f, weight = ConsistencyFunction(mlp), times(1.0, 2.0, 3.0, 4.0)
    slope = differences(f, X, TIMES, VEL)
    loss = continuous_loss(f, X, TIMES, VEL, weight=weight)
    assert torch.allclose(loss, weight * slope.square().mean(1), atol=1e-7)
    weights = list(mlp.parameters())
    ours = torch.autograd.grad(loss.sum(), weights)
    theirs = torch.autograd.grad((2 * weight[:, None] * f(X, TIMES) * slope / 2).sum(), weights)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))


# Gaussian data of standard deviation SD on x0 + t eps: f = a(t) x. The truth and the biased answer are two of the
# three directions in which a may move, so each is a stationary point or it is not.
SD, T_MAX = 0.5, 80.0
SHAPES = (lambda t: (t / SD).atan(), lambda t: 1 / (1 + (t / SD) ** 2).sqrt() - 1, lambda t: t / (1 + t))
TRUTH, BIASED = times(0, 1, 0), times(-T_MAX / SD / (1 + T_MAX / SD * math.atan(T_MAX / SD)), 0, 0)


def pull(loss, at):
    """Gradient of the mean loss over t uniform in [0, 80], exactly: four points have all second moments."""
    theta = at.clone().requires_grad_()

    def f(x, t):
        return (1 + sum(c * shape(t) for c, shape in zip(theta, SHAPES, strict=True)))[:, None] * x

    nodes, w = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(64))
    top = math.atan(T_MAX / SD)
    angle = (nodes + 1) / 2 * top  # t = SD tan(angle): the integrands are smooth in it
    t, w = SD * angle.tan(), w / 2 * top * SD / angle.cos() ** 2 / T_MAX
    total = 0.0
    for x0, eps in ((SD, 1.0), (SD, -1.0), (-SD, 1.0), (-SD, -1.0)):
        x0, eps = torch.full((64, 1), x0, dtype=F64), torch.full((64, 1), eps, dtype=F64)
        total = total + (w * loss(f, EDM().mix(x0, eps, t), t, noise_velocity(EDM(), x0, eps, t))).sum() / 4
    return torch.autograd.grad(total, theta)[0]


def test_without_stop_gradient_training_ends_elsewhere():
    assert pull(continuous_loss, TRUTH).abs().max() < 1e-12
    assert pull(residual_loss, BIASED).abs().max() < 1e-12
    assert pull(continuous_loss, BIASED).abs().max() > 1e-3
    assert pull(residual_loss, TRUTH).abs().max() > 1e-3
    end = 1 + BIASED[0] * SHAPES[0](times(T_MAX))
    assert end.item() == pytest.approx(1 / (1 + T_MAX / SD * math.atan(T_MAX / SD)), rel=1e-12)
    truth = 1 / math.sqrt(1 + (T_MAX / SD) ** 2)
    assert end.item() / truth == pytest.approx(0.637, abs=5e-4)
    from_002 = 1 / (1 + T_MAX / SD * (math.atan(T_MAX / SD) - math.atan(0.002 / SD)))
    assert from_002 / truth == pytest.approx(
        0.638, abs=5e-4
    )  # the figure found for the discrete loss, which ends there


def test_with_a_teachers_velocity_the_residual_is_right():
    world = GaussianMixture([1.0], [[0.0]], [SD**2])
    teacher = lambda x, t: world.denoise(EDM())(x, t).velocity  # noqa: E731
    by_teacher = lambda f, x, t, v: residual_loss(f, x, t, teacher(x, t))  # noqa: E731
    assert pull(by_teacher, TRUTH).abs().max() < 1e-12
    assert pull(by_teacher, BIASED).abs().max() > 1e-4


class GaussianV(nn.Module):
    """v of the exact consistency function of N(0, s^2) on the quarter circle, plus a wrong part of our choice."""

    def __init__(self, s):
        super().__init__()
        self.s, self.wrong = s, nn.Parameter(torch.zeros(2, dtype=F64))

    def forward(self, x, t, cond=None):
        t = (t * CIRCLE.t_max / 1000)[:, None]
        f = x * self.s / (self.s**2 * t.cos() ** 2 + t.sin() ** 2).sqrt()
        return (t.cos() * x - f) / t.sin() + self.wrong[0] * x + self.wrong[1] * t


def test_sd_is_stationary_at_the_exact_consistency_function():
    """sCD: the loss is zero there. sCT: what it pulls for two opposite pairs behind one x_t cancels."""
    s = 0.7
    model, world = Denoiser(GaussianV(s), CIRCLE, V), GaussianMixture([1.0], [[0.0, 0.0]], [s**2])
    v = world.denoise(CIRCLE)(X, TIMES).velocity
    assert scm_loss(model, X, TIMES, v).max() < 1e-24
    losses = [scm_loss(model, X, TIMES, v + sign * VEL) for sign in (1, -1)]
    assert min(loss[:3].min() for loss in losses) > 1e-3
    both = torch.autograd.grad(sum(losses).sum(), model.network.wrong, retain_graph=True)[0]
    one = torch.autograd.grad(losses[0].sum(), model.network.wrong)[0]
    assert both.abs().max() < 1e-12 and one.abs().max() > 1e-2
    with torch.no_grad():
        model.network.wrong += 0.1
    assert scm_loss(model, X, TIMES, v).min() > 1e-4


def test_the_tangent_is_the_derivative_of_f_and_the_warm_up_flow_matching(mlp):
    f = ConsistencyFunction(mlp)
    F, g = scm_tangent(mlp, X, TIMES, VEL)
    cos = TIMES.cos()[:, None]
    assert torch.allclose(g, cos * differences(f, X, TIMES, VEL), atol=1e-8)
    _, cold = scm_tangent(mlp, X, TIMES, VEL, warm=0.0)
    assert torch.allclose(cold, cos**2 * (VEL - F), atol=1e-12)
    _, mild = scm_tangent(mlp, X, TIMES, VEL, warm=0.25)
    assert torch.allclose(mild, cold + (g - cold) / 4, atol=1e-12)
    with pytest.raises(ShapeError, match="Trigonometric"):
        scm_tangent(Denoiser(mlp.network, RectifiedFlow(), VELOCITY), X, TIMES / 2, VEL)


def test_it_is_the_papers_loss_with_its_sigma_data(mlp):
    """The formulas in their own units, x_t = cos t x0 + sin t z with z ~ N(0, sigma_d^2), dF/dt by differences."""
    sd, c = 0.5, 0.1
    x0, z = sd * normal(4, 2, seed=2), sd * normal(4, 2, seed=3)
    cos, sin = TIMES.cos()[:, None], TIMES.sin()[:, None]
    x_t, dx = cos * x0 + sin * z, cos * z - sin * x0
    F = lambda x, t: mlp(x / sd, t).v  # noqa: E731
    g = -(cos**2) * (sd * F(x_t, TIMES) - dx) - 0.3 * cos * sin * (x_t + sd * differences(F, x_t, TIMES, dx))
    g = (g / (g.norm(dim=1, keepdim=True) + c)).detach()
    log_weight = awake(LogWeight())
    w = log_weight(TIMES)
    theirs = w.exp() * (F(x_t, TIMES) - F(x_t, TIMES).detach() - g).square().mean(1) - w
    ours = scm_loss(mlp, x_t / sd, TIMES, dx / sd, warm=0.3, c=c / sd, log_weight=log_weight)
    assert torch.allclose(ours, theirs, atol=1e-8) and w.std() > 1e-3
    weights = [*mlp.parameters(), *log_weight.parameters()]
    pairs = zip(*(torch.autograd.grad(loss.sum(), weights) for loss in (ours, theirs)), strict=True)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in pairs)
