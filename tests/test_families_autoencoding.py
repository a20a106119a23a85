"""The ladder of autoencoder losses against torch.distributions and by hand, and the training in turns."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.distributions import Laplace, Normal, kl_divergence
from worlds import gap, normal, seeded

from lecture_lib.errors import NonFiniteError, RangeError, ShapeError
from lecture_lib.families import (
    Reconstruction,
    Variational,
    absolute_error,
    adaptive_weight,
    adversarial_optimizers,
    laplace_nll,
    train_adversarially,
)
from lecture_lib.nets import PatchDiscriminator, PerceptualDistance, Posterior, ShapeFeatures, kl_to_standard_normal

# The rungs


def test_absolute_error_by_hand():
    x, x_hat = torch.tensor([[1.0, -2.0], [0.0, 0.5]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    assert absolute_error(x, x_hat).tolist() == [2.0, 0.25]
    with pytest.raises(ShapeError, match=r"x_hat: got shape \(2, 1\), expected that of x, \(2, 2\)"):
        absolute_error(x, x_hat[:, :1])


def test_nll_is_that_of_laplace_noise():
    x, x_hat = normal(5, 3, 4, 4, seed=1), normal(5, 3, 4, 4, seed=2)
    for l in (-1.3, 0.0, 0.8):
        expected = -Laplace(x_hat, math.exp(l)).log_prob(x).flatten(1).sum(1) - 48 * math.log(2)
        assert gap(laplace_nll(absolute_error(x, x_hat), l, 48), expected) <= 1e-11


def test_the_learned_scale_is_the_mean_absolute_error():
    x, x_hat = normal(5, 3, 4, 4, seed=1), normal(5, 3, 4, 4, seed=2)
    best = absolute_error(x, x_hat).mean().log().item()
    loss = Reconstruction(log_scale=best)
    loss(x, x_hat).mean().backward()
    assert loss.log_scale.grad.item() == pytest.approx(0, abs=1e-4)
    for step in (-0.2, 0.2):
        assert Reconstruction(log_scale=best + step)(x, x_hat).mean() > loss(x, x_hat).mean()


def test_kl_is_that_of_torch():
    mean, logvar = normal(6, 4, 3, 3, seed=1), 3 * normal(6, 4, 3, 3, seed=2)
    expected = kl_divergence(Normal(mean, torch.exp(logvar / 2)), Normal(0.0, 1.0)).flatten(1).sum(1)
    assert gap(kl_to_standard_normal(mean, logvar) / expected, torch.ones(6, dtype=torch.float64)) <= 1e-13
    assert kl_to_standard_normal(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0
    tiny = torch.full((1, 1), 1e-5)  # float32: 1/2 (e^l - 1 - l) is l^2/4, and may not turn out negative
    assert 0 <= kl_to_standard_normal(torch.zeros(1, 1), tiny).item() <= 1e-10
    with pytest.raises(ShapeError, match="logvar"):
        kl_to_standard_normal(mean, logvar[:, :2])


def test_perceptual_distance_is_added_to_the_mean_error():
    # Rombach et al. add LPIPS, one number per picture, to |x - x_hat| of every pixel before they sum.
    x, x_hat = (normal(2, 3, 32, 32, seed=s, dtype=torch.float32) for s in (1, 2))
    distance = PerceptualDistance(ShapeFeatures({"shape": 3}))
    loss = Reconstruction(distance, perceptual_weight=0.7, log_scale=0.4)
    every_pixel = (x - x_hat).abs() + 0.7 * distance(x, x_hat)[:, None, None, None]
    expected = (every_pixel / math.exp(0.4) + 0.4).sum((1, 2, 3))
    assert gap(loss(x, x_hat).detach() / expected, torch.ones(2)) <= 1e-5
    assert [name for name, p in loss.named_parameters() if p.requires_grad] == ["log_scale"]


def test_adaptive_weight_by_hand():
    w = torch.tensor([3.0, -1.0], requires_grad=True)
    nll, g = (w * torch.tensor([6.0, 8.0])).sum(), (w * torch.tensor([0.0, 0.5])).sum()  # norms 10 and .5
    weight = adaptive_weight(nll, g, w)
    assert weight.item() == pytest.approx(10 / 0.5001, rel=1e-6) and not weight.requires_grad
    (nll + weight * g).backward()  # the graphs are still there, and both pull equally hard
    assert (w.grad - torch.tensor([6.0, 8.0])).norm().item() == pytest.approx(10, rel=1e-3)
    assert adaptive_weight((w * 1e6).sum(), 0 * w.sum(), w).item() == 1e4  # clipped
    assert adaptive_weight(0 * w.sum(), w.sum(), w).item() == 0


# Training in turns


class Autoencoder(nn.Module):
    """The smallest thing with a posterior: one convolution each way."""

    def __init__(self):
        super().__init__()
        self.enter, self.leave = nn.Conv2d(1, 4, 4, stride=4), nn.ConvTranspose2d(2, 1, 4, stride=4)
        g = seeded(4)
        for p in self.parameters():
            p.data = 0.2 * torch.randn(p.shape, generator=g)

    def encode(self, x):
        return Posterior(*self.enter(x).chunk(2, dim=1))

    def decode(self, z):
        return self.leave(z)


class Waves:
    """Batches of 1 x 8 x 8 pictures of plane waves."""

    def draw(self, generator):
        k = torch.randn(16, 2, generator=generator)
        grid = torch.arange(8.0)
        return torch.sin(k[:, :1, None] * grid[:, None] + k[:, 1:, None] * grid)[:, None], torch.zeros(16)


def setting(seed=0, **options):
    """Everything that ``train_adversarially`` takes; equal seeds give equal settings."""
    model, reconstruction = Variational(Autoencoder(), beta=1e-3), Reconstruction()
    critic = PatchDiscriminator(1, 4, 1)
    for name, p in critic.state_dict().items():
        p.copy_(torch.randn(p.shape, generator=seeded(len(name))) * (1.0 if "_u" in name or "_v" in name else 0.3))
    both = adversarial_optimizers(model, reconstruction, critic, 1e-2)
    last = model.autoencoder.leave.weight
    turns = train_adversarially(
        model, reconstruction, critic, Waves(), last_layer=last, optimizers=both, generator=seeded(seed), **options
    )
    return model, reconstruction, critic, turns


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(before, module):
    return any(not torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_the_critic_waits_for_its_start():
    _, reconstruction, critic, turns = setting(steps=4, gan_start=2)
    before = state(critic)
    for turn in turns:
        waiting = turn.number <= 2
        assert moved(before, critic) is not waiting
        assert (turn.weight == turn.fooling == turn.critic == 0) is waiting
    assert reconstruction.log_scale.item() != 0 and turn.number == 4


def test_one_turn_by_hand():
    model, reconstruction, critic, turns = setting(steps=1, gan_start=0, gan_weight=0.5)
    ours, theirs, judge = copy.deepcopy((model, reconstruction, critic))
    turn = next(turns)
    generator = seeded(0)
    x = Waves().draw(generator)[0]
    posterior = ours.autoencoder.encode(x)
    x_hat = ours.autoencoder.decode(posterior.sample(generator))
    nll = ((x - x_hat).abs() / theirs.log_scale.exp() + theirs.log_scale).sum() / 16
    kl = kl_divergence(Normal(posterior.mean, torch.exp(posterior.logvar / 2)), Normal(0.0, 1.0)).sum() / 16
    fooling = -judge.train()(x_hat).mean()
    w = ours.autoencoder.leave.weight
    norms = [torch.autograd.grad(y, w, retain_graph=True)[0].norm() for y in (nll, fooling)]
    weight = 0.5 * (norms[0] / (norms[1] + 1e-4)).item()
    first, second = adversarial_optimizers(ours, theirs, judge, 1e-2)
    (nll + 1e-3 * kl + weight * fooling).backward()
    first.step()
    judge.zero_grad()
    loss = 0.5 * ((1 - judge(x)).clamp(min=0).mean() + (1 + judge(x_hat.detach())).clamp(min=0).mean())
    loss.backward()
    second.step()
    expected = (nll, 1e-3 * kl, fooling, weight, loss)
    got = (turn.nll, turn.penalty, turn.fooling, turn.weight, turn.critic)
    assert got == pytest.approx([float(torch.as_tensor(y).detach()) for y in expected], rel=1e-5)
    for module, hand in ((model, ours), (reconstruction, theirs), (critic, judge)):
        for name, value in module.state_dict().items():
            assert gap(value, hand.state_dict()[name]) <= 1e-4, name


def test_generator_decides_and_training_helps():
    _, _, _, turns = setting(steps=150, gan_start=50)
    first = list(turns)
    again = list(setting(steps=10, gan_start=50)[3])
    other = list(setting(seed=1, steps=10, gan_start=50)[3])
    assert first[:10] == again and first[:10] != other
    assert sum(t.nll for t in first[-20:]) < sum(t.nll for t in first[:20]) * 0.9
    assert all(0 <= t.critic < 3 and 0 <= t.weight <= 0.5e4 for t in first)


def test_training_goes_on_where_it_stopped():
    straight = setting(steps=6, gan_start=2)
    list(straight[3])
    model, reconstruction, critic = (copy.deepcopy(module) for module in setting(steps=0)[:3])
    both, generator = adversarial_optimizers(model, reconstruction, critic, 1e-2), seeded(0)
    for start, steps in ((0, 3), (3, 6)):
        last = model.autoencoder.leave.weight
        options = {"last_layer": last, "optimizers": both, "generator": generator, "gan_start": 2, "start": start}
        numbers = [
            t.number for t in train_adversarially(model, reconstruction, critic, Waves(), steps=steps, **options)
        ]
        assert numbers == list(range(start + 1, steps + 1))
    for one, two in zip(straight[:3], (model, reconstruction, critic), strict=True):
        assert not moved(state(one), two)


def test_training_in_turns_refuses():
    model, _, _, turns = setting(steps=2, gan_start=0)
    with torch.no_grad():
        model.autoencoder.leave.bias.fill_(math.inf)
    before = state(model)
    with pytest.raises(NonFiniteError, match=r"loss: got .* in update 1"):
        next(turns)
    assert not moved(before, model)
    with pytest.raises(RangeError, match="gan_start: got -1"):
        next(setting(steps=2, gan_start=-1)[3])
    with pytest.raises(RangeError, match="beta"):
        Variational(Autoencoder(), beta=-1)
