"""5.9: a critic's loss, whose penalty is a gradient itself."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import softplus

from lecture_lib.exercises.drawing import normal, number, shape
from lecture_lib.exercises.stages import lecture5 as stages
from lecture_lib.exercises.task import question

# 5.9 -----------------------------------------------------------------------------------------------------------------


@question("5.9", 9, "a critic's loss with an R1 penalty")
def critic_loss(critic, real, fake, gamma):
    return _game(critic, real, fake) + gamma / 2 * _slope(critic, real).square().sum(1).mean()


def _game(critic, real, fake):
    return softplus(-critic(real)).mean() + softplus(critic(fake.detach())).mean()


def _slope(critic, x, create_graph=True):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(critic(x).sum(), x, create_graph=create_graph)[0]


critic_loss.stage(stages.criticising)
critic_loss.compares(
    "the loss", "what the critic's first weights hear", "what its last weights hear", "what the fakes hear"
)


@critic_loss.inputs
def _(g):
    n, d = shape(g)
    hidden = d + 3
    weights = {"w1": normal(g, hidden, d), "c1": normal(g, hidden, scale=0.5), "w2": normal(g, hidden, scale=0.9)}
    return {"real": normal(g, n, d), "fake": normal(g, n + 2, d) + 0.8, "gamma": number(g, 1.4, 2.9), **weights}


_W1, _W2 = torch.tensor([[1.0, -0.5], [0.3, 0.8], [-0.6, 0.2]]), torch.tensor([0.7, -1.1, 0.4])
_AT_0 = {"real": torch.zeros(2, 2), "fake": torch.zeros(3, 2), "c1": torch.zeros(3), "gamma": 1.7}
_TILT = _W2 @ _W1
critic_loss.edge(
    "a critic that says 0 everywhere",
    (2 * math.log(2), 0 * _W1, 0 * _W2, torch.zeros(3, 2)),
    **_AT_0, w1=0 * _W1, w2=0 * _W2,
)  # fmt: skip
critic_loss.edge(
    "data and fakes all at 0, where the critic has a slope",
    (
        2 * math.log(2) + 0.85 * float(_TILT @ _TILT),
        1.7 * _W2[:, None] * _TILT,
        1.7 * (_W1 @ _TILT),
        torch.zeros(3, 2),
    ),
    **_AT_0, w1=_W1, w2=_W2,
)  # fmt: skip


@critic_loss.mistake
def no_graph(critic, real, fake, gamma):
    """The number is right, but the penalty's gradient never reaches the weights: it is a constant to them. When the
    slope is differentiated, PyTorch must be told to keep the way back."""
    return _game(critic, real, fake) + gamma / 2 * _slope(critic, real, False).square().sum(1).mean()


@critic_loss.mistake
def fakes_not_stopped(critic, real, fake, gamma):
    """The number is right, but the generator hears of the *critic's* loss, and would learn to be caught: stop there."""
    game = softplus(-critic(real)).mean() + softplus(critic(fake)).mean()
    return game + gamma / 2 * _slope(critic, real).square().sum(1).mean()


@critic_loss.mistake
def critic_stopped(critic, real, fake, gamma):
    """The number is right, but with `no_grad` around the fakes the *critic* does not hear of them either. Stop the
    way into the generator, not the way into the critic's weights."""
    with torch.no_grad():
        caught = softplus(critic(fake)).mean()
    game = softplus(-critic(real)).mean() + caught
    return game + gamma / 2 * _slope(critic, real).square().sum(1).mean()


@critic_loss.mistake
def sides_exchanged(critic, real, fake, gamma):
    """The signs are exchanged: the critic is to be large on real samples."""
    game = softplus(critic(real)).mean() + softplus(-critic(fake.detach())).mean()
    return game + gamma / 2 * _slope(critic, real).square().sum(1).mean()


@critic_loss.mistake
def half_missing(critic, real, fake, gamma):
    """The penalty is twice as large as asked: mind the factor before it."""
    return critic_loss(critic, real, fake, 2 * gamma)


@critic_loss.mistake
def not_squared(critic, real, fake, gamma):
    """The length of the slope is penalised; it is its square."""
    return _game(critic, real, fake) + gamma / 2 * (_slope(critic, real).square().sum(1) + 1e-12).sqrt().mean()


@critic_loss.mistake
def towards_one(critic, real, fake, gamma):
    """The slope is pulled towards 1: that is WGAN-GP's penalty. R1 pulls it towards 0, since at the end of the game
    there is nothing left to tell apart."""
    length = (_slope(critic, real).square().sum(1) + 1e-12).sqrt()
    return _game(critic, real, fake) + gamma / 2 * (length - 1).square().mean()


