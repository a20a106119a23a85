"""DDPM and score SDEs against Gaussian worlds in which samples, likelihoods and bounds are known; what goes wrong."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributions import Normal, kl_divergence
from worlds import F64, gap, plane, seeded

from lecture_lib.core import VE, Discrete, VPLinear, ddpm_linear
from lecture_lib.errors import RangeError
from lecture_lib.families import DDPM, VESDE, VPSDE, LevelDecoder, Levels, SubVPSDE, variational_bound
from lecture_lib.families.decoders import GaussianDecoder
from lecture_lib.metrics import GaussianKernel, median_bandwidth, mmd2
from lecture_lib.nets import TimeMLP
from lecture_lib.oracles import GaussianMixture
from lecture_lib.samplers import DDIM, EulerMaruyama, Heun, PredictorCorrector, forward_variance, posterior_variance

SDES = pytest.mark.parametrize("family", [VPSDE, VESDE, SubVPSDE], ids=lambda family: family.__name__)
MEAN, STD = 2.0, 0.5


class Exact(nn.Module):
    """In the place of a trained denoiser: the exact one of a mixture."""

    null = None

    def __init__(self, world, path):
        super().__init__()
        self.world, self.path, self.anchor = world, path, nn.Parameter(torch.zeros(1, dtype=F64))

    def given(self, cond):
        return self.world.denoise(self.path)


def exact(family, world, **options):
    """A member of the family that has learned ``world`` perfectly."""
    model = family(TimeMLP(2, width=8, depth=1), world.event, **options)
    model.denoiser = Exact(world, model.denoiser.path)
    return model


def gaussian():
    return GaussianMixture([1.0], [[MEAN]], [STD**2])


def centred():
    """The plane's mixture with its mean at the origin, where alpha(1) > 0 shifts nothing."""
    world = plane()
    means = world.means - world.weights @ world.means
    return GaussianMixture(world.weights, means, world.axes @ torch.diag_embed(world.variances) @ world.axes.mT)


# Ways back


def test_ddpm_and_ddim_from_the_exact_noise():
    """FORMULAS U13: mean and std of N(2, .5^2) by the same network with two samplers (MISTAKES B121, B124)."""
    n = 20_000
    ddpm = exact(DDPM, gaussian()).sample(n, generator=seeded())
    assert ddpm.mean() == pytest.approx(2.001, abs=0.012) and ddpm.std() == pytest.approx(0.496, abs=0.008)
    for steps, mean, std in ((50, 1.994, 0.470), (1000, 1.994, 0.499)):
        model = exact(DDPM, gaussian(), sampler=DDIM())
        ends = [x for z in (-1.0, 1.0) for *_, x in [model.reverse_process(one(z), steps=steps, generator=seeded())]]
        assert (ends[0] + ends[1]).item() / 2 == pytest.approx(mean, abs=2e-3)  # an affine map of x_T: two ends do
        assert (ends[1] - ends[0]).item() / 2 == pytest.approx(std, abs=2e-3)


def one(z):
    return torch.full((1, 1), z, dtype=F64)


@SDES
@pytest.mark.parametrize("sampler", [EulerMaruyama(), PredictorCorrector(), Heun()], ids=lambda s: type(s).__name__)
def test_all_ways_back_lead_to_the_data(family, sampler):
    """The same marginals with noise, with correctors and without: a two-sample test cannot tell them from the data."""
    world, n = plane(), 1000
    x = exact(family, world, sampler=sampler).sample(2000, steps=150, generator=seeded(1))
    mean = world.weights @ world.means
    deviations = world.means - mean
    within = world.axes @ torch.diag_embed(world.variances) @ world.axes.mT
    cov = torch.einsum("k,kij->ij", world.weights, within + deviations[:, :, None] * deviations[:, None])
    assert gap(x.mean(0), mean) <= 0.1 and gap(x.T.cov(), cov) <= 0.18  # 3.5 standard errors
    data = world.sample(n, generator=seeded(2))
    pooled, kernel = torch.cat([x[:n], data]), GaussianKernel(median_bandwidth(data))
    orders = [torch.randperm(2 * n, generator=seeded(k)) for k in range(30)]
    null = torch.tensor([mmd2(pooled[p[:n]], pooled[p[n:]], kernel) for p in orders])
    assert mmd2(x[:n], data, kernel) <= null.mean() + 6 * null.std()


