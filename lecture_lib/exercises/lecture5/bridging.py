"""5.12, the boss: a coupling, partners that are drawn from it, and a bridge between them."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import count, normal, number, uniform
from lecture_lib.exercises.lecture5.coupling import squared_distances
from lecture_lib.exercises.task import question

# 5.12 ----------------------------------------------------------------------------------------------------------------


@question("5.12", 9, "boss: a batch of a Schrödinger bridge", tol=3e-4)
def bridge_batch(x0, x1, sigma, rounds, u, t, z):
    chances = _chances(squared_distances(x0, x1) / (2 * sigma**2), rounds)
    return _pinned(chances, x0, x1[_drawn(chances, u)], sigma, t, z)


def _chances(cost, rounds):
    """Sinkhorn: p(x1 | x0), (n, m), for a cost in units of the entropy's weight."""
    f, g = torch.zeros(cost.shape[0]), torch.zeros(cost.shape[1])
    for _ in range(rounds):
        g = -torch.logsumexp(f[:, None] - cost, 0) + math.log(cost.shape[0] / cost.shape[1])
        f = -torch.logsumexp(g[None] - cost, 1)
    return torch.exp(f[:, None] + g[None] - cost)


def _drawn(chances, u):
    return (chances.cumsum(1) <= u[:, None]).sum(1).clamp(max=chances.shape[1] - 1)


def _pinned(chances, x0, x1, sigma, t, z):
    t = t[:, None]
    gamma = sigma * (t * (1 - t)).sqrt()
    return _with_noise(chances, x0, x1, t, gamma * z, sigma**2 * (1 - 2 * t) / (2 * gamma) * z)


def _with_noise(chances, x0, x1, t, noise, its_speed):
    return chances, (1 - t) * x0 + t * x1 + noise, x1 - x0 + its_speed


@bridge_batch.inputs
def _(g):
    n, m, d = count(g, 5, 6), count(g, 7, 9), count(g, 2, 3)
    ends = {
        "x0": normal(g, n, d, scale=0.9),
        "x1": normal(g, m, d) + number(g, 0.3, 0.7),
        "sigma": number(g, 0.8, 0.97),
    }
    sums = _chances(squared_distances(ends["x0"], ends["x1"]) / (2 * ends["sigma"] ** 2), 100).cumsum(1)
    u = uniform(g, n, low=0.02, high=0.98)
    while float((sums - u[:, None]).abs().min()) < 2e-3:  # rounding must not choose another partner
        u = uniform(g, n, low=0.02, high=0.98)
    return {**ends, "rounds": count(g, 45, 50), "u": u, "t": uniform(g, n, low=0.1, high=0.9), "z": normal(g, n, d)}


bridge_batch.compares("the chances", "x_t", "the velocity")
_Z3, _HALF3 = torch.tensor([[0.3, -1.1], [1.4, 0.2], [-0.6, 0.8]]), torch.full((3,), 0.5)
_LINE = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0], [0.5]])
_EVEN = torch.tensor([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0]]) / 3
bridge_batch.edge(
    "two points and three, of which one lies between",
    (_EVEN, _LINE[0] * 0.8 + 0.2 * torch.tensor([[0.5], [1.0]]) + 0.02 * _Z3[:2, :1],
     torch.tensor([[0.5], [0.0]]) + 0.0375 * _Z3[:2, :1]),
    x0=_LINE[0], x1=_LINE[1], sigma=0.05, rounds=45, u=torch.tensor([0.9, 0.4]), t=torch.tensor([0.2, 0.2]),
    z=_Z3[:2, :1],
)  # fmt: skip
_SHELF = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 0.0]])
bridge_batch.edge(
    "sigma towards 0, the other end a copy far away: optimal transport",
    (torch.eye(3)[[2, 0, 1]], _SHELF + torch.tensor([0.0, 3.5]) + 0.08 * _Z3, torch.tensor([[0.0, 7.0]] * 3)),
    x0=_SHELF, x1=_SHELF[[1, 2, 0]] + torch.tensor([0.0, 7.0]), sigma=0.16, rounds=45,
    u=torch.tensor([0.3, 0.6, 0.9]), t=_HALF3, z=_Z3,
)  # fmt: skip


@bridge_batch.mistake
def underflow(x0, x1, sigma, rounds, u, t, z):
    """exp(-cost) is 0 where the ends are far apart, and 0/0 is no number: stay with logarithms to the end."""
    kernel = torch.exp(-squared_distances(x0, x1) / (2 * sigma**2))
    left, right = torch.ones(len(x0)), torch.ones(len(x1))
    for _ in range(rounds):
        right = len(x0) / len(x1) / (kernel.T @ left)
        left = 1 / (kernel @ right)
    chances = left[:, None] * kernel * right
    return _pinned(chances, x0, x1[_drawn(chances, u)], sigma, t, z)


