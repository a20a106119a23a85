"""Variational autoencoders: bounds against closed forms, observations against scipy, mistakes with their numbers."""

from __future__ import annotations

import math

import pytest
import torch
from likelihood_laws import assert_no_better_than_entropy
from scipy import stats
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from lecture_lib.data import Batches
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.families import (
    VAE,
    BetaVAE,
    DiscretisedLogistic,
    GaussianObservation,
    Levels,
    active_units,
    fit,
    normal_log_prob,
)
from lecture_lib.nets import EventMLP


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Affine(nn.Module):
    """x A^T + b, deaf to labels."""

    def __init__(self, matrix, offset):
        super().__init__()
        self.matrix, self.offset = nn.Parameter(matrix), nn.Parameter(offset)

    def forward(self, x, cond=None):
        return x @ self.matrix.T + self.offset


SIGMA = 0.6


def linear_gaussian(*, off=0.0):
    """z in R^2, x = W z + b + sigma eps in R^5: log p(x) and the posterior are known. W has orthogonal columns, so that
    the posterior has independent components and the encoder can be exact; ``off`` moves it away from that.
    """
    g = seeded(3)
    W = torch.linalg.qr(torch.randn(5, 2, generator=g, dtype=torch.float64))[0] * torch.tensor([1.5, 0.7])
    b = torch.randn(5, generator=g, dtype=torch.float64)
    precision = 1 + W.square().sum(0) / SIGMA**2  # of the posterior
    gain = (W / SIGMA**2 / precision).T
    matrix = torch.cat([gain * (1 + off), torch.zeros(2, 5, dtype=torch.float64)])
    offset = torch.cat([-gain @ b, -precision.log() + off])
    model = VAE(Affine(matrix, offset), Affine(W, b), GaussianObservation((5,), log_scale=math.log(SIGMA)), 2).double()
    model.observation.log_scale.data.fill_(math.log(SIGMA))  # anew: it was a float32 before
    truth = MultivariateNormal(b, W @ W.T + SIGMA**2 * torch.eye(5, dtype=torch.float64))
    return model, truth, b + torch.randn(64, 5, generator=g, dtype=torch.float64) @ truth.scale_tril.T


def test_with_the_exact_posterior_one_draw_is_the_truth():
    """Every weight is p(x) then: any normaliser forgotten, of p(x|z), p(z) or q(z|x), would show to ten digits. (Those
    of p(z) and of q cancel, that of the decoder cancels nothing.)"""
    model, truth, x = linear_gaussian()
    for k in (1, 3):
        model.draws = k
        found = model.log_prob(x, generator=seeded())
        assert torch.allclose(found.nats, truth.log_prob(x), rtol=0, atol=1e-10)
        assert (found.kind, found.of) == ("lower bound", "density")
    elbo = -model.loss((x,), generator=seeded())  # its KL is exact, its reconstruction is one draw
    many = torch.stack([-model.loss((x,), generator=seeded(s)) for s in range(400)]).detach()
    assert not torch.allclose(elbo, truth.log_prob(x), atol=0.1)
    error = many.std(0) / 400**0.5
    assert ((many.mean(0) - truth.log_prob(x)).abs() < 5 * error).all()


def test_bounds_rise_with_the_number_of_draws_and_never_pass_the_truth():
    """ELBO <= IW_5 <= IW_50 <= IW_500 <= log p, means over 64 pictures with a poor encoder."""
    model, truth, x = linear_gaussian(off=0.5)
    means, exact = [], truth.log_prob(x).mean().item()
    for k in (1, 5, 50, 500):
        log_w = model.log_weights(x, draws=2000, generator=seeded(k)).detach().reshape(-1, k, 64)
        means.append((log_w.logsumexp(1) - math.log(k)).mean().item())
    assert means == sorted(means) and means[-1] < exact
    assert exact - means[0] > 0.15 and exact - means[-1] < 0.005
    elbo = torch.stack([-model.loss((x,), generator=seeded(s)) for s in range(200)]).mean().item()
    assert elbo == pytest.approx(means[0], abs=0.03)  # K = 1 is the ELBO, its KL drawn instead of known