@SDES
def test_the_prior_is_as_wide_as_the_path_ends(family):
    """MISTAKES B115: VE starts from N(0, sigma_max^2), not from N(0, 1)."""
    z = exact(family, plane()).prior(20_000, generator=seeded())
    expected = {VPSDE: 1.0, VESDE: 50.0, SubVPSDE: 1.0}[family]
    assert z.std().item() == pytest.approx(expected, rel=0.01)


@SDES
def test_the_last_step_is_to_clean_data(family):
    """From t = 1e-3 to 0, without noise; n steps are n + 1 times also then."""
    model = exact(family, plane())
    assert [len(model.grid(n)) for n in (1, 2, 7)] == [2, 3, 8]
    assert model.grid(7)[-2:].tolist() == [1e-3, 0.0] and model.grid(1).tolist() == [1.0, 0.0]


# Popular mistakes. With the exact score of a Gaussian each step is affine, x <- a x + c + sqrt(q) z, so that mean and
# variance follow without a single draw.


def after(step, steps=1000, mean=0.0, variance=1.0):
    """Mean and std after Euler steps from t = 1 to 0 with ``step(t, h) -> (a, c, q)``."""
    h = 1 / steps
    for k in range(steps):
        a, c, q = step(1 - k * h, h)
        mean, variance = a * mean + c, a * a * variance + q
    return mean, math.sqrt(variance)


def score(alpha, sigma2):
    """The exact score ``s(x) = k x + c`` of N(2, .5^2) on a path."""
    total = alpha**2 * STD**2 + sigma2
    return -1 / total, alpha * MEAN / total


def vp_step(own, pull):
    """``x + [own b x + pull b s] h + sqrt(b h) z``, where s is VP's exact score."""

    def step(t, h):
        b, alpha = 0.1 + 19.9 * t, math.exp(-0.25 * t * t * 19.9 - 0.05 * t)
        k, c = score(alpha, 1 - alpha**2)
        return 1 + b * h * (own + pull * k), b * h * pull * c, b * h

    return step


def ve_step(rate):
    """``x + g^2 s h + g sqrt(h) z`` with ``g^2 = rate sigma^2``."""

    def step(t, h):
        sigma2 = (0.01 * 5000**t) ** 2
        k, c = score(1.0, sigma2)
        return 1 + rate * sigma2 * h * k, rate * sigma2 * h * c, rate * sigma2 * h

    return step


def test_b114_a_wrong_reverse_step_of_vp():
    assert after(vp_step(0.5, 1.0)) == pytest.approx((2.001, 0.5003), abs=5e-4)
    assert after(vp_step(-0.5, -0.5)) == pytest.approx((-4.78, 6.43), abs=0.03)  # the forward drift and half the score
    assert after(vp_step(0.5, 0.5))[1] == pytest.approx(1.76, abs=5e-3)  # the ODE's drift, and noise on top
    x = exact(VPSDE, gaussian()).sample(20_000, steps=1000, generator=seeded())
    assert (x.mean(), x.std()) == pytest.approx((2.001, 0.5003), abs=0.012)  # ours is the first: 3 standard errors


def test_b115_a_wrong_diffusion_of_ve():
    rate = 2 * math.log(5000)
    assert after(ve_step(rate), variance=50**2) == pytest.approx((2.0, 0.5001), abs=5e-4)
    assert after(ve_step(1.0)) == pytest.approx((0.88, 7.56), abs=0.06)
    x = exact(VESDE, gaussian()).sample(20_000, steps=1000, generator=seeded())
    assert (x.mean(), x.std()) == pytest.approx((2.0, 0.5001), abs=0.012)


def test_b112_beta_is_a_rate():
    """sqrt(1 - beta_t) as the signal: alpha^2 is 0.70 where it should be 0.998, and negative at t = 0.1."""
    t = torch.tensor([0.01, 0.1], dtype=F64)
    wrong, right = 1 - (0.1 + 19.9 * t), VPLinear().alpha(t) ** 2
    assert wrong.tolist() == pytest.approx([0.701, -1.09], abs=1e-3)
    assert right[0].item() == pytest.approx(0.998, abs=1e-4)


