"""Distribution matching: its gradient against the closed form of the reverse KL, and the game of two networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from worlds import normal, seeded

from lecture_lib.core import EDM, EPS, VELOCITY, Denoiser, RectifiedFlow, UniformTimes, VPLinear
from lecture_lib.distill import (
    DMD2,
    ConsistencyFunction,
    FakeScore,
    Matched,
    by_divergence,
    by_teacher_error,
    matching_loss,
    simulated,
)
from lecture_lib.errors import RangeError, ShapeError, UnknownNameError
from lecture_lib.nets import PointCritic, TimeMLP
from lecture_lib.oracles import GaussianMixture
from lecture_lib.samplers import ConsistencyMultistep, consistency, last, sample

F64 = torch.float64


def quadrature(n=12):
    """Nodes (n^2,) of z and of eps, both standard normal, and their weights: exact for polynomials below degree 2n."""
    x, w = np.polynomial.hermite_e.hermegauss(n)
    x, w = torch.from_numpy(x), torch.from_numpy(w / math.sqrt(2 * math.pi))
    z, eps = torch.cartesian_prod(x, x).unbind(1)
    return z[:, None], eps[:, None], torch.outer(w, w).flatten()


def slopes(path, t, m, s, weight=by_divergence):
    """d/dm and d/ds of the matching loss for x = m + s z against N(0.3, 0.49); the fake score is exact."""
    z, eps, mass = quadrature()
    m, s = (torch.tensor(v, dtype=F64, requires_grad=True) for v in (m, s))
    real = GaussianMixture([1.0], [[0.3]], [0.49]).denoise(path)
    fake = GaussianMixture([1.0], [[m.item()]], [s.item() ** 2]).denoise(path)
    loss = matching_loss(real, fake, path, m + s * z, eps, torch.full((len(z),), t, dtype=F64), weight=weight)
    return [g.item() for g in torch.autograd.grad((mass * loss).sum(), (m, s))]


@pytest.mark.parametrize(("path", "t"), [(EDM(), 0.5), (RectifiedFlow(), 0.3), (VPLinear(), 0.6)])
def test_the_gradient_is_that_of_the_reverse_kl_of_the_noised_distributions(path, t):
    """KL(N(m, q) | N(n, p)) = (q/p + (m - n)^2/p - 1 - log(q/p))/2, differentiated by autograd."""
    m, s = torch.tensor(-0.8, dtype=F64, requires_grad=True), torch.tensor(1.4, dtype=F64, requires_grad=True)
    c = path.at(t)
    q, p = c.alpha**2 * s**2 + c.sigma**2, c.alpha**2 * 0.49 + c.sigma**2
    kl = (q / p + c.alpha**2 * (m - 0.3) ** 2 / p - 1 - torch.log(q / p)) / 2
    expected = [g.item() for g in torch.autograd.grad(kl, (m, s))]
    assert slopes(path, t, -0.8, 1.4) == pytest.approx(expected, rel=1e-12)


def test_the_published_number():
    """MISTAKES.md A128: G makes N(0.8, 1), data N(0, 1), noise t = 0.5: both sides 0.64."""
    z, eps, mass = quadrature()
    m, path, t = torch.tensor(0.8, dtype=F64, requires_grad=True), EDM(), torch.full((144,), 0.5, dtype=F64)
    real = GaussianMixture([1.0], [[0.0]], [1.0]).denoise(path)
    fake = GaussianMixture([1.0], [[0.8]], [1.0]).denoise(path)
    loss = matching_loss(real, fake, path, m + z, eps, t, weight=by_divergence)
    (slope,) = torch.autograd.grad((mass * loss).sum(), m)
    x_t = (m + z + 0.5 * eps).detach()
    scores = fake(x_t, t).score - real(x_t, t).score  # and as DMD writes it, with scores
    assert slope.item() == pytest.approx(0.64, rel=1e-12)
    assert (mass * scores[:, 0]).sum().item() == pytest.approx(0.64, rel=1e-12)


def test_the_gradient_per_sample_is_the_printed_one_and_flows_through_x_alone():
    path, t = EDM(), torch.tensor([0.4, 3.0], dtype=F64)
    x, eps = normal(2, 5, seed=1).requires_grad_(), normal(2, 5, seed=2)
    scale = torch.tensor(0.7, dtype=F64, requires_grad=True)  # a weight of the teacher's and of the fake score

    def scaled(mean):
        exact = GaussianMixture([1.0], [[mean] * 5], [1.0]).denoise(path)
        return lambda x, t: exact(x, t).with_x0(scale * exact(x, t).x0)

    real, fake = scaled(0.0), scaled(1.0)
    matching_loss(real, fake, path, x, eps, t).sum().backward()
    x_t = x + t[:, None] * eps
    d_real, d_fake = real(x_t, t).x0, fake(x_t, t).x0
    g = (d_fake - d_real) / (x - d_real).abs().mean(1, keepdim=True)
    assert torch.allclose(x.grad, (g / 5).detach(), rtol=1e-12)
    assert scale.grad is None


def test_a_student_that_has_arrived_stays():
    assert slopes(RectifiedFlow(), 0.5, 0.3, 0.7) == pytest.approx([0, 0], abs=1e-12)
    assert slopes(RectifiedFlow(), 0.5, 0.3, 0.7, by_teacher_error) == pytest.approx([0, 0], abs=1e-12)
    too_far_right, too_wide = slopes(RectifiedFlow(), 0.5, 1.0, 0.9, by_teacher_error)
    assert too_far_right > 0 and too_wide > 0  # descent moves it back


# Two networks


def denoiser(seed=0, width=16):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = TimeMLP(2, width=width, depth=2)
        for p in network.parameters():
            p.data += 0.1 * torch.randn(p.shape)
        return Denoiser(network, RectifiedFlow(), VELOCITY)


def pair(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = PointCritic(16, width=8, depth=1)
    return Matched(denoiser(seed), FakeScore(denoiser(seed + 1), "layers.1", head))


WORLD = GaussianMixture([1.0, 1.0], torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.tensor([0.01, 0.01]))


def game(**changes):
    return DMD2(lambda cond: WORLD.denoise(RectifiedFlow()), UniformTimes(0.02, 0.98), **changes)


def test_the_head_reads_the_features_inside():
    fake, x, t = pair().fake, normal(3, 2, dtype=torch.float32), torch.tensor([0.2, 0.5, 0.9])
    net, c = fake.denoiser.network, None
    c = nn.functional.silu(net.time(1000 * t))
    inside = net.layers[1](net.layers[0](net.enter(x), c), c)
    fake.head.eval()  # no power iterations in between
    assert torch.allclose(fake.judge(x, t), fake.head(inside), atol=1e-5)
    assert not net.layers[1]._forward_hooks  # the tap is off again
    with pytest.raises(UnknownNameError, match=r"layer: got 'layers.7', expected one of .*layers.1"):
        FakeScore(fake.denoiser, "layers.7", fake.head)


def test_turns_are_taken_and_gradients_do_not_mix():
    both, dmd = pair(), game(gan_weight=0.5)
    losses = [dmd.loss_at(done).__name__ for done in range(12)]
    assert losses == (["fake_loss"] * 5 + ["student_loss"]) * 2
    batch = (WORLD.sample(8, generator=seeded()),)
    for turn, mine, other in ((5, both.student, both.fake), (0, both.fake, both.student)):
        both.zero_grad(set_to_none=True)
        loss = dmd.loss_at(turn)(both, batch, seeded(1))
        assert loss.shape == (8,)
        loss.mean().backward()
        assert all(p.grad is None for p in other.parameters())
        assert all(p.grad is not None for p in mine.parameters())
        assert all(p.requires_grad for p in both.parameters())  # what was held is let go


def test_the_fake_turn_is_denoising_of_generated_samples_and_the_logistic_loss():
    both, batch = pair(), (WORLD.sample(8, generator=seeded()),)
    both.eval()
    generator = seeded(3)
    got = game(critic_weight=0.25).fake_loss(both, batch, generator)
    generator = seeded(3)  # the same again by hand, draw by draw
    torch.randint(1, (), generator=generator)
    eps = torch.randn(8, 2, generator=generator)
    x = ConsistencyFunction(both.student)(eps, torch.ones(8, dtype=F64)).detach()
    t = UniformTimes(0.02, 0.98).sample(8, generator=generator)
    eps = torch.randn(8, 2, generator=generator)
    velocity = both.fake.denoiser((1 - t).float()[:, None] * x + t.float()[:, None] * eps, t).velocity
    expected = (velocity - (eps - x)).square().mean(1)
    for y, sign in ((batch[0], -1), (x, 1)):
        t = UniformTimes(0.02, 0.98).sample(8, generator=generator)
        y_t = RectifiedFlow().mix(y, torch.randn(8, 2, generator=generator), t)
        expected = expected + 0.25 * torch.log1p(torch.exp(sign * both.fake.judge(y_t, t)))[:, 0]
    assert torch.allclose(got, expected, atol=1e-5)


def test_backward_simulation_is_the_samplers_walk():
    student, path = denoiser(3), RectifiedFlow()
    jump, x_T, grid = ConsistencyFunction(student), normal(6, 2, dtype=torch.float32), (1.0, 0.7, 0.4)
    x = simulated(jump, path, grid, x_T, generator=seeded(5))
    walk = sample(consistency(jump, path), path, ConsistencyMultistep(), torch.tensor(grid), x_T, generator=seeded(5))
    assert torch.allclose(x, last(walk), atol=1e-6) and not x.requires_grad
    assert torch.equal(simulated(jump, path, (1.0,), x_T), x_T)


def test_a_student_of_several_steps_is_trained_on_what_it_meets():
    """At its second time it is asked about its own re-noised samples, not about noised data."""
    both, dmd, seen = pair(), game(grid=(1.0, 0.4)), []
    forward = both.student.forward
    both.student.forward = lambda x, t, cond=None: (seen.append((t[0].item(), x.clone())), forward(x, t, cond))[1]
    data = (torch.full((4, 2), 100.0),)  # data far away: if it came in, it would show
    generator = seeded(0)
    with torch.no_grad():
        for _ in range(8):
            dmd.student_loss(both, data, generator)
    assert {t for t, _ in seen} == {1.0, 0.4}
    assert max(x.abs().max() for _, x in seen) < 30


def trained(steps, dmd, both, start=0, generator=None):
    generator = generator or seeded(7)
    optimizer = torch.optim.AdamW(
        [{"params": both.student.parameters(), "lr": 1e-3}, {"params": both.fake.parameters(), "lr": 3e-3}],
        betas=(0.5, 0.9),
    )
    for done in range(start, steps):
        loss = dmd.loss_at(done)(both, (WORLD.sample(128, generator=generator),), generator).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return both


def test_the_game_brings_the_student_to_the_data():
    """From pure noise, one step; two modes at (+-1, 0) of deviation 0.1."""
    data, generator = game(), seeded(9)

    def share_at_a_mode(both):
        x = data.generated(both.student, torch.zeros(2000, 2), None, generator).detach()
        return ((x.abs() - torch.tensor([1.0, 0.0])).norm(dim=1) < 0.4).float().mean().item()

    assert share_at_a_mode(pair(2)) < 0.15
    assert share_at_a_mode(trained(900, data, pair(2))) > 0.5


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match="fake: speaks EDM"):
        Matched(denoiser(), FakeScore(Denoiser(TimeMLP(2), EDM(), EPS), "leave", nn.Identity()))
    with pytest.raises(RangeError, match="fake_updates"):
        game(fake_updates=0)
    with pytest.raises(RangeError, match="grid"):
        game(grid=())