def test_the_usual_mistakes_in_numbers():
    """No decoder normaliser: off by D/2 log 2 pi sigma^2 per picture, upwards if sigma is large. The batch added up
    before the mean over draws: a bound on the batch's log p that needs exponentially many draws (B99)."""
    model, truth, x = linear_gaussian(off=0.5)
    x = x[:16]
    exact = truth.log_prob(x).sum().item()
    log_w = model.log_weights(x, draws=100, generator=seeded()).detach()
    per_sample = (log_w.logsumexp(0) - math.log(100)).sum().item()
    summed = (log_w.sum(1).logsumexp(0) - math.log(100)).item()
    assert exact - 1.0 < per_sample < exact + 0.1
    assert summed < exact - 3  # 0.7 and 3.5 nats short; the gap of the first vanishes with K, that of the second barely
    missing = 5 / 2 * math.log(2 * math.pi * SIGMA**2)
    assert per_sample + 16 * missing > exact + 30  # "better" than the truth, by 32.7 nats for 16 pictures


def test_kl_and_normal_density_against_torch_distributions():
    model = BetaVAE.small()[0]
    x, labels = torch.rand(4, 1, 8, 8, generator=seeded()).mul(16).round() / 8 - 1, torch.arange(4)
    model.encoder.leave.reset_parameters()
    q = model.posterior(x, labels)
    theirs = Independent(Normal(q.mean, (q.logvar / 2).exp()), 1)
    prior = Independent(Normal(torch.zeros(4, 8), torch.ones(4, 8)), 1)
    assert torch.allclose(q.kl(), kl_divergence(theirs, prior), rtol=1e-5, atol=1e-5)
    z = q.sample(seeded())
    assert torch.allclose(normal_log_prob(z, q.mean, q.logvar), theirs.log_prob(z), rtol=1e-5, atol=1e-5)
    by_beta = []
    for model.beta in (0.0, 1.0, 4.0):
        by_beta.append(model.loss((x, labels), generator=seeded(7)))
    assert torch.allclose(by_beta[2] - by_beta[0], 4 * (by_beta[1] - by_beta[0]), rtol=1e-3, atol=1e-3)


def test_a_squared_error_is_a_gaussian_of_variance_one_half():
    """-|x - x_hat|^2 as a log-likelihood: right for sigma^2 = 1/2, up to D/2 log pi (B98)."""
    x, x_hat = torch.randn(3, 6, generator=seeded()), torch.randn(3, 6, generator=seeded(1))
    half = GaussianObservation((6,), log_scale=math.log(0.5) / 2)
    assert torch.allclose(half.log_prob(x, x_hat), -(x - x_hat).square().sum(1) - 3 * math.log(math.pi), atol=1e-4)


@pytest.mark.parametrize("log_scale", [-9.0, -3.0, 0.0, 3.0])
def test_discretised_logistic_against_scipy(log_scale):
    """Differences of the distribution function, the tails with the end levels; they add up to 1 over 17 levels."""
    levels = Levels(17).values(torch.arange(17))
    x_hat = torch.tensor([-1.7, -0.99, 0.03, 0.5, 1.2]).repeat_interleave(17).double()
    x = levels.repeat(5).double()
    model = DiscretisedLogistic((1,), log_scale=log_scale).double()
    found = model.log_prob(x[:, None], x_hat[:, None]).detach()
    law = stats.logistic(x_hat.numpy(), math.exp(model.log_scale.item()))
    upper, lower = x.numpy() + 1 / 16, x.numpy() - 1 / 16
    upper[x.numpy() == 1], lower[x.numpy() == -1] = math.inf, -math.inf
    assert found.exp().reshape(5, 17).sum(1) == pytest.approx([1.0] * 5, abs=1e-10)
    assert found.exp().numpy() == pytest.approx(law.cdf(upper) - law.cdf(lower), abs=1e-12)
    assert torch.isfinite(found).all()  # where the difference itself rounds to 0


