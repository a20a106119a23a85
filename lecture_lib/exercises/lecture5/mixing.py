"""5.1 and 5.2: the interpolant between two ends, its velocity and its score."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import normal, number, shape, uniform
from lecture_lib.exercises.task import question

A, B, C = (
    torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]]),
    torch.tensor([[1.0, 0.5, -1.5], [-0.5, 2.0, 0.3]]),
    torch.tensor([[-0.4, 1.2, 0.7], [0.9, -1.6, 1.1]]),
)

# 5.1 -----------------------------------------------------------------------------------------------------------------


@question("5.1", 5, "the two-sided interpolant")
def interpolate(x0, x1, z, t, a):
    return _mixed(x0, x1, z, t, (a * t * (1 - t)).sqrt())


def _mixed(x0, x1, z, t, gamma):
    return (1 - t)[:, None] * x0 + t[:, None] * x1 + gamma[:, None] * z


@interpolate.inputs
def _(g):
    b, d = shape(g)
    ends = {"x0": normal(g, b, d), "x1": normal(g, b, d), "z": normal(g, b, d)}
    return {**ends, "t": uniform(g, b, low=0.1, high=0.9), "a": number(g, 0.3, 0.8)}


_ENDS, _ZERO, _T = {"x0": A, "x1": B, "z": C}, torch.zeros(2), torch.tensor([0.5, 0.2])
_SPREAD = torch.tensor([[0.25], [0.2]])
interpolate.edge("at t = 0 it is the data, without noise", A, **_ENDS, t=_ZERO, a=0.7)
interpolate.edge("at t = 1 it is the other end, without noise", B, **_ENDS, t=_ZERO + 1, a=0.7)
interpolate.edge(
    "in between, at the times 1/2 and 1/5",
    (1 - _T)[:, None] * A + _T[:, None] * B + _SPREAD * C,
    **_ENDS,
    t=_T,
    a=0.25,
)


@interpolate.mistake
def clock_reversed(x0, x1, z, t, a):
    """The clock runs backwards: in this course t = 0 is the data x0, and t = 1 the other end."""
    return interpolate(x1, x0, z, t, a)


@interpolate.mistake
def variance(x0, x1, z, t, a):
    """z is multiplied by a variance: for a variance of gamma^2 it takes the standard deviation gamma."""
    return _mixed(x0, x1, z, t, a * t * (1 - t))


@interpolate.mistake
def outside_the_root(x0, x1, z, t, a):
    """gamma holds a, not its root: a is a factor of gamma *squared*."""
    return _mixed(x0, x1, z, t, a * (t * (1 - t)).sqrt())


@interpolate.mistake
def no_noise(x0, x1, z, t, a):
    """z is missing: that is the interpolant with gamma = 0, flow matching's straight line."""
    return _mixed(x0, x1, z, t, 0 * t)


@interpolate.mistake
def open_end(x0, x1, z, t, a):
    """The noise grows up to t = 1, as Brownian motion does. gamma must vanish at *both* ends, or x1 is not met."""
    return _mixed(x0, x1, z, t, (a * t).sqrt())


@interpolate.mistake
def kept_variance(x0, x1, z, t, a):
    """gamma is chosen so that the squares of the three coefficients add up to 1. Nothing asks for that; a is given."""
    return _mixed(x0, x1, z, t, (1 - (1 - t) ** 2 - t**2).sqrt())


@interpolate.mistake
def one_time(x0, x1, z, t, a):
    """One time for the whole batch: each sample has its own."""
    return interpolate(x0, x1, z, t.mean().expand(len(t)), a)


@interpolate.mistake
def first_time(x0, x1, z, t, a):
    """The time of the first sample is taken for all: each has its own."""
    return interpolate(x0, x1, z, t[:1].expand(len(t)), a)


@interpolate.mistake
def without_a(x0, x1, z, t, a):
    """The noise does not depend on a: it says how large gamma is."""
    return interpolate(x0, x1, z, t, 1.0)


@interpolate.mistake
def noise_subtracted(x0, x1, z, t, a):
    """z is subtracted. That has the same law, but here the samples themselves are compared."""
    return interpolate(x0, x1, -z, t, a)


@interpolate.mistake
def roots(x0, x1, z, t, a):
    """The roots of the shares mix the ends: that keeps a variance, as diffusion does. Here the line is straight."""
    return _mixed(x0, x1, z, t, (a * t * (1 - t)).sqrt()) + _between(x0, x1, (1 - t).sqrt() - 1 + t, t.sqrt() - t)


def _between(x0, x1, alpha, beta):
    return alpha[:, None] * x0 + beta[:, None] * x1


@interpolate.mistake
def circle(x0, x1, z, t, a):
    """The ends are mixed by cosine and sine: the trigonometric interpolant. Here the line is straight."""
    turn, gamma = torch.pi / 2 * t[:, None], (a * t * (1 - t)).sqrt()[:, None]
    return turn.cos() * x0 + turn.sin() * x1 + gamma * z


# 5.2 -----------------------------------------------------------------------------------------------------------------


