"""JKO and unbalanced transport: closed forms, exact densities, POT; and what goes wrong without the right terms."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from lecture_lib.data import Batches
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.families import (
    IDENTITY,
    RELATIVE_ENTROPY,
    SOFTPLUS,
    JKOFlow,
    UnbalancedTransport,
    displaced,
    fit,
    jko_objective,
)
from lecture_lib.nets import ICNN, EventMLP
from lecture_lib.oracles import Gaussian, jko_path, jko_step, ornstein_uhlenbeck, unbalanced_plan
from lecture_lib.training import Ema


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian_step(start: Gaussian, target: Gaussian, tau: float) -> tuple[float, float]:
    """Mean and std of one JKO step, by scipy: KL between Gaussians plus W_2^2/(2 tau)."""

    def objective(at):
        mean, std = at[0], math.exp(at[1])
        kl = math.log(math.sqrt(target.var) / std) + (std**2 + (mean - target.mean) ** 2) / (2 * target.var)
        return kl + ((mean - start.mean) ** 2 + (std - math.sqrt(start.var)) ** 2) / (2 * tau)

    found = minimize(objective, [start.mean, 0.0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14})
    return found.x[0], math.exp(found.x[1])


# JKO ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "tau"), [(Gaussian(2, 0.09), 0.2), (Gaussian(-1, 4.0), 0.05), (Gaussian(0, 1), 1.0)])
def test_the_gaussian_step_against_scipy(start, tau):
    step, (mean, std) = jko_step(start, tau), gaussian_step(start, Gaussian(0, 1), tau)
    assert step.mean == pytest.approx(mean, abs=1e-6) and math.sqrt(step.var) == pytest.approx(std, abs=1e-6)


def test_jko_is_of_first_order():
    """B148: from N(2, 0.3^2) to time 1 the mean misses Ornstein and Uhlenbeck's by 0.068, 0.035, 0.018, 0.009."""
    start = Gaussian(2, 0.09)
    true = ornstein_uhlenbeck(start, 1.0)
    ends = [jko_path(start, tau, round(1 / tau))[-1] for tau in (0.2, 0.1, 0.05, 0.025)]
    assert [end.mean - true.mean for end in ends] == pytest.approx([0.068, 0.035, 0.018, 0.009], abs=6e-4)
    spread = [abs(math.sqrt(end.var) - math.sqrt(true.var)) for end in ends]
    assert all(1.8 < big / small < 2.1 for big, small in pairwise(spread))


TARGET = Gaussian(2, 0.25)


def learned_step(proximal: float, tau: float = 0.5):
    """One convex network on N(0, 1), and where it moves it on the way to TARGET."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        psi = ICNN(1, width=16)
    optimizer, g = torch.optim.Adam(psi.parameters(), lr=0.03, betas=(0.9, 0.99)), seeded()
    energy = lambda x: (x[:, 0] - TARGET.mean) ** 2 / (2 * TARGET.var)  # noqa: E731
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 400)
        optimizer.zero_grad()
        jko_objective(psi, torch.randn(512, 1, generator=g), energy, tau, proximal).mean().backward()
        optimizer.step()
    u = (torch.arange(4000) + 0.5) / 4000
    there = psi.push(torch.special.ndtri(u)[:, None])[0].detach()
    return float(there.mean()), float(there.std())


def test_a_learned_step_is_the_closed_one():
    """mean 1.333, std 0.608: what scipy finds for N(0, 1) -> N(2, 0.5^2) with tau = 0.5."""
    mean, std = gaussian_step(Gaussian(0, 1), TARGET, 0.5)
    assert (mean, std) == pytest.approx((4 / 3, 0.6076), abs=1e-3)
    assert learned_step(1.0) == pytest.approx((mean, std), abs=0.02)


def test_without_the_proximal_term_there_is_no_flow():
    """B149: minimising F alone goes all the way to N(2, 0.5^2) in one step."""
    assert learned_step(0.0) == pytest.approx((2.0, 0.5), abs=0.03)


def test_a_push_forward_is_no_mixture():
    """B148, half-way through a shift by 3 of N(0, 0.1^2): variance 0.010 displaced, 2.26 mixed."""
    x = 0.1 * torch.randn(100_000, 1, generator=seeded())
    assert float(displaced(x, x + 3, 0.5).var()) == pytest.approx(0.01, rel=0.02)
    stay = torch.rand(100_000, 1, generator=seeded(1)) < 0.5
    assert float(torch.where(stay, x, x + 3).var()) == pytest.approx(0.01 + 9 / 4, rel=0.01)


@pytest.fixture(scope="module")
def jko():
    return JKOFlow.demo().model


def bent() -> JKOFlow:
    """Three steps that bend the plane at random: densities must be exact for any weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = JKOFlow(lambda x: x.square().sum(1) / 2, steps=3, width=8)
        for weight in model.parameters():
            weight.data.add_(0.2 * torch.randn_like(weight))
    return model


