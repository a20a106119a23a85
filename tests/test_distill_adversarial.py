"""Adversarial consistency: turns, balance of the two pulls, and what the critic does to a blurred student."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from worlds import normal, seeded

from lecture_lib.core import VELOCITY, Denoiser, RectifiedFlow
from lecture_lib.distill import (
    AdversarialConsistency,
    ConsistencyFunction,
    Judged,
    semigroup_loss,
    shared_noise,
)
from lecture_lib.errors import RangeError, UnknownNameError
from lecture_lib.nets import PointCritic, TimeMLP
from lecture_lib.tensors import randn_like

PATH = RectifiedFlow()


def legs(x0, generator):
    t = torch.rand(len(x0), generator=generator, dtype=torch.float64) * 0.9 + 0.1
    return shared_noise(PATH, x0, randn_like(x0, generator), t, t - 0.1)


def judged(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = TimeMLP(2, width=16, depth=1)
        for p in network.parameters():
            p.data += 0.1 * torch.randn(p.shape)
        return Judged(Denoiser(network, PATH, VELOCITY), PointCritic(width=8), "network.leave.weight").eval()


BATCH = (normal(16, 2, seed=4, dtype=torch.float32),)


def test_turns_are_taken_after_the_warm_up_and_gradients_do_not_mix():
    method, pair = AdversarialConsistency(legs, gan_start=3), judged()
    turns = [method.loss_at(done).__name__ for done in range(7)]
    assert turns == ["consistency_loss"] * 3 + ["critic_loss", "student_loss"] * 2
    for done, mine, other in ((0, pair.student, pair.critic), (4, pair.student, pair.critic)):
        pair.zero_grad(set_to_none=True)
        loss = method.loss_at(done)(pair, BATCH, seeded(1))
        assert loss.shape == (16,)
        loss.mean().backward()
        assert all(p.grad is not None for p in mine.parameters()) and all(p.grad is None for p in other.parameters())
    pair.zero_grad(set_to_none=True)
    method.critic_loss(pair, BATCH, seeded(1)).mean().backward()
    assert all(p.grad is None for p in pair.student.parameters())
    assert pair.critic.layers[0].bias.grad is not None


def test_without_a_critic_it_is_the_semigroup_loss():
    pair = judged()
    f = ConsistencyFunction(pair.student)
    expected = semigroup_loss(f, f, legs(BATCH[0], seeded(2)))
    assert torch.equal(AdversarialConsistency(legs).consistency_loss(pair, BATCH, seeded(2)), expected)
    silent = AdversarialConsistency(legs, gan_weight=0.0).student_loss(pair, BATCH, seeded(2))
    assert torch.allclose(silent, expected, atol=1e-7)


def test_both_terms_pull_equally_hard_at_the_last_layer():
    pair = judged()
    weight = pair.student.network.leave.weight

    def pull(gan_weight):
        method = AdversarialConsistency(legs, gan_weight=gan_weight)
        return torch.autograd.grad(method.student_loss(pair, BATCH, seeded(3)).mean(), weight)[0]

    alone, both = pull(0.0), pull(0.7)
    assert (both - alone).norm().item() == pytest.approx(0.7 * alone.norm().item(), rel=0.02)
    # and in the direction that the critic likes
    x = ConsistencyFunction(pair.student)(*(leg := legs(BATCH[0], seeded(3)))[:2])
    liked = torch.autograd.grad(-pair.critic(x).mean(), weight)[0]
    assert nn.functional.cosine_similarity((both - alone).flatten(), liked.flatten(), 0).item() > 0.9999
    assert leg.t.shape == (16,)


def test_the_critic_meets_data_and_jumps():
    """Data at +3, jumps near 0: a critic D = x_1 pays (max(0, 1 - 3) + max(0, 1 + f_1))/2."""

    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.one * x[:, :1]

    pair = Judged(judged().student, First(), "network.leave.weight")
    data = torch.tensor([[3.0, 0.0]]).repeat(8, 1)
    leg = legs(data, seeded(6))
    jumps = ConsistencyFunction(pair.student)(leg.x_t, leg.t)[:, 0]
    got = AdversarialConsistency(legs).critic_loss(pair, (data,), seeded(6))
    assert torch.allclose(got, (1 + jumps).clamp(min=0) / 2, atol=1e-6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UnknownNameError, match=r"last_layer: got 'leave', expected one of .*network.leave.weight"):
        Judged(judged().student, PointCritic(), "leave")
    with pytest.raises(RangeError, match="gan_start"):
        AdversarialConsistency(legs, gan_start=-1)
