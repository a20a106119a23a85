"""Energies and Langevin against Gaussians and grids: what contrastive divergence finds, and what does not."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from worlds import F64, gap, normal, plane, seeded

from lecture_lib.core import minibatch_ot
from lecture_lib.data import Batches, ring
from lecture_lib.errors import NonFiniteError, NotTractable, RangeError
from lecture_lib.families import EnergyBased, EnergyMatching, fit, grid_log_normaliser, score_matching_loss, slope
from lecture_lib.nets import PointEnergy
from lecture_lib.samplers import langevin


def run(frames):
    *_, x = frames
    return x


class Bowl(nn.Module):
    """``k x^2/2``: the energy of N(0, 1/k), with one weight."""

    def __init__(self, k=1.0, d=1):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(float(k), dtype=F64))

    def forward(self, x, cond=None):
        return self.k * x.square().sum(1) / 2


# Langevin


@pytest.mark.parametrize("h", [0.01, 0.2, 1.0])
def test_unadjusted_langevin_is_too_wide_by_a_known_factor(h):
    """MISTAKES B146: for E = x^2/2 the variance settles at 1/(1 - h/2): 1.0050 at h = 0.01, 2 at h = 1."""
    x, n = normal(20_000, 1), 20_000
    x = run(langevin(lambda x: -x, x, step=h, temperatures=[1.0] * math.ceil(4 / h), generator=seeded(1)))
    expected = 1 / (1 - h / 2)
    start = (1 - h) ** (2 * math.ceil(4 / h))  # what is left of the variance 1 that the chains start with
    assert x.var().item() == pytest.approx(expected + (1 - expected) * start, rel=4 * (2 / n) ** 0.5)


def test_langevin_finds_a_mixtures_moments_and_cold_langevin_its_modes():
    world = plane()
    x = world.sample(4000, generator=seeded(2))
    hot = run(langevin(world.score, x, step=0.01, temperatures=[1.0] * 100, generator=seeded(3)))
    assert gap(hot.mean(0), x.mean(0)) <= 0.08 and gap(hot.T.cov(), x.T.cov()) <= 0.1
    cold = run(langevin(world.score, x, step=0.02, temperatures=[0.0] * 1500))
    assert world.score(cold).abs().max() <= 1e-6  # descent stops where the slope is zero


def test_a_chain_that_runs_away_is_named():
    with pytest.raises(NonFiniteError):
        run(langevin(lambda x: -x, normal(4, 1), step=1e3, temperatures=[1.0] * 300, generator=seeded()))


def test_slopes_are_those_of_the_energy():
    x, net = normal(5, 2), PointEnergy(2, width=8, depth=2, n_classes=3).double()
    labels = torch.tensor([0, 1, 2, 3, 0])
    h = 1e-6
    for i in range(2):
        step = torch.zeros(2, dtype=F64)
        step[i] = h
        numeric = (net(x + step, labels) - net(x - step, labels)) / (2 * h)
        assert gap(slope(lambda y: net(y, labels), x)[:, i], numeric.detach()) <= 1e-8


# Contrastive divergence


def test_the_loss_is_the_difference_and_nothing_flows_through_the_chain():
    """dL/dk = x^2/2 - x~^2/2 with x~ a number; differentiated through the chain it is several times as large."""
    model = EnergyBased(Bowl(2.0), (1,), step=0.05, chain=20, calm=0.0)
    x = normal(64, 1, seed=1)
    loss = model.loss((x,), generator=seeded(2))
    g = seeded(2)
    torch.randn(x.shape, generator=g, dtype=F64)  # the noise that would widen the data
    z = torch.cat([x[:32], model.prior(32, generator=g)])
    fake = run(langevin(lambda y: -2.0 * y, z, step=0.05, temperatures=[1.0] * 20, generator=g))
    assert gap(loss.detach(), (x**2 - fake**2)[:, 0]) <= 1e-12
    (right,) = torch.autograd.grad(loss.mean(), model.network.k)
    assert right.item() == pytest.approx(((x**2 - fake**2) / 2).mean().item(), abs=1e-12)
    k = torch.tensor(2.0, dtype=F64, requires_grad=True)
    y, g = z, seeded(2)
    torch.randn(x.shape, generator=g, dtype=F64), model.prior(32, generator=g)
    for _ in range(20):
        y = y - 0.05 * k * y + math.sqrt(0.1) * torch.randn(y.shape, generator=g, dtype=F64)
    (wrong,) = torch.autograd.grad((k * (x**2 - y**2) / 2).mean(), k)
    assert abs(wrong.item() - right.item()) > 0.2  # MISTAKES B146


def test_smoothed_data_is_walked_on_and_jumped_off():
    """The energy sees x + s z; the last move takes a point of N(0, v + s^2) to its mean before the noise, v/(v + s^2)
    of it (the smoothing problem of two Gaussians)."""
    v, s = 1.0, 0.5
    model = EnergyBased(Bowl(1 / (v + s**2)), (1,), step=0.05, smooth=s, chain=1, calm=0.0)
    x = normal(40_000, 1)
    *_, walked, jumped = model.reverse_process(x, steps=3, generator=seeded(1))
    assert gap(jumped, v / (v + s**2) * walked) <= 1e-12
    loss = model.loss((x,), generator=seeded(1)).detach()
    z = torch.randn(x.shape, generator=seeded(1), dtype=F64)
    g = seeded(1)
    torch.randn(x.shape, generator=g, dtype=F64)
    start = torch.cat([(x + s * z)[:20_000], model.prior(20_000, generator=g)])
    fake = run(model.walk(start, None, 1, g))
    assert gap(loss, (model.energy(x + s * z) - model.energy(fake)).detach()) <= 1e-12


def fitted(penalty=0.0, n=4096):
    """k of E = k x^2/2 on N(0, 1) by contrastive divergence, with ``penalty`` E |grad E|^2 added."""
    model = EnergyBased(Bowl(0.5), (1,), step=0.05, chain=100, calm=0.0)
    data = normal(n, 1, seed=4)
    batches, ks = Batches((data / data.square().mean().sqrt(),), 512), []  # variance 1 exactly
    optimizer, generator = torch.optim.SGD(model.parameters(), lr=0.2), seeded(5)
    for _ in range(120):
        x = batches.draw(generator)[0]
        loss = model.loss((x,), generator=generator).mean() + penalty * (model.network.k * x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ks.append(model.network.k.item())
    return sum(ks[60:]) / 60


def test_contrastive_divergence_finds_the_gaussian():
    """k = 1 up to the chain's own bias: it settles where the chain's variance 1/(k (1 - k h/2)) is the data's."""
    h = 0.05
    expected = (1 - math.sqrt(1 - 2 * h)) / h
    assert expected == pytest.approx(1.027, abs=1e-3)
    assert fitted() == pytest.approx(expected, abs=0.04)


