"""5.3: a walk whose marginals do not depend on its noise."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import count, normal, number, shape
from lecture_lib.exercises.lecture5.mixing import A, C
from lecture_lib.exercises.stages import lecture5 as stages
from lecture_lib.exercises.task import question

# 5.3 -----------------------------------------------------------------------------------------------------------------


@question("5.3", 10, "an SDE with the marginals of the ODE")
def walk_down(velocity, score, x, times, epsilon, noise):
    return _walk(velocity, score, x, times, noise, epsilon, lambda h: math.sqrt(2 * epsilon * h))


def _walk(velocity, score, x, times, noise, push, spread):
    """With ``push`` times the score, and noise of a ``spread`` that depends on the length of a step."""
    for t, s, z in zip(times[:-1].tolist(), times[1:].tolist(), noise, strict=True):
        x = x + (s - t) * (velocity(x, t) - push * score(x, t)) + spread(t - s) * z
    return x


walk_down.stage(stages.walking)


@walk_down.inputs
def _(g):
    b, d = shape(g)
    steps = count(g, 7, 11)
    times = torch.linspace(number(g, 0.9, 0.99), number(g, 0.02, 0.1), steps + 1) ** 1.2
    ends = {"data": [number(g, -1, -0.2), number(g, 0.3, 0.6)], "other": [number(g, 0.5, 2), number(g, 1.2, 1.8)]}
    noise = {"epsilon": number(g, 0.2, 0.4), "noise": normal(g, steps, b, d)}
    return {"x": normal(g, b, d), "times": times, **ends, "a": number(g, 0.3, 0.9), **noise}


_FLAT = {"x": A, "data": [-0.5, 0.8], "other": [1.5, 0.8], "a": 1.6}  # the variance is 0.8 at all times
_TWO = torch.stack([C, -C])
walk_down.edge(
    "epsilon = 0, with equal spreads at all times: all points move alike",
    A - 1.2,
    **_FLAT,
    times=torch.tensor([0.9, 0.6, 0.3]),
    epsilon=0.0,
    noise=_TWO,
)
walk_down.edge(
    "a single step",
    A - 0.4 * (2 + 0.3 * (A - 0.7) / 0.8) + math.sqrt(0.24) * C,
    **_FLAT,
    times=torch.tensor([0.6, 0.2]),
    epsilon=0.3,
    noise=_TWO[:1],
)


@walk_down.mistake
def upwards(velocity, score, x, times, epsilon, noise):
    """Time falls from t to s, so the step in time is negative; here b is added as if time went up."""
    turned = lambda y, t: -velocity(y, t)  # noqa: E731
    return _walk(turned, score, x, times, noise, epsilon, lambda h: math.sqrt(2 * epsilon * h))


@walk_down.mistake
def all_turned(velocity, score, x, times, epsilon, noise):
    """Time falls from t to s, so dt is negative: with a positive one the whole drift points the other way."""
    turned = lambda y, t: -velocity(y, t)  # noqa: E731
    return _walk(turned, score, x, times, noise, -epsilon, lambda h: math.sqrt(2 * epsilon * h))


@walk_down.mistake
def forward_drift(velocity, score, x, times, epsilon, noise):
    """b + epsilon s is the drift of the SDE that runs *up*. Downwards the noise is to be held together as well:
    ask which sign of the score does that, with a negative step in time."""
    return _walk(velocity, score, x, times, noise, -epsilon, lambda h: math.sqrt(2 * epsilon * h))


@walk_down.mistake
def without_two(velocity, score, x, times, epsilon, noise):
    """The noise has variance epsilon h. With epsilon before the Laplacian of (5) the noise of the SDE is stronger."""
    return _walk(velocity, score, x, times, noise, epsilon, lambda h: math.sqrt(epsilon * h))


@walk_down.mistake
def without_root(velocity, score, x, times, epsilon, noise):
    """z is multiplied by a variance: `std**2 * randn`."""
    return _walk(velocity, score, x, times, noise, epsilon, lambda h: 2 * epsilon * h)


@walk_down.mistake
def time_outside_root(velocity, score, x, times, epsilon, noise):
    """The noise of a step is proportional to its length: it is the *variance* of Brownian motion that grows so."""
    return _walk(velocity, score, x, times, noise, epsilon, lambda h: math.sqrt(2 * epsilon) * h)


@walk_down.mistake
def noise_alone(velocity, score, x, times, epsilon, noise):
    """Noise is added, and nothing holds it together: the marginals grow too wide. The score is missing."""
    return _walk(velocity, score, x, times, noise, 0.0, lambda h: math.sqrt(2 * epsilon * h))


@walk_down.mistake
def ode(velocity, score, x, times, epsilon, noise):
    """That is the ODE: it has the same marginals, but asked for is the SDE of this epsilon."""
    return _walk(velocity, score, x, times, noise, 0.0, lambda h: 0.0)


@walk_down.mistake
def half_score(velocity, score, x, times, epsilon, noise):
    """Half of the score: the half belongs to g^2, and epsilon is already half of g^2."""
    return _walk(velocity, score, x, times, noise, epsilon / 2, lambda h: math.sqrt(2 * epsilon * h))


@walk_down.mistake
def twice_the_score(velocity, score, x, times, epsilon, noise):
    """Twice the score: that is the reverse SDE of a forward SDE, written with its drift. b is the *flow's* velocity."""
    return _walk(velocity, score, x, times, noise, 2 * epsilon, lambda h: math.sqrt(2 * epsilon * h))


