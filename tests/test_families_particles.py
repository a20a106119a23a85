"""DiffFlow, MMD and KL flows: moments that are known, gradients by autograd, and the popular mistakes in numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lecture_lib.core import EDM
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.families import (
    DiffFlow,
    MMDFlow,
    blob_score,
    diffflow_velocity,
    kl_velocity,
    mmd_velocity,
    particle_flow,
)
from lecture_lib.families.denoising import two_moons
from lecture_lib.metrics import EnergyKernel, GaussianKernel, mmd2
from lecture_lib.nets import EventMLP
from lecture_lib.oracles import Gaussian, GaussianMixture, ornstein_uhlenbeck

START = Gaussian(2.0, 0.09)
TRUE = Gaussian(0.0, 1.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def final(frames):
    for x in frames:  # noqa: B007
        pass
    return x


def evenly(law: Gaussian, n: int):
    """Quantiles of a Gaussian: a sample without its noise."""
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return (law.mean + math.sqrt(law.var) * torch.special.ndtri(u))[:, None]


def score_q(x, time):
    return -x


def score_p(x, time):
    law = ornstein_uhlenbeck(START, time)
    return -(x - law.mean) / law.var


# DiffFlow ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("g", [0.0, 0.7, math.sqrt(2)])
def test_the_law_of_diffflow_does_not_depend_on_g(g):
    """N(2, 0.3^2) -> N(0, 1), time 0.7: mean 0.993, std 0.881. Euler's bias is 0.001 at 400 steps; 40,000 particles
    with noise scatter by 0.005."""
    velocity = diffflow_velocity(score_q, score_p, beta=1.0, g=g)
    x = final(particle_flow(evenly(START, 40_000), velocity, time=0.7, steps=400, noise=g, generator=seeded()))
    assert float(x.mean()) == pytest.approx(0.9932, abs=0.015 if g else 0.003)
    assert float(x.std()) == pytest.approx(0.8807, abs=0.012 if g else 0.006)


def test_the_ode_field_with_noise_on_top_is_too_wide():
    """B140: g^2 = 2 beta with the drift of g = 0. The variance then tends to 2: std 1.236 at time 0.7 by
    v' = -2 v + 4, not 0.881."""
    velocity = diffflow_velocity(score_q, score_p, beta=1.0, g=0.0)
    x = final(
        particle_flow(evenly(START, 40_000), velocity, time=0.7, steps=400, noise=math.sqrt(2), generator=seeded())
    )
    assert float(x.std()) > 1.2


def test_down_minus_log_d_runs_away_from_the_data():
    """B140 at the particles' mean: grad logit D = -2 leads to the data; -grad log D is +1.9."""
    x = torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
    logit = TRUE.mixture().log_prob(x) - START.mixture().log_prob(x)
    (right,) = torch.autograd.grad(logit.sum(), x, retain_graph=True)
    (wrong,) = torch.autograd.grad(nn.functional.softplus(-logit).sum(), x)  # of -log D
    assert float(right) == pytest.approx(-2.0, abs=1e-12)
    assert float(wrong) == pytest.approx(1.92, abs=0.01)