def test_b145_a_gradient_penalty_is_not_score_matching():
    """With 0.1 E |grad E|^2 the stationary k is 0.766: (1 - 1/k)/2 + 0.2 k = 0. The squared gradient alone is smallest
    at k = 0, a constant energy; Hyvarinen's loss, which subtracts the laplacian, at k = 1."""
    assert (math.sqrt(0.25 + 0.4) - 0.5) / 0.4 == pytest.approx(0.766, abs=5e-4)
    assert fitted(0.1) == pytest.approx(0.766, abs=0.04)
    x, ks = normal(100_000, 1, seed=6), [k / 20 for k in range(41)]
    x = x / x.square().mean().sqrt()  # variance 1 exactly
    penalties = [slope(Bowl(k), x).square().mean().item() / 2 for k in ks]
    right = [score_matching_loss(Bowl(k), x).mean().item() for k in ks]
    assert ks[penalties.index(min(penalties))] == 0.0 and ks[right.index(min(right))] == 1.0
    assert min(right) == pytest.approx(-0.5, abs=1e-12)  # k^2/2 - k at k = 1


def test_score_matching_is_the_distance_of_scores_up_to_a_constant():
    """E[|grad E|^2/2 - laplacian] = E|grad E + score|^2/2 - E|score|^2/2, for an energy that is not the data's."""
    world, net = plane(), PointEnergy(2, width=16, depth=2).double()
    x = world.sample(40_000, generator=seeded(7))
    score = world.score(x)
    both = (slope(net, x) + score).square().sum(1) / 2 - score.square().sum(1) / 2
    difference = score_matching_loss(net, x).detach() - both
    assert abs(difference.mean().item()) <= 4 * difference.std().item() / len(x) ** 0.5


def test_an_energys_demo_has_a_density():
    """Normalised on a grid, seconds of contrastive divergence give moons -1.7 nats per point; a Gaussian with their
    covariance gives -1.9."""
    demo = EnergyBased.demo()
    x = EnergyBased.small()[1].tensors[0]
    nll = demo.model.energy(x).double().mean().item() + grid_log_normaliser(demo.model.energy)
    gaussian = 0.5 * torch.logdet(x.T.cov()).item() + math.log(2 * math.pi) + 1
    assert nll < gaussian - 0.1 and gaussian == pytest.approx(1.9, abs=0.05)


# The normaliser


@pytest.mark.parametrize("cells", [60, 200])
def test_the_grids_normaliser(cells):
    world = plane()
    energy = lambda x: -world.log_prob(x.double()) + 3.7  # noqa: E731
    assert grid_log_normaliser(energy, low=-6, high=6, cells=cells) == pytest.approx(-3.7, abs=1e-5)
    with pytest.raises(RangeError, match=r"% of the mass at the edge of \[-0\.5, 0\.5\]"):
        grid_log_normaliser(energy, low=-0.5, high=0.5)


