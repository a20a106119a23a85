"""Reflow: pairs against optimal transport on the line, the straight field they teach, and what fresh noise does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm
from torch import nn
from worlds import normal, seeded

from lecture_lib.core import (
    EDM,
    EPS,
    VELOCITY,
    Denoiser,
    RectifiedFlow,
    UniformTimes,
    given_noise,
    karras_grid,
    then_clean,
    uniform_grid,
)
from lecture_lib.distill import (
    ConsistencyFunction,
    Coupled,
    endpoint_loss,
    exact_consistency,
    reflow_loss,
    solved_pairs,
    transport_cost,
)
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.metrics import straightness
from lecture_lib.oracles import GaussianMixture, ring_of_modes
from lecture_lib.samplers import Heun

F64 = torch.float64
LINE = RectifiedFlow()
MEAN, STD = 1.5, 0.4
TWO = GaussianMixture([0.3, 0.7], [[-2.0], [1.0]], [0.09, 0.04])


class Field(nn.Module):
    """A velocity field as a network: v(x, t) with t in 0..1."""

    def __init__(self, field):
        super().__init__()
        self.field, self.scale = field, nn.Parameter(torch.ones((), dtype=F64))

    def forward(self, x, t, cond=None):
        return self.scale * self.field(x, t[:, None] / 1000)


def curved(x, t):
    """Of plain flow matching: E[eps - x0 | x_t] for data N(MEAN, STD^2)."""
    variance = (1 - t) ** 2 * STD**2 + t**2
    return (t - (1 - t) * STD**2) / variance * (x - (1 - t) * MEAN) - MEAN


def straight(x, t):
    """eps - x0 on the lines from eps to MEAN + STD eps."""
    eps = (x - (1 - t) * MEAN) / ((1 - t) * STD + t)
    return eps - (MEAN + STD * eps)


def student(field):
    return Denoiser(Field(field), LINE, VELOCITY)


@pytest.fixture(scope="module")
def pairs():
    exact = GaussianMixture([1.0], [[MEAN]], [STD**2]).denoise(LINE)
    return solved_pairs(exact, LINE, Heun(), uniform_grid(LINE, 512), normal(4000, 1, seed=3))


def test_the_field_of_the_tests_is_the_oracles(pairs):
    exact = GaussianMixture([1.0], [[MEAN]], [STD**2]).denoise(LINE)
    t = torch.rand(4000, generator=seeded(1), dtype=F64)
    assert torch.allclose(exact(pairs.eps, t).velocity, curved(pairs.eps, t[:, None]), atol=1e-12)
    assert torch.allclose(pairs.x0, MEAN + STD * pairs.eps, atol=2e-5)  # Heun, 512 steps


def loss(field, pairs, coupling=None):
    """Mean loss of a field on the pairs, or on their data points with another coupling."""
    model, times, generator = student(field), UniformTimes(), seeded(5)
    if coupling is None:
        return reflow_loss(model, pairs, times=times, generator=generator).mean().item()
    return model.loss(pairs.x0, times=times, coupling=coupling, generator=generator).mean().item()


def test_reflow_is_minimised_by_the_straight_field_and_fresh_noise_by_the_curved_one(pairs):
    """The popular mistake B108: paired with fresh noise, the samples teach the first flow once more."""
    fresh = given_noise(normal(4000, 1, seed=8))
    assert loss(straight, pairs) < 1e-8 < 0.05 < loss(curved, pairs)
    assert loss(curved, pairs, fresh) < 0.8 * loss(straight, pairs, fresh)
    # and it is a minimum: no multiple of the field does better on its own pairs
    for field, coupling in ((straight, None), (curved, fresh)):
        by = [loss(lambda x, t, c=c, f=field: c * f(x, t), pairs, coupling) for c in (0.97, 1.0, 1.03)]
        assert by[1] < by[0] and by[1] < by[2]


def test_straightness_before_and_after(pairs):
    first, second = (
        straightness(lambda x, t, f=field: f(x, t[:, None]), pairs.eps, steps=128).mean().item()
        for field in (curved, straight)
    )
    # x_t = (1 - t) m + r_t eps with r_t^2 = (1-t)^2 s^2 + t^2, so S = int (1 - s - r')^2 dt E[eps^2]
    t = torch.linspace(0, 1, 20_001, dtype=F64)
    slope = (t - (1 - t) * STD**2) / ((1 - t) ** 2 * STD**2 + t**2).sqrt()
    expected = torch.trapezoid((1 - STD - slope) ** 2, t) * pairs.eps.square().mean()
    assert first == pytest.approx(expected.item(), rel=1e-3) and first > 0.1
    assert second < 1e-20


def test_on_the_line_the_pairs_are_optimal_transport():
    """Trajectories on the line cannot overtake one another: ODE(eps) is the monotone map, Q(Phi(eps))."""
    eps = torch.linspace(-2.2, 2.2, 23, dtype=F64)[:, None]
    got = solved_pairs(TWO.denoise(LINE), LINE, Heun(), uniform_grid(LINE, 2000), eps).x0[:, 0]
    weights, means, stds = TWO.weights.numpy(), TWO.means[:, 0].numpy(), TWO.variances[:, 0].sqrt().numpy()

    def above(y, mass):
        return weights @ norm.cdf((y - means) / stds) - mass

    for e, x in zip(eps[:, 0].tolist(), got.tolist(), strict=True):
        assert x == pytest.approx(brentq(above, -6, 6, args=(norm.cdf(e),), xtol=1e-12), abs=2e-4)


def test_every_convex_cost_falls():
    world, eps = ring_of_modes(), normal(4000, 2, seed=1)
    pairs = solved_pairs(world.denoise(LINE), LINE, Heun(), uniform_grid(LINE, 64), eps)
    strangers = Coupled(pairs.x0, eps[torch.randperm(4000, generator=seeded(2))])
    for power in (1.0, 2.0, 4.0):
        assert transport_cost(pairs, power).mean() < 0.75 * transport_cost(strangers, power).mean()
    assert transport_cost(strangers).mean().item() == pytest.approx(2 + 1 + 2 * 0.1**2, rel=0.03)
    correlation = [np.corrcoef(p.x0.flatten(), p.eps.flatten())[0, 1] for p in (pairs, strangers)]
    assert correlation[0] > 0.8 and abs(correlation[1]) < 0.05
    with pytest.raises(RangeError, match="power"):
        transport_cost(pairs, 0.5)


def test_cost_by_hand():
    pairs = Coupled(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 2.0]]))
    assert transport_cost(pairs).tolist() == [25.0, 4.0]
    assert transport_cost(pairs, 1).tolist() == [5.0, 2.0]


def test_the_one_step_student_is_asked_on_noise_alone(pairs):
    """The straight field gets every endpoint in one Euler step; the curved one misses by a computable amount."""
    assert endpoint_loss(ConsistencyFunction(student(straight)), LINE, pairs).max() < 1e-8
    wrong = endpoint_loss(ConsistencyFunction(student(curved)), LINE, pairs)
    # at t = 1 the curved velocity is eps - MEAN, so that x0 = MEAN for every noise: the mean of the data
    assert torch.allclose(wrong, (STD * pairs.eps[:, 0]) ** 2, atol=1e-4)


def test_pairs_start_at_pure_noise_on_every_path():
    path, eps = EDM(), normal(6, 1, seed=2)
    denoise = TWO.denoise(path)
    pairs = solved_pairs(denoise, path, Heun(), then_clean(karras_grid(path, 400)[:-1]), eps)
    exact = exact_consistency(denoise, path)
    end = torch.full((6,), 80.0, dtype=F64)
    assert torch.allclose(pairs.x0, exact(80 * eps, end), atol=1e-3)
    assert endpoint_loss(exact, path, pairs).max() < 1e-6


def test_pairs_and_noise_must_match():
    pair = Coupled(torch.zeros(3, 2), torch.zeros(2, 2))
    with pytest.raises(ShapeError, match=r"x0: got shape \(3, 2\), expected that of its noise, \(2, 2\)"):
        reflow_loss(Denoiser(Field(straight), LINE, EPS), pair, times=UniformTimes())
