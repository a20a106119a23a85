"""Games: each loss against numbers by hand or another implementation, what the critics measure, who moves when."""

from __future__ import annotations

import math
from functools import partial

import ot
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from worlds import normal, seeded

from lecture_lib.data import Batches, digits, moons
from lecture_lib.errors import NotDefined, NotTractable, RangeError, ShapeError, UnknownNameError
from lecture_lib.families import GAN, R3GAN, WGANGP, StyleGAN, fit, generator_drift, laws
from lecture_lib.nets import (
    ConvFeatures,
    PointFeatures,
    PointGenerator,
    ProjectionCritic,
    StyleGenerator,
    hinge_generator_loss,
    logistic_generator_loss,
    squared_slope,
)
from lecture_lib.oracles import BestCritic, GaussianMixture
from lecture_lib.zoo.families_implicit import dcgan, r3gan, style_gan, wgan_gp

F64 = torch.float64


class Shift(nn.Module):
    """G(z) = z + m."""

    n_classes = 0

    def __init__(self, m):
        super().__init__()
        self.m, self.latent = nn.Parameter(torch.as_tensor(m, dtype=F64)), len(m)

    def forward(self, z, cond=None):
        return z + self.m


class Linear(nn.Module):
    """D(x) = a . x, or a power of it."""

    def __init__(self, a, power=1):
        super().__init__()
        self.a, self.power = nn.Parameter(torch.as_tensor(a, dtype=F64)), power

    def forward(self, x, cond=None):
        return (x**self.power @ self.a)[:, None]