class Bowl(nn.Module):
    """A critic with logit -|x|^2/2."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x, t, cond=None):
        return -x.square().sum(1) / 2


class Known(nn.Module):
    """A denoiser that knows the smoothed data exactly."""

    def __init__(self, world):
        super().__init__()
        self.world, self.path = world, EDM()
        self.unused = nn.Parameter(torch.zeros(1))

    def given(self, cond):
        return self.world.denoise(self.path)


def exact_diffflow(share):
    world = GaussianMixture([1.0], [[3.0, -1.0]], [0.5])
    return world, DiffFlow(Known(world), Bowl(), (2,), share=share, levels=3, sigmas=(1.0, 0.25), rate=0.4)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_one_step_of_diffflow_is_its_formula(share):
    """Drift (1 - share) grad logit + share score, noise of variance 2 beta h share, beta h = rate sigma^2."""
    world, model = exact_diffflow(share)
    x = torch.tensor([[0.5, -0.2]], dtype=torch.float64).expand(100_000, 2)
    k, sigma = 1, 0.5  # the middle of (1, 0.25), geometrically
    bowl = -x / (1 + sigma**2)  # the critic sees x / sqrt(1 + sigma^2)
    expected = (1 - share) * bowl + share * world.score(x, EDM(), torch.full((len(x),), sigma, dtype=torch.float64))
    assert torch.allclose(model.drift(x, k), expected, atol=1e-12)
    model.sigmas = torch.tensor([sigma] * 3, dtype=torch.float64)
    _, there = list(model.reverse_process(x, steps=1, generator=seeded()))
    moved = there - x - 0.4 * sigma**2 * expected
    assert float(moved.var()) == pytest.approx(2 * 0.4 * sigma**2 * share, rel=0.02, abs=1e-20)
    assert moved.mean(0).abs().max() < 0.01


def test_annealed_langevin_reaches_the_data():
    """share = 1, exact score: the mean is right, the variance 0.5 plus the last smoothing's and the step's bias."""
    world = GaussianMixture([1.0], [[3.0, -1.0]], [0.5])
    model = DiffFlow(Known(world), Bowl(), (2,), share=1.0, levels=200, sigmas=(3.0, 0.3), rate=0.2)
    x = model.sample(20_000, generator=seeded())
    assert torch.allclose(x.mean(0).double(), torch.tensor([3.0, -1.0]).double(), atol=0.15)
    assert x.var(0).mean() == pytest.approx(0.6, abs=0.08)


@pytest.fixture(scope="module")
def diffflow():
    return DiffFlow.demo()


def test_one_diffflow_serves_every_share(diffflow):
    """The same two networks, by the critic alone, by the score alone, by both: each far nearer to the data than where
    particles start (0.12); measured 0.02, 0.01, 0.01."""
    data, model = two_moons().tensors[0], diffflow.model
    start = mmd2(model.prior(1000, generator=seeded()), data, EnergyKernel())
    for share in (0.0, 0.5, 1.0):
        model.share = share
        assert mmd2(model.sample(1000, generator=seeded(1)), data, EnergyKernel()) < start / 3
    model.share = 0.5


def test_the_critic_is_optimal_where_it_cannot_be_fooled(diffflow):
    """Its loss stays at or below 2 log 2, that of a coin."""
    assert sum(diffflow.losses["critic"][-20:]) / 20 < 2 * math.log(2) + 0.01


# MMD and KL --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [EnergyKernel(), GaussianKernel(0.8)], ids=lambda k: type(k).__name__)
def test_the_mmd_flow_descends_the_mmd(kernel):
    """The generator's gradient is that of MMD^2(G(z), data), by autograd through the V-statistic."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MMDFlow(EventMLP((2,), width=8, depth=1), (2,), kernel).double()
        nn.init.normal_(model.generator.leave.weight)
    data = torch.randn(30, 2, generator=seeded(1), dtype=torch.float64) + 1
    model.loss((data,), generator=seeded(2)).mean().backward()
    mine = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad(set_to_none=True)
    x = model.carry(model.prior(30, generator=seeded(2)))
    (kernel(x, x).mean() - 2 * kernel(x, data).mean()).backward()
    theirs = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(mine, theirs, strict=True))
    assert max(grad.abs().max() for grad in mine) > 1e-3


def test_a_labelled_particle_meets_only_its_class():
    model = MMDFlow(EventMLP((2,), n_classes=2), (2,))
    x, data = (torch.randn(20, 2, generator=seeded(k)) for k in (1, 2))
    cond = torch.arange(20) % 2
    velocity = model.velocity(x, data, cond)
    for label in (0, 1):
        mine = cond == label
        assert torch.allclose(velocity[mine], mmd_velocity(x[mine], data[mine], EnergyKernel()))


def test_with_labels_the_mmd_is_the_mean_over_classes():
    """Not that of the kernel k 1[c = c'], which weighs a class by the square of its share."""
    model = MMDFlow(EventMLP((2,), n_classes=2), (2,))
    x, data = (torch.randn(10, 2, generator=seeded(k), dtype=torch.float64) for k in (1, 2))
    cond, at, k = (torch.arange(10) > 1).long(), x.clone().requires_grad_(), EnergyKernel()
    within = [
        (k(at[c], at[c]).mean() - 2 * k(at[c], data[c]).mean()) * c.double().mean() for c in (cond == 0, cond == 1)
    ]
    (gradient,) = torch.autograd.grad(sum(within), at)
    assert torch.allclose(-10 * gradient, model.velocity(x, data, cond))


def v_statistic(x, y, kernel):
    return float(kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean())


