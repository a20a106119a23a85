"""The logistic game against its closed forms, critics held still, and the critic of points."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.stats import norm
from worlds import normal

from lecture_lib.errors import ShapeError
from lecture_lib.nets import PointCritic, held, logistic_discriminator_loss, logistic_generator_loss

F64 = torch.float64


def test_logistic_losses_are_binary_cross_entropies():
    real, fake = normal(4, 2, seed=1), 3 * normal(4, 2, seed=2)
    ones, zeros = torch.ones(4, 2, dtype=F64), torch.zeros(4, 2, dtype=F64)
    bce = F.binary_cross_entropy_with_logits
    expected = (bce(real, ones, reduction="none") + bce(fake, zeros, reduction="none")).mean(1)
    assert torch.allclose(logistic_discriminator_loss(real, fake), expected, rtol=1e-12)
    assert torch.allclose(logistic_generator_loss(fake), bce(fake, ones, reduction="none").mean(1), rtol=1e-12)
    with pytest.raises(ShapeError, match="fake"):
        logistic_discriminator_loss(real, fake[:2])


def gaussians(m):
    """A fine grid, its spacing, and the densities of N(0, 1) and N(m, 1) on it."""
    x = torch.linspace(-12, 12, 4001, dtype=F64)
    p, q = (torch.exp(-((x - a) ** 2) / 2) / math.sqrt(2 * math.pi) for a in (0.0, m))
    return x, x[1] - x[0], p, q


def test_the_best_critic_pays_two_log_two_less_twice_the_jensen_shannon_divergence():
    _, dx, p, q = gaussians(0.8)
    logit, sure = (p.log() - q.log())[:, None], torch.full((4001, 1), 1e3, dtype=F64)  # the other term silenced
    on_data, on_fakes = logistic_discriminator_loss(logit, -sure), logistic_discriminator_loss(sure, logit)
    best = (p * on_data + q * on_fakes).sum() * dx

    def integrand(y):
        a, b = norm.pdf(y), norm.pdf(y, 0.8)
        return (a * math.log(2 * a / (a + b)) + b * math.log(2 * b / (a + b))) / 2

    js = quad(integrand, -12, 12, epsabs=1e-12)[0]
    assert best.item() == pytest.approx(2 * math.log(2) - 2 * js, rel=1e-10)


def test_the_non_saturating_gradient_at_the_best_critic():
    """FORMULAS.md: d/dm of -E log D* for N(m, 1) against N(0, 1) at m = 0.8 is +0.455741, and not -0.8."""
    x, dx, p, q = gaussians(0.8)
    shift = torch.zeros((), dtype=F64, requires_grad=True)
    sample = x + shift  # x = m + z, moved by shift; the critic stands still
    logit = (sample - 0.8) ** 2 / 2 - sample**2 / 2  # log p - log q
    (slope,) = torch.autograd.grad((q * logistic_generator_loss(logit[:, None])).sum() * dx, shift)
    assert slope.item() == pytest.approx(0.455741, abs=1e-6)
    by_formula = -(q * (1 - p / (p + q)) * (-x + (x - 0.8))).sum() * dx  # -E[(1 - D)(s_data - s_sample)]
    assert slope.item() == pytest.approx(by_formula.item(), rel=1e-10)


def test_held_critics_pass_the_gradient_on_and_do_not_learn():
    critic, x = PointCritic(), normal(3, 2, dtype=torch.float32).requires_grad_()
    critic.layers[0].bias.requires_grad_(False)  # frozen before: frozen after
    with held(critic):
        loss = critic(x).sum()
    loss.backward()
    assert x.grad.abs().sum() > 0 and all(p.grad is None for p in critic.parameters())
    assert [p.requires_grad for p in critic.parameters()].count(False) == 1
    with pytest.raises(RuntimeError), held(critic):
        raise RuntimeError
    assert [p.requires_grad for p in critic.parameters()].count(False) == 1


def test_the_critic_of_points_is_lipschitz_and_judges_each_alone():
    critic, far = PointCritic(3, width=16), 5 * normal(400, 3, dtype=torch.float32)
    for _ in range(50):  # power iterations settle
        critic(far)
    critic.eval()
    with torch.no_grad():
        logits = critic(far)
        assert logits.shape == (400, 1) and torch.allclose(logits[7:8], critic(far[7:8]), atol=1e-6)
        slopes = (logits[1:] - logits[:-1]).abs()[:, 0] / (far[1:] - far[:-1]).norm(dim=1)
    assert 0 < slopes.max() <= 1.01