def test_draws_of_the_observation_have_its_probabilities():
    model = DiscretisedLogistic((1,), log_scale=-1.5)
    x_hat = torch.full((40_000, 1), 0.8)
    numbers = Levels(17).numbers(model.sample(x_hat, seeded())).flatten().bincount(minlength=17)
    expected = model.log_prob(Levels(17).values(torch.arange(17))[:, None], x_hat[:17]).detach().double().exp()
    expected = expected / expected.sum()
    assert stats.chisquare(numbers.double().numpy(), (expected * 40_000).numpy()).pvalue > 1e-3
    with pytest.raises(RangeError, match="levels from -1 to 1"):
        model.log_prob(torch.tensor([[0.05]]), torch.zeros(1, 1))
    with pytest.raises(ShapeError, match="both"):
        model.log_prob(torch.zeros(2, 1), torch.zeros(1, 1))


def test_a_large_beta_silences_the_latent():
    """Two clusters that one latent could tell apart: at beta = 1 it does, at 30 the posterior is the prior."""
    g = seeded()
    signs = torch.randn(512, 1, generator=g).sign()
    batches = Batches((torch.cat([signs, -signs], 1) + 0.3 * torch.randn(512, 2, generator=g),), 128)
    active, kl = {}, {}
    for beta in (1.0, 30.0):
        torch.manual_seed(0)
        nets = EventMLP((2,), (4,), width=32, depth=1), EventMLP((2,), (2,), width=32, depth=1)
        model = BetaVAE(*nets, GaussianObservation((2,)), 2, beta=beta)
        for _ in fit(model, batches, steps=400, lr=5e-3, generator=g):
            pass
        x = batches.tensors[0]
        active[beta], kl[beta] = active_units(model, x), model.posterior(x).kl().mean().item()
    assert active[1.0] >= 1 and active[30.0] == 0
    assert kl[1.0] > 0.6 and kl[30.0] < 0.01  # nats; the sign alone is log 2 = 0.69


class WithoutNormaliser(GaussianObservation):
    def log_prob(self, x, x_hat):
        return super().log_prob(x, x_hat) + x[0].numel() / 2 * math.log(2 * math.pi)


def noise_vae(observation):
    torch.manual_seed(0)
    nets = EventMLP((1, 4, 4), (4,), width=32, depth=1), EventMLP((2,), (1, 4, 4), width=32, depth=1)
    model = VAE(*nets, observation, 2)
    model.draws = 16
    return model


@pytest.mark.parametrize("observation", [GaussianObservation, DiscretisedLogistic])
def test_noise_costs_its_entropy(observation):
    assert_no_better_than_entropy(noise_vae(observation((1, 4, 4))), steps=150, lr=5e-3)


def test_noise_exposes_a_missing_normaliser():
    with pytest.raises(AssertionError, match="not normalised"):
        assert_no_better_than_entropy(noise_vae(WithoutNormaliser((1, 4, 4))), steps=150, lr=5e-3)


def test_labels_are_heard_and_half_a_jump_is_refused():
    torch.manual_seed(0)
    model, batches, _ = BetaVAE.small()
    for _ in fit(model, batches, steps=250, generator=seeded()):
        pass
    x, labels = batches.draw(seeded(1))
    model.draws = 8
    right = model.log_prob(x, labels, generator=seeded()).nats
    wrong = model.log_prob(x, (labels + 1) % 10, generator=seeded()).nats
    none = model.log_prob(x, generator=seeded()).nats
    assert right.mean() > none.mean() > wrong.mean()
    assert (right > wrong).double().mean() > 0.9
    with pytest.raises(RangeError, match="single jump"):
        model.forward_process(x, torch.full((len(x),), 0.5), generator=seeded())
    assert model.forward_process(x, torch.ones(len(x)), generator=seeded()).shape == (len(x), 8)
    *_, x_hat, drawn = model.reverse_process(model.prior(4, generator=seeded()), labels[:4], generator=seeded())
    assert not torch.equal(x_hat, drawn) and Levels(17).numbers(drawn).shape == x_hat.shape