@question("5.2", 8, "velocity and score from two regressions")
def velocity_and_score(v, eta, t, a):
    gamma, slope = _gamma(t, a), _slope(t, a)
    return v + slope * eta, -eta / gamma


def _gamma(t, a):
    return (a * t * (1 - t)).sqrt()[:, None]


def _slope(t, a):
    return a * (1 - 2 * t)[:, None] / (2 * _gamma(t, a))


@velocity_and_score.inputs
def _(g):
    b, d = shape(g)
    clock = {"t": uniform(g, b, low=0.1, high=0.9), "a": number(g, 0.3, 0.8)}
    return {"v": normal(g, b, d), "eta": normal(g, b, d), **clock}


_LEFT_RIGHT = torch.tensor([[0.75], [-0.75]])
velocity_and_score.compares("b", "s")
velocity_and_score.edge(
    "half-way gamma is at its top, and does not change", (A, -4 * B), v=A, eta=B, t=_ZERO + 0.5, a=0.25
)
velocity_and_score.edge(
    "before and after the middle",
    (A + _LEFT_RIGHT * B, -2.5 * B),
    v=A,
    eta=B,
    t=torch.tensor([0.2, 0.8]),
    a=1.0,
)


@velocity_and_score.mistake
def score_upwards(v, eta, t, a):
    """The sign of the score: it points from noise to where samples are, so against the mean noise."""
    return v + _slope(t, a) * eta, eta / _gamma(t, a)


@velocity_and_score.mistake
def score_by_variance(v, eta, t, a):
    """The score is divided by gamma squared: that would be right for gamma z, but eta is the mean of z itself."""
    return v + _slope(t, a) * eta, -eta / _gamma(t, a) ** 2


@velocity_and_score.mistake
def score_multiplied(v, eta, t, a):
    """The noise is multiplied by gamma. A narrow blur has *steep* scores: look at gamma towards 0."""
    return v + _slope(t, a) * eta, -eta * _gamma(t, a)


@velocity_and_score.mistake
def noise_not_moving(v, eta, t, a):
    """v alone: what z does to x_t changes with time, too, and belongs to the velocity."""
    return v, -eta / _gamma(t, a)


@velocity_and_score.mistake
def gamma_for_its_slope(v, eta, t, a):
    """gamma stands where its time derivative belongs: a velocity is the mean of dx_t/dt."""
    return v + _gamma(t, a) * eta, -eta / _gamma(t, a)


@velocity_and_score.mistake
def signs_mixed(v, eta, t, a):
    """The noise's share of b has the wrong sign. Of the two forms in (4), the minus of the second belongs to the score,
    which holds one already; and gamma *grows* before the middle."""
    return v - _slope(t, a) * eta, -eta / _gamma(t, a)


@velocity_and_score.mistake
def eta_for_score(v, eta, t, a):
    """In v - gamma gamma' s the letter s is the score; here the mean noise stands in its place."""
    return v - _gamma(t, a) * _slope(t, a) * eta, -eta / _gamma(t, a)


@velocity_and_score.mistake
def root_not_derived(v, eta, t, a):
    """The derivative of the root lacks its factor: differentiate gamma^2 first, then gamma."""
    return v + 2 * _slope(t, a) * eta, -eta / _gamma(t, a)


@velocity_and_score.mistake
def slope_without_a(v, eta, t, a):
    """a is lost in the derivative of gamma: the chain rule keeps it."""
    return v + _slope(t, a) / a * eta, -eta / _gamma(t, a)


@velocity_and_score.mistake
def without_a_anywhere(v, eta, t, a):
    """a is nowhere to be seen: it is a factor of gamma squared, so both answers depend on it."""
    return velocity_and_score(v, eta, t, 1.0)


@velocity_and_score.mistake
def gamma_with_a(v, eta, t, a):
    """gamma holds a, not its root: a is a factor of gamma *squared*."""
    return velocity_and_score(v, eta, t, a**2)


@velocity_and_score.mistake
def gamma_squared(v, eta, t, a):
    """a t (1 - t) is used as gamma: it is gamma squared, and its slope is that of the square."""
    return v + a * (1 - 2 * t)[:, None] * eta, -eta / _gamma(t, a) ** 2


@velocity_and_score.mistake
def slope_of_the_square(v, eta, t, a):
    """The slope of gamma *squared* multiplies eta: the root is still to be differentiated."""
    return v + a * (1 - 2 * t)[:, None] * eta, -eta / _gamma(t, a)


@velocity_and_score.mistake
def score_not_divided(v, eta, t, a):
    """The score is minus the mean noise, undivided: that noise entered x_t with a factor."""
    return v + _slope(t, a) * eta, -eta


@velocity_and_score.mistake
def score_of_one_side(v, eta, t, a):
    """The score is divided by t: that is for noise at the other end. This noise has another coefficient."""
    return v + _slope(t, a) * eta, -eta / t[:, None]


@velocity_and_score.mistake
def gamma_lost(v, eta, t, a):
    """v - gamma' s: written with the score, the second term has one more factor."""
    return v + _slope(t, a) / _gamma(t, a) * eta, -eta / _gamma(t, a)
