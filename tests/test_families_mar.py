"""MAR: Gaussians, whose conditionals are known, through the real sampling loop and through the real training."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import kstest, multivariate_normal, truncnorm
from torch import nn
from worlds import normal, seeded

from lecture_lib.core import VELOCITY, Denoiser, RectifiedFlow
from lecture_lib.data import Batches
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.families import MAR, fit, hidden_shares, still_hidden
from lecture_lib.families.mar import ranks
from lecture_lib.nets import TokenMLP

MEAN = torch.tensor([0.5, -1.0, 0.2])
COV = torch.tensor([[1.0, 0.8, -0.3], [0.8, 1.2, 0.1], [-0.3, 0.1, 0.6]])
DRAWS = 20_000


@pytest.fixture(autouse=True)
def same_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class ExactToken(nn.Module):
    """E[eps - x0 | x_t] on the straight path for a token N(mean, std^2), with (mean, std) as its condition."""

    def forward(self, x, t, cond):
        t, mean, std = (t / 1000)[:, None], cond[:, :1], cond[:, 1:]
        alpha, sigma = 1 - t, t
        shift = (x - alpha * mean) / (alpha**2 * std**2 + sigma**2)
        return sigma * shift - (mean + alpha * std**2 * shift)


class ExactMAR(MAR):
    """N(MEAN, COV) in three tokens of one number: what a perfect MAR says of the hidden ones, by linear algebra."""

    head_steps = 48

    def __init__(self, **options):
        super().__init__((3,), patch=1, dim=8, depth=1, heads=2, **options)
        self.head = Denoiser(ExactToken(), RectifiedFlow(), VELOCITY, null=torch.zeros(2))

    def told(self, tokens, hidden, label):
        out = torch.zeros(len(tokens), 3, 2)
        for pattern in hidden.unique(dim=0):
            rows, h, v = (hidden == pattern).all(1), pattern.nonzero()[:, 0], (~pattern).nonzero()[:, 0]
            gain = COV[h][:, v] @ torch.linalg.inv(COV[v][:, v])
            mean = MEAN[h] + (tokens[rows][:, v, 0] - MEAN[v]) @ gain.T
            std = (COV[h][:, h] - gain @ COV[v][:, h]).diagonal().sqrt()
            part = torch.zeros(int(rows.sum()), 3, 2)
            part[:, h] = torch.stack([mean, std.expand_as(mean)], dim=-1)
            out[rows] = part
        return out


def shaken(model):
    """Weights far from their start, where the head predicts nothing and hears nobody."""
    for weight in model.parameters():
        weight.data += 0.1 * normal(*weight.shape).float()
    return model


# --- the loop --------------------------------------------------------------------------------------------------------


def test_one_token_per_step_draws_the_joint_law():
    """Three steps, a random order in each sample: mean and covariance within four standard errors."""
    x = ExactMAR().sample(DRAWS, steps=3, generator=seeded()).double()
    error = (COV.diagonal()[:, None] * COV.diagonal() + COV**2).div(DRAWS).sqrt()  # of a sample covariance
    assert ((x.mean(0) - MEAN).abs() < 4 * (COV.diagonal() / DRAWS).sqrt() + 0.005).all()
    assert ((torch.cov(x.T) - COV).abs() < 4 * error + 0.005).all()  # 0.005: Heun's steps


def test_tokens_of_one_step_know_nothing_of_each_other():
    """In a single step the marginals are right and every correlation is lost."""
    found = torch.cov(ExactMAR().sample(DRAWS, steps=1, generator=seeded()).double().T)
    torch.testing.assert_close(found.diagonal(), COV.diagonal().double(), rtol=0.04, atol=0)
    assert (found - found.diagonal().diag()).abs().max() < 0.03


def test_log_prob_is_the_joint_density_whatever_the_order():
    """With exact conditionals every order gives the same number, scipy's; Jensen loses nothing then."""
    x = normal(32, 3).float()
    found = ExactMAR().log_prob(x, generator=seeded())
    expected = multivariate_normal(MEAN.numpy(), COV.numpy()).logpdf(x.numpy())
    torch.testing.assert_close(found.nats, torch.tensor(expected), rtol=0, atol=2e-3)
    assert found.kind == "lower bound"


def test_a_wrong_order_is_heard():
    """The bound of a model whose conditionals disagree depends on the order: two seeds, two numbers."""
    model = shaken(MAR((3,), patch=1, dim=8, depth=1, heads=2))
    x = normal(8, 3).float()
    assert not torch.allclose(*(model.log_prob(x, generator=seeded(s)).nats for s in (0, 1)), atol=1e-3)


