"""Densities carried by a field: closed forms, torchdiffeq, exact mixtures, and what a coarse solver gets away with."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.stats import multivariate_normal, norm
from torch import nn

from lecture_lib.core import (
    AdaptiveRungeKutta,
    RectifiedFlow,
    RungeKutta4,
    Trigonometric,
    exact_divergence,
    hutchinson,
)
from lecture_lib.data import Batches, moons
from lecture_lib.errors import ShapeError
from lecture_lib.families import CNF, fit
from lecture_lib.families.cnf import CLOCK
from lecture_lib.nets import TimeMLP
from lecture_lib.oracles import GaussianMixture

G = torch.Generator().manual_seed(5)
MATRIX = torch.tensor([[0.3, -1.2, 0.4], [0.9, -0.5, 0.1], [-0.2, 0.7, 0.6]], dtype=torch.float64)


def normal(*shape):
    return torch.randn(*shape, generator=G, dtype=torch.float64)


class Linear(nn.Module):
    """x -> A x, at all times."""

    def __init__(self, matrix=MATRIX):
        super().__init__()
        self.matrix = nn.Parameter(matrix.clone())

    def forward(self, x, t, cond=None):
        return x @ self.matrix.T


class Exact(nn.Module):
    """The velocity of an exact denoiser, on the clock of a CNF: t in 0..10 is 0..t_max of the path."""

    def __init__(self, mixture, path):
        super().__init__()
        self.denoise, self.path = mixture.denoise(path), path
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))  # a model has weights

    def forward(self, x, t, cond=None):
        return self.path.t_max * self.denoise(x, t / CLOCK * self.path.t_max).on(self.path).velocity


def wild(dtype=torch.float64, **options):
    net = TimeMLP(2, width=16, depth=1, **options)
    for p in net.parameters():
        p.data.normal_(std=0.3, generator=G)
    return net.to(dtype)


@pytest.mark.parametrize("solver", [RungeKutta4(30), AdaptiveRungeKutta(1e-9, 1e-9)], ids=["rk4", "adaptive"])
def test_a_linear_field_carries_a_gaussian(solver):
    """x(1) = e^A x, so x is normal with covariance e^-A e^-A^T; tr A is what the divergence adds up to."""
    model, x = CNF(Linear(), (3,), judge=solver), normal(20, 3)
    back = expm(-MATRIX.numpy())
    expected = multivariate_normal(cov=back @ back.T).logpdf(x.numpy())
    assert model.log_prob(x).nats.numpy() == pytest.approx(expected, abs=1e-6)
    end, gained = solver(model.slope(None, exact_divergence), x, 0.0, 1.0)
    assert end.numpy() == pytest.approx(x.numpy() @ expm(MATRIX.numpy()).T, abs=1e-6)
    assert gained.numpy() == pytest.approx(0.4, abs=1e-9)


def test_center_and_scale_are_those_of_the_noise():
    center, scale = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 3.0]).double()
    model, x = CNF(Linear(torch.zeros(2, 2).double()), (2,), center=center, scale=scale), normal(20, 2)
    expected = multivariate_normal(center.numpy(), np.diag(scale.numpy() ** 2)).logpdf(x.numpy())
    assert model.log_prob(x).nats.numpy() == pytest.approx(expected, abs=1e-9)
    z = model.prior(20_000, generator=G)
    assert (z.mean(0) - center).abs().max() <= 0.1 and (z.std(0) / scale - 1).abs().max() <= 0.03


def test_without_trace_and_constant_it_is_another_number():
    """N(2, .5^2) at 1.3 by the straight-line flow: -1.2058; the end's -z^2/2 alone, as popular code has it, -0.98."""
    field = Exact(GaussianMixture([1.0], [[2.0]], [0.25]), RectifiedFlow())
    x = torch.tensor([[1.3]], dtype=torch.float64)
    model = CNF(field, (1,), judge=RungeKutta4(100))
    assert norm(2, 0.5).logpdf(1.3) == pytest.approx(-1.2058, abs=1e-4)
    assert model.log_prob(x).nats.item() == pytest.approx(-1.2058, abs=1e-4)
    z, _ = model.judge(model.slope(None, exact_divergence), x, 0.0, 1.0)
    assert -0.5 * z.item() ** 2 == pytest.approx(-0.98, abs=1e-3)


@pytest.mark.parametrize("path", [RectifiedFlow(), Trigonometric()], ids=lambda path: type(path).__name__)
@pytest.mark.parametrize("solver", [RungeKutta4(40), AdaptiveRungeKutta(1e-6, 1e-6)], ids=["rk4", "adaptive"])
def test_the_flow_of_a_path_has_the_likelihood_of_the_mixture(path, solver):
    """1e-3 nats of the truth; on paths whose ends need grids of their own, ``test_core_denoiser`` says the same."""
    mixture = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [1.0, -0.5]], [0.2, 0.1])
    x = mixture.sample(10, generator=G)
    nats = CNF(Exact(mixture, path), (2,), judge=solver).log_prob(x).nats
    assert (nats - mixture.log_prob(x)).abs().max() <= 1e-3