def smooth_critic(d=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(d, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    return net


def built(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def fit_critic(model, data, shift, *, steps, lr, batch_size):
    """Train the critic alone, against fakes that are z + shift."""
    model.generator.forward = lambda z, cond=None: z + shift
    model.phases = lambda: type(model).phases(model)[:1]
    optimizer = torch.optim.Adam(model.critic.parameters(), lr, betas=model.betas)
    for step in fit(model, Batches((data,), batch_size), steps=steps, generator=seeded(), optimizer=optimizer):
        assert step.phase == "critic"


# Losses ------------------------------------------------------------------------------------------------------------


def test_squared_slope_against_finite_differences():
    """Two logits per sample are added up; sums over dimensions, not means; each sample's own."""
    critic, x, h = smooth_critic(), normal(4, 3).requires_grad_(), 1e-5
    slope = squared_slope(critic(x), x)
    with torch.no_grad():
        steps = h * torch.eye(3, dtype=F64)
        ahead, behind = (critic(x[:, None] + s * steps).sum(-1) for s in (1, -1))
    numeric = ((ahead - behind) / (2 * h)).square().sum(1)
    assert torch.allclose(slope, numeric, rtol=1e-8)
    slope.sum().backward()  # a penalty must reach the weights
    assert critic[0].weight.grad.abs().max() > 0


def test_gan_losses_are_cross_entropies_and_half_gamma_r1():
    model, data = GAN(Shift([0.5, -1.0]), Linear([2.0, 3.0]), (2,), gamma=0.3), normal(5, 2)
    fake = model.prior(5, generator=seeded(1)) + model.generator.m
    bce = F.binary_cross_entropy_with_logits
    real, made = (x @ model.critic.a for x in (data, fake))
    ones = torch.ones(5, dtype=F64)
    expected = bce(real, ones, reduction="none") + bce(made, 0 * ones, reduction="none") + 0.3 / 2 * (4 + 9)
    assert torch.allclose(model.loss((data,), "critic", generator=seeded(1)), expected, rtol=1e-12)
    assert torch.allclose(model.loss((data,), "generator", generator=seeded(1)), bce(made, ones, reduction="none"))


def test_r3gan_by_hand():
    """D(x) = 2x, data at 1, fake at 1/4: D(x) - D(G) = 1.5; log(1 + e^-1.5) = 0.201413, and |D'|^2 = 4 on each side."""
    model, z = R3GAN(Shift([0.0]), Linear([2.0]), (1,), gamma=0.5), torch.tensor([[0.25]], dtype=F64)
    model.prior = lambda n, *, generator: z
    data = torch.ones(1, 1, dtype=F64)
    assert model.loss((data,), "critic", generator=seeded()).item() == pytest.approx(0.2014133 + 0.25 * 8, abs=1e-7)
    assert model.loss((data,), "generator", generator=seeded()).item() == pytest.approx(1.7014133, abs=1e-7)


def test_r3gan_penalises_both_sides():
    """D = x^2/2 has slope x: at data 3 and fakes 0.5 R1 + R2 = 9.25, and not twice one of them."""
    model = R3GAN(Shift([0.5]), Linear([0.5], power=2), (1,), gamma=2.0)
    model.prior = lambda n, *, generator: torch.zeros(n, 1, dtype=F64)
    loss = model.loss((torch.full((1, 1), 3.0, dtype=F64),), "critic", generator=seeded()).item()
    assert loss == pytest.approx(math.log1p(math.exp(0.125 - 4.5)) + 9.25, rel=1e-12)


def test_probabilities_saturate_where_logits_do_not():
    """B109: log(sigmoid(-120)) in float32 is -inf, and its gradient NaN; on logits the loss is 120, its gradient -1."""
    logit = torch.tensor([[-120.0]], requires_grad=True)
    naive = -torch.sigmoid(logit).log()
    assert torch.isinf(naive).all() and torch.autograd.grad(naive.sum(), logit)[0].isnan().all()
    loss = logistic_generator_loss(logit)
    assert loss.item() == pytest.approx(120) and torch.autograd.grad(loss.sum(), logit)[0].item() == -1


# WGAN-GP -----------------------------------------------------------------------------------------------------------


def test_the_penalty_is_taken_between_data_and_fakes_sample_by_sample():
    """Data at 0, fakes at 1, D = x^2/2: the slope at u 0 + (1 - u) 1 is 1 - u, and E (slope - 1)^2 = E u^2 = 1/3."""
    model, n = WGANGP(Shift([1.0]), Linear([0.5], power=2), (1,), penalty=1.0), 20_000
    model.prior = lambda n, *, generator: torch.zeros(n, 1, dtype=F64)
    penalty = model.loss((torch.zeros(n, 1, dtype=F64),), "critic", generator=seeded()) - 0.5  # D(G) - D(x) = 1/2
    assert penalty.mean().item() == pytest.approx(1 / 3, abs=0.008)  # u's standard error is 0.3/sqrt(20000) = 0.002
    assert penalty.std().item() == pytest.approx(math.sqrt(1 / 5 - 1 / 9), abs=0.01)  # one u for all would have none


def test_a_linear_critic_overestimates_by_the_square_over_twice_the_penalty():
    """min_a of -a m + lambda (a - 1)^2: a = 1 + m/(2 lambda); the loss without the penalty says m + m^2/(2 lambda)."""
    m, penalty = 2.0, 10.0
    model = WGANGP(Shift([m]), Linear([-1.0]), (1,), penalty=penalty)  # D is large at data, on the left
    data = normal(64, 1)
    model.prior = lambda n, *, generator: data
    optimizer = torch.optim.SGD(model.critic.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss((data,), "critic", generator=seeded()).mean().backward()
        optimizer.step()
    assert model.critic.a.item() == pytest.approx(-(1 + m / (2 * penalty)), rel=1e-9)
    distance = -model.minus_distance(data, data + m).mean().item()
    assert distance == pytest.approx(m + m**2 / (2 * penalty), rel=1e-9)


def test_the_critic_measures_how_far_fakes_have_to_travel():
    """Two Gaussians (1.2, 0.9) apart: 1.5, and POT's exact transport says so too. Without the penalty (B110: a clip
    that is stored and never used) the same number grows as long as one trains."""
    shift = torch.tensor([1.2, 0.9])
    data, fakes = normal(2000, 2, seed=5, dtype=torch.float32), normal(2000, 2, seed=6, dtype=torch.float32) + shift
    even = [1 / 2000] * 2000
    exact = ot.emd2(even, even, ot.dist(data.numpy(), fakes.numpy(), metric="euclidean"))
    assert exact == pytest.approx(1.5, abs=0.06)
    said = {}
    for penalty in (10.0, 0.0):
        model = built(lambda: WGANGP(PointGenerator(), ProjectionCritic(PointFeatures(width=32)), (2,)))
        model.penalty = penalty
        fit_critic(model, data, shift, steps=400, lr=2e-3, batch_size=128)
        with torch.no_grad():
            said[penalty] = -model.minus_distance(data, fakes).mean().item()
    assert said[10.0] == pytest.approx(1.5 + 1.5**2 / 20, rel=0.06)
    assert said[0.0] > 10 * 1.5


# Moving densities --------------------------------------------------------------------------------------------------


def test_the_games_move_densities():
    """FORMULAS.md: N(0.8, 1) against N(0, 1): the non-saturating loss moves the mean by -0.455741, -logit by -0.8."""
    data, fakes = (GaussianMixture([1.0], [[m]], [1.0]) for m in (0.0, 0.8))
    critic, x = BestCritic(data, fakes), torch.linspace(-12, 12, 4001, dtype=F64)[:, None]
    assert torch.allclose(critic(x), 0.32 - 0.8 * x, atol=1e-10)
    weight = fakes.log_prob(x).exp() * (x[1, 0] - x[0, 0])
    moved = [
        (weight[:, None] * generator_drift(critic, loss, x)).sum().item()
        for loss in (logistic_generator_loss, hinge_generator_loss)
    ]
    assert moved == pytest.approx([-0.455741, -0.8], abs=1e-6)


def test_a_trained_critic_finds_the_log_ratio():
    """Of N(0, 1) and N(0.8, 1), where there are samples of either: 0.32 - 0.8 x within 0.12 on average."""
    body = lambda: PointFeatures(1, width=16, depth=2)  # noqa: E731
    model = built(lambda: GAN(PointGenerator(1, 1), ProjectionCritic(body()), (1,), gamma=0.0))
    fit_critic(model, normal(20_000, 1, dtype=torch.float32), 0.8, steps=600, lr=5e-3, batch_size=512)
    x = torch.linspace(-1.5, 2.3, 100)[:, None]
    with torch.no_grad():
        assert (model.critic(x) - (0.32 - 0.8 * x)).abs().mean() < 0.12


# What a game is ----------------------------------------------------------------------------------------------------


def test_five_updates_of_the_critic_for_one_of_the_generator():
    model, batches, _ = built(WGANGP.small)
    moved = []
    before = [p.clone() for p in model.generator.parameters()]
    for step in fit(model, batches, steps=6, generator=seeded()):
        still = all(torch.equal(p, q) for p, q in zip(model.generator.parameters(), before, strict=True))
        moved.append((step.phase, not still))
    assert moved == [("critic", False)] * 5 + [("generator", True)]


@pytest.mark.parametrize("family", [GAN, WGANGP, R3GAN], ids=lambda family: family.__name__)
def test_small_games_come_near_the_moons(family):
    """Sliced Wasserstein distance of 1024 samples, by POT: a small part of what it was at the start."""
    real = moons(1024, generator=seeded(9))[0].numpy()
    distance = lambda x: ot.sliced_wasserstein_distance(x.numpy(), real, n_projections=64, seed=0)  # noqa: E731
    untrained = distance(built(family.small)[0].sample(1024, generator=seeded()))
    assert distance(family.demo(n=1024).samples) < 0.4 * untrained


def test_labels_are_needed_heard_and_drawn():
    make = lambda n: GAN(PointGenerator(n_classes=n), ProjectionCritic(PointFeatures(), n), (2,))  # noqa: E731
    model, batch = built(lambda: make(3)), (torch.zeros(4, 2), torch.tensor([0, 1, 2, 2]))
    a, b = (model.sample(4, batch[1] + k, generator=seeded()) for k in (0, -batch[1]))
    assert torch.equal(a[:1], b[:1]) and not torch.isclose(a[1:], b[1:]).any()
    free, again = (model.sample(300, generator=seeded(3)) for _ in range(2))
    assert torch.equal(free, again)
    with pytest.raises(ShapeError, match="cond: got none, expected some"):
        model.loss(batch[:1], "critic", generator=seeded())
    with pytest.raises(ShapeError, match="cond: got some, expected none"):
        built(lambda: make(0)).loss(batch, "critic", generator=seeded())


def test_what_games_lack_they_say():
    model, x = built(GAN.small)[0], torch.zeros(2, 2)
    with pytest.raises(NotTractable, match="nobody can find them"):
        model.log_prob(x)
    with pytest.raises(NotDefined, match="no way back"):
        model.forward_process(x, torch.zeros(2))
    with pytest.raises(RangeError, match="steps: got 2"):
        model.sample(2, steps=2, generator=seeded())
    with pytest.raises(UnknownNameError, match="critic, generator"):
        model.loss((x,), "all", generator=seeded())


# StyleGAN ----------------------------------------------------------------------------------------------------------


def labelled_styles(truncation=1.0):
    generator = StyleGenerator(8, width=8, dim=8, depth=2, n_classes=3)
    return StyleGAN(generator, ProjectionCritic(ConvFeatures(width=4), 3), (1, 8, 8), truncation=truncation)


def test_truncation_pulls_styles_towards_the_mean_of_their_class():
    model, cond = built(labelled_styles), torch.tensor([0, 1, 2, 0, 1, 2])
    seen, synthesise = [], model.generator.synthesise
    model.generator.synthesise = lambda w, noise: (seen.append(w), synthesise(w, noise))[1]
    for psi in (1.0, 0.5, 0.0):
        model.truncation = psi
        model.sample(6, cond, generator=seeded(4))
    full, half, none = seen
    mean = none
    assert torch.equal(mean[:3], mean[3:]) and (mean[0] - mean[1]).abs().max() > 1e-3
    assert torch.allclose(half, (full + mean) / 2, atol=1e-6)
    many = model.generator.mapping(normal(20_000, 8, dtype=torch.float32), torch.ones(20_000, dtype=torch.int64))
    error = many.std(0) / math.sqrt(1000)
    assert ((many.mean(0) - mean[1]).abs() < 5 * error).all()


def test_pixels_have_noise_of_their_own():
    """With its strength at 0 the noise is not heard; then the same z gives other pictures, around the quiet one."""
    model, z, cond = built(labelled_styles), normal(1, 8, dtype=torch.float32), torch.tensor([1])
    draw = lambda seed: model.generated(z, cond, generator=seeded(seed)).detach()  # noqa: E731
    assert torch.equal(draw(0), draw(1)) and torch.equal(draw(0), model.generator(z, cond))
    with torch.no_grad():
        for layer in model.generator.layers:
            layer.strength.fill_(0.1)
    assert (draw(0) - draw(1)).abs().min() > 0
    assert torch.equal(draw(2), draw(2))


# On the digits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [partial(dcgan, 1.0, 8), partial(wgan_gp, 10.0, 8), partial(style_gan, 1.0, 8, 8), partial(r3gan, 1.0, 8, 4)],
    ids=["gan", "wgan-gp", "stylegan", "r3gan"],
)
def test_laws_with_labels(model):
    data = digits()
    broken = [claim for claim, holds in laws(built(model), Batches((data.images, data.labels), 16)) if not holds]
    assert not broken