def test_b113_the_noise_is_predicted_because_the_score_is_huge():
    """Second moment of the target: 1/sigma^2 = 1e5 for the score at t = 1e-4, and 1 for the noise at every t."""
    path, t = VPLinear(), torch.tensor([1e-4], dtype=F64)
    assert float(1 / path.sigma(t) ** 2) == pytest.approx(1e5, rel=0.02)
    model = VPSDE(nn.Identity(), (2,))
    model.denoiser.network.forward = lambda x, t, cond: torch.zeros_like(x)
    loss = model.loss((torch.zeros(50_000, 2),), generator=seeded())
    assert loss.mean().item() == pytest.approx(1.0, abs=0.015)  # |0 - eps|^2 per dimension


# Likelihoods


@SDES
def test_likelihood_of_the_exact_mixture(family):
    """To 1e-3 nats: steps, the start at t = 1e-5, and what alpha(1) leaves of the data."""
    world = centred()
    x = world.sample(64, generator=seeded(3))
    wide = {"path": VE(sigma_max=200.0)} if family is VESDE else {}  # VE forgets the data as 1/sigma_max^2 only
    found = exact(family, world, **wide).log_prob(x)
    assert found.kind == "exact" and found.of == "density"
    assert gap(found.nats, world.log_prob(x)) <= 1e-3


def test_likelihood_names_what_the_model_believes():
    """FORMULAS U14: -1.187 and -0.962, where the data has -1.206 and -0.946. Both are right: the model starts from
    N(0, 1), the data ends at N(0.013, 1); the flow in between is affine, so its density is a Gaussian's."""
    x = torch.tensor([[1.3], [2.6]], dtype=F64)
    found = exact(VPSDE, gaussian()).log_prob(x).nats
    alpha = VPLinear().alpha(torch.ones(1, dtype=F64)).item()
    spread = math.sqrt(alpha**2 * STD**2 + 1 - alpha**2)
    model = stats.norm(MEAN - alpha * MEAN * STD / spread, STD / spread)
    assert gap(found, torch.from_numpy(model.logpdf(x[:, 0].numpy()))) <= 3e-5
    assert found.tolist() == pytest.approx([-1.187, -0.962], abs=5e-4)
    assert gaussian().log_prob(x).tolist() == pytest.approx([-1.206, -0.946], abs=5e-4)


# The bound


def expected_bound(x0, table, forward=False):
    """E over the noise of DDPM's bound for N(2, .5^2) and exact predictions: Ho et al.'s Eq. 5 to 7, term by term."""
    alpha_bar = torch.cat([torch.ones(1, dtype=F64), table])
    beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
    noised = Normal(table[-1].sqrt() * x0, (1 - table[-1]).sqrt())
    total = -kl_divergence(noised, Normal(torch.zeros_like(x0), torch.ones_like(x0)))
    for i in range(1, len(alpha_bar)):
        a2, s2 = alpha_bar[i], 1 - alpha_bar[i]
        gain = a2.sqrt() * STD**2 / (a2 * STD**2 + s2)  # x0_hat = 2 + gain (x_i - alpha 2)
        error = ((1 - gain * a2.sqrt()) * (x0 - MEAN)) ** 2 + gain**2 * s2  # E |x0 - x0_hat|^2
        if i == 1:
            total = total - 0.5 * error / beta[0] - 0.5 * torch.log(2 * math.pi * beta[0])
            continue
        posterior = beta[i - 1] * (1 - alpha_bar[i - 1]) / s2
        off = alpha_bar[i - 1].sqrt() * beta[i - 1] / s2 * error.sqrt()  # weight of x0 in the posterior's mean
        used = beta[i - 1] if forward else posterior
        total = total - kl_divergence(Normal(off, posterior.sqrt()), Normal(torch.zeros_like(off), used.sqrt()))
    return total