@critic_loss.mistake
def at_the_fakes(critic, real, fake, gamma):
    """The slope is taken at the fakes: that is R2. R1 is about the slope at the data."""
    return _game(critic, real, fake) + gamma / 2 * _slope(critic, fake).square().sum(1).mean()


@critic_loss.mistake
def of_probability(critic, real, fake, gamma):
    """The slope is that of the probability, after the sigmoid: the penalty is about the logit."""
    slope = _slope(lambda x: torch.sigmoid(critic(x)), real)
    return _game(critic, real, fake) + gamma / 2 * slope.square().sum(1).mean()


@critic_loss.mistake
def summed_batch(critic, real, fake, gamma):
    """The penalty is a sum over the batch, the rest a mean."""
    return critic_loss(critic, real, fake, gamma * len(real))


@critic_loss.mistake
def slope_of_the_mean(critic, real, fake, gamma):
    """The slope of the *mean* of the critic has a factor 1/b in it: take that of the sum, each sample has its own."""
    return critic_loss(critic, real, fake, gamma / len(real) ** 2)


@critic_loss.mistake
def no_penalty(critic, real, fake, gamma):
    """The penalty is missing: without it the game circles."""
    return _game(critic, real, fake)


@critic_loss.mistake
def mean_over_numbers(critic, real, fake, gamma):
    """The squared slope is averaged over the dimensions: a squared length is a *sum* over them."""
    return critic_loss(critic, real, fake, gamma / real.shape[1])


@critic_loss.mistake
def rewarded(critic, real, fake, gamma):
    """The slope is rewarded: a penalty is added to what is made small."""
    return critic_loss(critic, real, fake, -gamma)


@critic_loss.mistake
def of_the_loss(critic, real, fake, gamma):
    """The slope is that of the loss, after the softplus: the penalty is about the logit."""
    slope = _slope(lambda x: softplus(-critic(x)), real)
    return _game(critic, real, fake) + gamma / 2 * slope.square().sum(1).mean()


@critic_loss.mistake
def at_both(critic, real, fake, gamma):
    """Data and fakes are both penalised: that is R1 and R2. R1 is about the slope at the data."""
    return critic_loss(critic, real, fake, gamma) + gamma / 2 * _slope(critic, fake).square().sum(1).mean()


@critic_loss.mistake
def wasserstein(critic, real, fake, gamma):
    """The logits themselves are averaged: that is Wasserstein's critic. Here a softplus bounds what a side can win."""
    game = critic(fake.detach()).mean() - critic(real).mean()
    return game + gamma / 2 * _slope(critic, real).square().sum(1).mean()


@critic_loss.mistake
def hinge(critic, real, fake, gamma):
    """That is the hinge loss: both sides have a softplus here."""
    game = torch.relu(1 - critic(real)).mean() + torch.relu(1 + critic(fake.detach())).mean()
    return game + gamma / 2 * _slope(critic, real).square().sum(1).mean()


@critic_loss.mistake
def to_be_climbed(critic, real, fake, gamma):
    """log D + log (1 - D) is what the critic makes *large*: a loss is made small."""
    return gamma / 2 * _slope(critic, real).square().sum(1).mean() - _game(critic, real, fake)


@critic_loss.mistake
def generators_side(critic, real, fake, gamma):
    """The fakes are pulled up as the data are: that is the generator's wish, not the critic's."""
    game = softplus(-critic(real)).mean() + softplus(-critic(fake.detach())).mean()
    return game + gamma / 2 * _slope(critic, real).square().sum(1).mean()


@critic_loss.mistake
def all_pushed_down(critic, real, fake, gamma):
    """The data are pushed down as the fakes are: the critic is to be large on real samples."""
    game = softplus(critic(real)).mean() + softplus(critic(fake.detach())).mean()
    return game + gamma / 2 * _slope(critic, real).square().sum(1).mean()


@critic_loss.mistake
def sides_averaged(critic, real, fake, gamma):
    """The two sides of the game are averaged: they are added."""
    return critic_loss(critic, real, fake, gamma) - _game(critic, real, fake) / 2


@critic_loss.mistake
def sides_summed(critic, real, fake, gamma):
    """The two sides are sums over their samples: they are means."""
    game = softplus(-critic(real)).sum() + softplus(critic(fake.detach())).sum()
    return game + gamma / 2 * _slope(critic, real).square().sum(1).mean()


@critic_loss.mistake
def without_a_way(critic, real, fake, gamma):
    """The number is right, but it is nothing else: no gradient flows from it. Is there an `item()`, a `detach()`, a
    `no_grad`?"""
    return critic_loss(critic, real, fake, gamma).item()
