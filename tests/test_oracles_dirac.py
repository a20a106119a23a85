"""The Dirac-GAN: its field against the families' losses, its orbits against scipy, its ends against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

from lecture_lib.errors import SingularError
from lecture_lib.families import GAN, R3GAN, WGANGP
from lecture_lib.oracles import (
    NON_SATURATING,
    WASSERSTEIN,
    dirac_gradient_penalty,
    dirac_r1,
    dirac_r1_r2,
)

F64 = torch.float64
GAMES = {
    "non-saturating": (NON_SATURATING, lambda *g: GAN(*g, gamma=0)),
    "Wasserstein": (WASSERSTEIN, lambda *g: WGANGP(*g, penalty=0)),
    "WGAN-GP": (dirac_gradient_penalty(10), lambda *g: WGANGP(*g, penalty=10)),
    "R1": (dirac_r1(0.7), lambda *g: GAN(*g, gamma=0.7)),
    "R1 + R2": (dirac_r1_r2(0.7), lambda *g: R3GAN(*g, gamma=0.7)),
}


class Point(nn.Module):
    latent, n_classes = 1, 0

    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta, dtype=F64))

    def forward(self, z, cond=None):
        return self.theta.expand(len(z), 1)


class Slope(nn.Module):
    def __init__(self, psi):
        super().__init__()
        self.psi = nn.Parameter(torch.tensor(psi, dtype=F64))

    def forward(self, x, cond=None):
        return self.psi * x


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("state", [(0.9, 0.4), (-1.3, 0.8), (0.3, -2.1)])
def test_the_field_is_what_the_families_losses_descend(game, state):
    """The oracle is written by hand, the losses are differentiated: two routes to the same field."""
    exact, family = GAMES[game]
    model, data = family(Point(state[0]), Slope(state[1]), (1,)), torch.zeros(3, 1, dtype=F64)
    push = []
    for phase, weight in (("generator", model.generator.theta), ("critic", model.critic.psi)):
        loss = model.loss((data,), phase, generator=torch.Generator().manual_seed(0)).mean()
        push.append(-torch.autograd.grad(loss, weight)[0])
    assert torch.allclose(exact.push(torch.tensor(state, dtype=F64)), torch.stack(push), rtol=1e-9)


@pytest.mark.parametrize("game", [NON_SATURATING, WASSERSTEIN, dirac_r1(), dirac_r1_r2()], ids=lambda game: game.name)
def test_orbits_against_an_independent_integrator(game):
    def field(_, x):
        theta, psi = x
        logistic = game.name != "Wasserstein"
        k = {"R1, gamma = 1": 1, "R1 + R2, gamma = 1": 2}.get(game.name, 0)
        fooled, caught = (1 / (1 + math.exp(s * psi * theta)) if logistic else 1.0 for s in (1, -1))
        return [fooled * psi, -caught * theta - k * psi]

    times = np.linspace(0, 20, 401)
    exact = solve_ivp(field, (0, 20), [1.0, 1.0], method="LSODA", rtol=1e-11, atol=1e-13, t_eval=times).y.T
    ours = game.flow(1.0, 1.0, time=20, steps=400)
    assert np.abs(ours.numpy() - exact).max() < 1e-7  # solved to 1e-9 per step


def test_eigenvalues_at_the_equilibrium():
    def closed(a, k):
        root = torch.sqrt(torch.tensor(k**2 - 4 * a**2, dtype=torch.complex128))
        return torch.stack([(-k - root) / 2, (-k + root) / 2])

    for game, a, k in (
        (NON_SATURATING, 0.5, 0.0),
        (WASSERSTEIN, 1.0, 0.0),
        (dirac_r1(0.6), 0.5, 0.6),
        (dirac_r1(3.0), 0.5, 3.0),
        (dirac_r1_r2(0.6), 0.5, 1.2),
    ):
        found, expected = game.eigenvalues(), closed(a, k)
        order = lambda x: sorted(x.tolist(), key=lambda y: (y.real, y.imag))  # noqa: E731
        assert order(found) == pytest.approx(order(expected), abs=1e-12)
    with pytest.raises(SingularError, match="WGAN-GP"):
        dirac_gradient_penalty().eigenvalues()


def test_who_arrives():
    """With R1 or R1 + R2 |theta| is 0.0000 at t = 100; the other games are still on their way, or on none."""
    end = {name: game.flow(1.0, 1.0, time=100, steps=1000)[-1] for name, (game, _) in GAMES.items()}
    assert end["R1"].abs().max() < 1e-12 and end["R1 + R2"].abs().max() < 1e-8
    assert end["Wasserstein"].square().sum().item() == pytest.approx(2, rel=1e-6)
    assert end["non-saturating"].norm() > 0.2
    # the slow eigenvalue of R1 + R2: k = 1.4, (-1.4 + sqrt(1.96 - 1))/2
    decay = dirac_r1_r2(0.7).flow(0.01, 0.0, time=60, steps=600)
    rate = (decay[600, 0] / decay[500, 0]).log() / 10
    assert rate.item() == pytest.approx((-1.4 + math.sqrt(0.96)) / 2, rel=1e-4)


def test_non_saturating_logits_spiral_in_as_the_root_of_eight_over_t():
    """Averaged over a turn, d(r^2)/dt = -r^4/8, so that 1/r^2 grows by t/8; no exponential would."""
    r2 = NON_SATURATING.flow(0.5, 0.0, time=2000, steps=5000).square().sum(1)
    growth = (1 / r2[-1] - 1 / r2[500]) / 1800
    assert growth.item() == pytest.approx(1 / 8, rel=0.01)


def test_steps_in_turns_and_steps_at_once():
    """In turns Wasserstein's game keeps to the ellipse ``theta^2 + psi^2 - h theta psi``, at once its radius grows by
    ``sqrt(1 + h^2)`` per step; the non-saturating game at once ends on a circle of radius ``sqrt(2 h)``."""
    h = 0.1
    theta, psi = WASSERSTEIN.descent(1.0, 0.5, rate=h, rounds=500).T
    ellipse = theta**2 + psi**2 - h * theta * psi
    assert torch.allclose(ellipse, ellipse[:1].expand_as(ellipse), rtol=1e-10)
    radius = WASSERSTEIN.simultaneous_descent(1.0, 0.5, rate=h, rounds=200).norm(dim=1)
    assert torch.allclose(radius[1:] / radius[:-1], torch.tensor(math.sqrt(1 + h**2), dtype=F64), rtol=1e-10)
    circle = NON_SATURATING.simultaneous_descent(1.0, 0.5, rate=h, rounds=5000)[-500:].norm(dim=1)
    assert circle.mean().item() == pytest.approx(math.sqrt(2 * h), rel=0.01)
    for arrives in (dirac_r1(), dirac_r1_r2()):
        assert arrives.descent(1.0, 0.5, rate=h, rounds=3000)[-1].abs().max() < 1e-12
        assert arrives.simultaneous_descent(1.0, 0.5, rate=h, rounds=3000)[-1].abs().max() < 1e-12


def test_more_updates_of_the_critic_come_before_the_generators():
    """Two steps of psi at theta = 1, then one of theta: by hand."""
    end = WASSERSTEIN.descent(1.0, 0.5, rate=0.1, rounds=1, critic_updates=2)[-1]
    assert end.tolist() == pytest.approx([1.0 + 0.1 * 0.3, 0.3])


def test_a_gradient_penalty_never_lets_the_critic_lie_flat():
    """lambda = 0.3: a limit cycle, the same from inside and from outside. lambda = 10: off to 2 lambda, and stuck."""
    ends = []
    for start in (0.1, 3.0):
        orbit = dirac_gradient_penalty(0.3).flow(start, 0.1, time=120, steps=4000)
        ends.append(orbit[-800:, 0].abs().max().item())
    assert ends[0] == pytest.approx(ends[1], rel=5e-3) and ends[0] == pytest.approx(1.33, abs=0.02)
    stuck = dirac_gradient_penalty(10).flow(1.0, 1.0, time=400, steps=6000)[-1]
    assert stuck[0].item() == pytest.approx(20, rel=1e-6) and abs(stuck[1]) < 1e-6