@pytest.mark.parametrize("variance", [posterior_variance, forward_variance], ids=lambda v: v.__name__)
@pytest.mark.parametrize("terms", [1000, 7], ids=["all terms", "seven of them"])
def test_the_bound_has_its_expectation(terms, variance):
    table, n = VPLinear().alpha(0.5 * steps(40)) ** 2, 20_000  # it ends with data left, so that the last term counts
    x0, path = torch.tensor([[1.2], [2.5]], dtype=F64).repeat_interleave(n, 0), Discrete(table)
    draws = variational_bound(
        gaussian().denoise(path), path, x0, GaussianDecoder(), variance, terms=terms, generator=seeded()
    ).reshape(2, n)
    error = 4 * draws.std(1) / n**0.5
    expected = expected_bound(x0[::n, 0], table, variance is forward_variance)
    assert ((draws.mean(1) - expected).abs() <= error).all()


def test_the_bound_is_one_and_closes():
    """Below the truth, by less and less as T grows, if the variance is right for data with a density; with that of
    points, Ho et al.'s first steps alone cost 0.46 nats per dimension however many follow."""
    x0 = MEAN + STD * torch.from_numpy(stats.norm.ppf((torch.arange(99).numpy() + 0.5) / 99))
    truth = gaussian().log_prob(x0[:, None])
    tables = [*(VPLinear().alpha(steps(T)) ** 2 for T in (30, 100, 300)), ddpm_linear()]
    gaps = [(truth - expected_bound(x0, table, forward=True)).mean().item() for table in tables]
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3] > 0 and gaps[3] <= 0.02
    assert (truth - expected_bound(x0, tables[3])).mean().item() == pytest.approx(0.46, abs=0.01)


def steps(T):
    return torch.arange(1, T + 1, dtype=F64) / T


class Grey:
    """One pixel with three levels: the least world of levels, its denoiser known."""

    levels, weights = torch.tensor([-1.0, 0.0, 1.0], dtype=F64), torch.tensor([0.5, 0.3, 0.2], dtype=F64)

    def denoise(self, path):
        points = GaussianMixture(self.weights, self.levels[:, None], [1e-10] * 3)
        return points.denoise(path)


def test_no_bound_beats_the_entropy_of_the_levels():
    """E[bound] <= -H, and near it, since 1000 steps end at std 0.01; a density would say +2 nats here, and the
    integral of the density over a cell is what the decoder takes instead."""
    path, world, n = Discrete(ddpm_linear()), Grey(), 4000
    counts = (n * world.weights).long()
    x0 = world.levels.repeat_interleave(counts)[:, None]
    draws = variational_bound(world.denoise(path), path, x0, LevelDecoder(Levels(3)), terms=100, generator=seeded(2))
    entropy = -(world.weights * world.weights.log()).sum()
    error = draws.std() / n**0.5
    assert -entropy - 0.05 - 4 * error <= draws.mean() <= -entropy + 4 * error
    density = variational_bound(world.denoise(path), path, x0, GaussianDecoder(), terms=100, generator=seeded(2))
    assert density.mean() > 1.0


@pytest.mark.parametrize("std", [0.01, 0.1, 1.0, 30.0])
def test_the_levels_probabilities_add_up_to_one(std):
    """Wherever the mean is, far outside included; and each is the normal's mass in its cell (scipy)."""
    levels = torch.linspace(-1, 1, 17, dtype=F64)
    for mean in (-1.4, -0.96, 0.03, 1.0, 7.0):
        log_p = LevelDecoder().log_prob(levels[:, None], torch.full((17, 1), mean, dtype=F64), std)
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)
        edges = [-math.inf, *(levels[:-1] + 1 / 16).tolist(), math.inf]
        mass = torch.tensor(stats.norm(mean, std).cdf(edges), dtype=F64).diff()
        assert gap(log_p.exp(), mass) <= 1e-12
        assert torch.isfinite(log_p).all()


def test_what_is_on_no_level_is_refused():
    with pytest.raises(RangeError, match=r"x: got 1\.5"):
        LevelDecoder().log_prob(torch.full((1, 1), 1.5), torch.zeros(1, 1), 0.1)


def test_ddpms_bound_says_what_it_is_of():
    x = torch.zeros(3, 2)
    for options, of in (({}, "density"), ({"decoder": LevelDecoder()}, "probability")):
        found = DDPM(TimeMLP(2, width=8, depth=1), (2,), **options).log_prob(x, generator=seeded())
        assert (found.kind, found.of) == ("lower bound", of)
        assert of == "density" or (found.nats < 0).all()