@bridge_batch.mistake
def deviation(x0, x1, sigma, rounds, u, t, z):
    """sigma for sigma^2: the entropy is weighted by the *variance* of the Brownian motion."""
    chances = _chances(squared_distances(x0, x1) / (2 * sigma), rounds)
    return _pinned(chances, x0, x1[_drawn(chances, u)], sigma, t, z)


@bridge_batch.mistake
def half_forgotten(x0, x1, sigma, rounds, u, t, z):
    """The half of the cost is lost: as a Brownian motion goes from x0 to x1, the exponent is a Gaussian's."""
    chances = _chances(squared_distances(x0, x1) / sigma**2, rounds)
    return _pinned(chances, x0, x1[_drawn(chances, u)], sigma, t, z)


@bridge_batch.mistake
def distance_in_the_exponent(x0, x1, sigma, rounds, u, t, z):
    """The exponent holds the distance: a Gaussian's holds its square."""
    chances = _chances(squared_distances(x0, x1).sqrt() / (2 * sigma**2), rounds)
    return _pinned(chances, x0, x1[_drawn(chances, u)], sigma, t, z)


@bridge_batch.mistake
def columns_as_law(x0, x1, sigma, rounds, u, t, z):
    """The columns add up to 1: these are the chances of x0 given x1. The partners of a given x0 are its *row*."""
    cost = squared_distances(x0, x1) / (2 * sigma**2)
    chances = _chances(cost, rounds)
    chances = chances / chances.sum(0)
    return _pinned(chances, x0, x1[_drawn(chances, u)], sigma, t, z)


@bridge_batch.mistake
def joint_drawn(x0, x1, sigma, rounds, u, t, z):
    """The chances are right, but partners are drawn by the joint plan, whose rows add up to 1/n: few of these sums
    reach `u[i]`."""
    chances = _chances(squared_distances(x0, x1) / (2 * sigma**2), rounds)
    j = ((chances / len(x0)).cumsum(1) > u[:, None]).int().argmax(1)
    return _pinned(chances, x0, x1[j], sigma, t, z)


@bridge_batch.mistake
def equal_chances(x0, x1, sigma, rounds, u, t, z):
    """Partners are drawn with equal chances: that is the independent coupling."""
    chances = _chances(squared_distances(x0, x1) / (2 * sigma**2), rounds)
    return _pinned(chances, x0, x1[(u * len(x1)).long()], sigma, t, z)


@bridge_batch.mistake
def rows_alone(x0, x1, sigma, rounds, u, t, z):
    """Only the rows are normalised, a softmax: then some x1 are used more than others. Columns have a law as well."""
    chances = torch.softmax(-squared_distances(x0, x1) / (2 * sigma**2), 1)
    return _pinned(chances, x0, x1[_drawn(chances, u)], sigma, t, z)


@bridge_batch.mistake
def joint(x0, x1, sigma, rounds, u, t, z):
    """The plan is a joint law, and adds up to 1 as a whole. A partner of a *given* x0 comes from a conditional."""
    chances = _chances(squared_distances(x0, x1) / (2 * sigma**2), rounds) / len(x0)
    return _pinned(chances, x0, x1[_drawn(chances, u)], sigma, t, z)


@bridge_batch.mistake
def joint_to_the_first(x0, x1, sigma, rounds, u, t, z):
    """The plan's rows add up to 1/n, so few cumulated sums reach `u[i]`: a partner of a *given* x0 comes from a
    conditional."""
    chances = _chances(squared_distances(x0, x1) / (2 * sigma**2), rounds) / len(x0)
    return _pinned(chances, x0, x1[(chances.cumsum(1) > u[:, None]).int().argmax(1)], sigma, t, z)


@bridge_batch.mistake
def likeliest(x0, x1, sigma, rounds, u, t, z):
    """Each takes its likeliest partner: partners are to be *drawn*, or the coupling is no longer the entropic one."""
    chances = _chances(squared_distances(x0, x1) / (2 * sigma**2), rounds)
    return _pinned(chances, x0, x1[chances.argmax(1)], sigma, t, z)


@bridge_batch.mistake
def mean_partner(x0, x1, sigma, rounds, u, t, z):
    """Each takes the *mean* of its partners: these means are no samples of the other end, they lie too close."""
    chances = _chances(squared_distances(x0, x1) / (2 * sigma**2), rounds)
    return _pinned(chances, x0, chances @ x1, sigma, t, z)