def test_training_recovers_a_conditional_gaussian():
    """A correlated plane, learned from samples: E[x_2 | x_1] and its deviation come out within a few hundredths."""
    batches = Batches((normal(4096, 2).float() @ torch.tensor([[1.0, 0.8], [0.0, 0.6]]),), 256)
    model = MAR((2,), patch=1, dim=16, depth=1, heads=2, head_width=48, head_depth=2, buffers=1, std=0.7)
    for _ in fit(model, batches, steps=300, lr=4e-3, generator=seeded()):
        pass
    x = model.sample(4000, steps=2, generator=seeded(1))
    slope = (x[:, 0] * x[:, 1]).mean() / x[:, 0].square().mean()
    rest = (x[:, 1] - slope * x[:, 0]).std()
    assert slope.item() == pytest.approx(0.8, abs=0.08) and rest.item() == pytest.approx(0.6, abs=0.08)


# --- what is hidden, and when ----------------------------------------------------------------------------------------


def test_shares_are_scipys_truncated_normal():
    found = hidden_shares(5000, generator=seeded())
    law = truncnorm((0.7 - 1) / 0.25, 0, loc=1, scale=0.25)
    assert kstest(found.numpy(), law.cdf).pvalue > 0.01
    assert found.min() >= 0.7 and found.max() <= 1


@pytest.mark.parametrize(("n", "steps"), [(256, 64), (256, 256), (16, 8), (16, 1), (5, 5)])
def test_counts_are_the_papers(n, steps):
    """``floor(n cos)``, at least one token per step and at least one left, as in the authors' loop."""
    left, mask_len = [n], n
    for step in range(steps):
        wanted = math.floor(n * np.cos(math.pi / 2 * (step + 1) / steps))
        mask_len = max(1, min(mask_len - 1, wanted)) if step < steps - 1 else 0
        left.append(mask_len)
    assert still_hidden(n, steps)[0] == n and still_hidden(n, steps)[-1] == 0
    if steps < n:  # at n steps the authors' last ones would have nothing left to draw
        assert still_hidden(n, steps) == left
    assert all(a - b >= 1 for a, b in pairwise(still_hidden(n, steps)))