def test_a_gaussian_kernel_loses_particles_and_distances_do_not():
    """U22: at bandwidth 0.5, from 1.5 away, the flow stalls (measured: 0.0024, 11 % escaped); -|x - y| arrives."""
    data = 0.5 * torch.randn(150, 2, generator=seeded(0)) + torch.tensor([-1.5, 0.0])
    start = 0.5 * torch.randn(150, 2, generator=seeded(1))
    far = {}
    for kernel, time in ((GaussianKernel(0.5), 300.0), (EnergyKernel(), 100.0)):
        x = final(particle_flow(start, lambda x, t, k=kernel: mmd_velocity(x, data, k), time=time, steps=1000))
        far[type(kernel)] = float(((x - data.mean(0)).norm(dim=1) > 2.5).float().mean())
        if isinstance(kernel, EnergyKernel):
            assert v_statistic(x, data, kernel) < v_statistic(start, data, kernel) / 2000
        else:
            assert v_statistic(x, data, kernel) > 5e-4
    assert far[GaussianKernel] > 0.03 and far[EnergyKernel] == 0


def test_far_away_a_gaussian_kernel_is_silent():
    """From 5 bandwidths the pull towards the data is e^-12.5; distances pull by 2, whatever the distance."""
    x, data = torch.tensor([[5.0, 0.0]]), torch.zeros(1, 2)
    assert mmd_velocity(x, data, GaussianKernel(1.0)).norm() == pytest.approx(10 * math.exp(-12.5), rel=1e-4)
    aslant = torch.tensor([[3.0, 4.0]])
    assert torch.allclose(mmd_velocity(aslant, data, EnergyKernel()), torch.tensor([[-1.2, -1.6]]))


def test_the_v_statistic_is_biased():
    """B149: 50 against 50 of the same law: 2 (1 - E k)/50 = 0.0169 too much; without self-pairs, nothing. For a shift
    of 1 the value is 2/sqrt(3) (1 - e^(-1/6)) = 0.1773."""
    kernel, g = GaussianKernel(1.0), seeded()
    pairs = [(torch.randn(50, 1, generator=g), torch.randn(50, 1, generator=g)) for _ in range(600)]
    with_self = sum(v_statistic(x, y, kernel) for x, y in pairs) / 600
    without = sum(mmd2(x, y, kernel) for x, y in pairs) / 600
    assert with_self == pytest.approx(0.0169, abs=0.0015) and abs(without) < 0.0015
    x, y = torch.randn(4000, 1, generator=g), torch.randn(4000, 1, generator=g) + 1
    assert mmd2(x, y, kernel) == pytest.approx(2 / math.sqrt(3) * (1 - math.exp(-1 / 6)), abs=0.02)


def test_the_energy_distance_against_scipy():
    """MMD^2 of the kernel -|x - y| is the squared energy distance; scipy's is of the V-statistic, on the line."""
    from scipy.stats import energy_distance

    x, y = torch.randn(200, 1, generator=seeded(0)), 0.5 * torch.randn(300, 1, generator=seeded(1)) + 1
    theirs = energy_distance(x[:, 0].numpy(), y[:, 0].numpy()) ** 2
    assert v_statistic(x.double(), y.double(), EnergyKernel()) == pytest.approx(theirs, rel=1e-6)


def test_the_kl_flow_forgets_the_bandwidth_squared():
    """Known score of N(0, 1), particles seen through a kernel of width h: it rests at variance 1 - h^2."""
    x = final(particle_flow(evenly(Gaussian(2, 0.3), 400), kl_velocity(lambda x: -x, 0.4), time=8.0, steps=200))
    assert float(x.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(x.var()) == pytest.approx(1 - 0.4**2, abs=0.03)


def test_the_blob_score_is_that_of_a_mixture():
    particles = torch.randn(6, 2, generator=seeded(), dtype=torch.float64)
    world = GaussianMixture([1.0] * 6, particles, [0.25] * 6)
    x = torch.randn(9, 2, generator=seeded(1), dtype=torch.float64)
    assert torch.allclose(blob_score(particles, 0.5)(x), world.score(x), atol=1e-12)


def test_particles_refuse_what_makes_no_sense():
    x = torch.zeros(3, 2)
    with pytest.raises(ShapeError, match="generator: got None"):
        final(particle_flow(x, lambda x, t: x, time=1.0, steps=2, noise=1.0))
    with pytest.raises(RangeError, match="share"):
        DiffFlow(Known(None), Bowl(), (2,), share=1.5)