@pytest.mark.parametrize("solver", [RungeKutta4(60), AdaptiveRungeKutta(1e-7, 1e-7)], ids=["rk4", "adaptive"])
def test_points_and_divergence_are_torchdiffeqs(solver):
    """A wild field of time and place, its trace by autograd's full Jacobian there."""
    from torchdiffeq import odeint

    model, x = CNF(wild(), (2,)), normal(6, 2)

    def augmented(t, state):
        velocity = lambda y: model.velocity(y, t.expand(len(y)))  # noqa: E731
        jacobian = torch.func.vmap(torch.func.jacrev(lambda y: velocity(y[None])[0]))(state[0])
        return velocity(state[0]), jacobian.diagonal(dim1=1, dim2=2).sum(1)

    with torch.no_grad():
        start = (x, torch.zeros(6, dtype=torch.float64))
        ends, gains = odeint(augmented, start, torch.tensor([0.0, 1.0]).double(), rtol=1e-9, atol=1e-9)
    z, gained = solver(model.slope(None, exact_divergence), x, 0.0, 1.0)
    assert (z - ends[1]).abs().max() <= 2e-5 and (gained - gains[1]).abs().max() <= 2e-5
    assert gains[1].abs().max() > 0.1


def test_hutchinson_is_unbiased_with_the_variance_of_what_is_off_the_diagonal():
    """All 2^6 sign vectors: the mean is the trace and the variance |A_s|_F^2 - sum A_s,ii^2, A_s = (A + A^T)/sqrt 2,
    exactly; a normal probe has |A_s|_F^2 (here by 200,000 draws, to 3 %), always more."""
    matrix = normal(6, 6)
    field = lambda x: x @ matrix.T  # noqa: E731
    signs = torch.tensor(list(product([-1.0, 1.0], repeat=6))).double()
    _, each = hutchinson(signs)(field, normal(64, 6))
    off = (matrix + matrix.T) / 2**0.5
    law = (off**2).sum() - (off.diagonal() ** 2).sum()
    assert each.mean().item() == pytest.approx(matrix.trace().item(), abs=1e-12)
    assert each.var(correction=0).item() == pytest.approx(law.item(), rel=1e-12)
    _, loud = hutchinson(normal(200_000, 6))(field, normal(200_000, 6))
    assert loud.var().item() == pytest.approx((off**2).sum().item(), rel=0.03) and loud.var() > 1.1 * law


def test_one_probe_per_solve_keeps_the_mean_of_the_likelihood():
    """Over the four sign vectors of the plane the estimates average to the exact log-density, up to rounding."""
    model, x, solver = CNF(wild(), (2,)), normal(5, 2), RungeKutta4(5)
    exact = model.density(x, None, exact_divergence, solver)
    probes = [torch.tensor(z).double().expand(5, 2) for z in product([-1.0, 1.0], repeat=2)]
    each = torch.stack([model.density(x, None, hutchinson(z), solver) for z in probes])
    assert (each.mean(0) - exact).abs().max() <= 1e-12 and each.std(0).min() > 1e-3


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "hutchinson"])
def test_gradients_go_through_every_step(exact):
    """Of the negative log-likelihood, in a random direction of all weights, against central differences."""
    model, x = CNF(wild(), (2,)), normal(8, 2)
    probe = normal(8, 2).sign()
    divergence = partial(exact_divergence, create_graph=True) if exact else hutchinson(probe, create_graph=True)
    value = lambda: model.density(x, None, divergence, RungeKutta4(3)).sum()  # noqa: E731
    weights = list(model.parameters())
    gradients = torch.autograd.grad(value(), weights, allow_unused=True)
    way = [normal(*p.shape) for p in weights]
    slope = sum((g * w).sum() for g, w in zip(gradients, way, strict=True) if g is not None)

    def moved(h):
        for p, w in zip(weights, way, strict=True):
            p.data.add_(w, alpha=h)
        out = value().item()
        for p, w in zip(weights, way, strict=True):
            p.data.sub_(w, alpha=h)
        return out

    assert (moved(1e-5) - moved(-1e-5)) / 2e-5 == pytest.approx(slope.item(), rel=1e-6)