@walk_down.mistake
def asked_at_arrival(velocity, score, x, times, epsilon, noise):
    """Velocity and score are asked at the time where the step ends, but x is still where it begins."""
    for t, s, z in zip(times[:-1].tolist(), times[1:].tolist(), noise, strict=True):
        drift = velocity(x, s) - epsilon * score(x, s)
        x = x + (s - t) * drift + math.sqrt(2 * epsilon * (t - s)) * z
    return x


@walk_down.mistake
def one_noise(velocity, score, x, times, epsilon, noise):
    """The same noise in each step: a Brownian motion forgets, and `noise` has one entry for each step."""
    return walk_down(velocity, score, x, times, epsilon, noise[:1].expand_as(noise))


@walk_down.mistake
def quiet_arrival(velocity, score, x, times, epsilon, noise):
    """The last step is without noise, as in samplers that end in a denoised picture. Here it gets its noise, too."""
    return walk_down(velocity, score, x, times, epsilon, torch.cat([noise[:-1], 0 * noise[-1:]]))


@walk_down.mistake
def pull_alone(velocity, score, x, times, epsilon, noise):
    """The pull of the score is there, the noise that it holds together is not: the marginals shrink."""
    return walk_down(velocity, score, x, times, epsilon, 0 * noise)


@walk_down.mistake
def noise_subtracted(velocity, score, x, times, epsilon, noise):
    """The noise is subtracted. That has the same law, but here the samples themselves are compared."""
    return walk_down(velocity, score, x, times, epsilon, -noise)


@walk_down.mistake
def equal_steps(velocity, score, x, times, epsilon, noise):
    """All steps are taken to be equally long: `times` says where each one begins and ends."""
    h = float(times[0] - times[-1]) / len(noise)
    for t, z in zip(times[:-1].tolist(), noise, strict=True):
        x = x - h * (velocity(x, t) - epsilon * score(x, t)) + math.sqrt(2 * epsilon * h) * z
    return x


@walk_down.mistake
def step_missing(velocity, score, x, times, epsilon, noise):
    """The last step is missing: n + 1 times have n steps between them."""
    return _walk(velocity, score, x, times[:-1], noise[:-1], epsilon, lambda h: math.sqrt(2 * epsilon * h))


@walk_down.mistake
def epsilon_as_g(velocity, score, x, times, epsilon, noise):
    """epsilon is used as g, the factor before dW: it stands for half of g squared."""
    return walk_down(velocity, score, x, times, epsilon**2 / 2, noise)


@walk_down.mistake
def score_after_moving(velocity, score, x, times, epsilon, noise):
    """The score is asked where b has moved x to: Euler asks both where the step begins."""
    for t, s, z in zip(times[:-1].tolist(), times[1:].tolist(), noise, strict=True):
        x = x + (s - t) * velocity(x, t)
        x = x - (s - t) * epsilon * score(x, t) + math.sqrt(2 * epsilon * (t - s)) * z
    return x


@walk_down.mistake
def noise_first(velocity, score, x, times, epsilon, noise):
    """Velocity and score are asked where the noise has moved x to: Euler-Maruyama asks where the step begins."""
    for t, s, z in zip(times[:-1].tolist(), times[1:].tolist(), noise, strict=True):
        x = x + math.sqrt(2 * epsilon * (t - s)) * z
        x = x + (s - t) * (velocity(x, t) - epsilon * score(x, t))
    return x