def test_an_equal_share_per_step_would_leave_six_of_256():
    """div(256, 10) = 25 tokens per step: after ten steps six are masked still. Counting from the end forgets none."""
    assert 256 - 10 * (256 // 10) == 6
    assert still_hidden(256, 10)[-1] == 0


def test_more_steps_than_tokens_are_refused():
    with pytest.raises(RangeError, match="at most 16"):
        still_hidden(16, 17)
    with pytest.raises(RangeError, match="at most 16"):
        MAR(dim=16).sample(1, steps=17, generator=seeded())


def test_ranks_are_permutations_of_equal_chance():
    found = ranks(6000, 3, seeded())
    assert torch.equal(found.sort(dim=1).values, torch.arange(3).expand(6000, 3))
    each = torch.bincount(found @ torch.tensor([9, 3, 1]), minlength=27)
    each = each[each > 0]
    assert len(each) == 6 and (each - 1000).abs().max() < 4 * 1000**0.5


# --- who knows what --------------------------------------------------------------------------------------------------


def test_nothing_is_told_of_hidden_tokens():
    """Their values may be anything, 0 included: what is said of them does not move by a bit."""
    model, tokens = MAR(dim=16, n_classes=10).eval(), normal(3, 16, 4).float()
    hidden, label = ranks(3, 16, seeded()) < 9, torch.tensor([1, 2, 3])
    with torch.no_grad():
        z = model.told(tokens, hidden, label)
        other = torch.where(hidden[..., None], torch.zeros_like(tokens), tokens)
        assert torch.equal(model.told(other, hidden, label)[hidden], z[hidden])
        seen = torch.where(hidden[..., None], tokens, tokens + 1)
        assert (model.told(seen, hidden, label)[hidden] != z[hidden]).any(-1).all()
        assert (model.told(tokens, hidden, label - 1)[hidden] != z[hidden]).any(-1).all()


def test_the_first_step_sees_the_class_alone():
    model, tokens = MAR(dim=16, n_classes=10).eval(), normal(2, 16, 4).float()
    with torch.no_grad():
        z = model.told(tokens, torch.ones(2, 16, dtype=torch.bool), torch.tensor([3, 3]))
    assert torch.isfinite(z).all() and torch.equal(z[0], z[1])


def test_the_loss_is_a_mean_over_hidden_tokens_only():
    """With a head whose loss is the token's own number, 8^i at place i, the loss says which places were in it."""

    class Echo(nn.Module):
        null = None

        def loss(self, x0, cond, *, times, generator):
            return x0[:, 0].double()

    model = MAR((6,), patch=1, dim=8, depth=1, heads=2, draws=3, low=0.7, std=0.25)
    model.head = Echo()
    x = (8.0 ** torch.arange(6)).expand(400, 6)
    losses = model.double().loss((x.double(),), generator=seeded())
    counts = []
    for value in losses.tolist():  # value * m = sum of 8^i over m places
        m = [
            m
            for m in range(1, 7)
            if oct(round(value * m))[2:].count("1") == m and set(oct(round(value * m))[2:]) <= {"0", "1"}
        ]
        counts += m[:1]
    assert len(counts) == 400 and set(counts) == {5, 6}  # ceil of 0.7..1 times 6
    share = float(truncnorm(-1.2, 0, loc=1, scale=0.25).sf(5 / 6))
    assert counts.count(6) / 400 == pytest.approx(share, abs=4 * (share * (1 - share) / 400) ** 0.5)


def test_guidance_grows_as_tokens_become_visible():
    """Linear from 1: with n = 16 and two steps, half a cosine first, all at the end."""
    model, seen = MAR(dim=16, n_classes=10, w=3.0), []
    draw = model.draw
    model.draw = lambda *args: (seen.append(args[-1]), draw(*args))[1]
    model.sample(2, torch.tensor([1, 2]), steps=2, generator=seeded())
    assert seen == pytest.approx([1 + 2 * (16 - 11) / 16, 3.0])


def test_guidance_of_the_head_is_linear_in_its_predictions():
    """w = 0 ignores the class, w = 1 is the class; in between lies neither."""
    model, tokens = shaken(MAR(dim=16, n_classes=10)).eval(), normal(2, 16, 4).float()
    hidden = torch.ones(2, 16, dtype=torch.bool)
    label = torch.tensor([1, 2])
    with torch.no_grad():
        drawn = {w: model.draw(tokens, hidden, hidden, label, w) for w in (0.0, 1.0, 2.0)}
        silent = model.draw(tokens, hidden, hidden, None, 1.0)
    torch.testing.assert_close(drawn[0.0], silent, rtol=0, atol=1e-5)
    assert (drawn[1.0] - silent).abs().max() > 1e-3 and (drawn[2.0] - drawn[1.0]).abs().max() > 1e-3


def test_a_share_t_of_the_tokens_is_noise():
    model, x = MAR(dim=16), normal(4, 1, 8, 8).float()
    for t, expected in ((0.0, 0), (0.3, 5), (0.5, 8), (1.0, 16)):
        there = model.forward_process(x, torch.full((4,), t), generator=seeded())
        changed = (model.cut(there) != model.cut(x)).any(-1).sum(1)
        assert (changed == expected).all()


def test_frames_are_kept_and_tokens_are_written_once():
    """A frame that was given away does not change later, and what is written stays; the noise is not mutated."""
    model, z = shaken(MAR((6,), patch=1, dim=8, depth=1, heads=2)), normal(50, 6).float()
    kept = z.clone()
    frames = list(model.reverse_process(z, steps=3, generator=seeded()))
    assert torch.equal(z, kept) and torch.equal(frames[0], kept) and len(frames) == 4
    moved = [(a != b) for a, b in pairwise(frames)]
    assert (sum(m.int() for m in moved) <= 1).all()
    assert [int(m.sum(1).max()) for m in moved] == [-b + a for a, b in zip([6, 5, 3], [5, 3, 0], strict=True)]


def test_the_head_starts_as_no_prediction_and_hears_time_and_context():
    net = TokenMLP(4, 8, width=16, depth=2)
    x, t, cond = normal(3, 4).float(), torch.tensor([0.0, 500.0, 1000.0]), normal(3, 8).float()
    assert not net(x, t, cond).any()
    for weight in net.parameters():
        weight.data += 0.3 * normal(*weight.shape).float()
    y = net(x, t, cond)
    assert not torch.allclose(net(x, t + 100, cond), y) and not torch.allclose(net(x, t, -cond), y)


def test_patches_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match="patch: got 3"):
        MAR((1, 8, 8), patch=3)