@bridge_batch.mistake
def still_noise(x0, x1, sigma, rounds, u, t, z):
    """The velocity is that of the straight line: the bridge's noise changes with time as well."""
    chances, x_t, _ = bridge_batch(x0, x1, sigma, rounds, u, t, z)
    return chances, x_t, x1[_drawn(chances, u)] - x0


@bridge_batch.mistake
def drift_to_the_end(x0, x1, sigma, rounds, u, t, z):
    """(x1 - x_t)/(1 - t) is the drift of the bridge as an *SDE*. Asked for is the derivative of x_t, with this z."""
    chances, x_t, _ = bridge_batch(x0, x1, sigma, rounds, u, t, z)
    return chances, x_t, (x1[_drawn(chances, u)] - x_t) / (1 - t)[:, None]


@bridge_batch.mistake
def noise_turned(x0, x1, sigma, rounds, u, t, z):
    """The noise's share of the velocity has the wrong sign: the bridge *widens* until half-way."""
    return _with_speed(x0, x1, sigma, rounds, u, t, z, lambda speed: -speed)


def _with_speed(x0, x1, sigma, rounds, u, t, z, change):
    """The right answer with another share of the noise in the velocity."""
    chances, x_t, velocity = bridge_batch(x0, x1, sigma, rounds, u, t, z)
    straight = x1[_drawn(chances, u)] - x0
    return chances, x_t, straight + change(velocity - straight)


@bridge_batch.mistake
def root_not_derived(x0, x1, sigma, rounds, u, t, z):
    """The derivative of the root lacks its factor: differentiate t (1 - t) first, then the root."""
    return _with_speed(x0, x1, sigma, rounds, u, t, z, lambda speed: 2 * speed)


@bridge_batch.mistake
def speed_without_sigma(x0, x1, sigma, rounds, u, t, z):
    """sigma is lost in the velocity: the derivative keeps it."""
    return _with_speed(x0, x1, sigma, rounds, u, t, z, lambda speed: speed / sigma)


@bridge_batch.mistake
def sigma_in_the_plan_alone(x0, x1, sigma, rounds, u, t, z):
    """The coupling knows sigma, the bridge does not: the same Brownian motion runs between the ends."""
    chances = _chances(squared_distances(x0, x1) / (2 * sigma**2), rounds)
    return _pinned(chances, x0, x1[_drawn(chances, u)], 1.0, t, z)


@bridge_batch.mistake
def clock_reversed(x0, x1, sigma, rounds, u, t, z):
    """The clock runs backwards: at t = 0 the bridge stands on the data, at t = 1 on the other end."""
    chances, x_t, velocity = bridge_batch(x0, x1, sigma, rounds, u, t, z)
    lead = (1 - 2 * t)[:, None] * (x1[_drawn(chances, u)] - x0)
    return chances, x_t + lead, velocity


@bridge_batch.mistake
def bridge_variance(x0, x1, sigma, rounds, u, t, z):
    """The bridge's noise is multiplied by its variance sigma^2 t (1 - t), in place and velocity."""
    chances, t = _chances(squared_distances(x0, x1) / (2 * sigma**2), rounds), t[:, None]
    noise, speed = sigma**2 * t * (1 - t) * z, sigma**2 * (1 - 2 * t) * z
    return _with_noise(chances, x0, x1[_drawn(chances, u)], t, noise, speed)


@bridge_batch.mistake
def open_end(x0, x1, sigma, rounds, u, t, z):
    """A Brownian motion that is free at its end: a *bridge* is pinned at both, and is widest half-way."""
    chances, t = _chances(squared_distances(x0, x1) / (2 * sigma**2), rounds), t[:, None]
    noise, speed = sigma * t.sqrt() * z, sigma / (2 * t.sqrt()) * z
    return _with_noise(chances, x0, x1[_drawn(chances, u)], t, noise, speed)


@bridge_batch.mistake
def trigonometric(x0, x1, sigma, rounds, u, t, z):
    """Cosine and sine without noise: a fine path, but no bridge, since there is no sigma in it."""
    chances, turn = _chances(squared_distances(x0, x1) / (2 * sigma**2), rounds), torch.pi / 2 * t[:, None]
    x1 = x1[_drawn(chances, u)]
    return chances, turn.cos() * x0 + turn.sin() * x1, torch.pi / 2 * (turn.cos() * x1 - turn.sin() * x0)