def test_what_has_no_normaliser_says_so():
    for model in (EnergyBased(PointEnergy(), (2,)), EnergyMatching(PointEnergy(), (2,))):
        with pytest.raises(NotTractable, match=f"{type(model).__name__} knows.*grid_log_normaliser"):
            model.log_prob(torch.zeros(3, 2))


# Energy matching


RADIUS, WIDTH = 3.0, 0.3


def four():
    """Four Gaussians on the axes."""
    return Batches((ring(4096, modes=4, radius=RADIUS, std=WIDTH, generator=seeded(9))[0],), 128)


def around_modes(x):
    """Variance per axis around the nearest of the four centres; 0.09 for the data."""
    centres = RADIUS * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    return torch.cdist(x, centres).min(1).values.square().mean().item() / 2


def test_flow_matching_of_a_potential():
    """|grad V - (eps - x0)|^2 of pairs by optimal transport, by hand, and its gradient reaches the weights."""
    model = EnergyMatching(Bowl(0.7), (2,))
    x = normal(32, 2, seed=1)
    loss = model.loss((x,), "flow", generator=seeded(2))
    g = seeded(2)
    eps = minibatch_ot(x, g)
    t = torch.rand(32, generator=g, dtype=F64)[:, None]
    residual = 0.7 * ((1 - t) * x + t * eps) - (eps - x)
    assert gap(loss.detach(), residual.square().mean(1)) <= 1e-12
    (got,) = torch.autograd.grad(loss.mean(), model.network.k)
    assert got.item() == pytest.approx((2 * residual * ((1 - t) * x + t * eps)).mean().item(), abs=1e-12)


def test_the_temperature_waits_rises_and_stays():
    """0 up to tau*, linear to eps at 1, eps afterwards: 0.8 to 1.5 in steps of 0.1."""
    model = EnergyMatching(Bowl(0.0), (20_000,), temperature=0.5, warm=0.8, horizon=1.5)
    frames = [
        torch.zeros(1, 20_000, dtype=F64),
        *model.move(torch.zeros(1, 20_000, dtype=F64), None, 15, 0.0, seeded()),
    ]
    heat = [(b - a).var().item() / (2 * 0.1) for a, b in pairwise(frames)]
    expected = [0.0] * 9 + [0.25] + [0.5] * 5
    assert heat == pytest.approx(expected, abs=0.02)


def test_without_the_second_phase_samples_leave():
    """FORMULAS U21: after the flow phase alone the variance per axis is 0.2, 3.3, 20 at the horizons 1, 3, 6 (0.09 in
    the data), since nothing ends the slope; contrastive divergence makes wells, in which 6 is as good as 3."""
    variances = {}
    for name, share, steps in (("flow", 1.0, 400), ("balance", 0.5, 600)):
        torch.manual_seed(0)
        model = EnergyMatching(PointEnergy(2), (2,), temperature=0.05, share=share, contrast=1.0)
        for _ in fit(model, four(), steps=steps, generator=seeded(1)):
            pass
        for horizon in (1.0, 3.0, 6.0):
            model.horizon = horizon
            variances[name, horizon] = around_modes(model.sample(500, steps=int(30 * horizon), generator=seeded(2)))
    assert variances["flow", 1.0] < 0.4 < 2 < variances["flow", 3.0] < 5 < 10 < variances["flow", 6.0]
    assert variances["balance", 3.0] < 0.25 and variances["balance", 6.0] < 0.25


def test_noise_is_paired_within_classes():
    """Two classes far apart: paired across them, the noise of each would be half a bell, and V would learn that."""
    labels = torch.arange(2).repeat(256)
    x = normal(512, 2, seed=1) * 0.1 + 4.0 * labels[:, None]
    model, seen = EnergyMatching(Spy(), (2,)), []
    model.network.seen = seen
    for batch in ((x, labels), (x,)):
        model.loss(batch, "flow", generator=seeded(2))
    g = seeded(2)
    eps, t = torch.randn(512, 2, generator=g, dtype=F64), torch.rand(512, generator=g, dtype=F64)[:, None]
    noise = [(x_t - (1 - t) * x) / t for x_t in seen]
    (within, across), means = noise, []
    for part in noise:
        assert gap(part.sort(0).values, eps.sort(0).values) <= 1e-6  # the same draws, in another order
        means.append((part[labels == 1].mean() - part[labels == 0].mean()).item())
    assert abs(means[0]) <= 4 * (2 / 512) ** 0.5 < 1.0 < means[1] and gap(within, across) > 0.1


class Spy(Bowl):
    """A bowl that keeps what it is shown."""

    def forward(self, x, cond=None):
        self.seen.append(x.detach())
        return super().forward(x, cond)


def test_energies_hear_the_label_and_not_their_neighbours():
    net, x = PointEnergy(64, n_classes=3), normal(4, 1, 8, 8).float()
    given, null = net(x, torch.full((4,), 3)), net(x)
    assert torch.equal(given, null) and not torch.equal(net(x, torch.zeros(4, dtype=torch.long)), null)
    assert torch.allclose(null[2:], net(x[2:]), atol=1e-6)