def test_forth_and_back():
    model, x = CNF(wild(), (2,), solver=RungeKutta4(40)), normal(6, 2)
    z, _ = model.solver(model.slope(None, exact_divergence), x, 0.0, 1.0)
    t = torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0, 1.0], dtype=torch.float64)
    x_t = model.forward_process(x, t)
    half, _ = model.solver(model.slope(None, exact_divergence), x, 0.0, 0.5)
    assert torch.equal(x_t[:2], x[:2]) and (x_t[2] - half[2]).abs().max() <= 1e-6
    assert (x_t[3:] - z[3:]).abs().max() <= 1e-12
    frames = list(model.reverse_process(z, generator=G))
    assert len(frames) == 40 and (frames[-1] - x).abs().max() <= 1e-5
    assert (frames[19] - half).abs().max() <= 1e-5


def test_kinetic_energy_is_charged():
    """A constant field c moves all by c and costs |c|^2: loss = -log p/D + kinetic |c|^2/D, in units of the scale."""

    class Constant(nn.Linear):
        def forward(self, x, t, cond=None):
            return self.bias + 0 * x

    field = Constant(2, 2).double()
    field.bias.data = torch.tensor([3.0, -4.0]).double()
    x = normal(5, 2)
    free, dear = (CNF(field, (2,), scale=torch.tensor([2.0, 2.0]).double(), kinetic=k) for k in (0.0, 0.1))
    gap = dear.loss((x,), generator=G) - free.loss((x,), generator=G)
    assert gap.detach().numpy() == pytest.approx(0.1 * 25 / 2, abs=1e-9)
    end = (x + 2 * field.bias.detach()) / 2
    expected = -norm.logpdf(end.numpy()).sum(1) / 2 + np.log(2.0)
    assert free.loss((x,), generator=G).detach().numpy() == pytest.approx(expected, abs=1e-9)


def test_a_coarse_solver_lets_the_likelihood_lie(monkeypatch):
    """Trained through two Runge-Kutta steps, on the clock 0..1000 that networks are used to, the field does well at
    the solver's five times and anything in between: by its own steps it has far more nats than by accurate ones. On a
    slow clock it cannot: both agree."""
    x = moons(2048, generator=torch.Generator().manual_seed(0))[0]
    gaps = {}
    for clock in (1000.0, 10.0):
        monkeypatch.setattr("lecture_lib.families.cnf.CLOCK", clock)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.set_state(torch.Generator().manual_seed(0).get_state())
            field = TimeMLP(2, width=32, depth=1)
        model = CNF(field, (2,), center=x.mean(0), scale=x.std(0), solver=RungeKutta4(2))
        for _ in fit(model, Batches((x,), 128), steps=120, lr=3e-3, generator=torch.Generator().manual_seed(0)):
            pass
        own = model.density(x[:200], None, exact_divergence, model.solver).mean()
        gaps[clock] = (own - model.log_prob(x[:200]).nats.mean()).item()
    assert gaps[1000.0] > 0.4 and abs(gaps[10.0]) < 0.1


def test_labels_are_heard_and_dropped():
    model, x = CNF(wild(n_classes=2), (2,), null=2, judge=RungeKutta4(3), solver=RungeKutta4(3)), normal(6, 2)
    ones, none = torch.ones(6, dtype=torch.long), torch.full((6,), 2)
    assert (model.log_prob(x, ones).nats - model.log_prob(x, none).nats).abs().min() > 1e-6
    for p, label in ((0.0, ones), (1.0, none)):
        model.p_uncond = p
        expected = -model.log_prob(x, label).nats / 2
        assert torch.allclose(model.loss((x, ones), generator=G).detach(), expected)


def test_in_many_dimensions_it_is_an_estimate():
    field = TimeMLP(64, width=8, depth=1)
    nn.init.normal_(field.leave.weight, std=0.1)
    model, x = CNF(field, (1, 8, 8), judge=RungeKutta4(2)), torch.randn(3, 1, 8, 8, generator=G)
    found = model.log_prob(x, generator=G)
    assert found.kind == "estimate" and not torch.equal(found.nats, model.log_prob(x, generator=G).nats)
    assert CNF(wild(), (2,)).log_prob(normal(2, 2)).kind == "exact"
    with pytest.raises(ShapeError, match=r"expected \(b, 1, 8, 8\)"):
        model.log_prob(torch.zeros(3, 64))


def test_start_from_gives_a_scale_that_can_be_divided_by():
    """The corner pixels of the digits are black in all pictures; of a single picture there is no spread at all."""
    x = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    model = CNF.plane().start_from(x)
    assert model.center.tolist() == [0.0, 2.0] and model.scale[0] > 0 and model.scale[1] == 1.0
    assert torch.isfinite(model.log_prob(x).nats).all()
    with pytest.raises(ShapeError, match="x: got 1 sample"):
        model.start_from(x[:1])