def test_the_density_integrates_to_one():
    side = torch.linspace(-12, 12, 161, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    for steps in (0, 1, 3):
        density = bent().log_density(grid, steps).exp()
        assert float(density.sum() * (side[1] - side[0]) ** 2) == pytest.approx(1.0, abs=2e-3)


def test_the_density_is_the_change_of_variables():
    """Forward and inverse agree, and the determinant is that of the composed map's Jacobian, by autograd."""
    model = bent().double()
    z = torch.randn(6, 2, generator=seeded(), dtype=torch.float64)
    *_, end = model.flow(z)
    assert torch.allclose(model.log_prob(end.x).nats, end.log_density, atol=1e-8)

    def composed(z):
        for psi in model.potentials:
            z = psi.push(z)[0]
        return z

    normal = torch.distributions.Normal(0.0, 1.0)
    for i in range(6):
        jacobian = torch.autograd.functional.jacobian(lambda v: composed(v[None])[0], z[i])
        expected = normal.log_prob(z[i]).sum() - torch.linalg.slogdet(jacobian)[1]
        assert float(end.log_density[i]) == pytest.approx(float(expected), abs=1e-9)


def test_forward_walks_the_tracks_back():
    model = bent().double()
    z = torch.randn(5, 2, generator=seeded(), dtype=torch.float64)
    tracks = [frame.x for frame in model.flow(z)]  # z, one, two, three steps
    at = lambda t: model.forward_process(tracks[-1], torch.full((5,), t, dtype=torch.float64))  # noqa: E731
    assert torch.allclose(at(1.0), z, atol=1e-7) and torch.allclose(at(0.0), tracks[3], atol=1e-12)
    assert torch.allclose(at(1 / 3), tracks[2], atol=1e-7)
    assert torch.allclose(at(0.5), (tracks[1] + tracks[2]) / 2, atol=1e-7)


def test_every_step_pays_for_its_length(jko):
    """F falls by more than |T x - x|^2/(2 tau) at each step (a minimum beats staying), and never below the target's."""
    frames = list(jko.flow(jko.prior(20_000, generator=seeded())))
    energies = [frame.free_energy(jko.energy) for frame in frames]
    for k in range(jko.steps):
        length = float((frames[k + 1].x - frames[k].x).square().sum(1).mean())
        assert energies[k] - energies[k + 1] > length / (2 * jko.tau) - 0.005
    assert energies[0] == pytest.approx(1.55, abs=0.05) and 0 < energies[-1] < 0.25


def test_jko_says_what_it_cannot_do():
    with pytest.raises(RangeError, match="at most 3"):
        JKOFlow(lambda x: x.sum(1), 64)
    with pytest.raises(RangeError, match="one per potential"):
        list(bent().flow(torch.zeros(1, 2), 4))
    with pytest.raises(ShapeError, match="x: got shape"):
        bent().log_prob(torch.zeros(2, 3))


# Unbalanced transport ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conjugate", [IDENTITY, RELATIVE_ENTROPY, SOFTPLUS], ids=lambda c: c.name)
def test_conjugates_are_normalised_and_convex(conjugate):
    u = torch.linspace(-4, 8, 240, dtype=torch.float64, requires_grad=True)  # beyond 5 it goes on as a tangent
    (slope,) = torch.autograd.grad(conjugate.of(u).sum(), u)
    zero = torch.zeros(1, dtype=torch.float64)
    assert float(conjugate.of(zero)) == 0 and float(conjugate.share(zero)) == 1
    assert torch.allclose(conjugate.share(u), slope, atol=1e-12)
    assert (slope.diff() >= -1e-12).all() and (slope > 0).all()


def test_the_conjugate_of_relative_entropy_is_a_legendre_transform():
    """sup_r u r - (r log r - r + 1), over a grid of densities r."""
    r, u = torch.linspace(1e-6, 60, 600_001, dtype=torch.float64), torch.tensor([-2.0, -0.3, 0.7, 3.0]).double()
    legendre = torch.stack([(v * r - (r * r.log() - r + 1)).max() for v in u])
    assert torch.allclose(RELATIVE_ENTROPY.of(u), legendre, atol=1e-6)


def clouds(n=40):
    x, y = (torch.randn(n, 2, generator=seeded(k), dtype=torch.float64) for k in (1, 2))
    return torch.cdist(x, y + 1) ** 2, torch.full((n,), 1 / n, dtype=torch.float64)


@pytest.mark.parametrize("penalty", [0.3, 2.0])
def test_the_plan_against_pot(penalty):
    ot = pytest.importorskip("ot")
    cost, a = clouds()
    mine = unbalanced_plan(cost, a, a, penalty=penalty, entropy=0.3, tolerance=1e-13)
    theirs = ot.unbalanced.sinkhorn_unbalanced(
        a.numpy(), a.numpy(), cost.numpy(), 0.3, penalty, reg_type="kl", numItermax=20_000, stopThr=1e-14
    )
    assert np.abs(mine.numpy() - theirs).max() < 1e-10


def test_plans_between_float32_weights_settle_and_unequal_masses_are_named():
    """Rounded to float32 both sums miss 1, each by its own: potentials drifted forever."""
    a, b = torch.tensor([0.5, 0.2, 0.3]), torch.tensor([0.2, 0.2, 0.3, 0.3])
    cost = torch.rand(3, 4, generator=seeded(), dtype=torch.float64)
    plan = unbalanced_plan(cost, a, b, penalty=math.inf, entropy=0.1)
    assert torch.allclose(plan.sum(1), a.double(), atol=1e-7) and torch.allclose(plan.sum(0), b.double(), atol=1e-7)
    with pytest.raises(RangeError, match="a, b: got masses 1 and 2"):
        unbalanced_plan(cost, a, 2 * b, penalty=math.inf, entropy=0.1)
    assert torch.isfinite(unbalanced_plan(cost, a, 2 * b, penalty=1.0, entropy=0.1)).all()


def test_an_infinite_penalty_is_balanced_transport():
    ot = pytest.importorskip("ot")
    cost, a = clouds()
    mine = unbalanced_plan(cost, a, a, penalty=math.inf, entropy=0.2, tolerance=1e-12)
    assert np.abs(mine.numpy() - ot.sinkhorn(a.numpy(), a.numpy(), cost.numpy(), 0.2, stopThr=1e-13)).max() < 1e-10
    assert torch.allclose(mine.sum(0), a, atol=1e-10)


def test_one_outlier_in_twenty():
    """B150, 5 % of the data at 50: balanced transport pays 115 and sends 5 % of the mass there; at penalty 10 the plan
    pays 0.04 and sends nothing (FORMULAS: 116, 0.035)."""
    ot = pytest.importorskip("ot")
    x, y = (torch.randn(200, 1, generator=seeded(k), dtype=torch.float64) for k in (0, 1))
    y[:10] = 50.0
    cost, a = torch.cdist(x, y) ** 2, torch.full((200,), 1 / 200, dtype=torch.float64)
    plan = torch.from_numpy(ot.emd(a.numpy(), a.numpy(), cost.numpy()))
    assert float((plan * cost).sum()) == pytest.approx(115, abs=2) and float(plan[:, :10].sum()) == pytest.approx(0.05)
    free = unbalanced_plan(cost, a, a, penalty=10.0, entropy=0.05, tolerance=1e-6)
    assert float((free * cost).sum()) == pytest.approx(0.04, abs=0.015) and float(free[:, :10].sum()) < 1e-30


def trained(data, source, target, tau, steps):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = (EventMLP((1,), out, width=32, depth=1) for out in ((1,), ()))
        model = UnbalancedTransport(*networks, (1,), psi_source=source, psi_target=target, tau=tau, inner=4)
    ema = Ema(model, 0.995)
    for _ in fit(model, Batches((data,), 256), steps=steps, generator=seeded(), ema=ema):
        pass
    u = (torch.arange(4000) + 0.5) / 4000
    z = torch.special.ndtri(u)[:, None]
    return ema.average, z, ema.average.carry(z)


def test_the_balanced_limit_is_the_transport_between_gaussians():
    """N(0, 1) -> N(2, 0.5^2): T(x) = 2 + x/2, and W_2^2/2 = (4 + 0.25)/2; averaged weights, 3 %."""
    data = 2 + 0.5 * torch.randn(20_000, 1, generator=seeded(1))
    model, z, there = trained(data, IDENTITY, IDENTITY, 1.0, 1500)
    assert float(model.cost(z, there).mean()) == pytest.approx(2.125, rel=0.04)
    assert (there - 2 - z / 2).abs()[z.abs() < 2].max() < 0.15


def test_half_unbalanced_is_a_jko_step_from_samples():
    """psi_source = identity, tau = 1/h: N(0, 1) -> N(1, 1.5^2) with h = 1, against scipy's step of the Gaussian JKO."""
    data = 1 + 1.5 * torch.randn(20_000, 1, generator=seeded(1))
    _, _, there = trained(data, IDENTITY, RELATIVE_ENTROPY, 1.0, 1500)
    mean, std = gaussian_step(Gaussian(0, 1), Gaussian(1, 2.25), 1.0)
    assert float(there.mean()) == pytest.approx(mean, abs=0.05) and float(there.std()) == pytest.approx(std, abs=0.05)


def test_the_learned_map_leaves_outliers_alone():
    """5 % of the data at 10: the balanced map sends some of the mass there (measured 4 %) and spreads the rest; the
    unbalanced one sends none and stays N(0, 1), and its potential says which data it does not explain."""
    data = torch.randn(20_000, 1, generator=seeded(1))
    data[:1000] = 10.0
    _, _, balanced = trained(data, IDENTITY, IDENTITY, 1.0, 1000)
    model, _, free = trained(data, RELATIVE_ENTROPY, RELATIVE_ENTROPY, 1.0, 1000)
    assert float((balanced > 5).float().mean()) > 0.01 and float(balanced.std()) > 1.25
    assert not (free > 5).any() and float(free.std()) == pytest.approx(1.0, abs=0.1)
    ordinary, outlier = model.explained(torch.tensor([[0.0], [10.0]]))
    assert float(ordinary) == pytest.approx(1.0, abs=0.15) and float(outlier) < 0.05
