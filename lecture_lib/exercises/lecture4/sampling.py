"""4.8: jumps, with as much fresh noise between them as one likes."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import normal, number, shape
from lecture_lib.exercises.lecture4.numbers import MEAN, A, B
from lecture_lib.exercises.stages import lecture4 as stages
from lecture_lib.exercises.task import question


@question("4.8", 8, "more than one jump", tol=1e-3)  # in float32 s^2 - r^2 of equal levels is 1e-8, its root 1e-4
def gamma_sample(jump, start, times, gamma, eps, noise):
    return _jumped(jump, times[0] * start, times, gamma, eps, noise)


def _jumped(jump, x, times, gamma, eps, noise):
    for t, s, z in zip(times, times[1:], noise, strict=False):
        r = _beyond(s, gamma, eps)
        x = jump(x, t, r) + (s**2 - r**2) ** 0.5 * z
    return x


def _beyond(s, gamma, eps):
    """How far a jump goes before noise is added."""
    return max((1 - gamma**2) ** 0.5 * s, eps)


gamma_sample.stage(stages.gamma_sample)


@gamma_sample.inputs
def _(g):
    n, b, d = shape(g, 3)
    eps = number(g, 0.2, 0.4)
    times = [round(eps + 5 * (1 - k / n) ** 1.5, 3) for k in range(n)] + [eps]
    world = {"mean": normal(g, d) + 0.5, "std": number(g, 0.82, 0.95), "bend": number(g, 0.02, 0.05)}
    start = {"start": normal(g, b, d), "times": times, "gamma": number(g, 0.6, 0.8), "eps": eps}
    return {**world, **start, "noise": normal(g, n, b, d)}


_TWO = torch.stack([B, A - B])
_WORLD = {"mean": MEAN, "std": 0.6, "bend": 0.0}
gamma_sample.edge(
    "gamma = 0 stays on the trajectory",
    MEAN + 0.75 * A,
    **_WORLD, start=(MEAN + A) / 0.8, times=[0.8, 0.6, 0.45], gamma=0.0, eps=0.45, noise=_TWO,
)  # fmt: skip
_ONCE = 0.75 * A + (0.8**2 - 0.45**2) ** 0.5 * B
gamma_sample.edge(
    "gamma = 1 jumps to the end each time, and adds noise",
    MEAN + 0.875 * (0.75 * _ONCE + (0.6**2 - 0.45**2) ** 0.5 * (A - B)),
    **_WORLD, start=(MEAN + A) / 0.8, times=[0.8, 0.8, 0.6, 0.45], gamma=1.0, eps=0.45,
    noise=torch.stack([B, A - B, A]),
)  # fmt: skip
gamma_sample.edge(
    "a single jump",
    MEAN + 0.75 * A,
    **_WORLD,
    start=(MEAN + A) / 0.8,
    times=[0.8, 0.45],
    gamma=0.9,
    eps=0.45,
    noise=_TWO[:1],
)


@gamma_sample.mistake
def start_of_size_one(jump, start, times, gamma, eps, noise):
    """It starts from noise of size one. On this path noise at t has standard deviation t; started too near to the
    middle, all points end near the middle of the data."""
    return _jumped(jump, start, times, gamma, eps, noise)


@gamma_sample.mistake
def start_too_wide(jump, start, times, gamma, eps, noise):
    """The start is multiplied by a variance: t is the standard deviation of the noise."""
    return _jumped(jump, times[0] ** 2 * start, times, gamma, eps, noise)


@gamma_sample.mistake
def to_zero(jump, start, times, gamma, eps, noise):
    """It overshoots below eps, where this map's trajectories have ended: nothing was learned there."""
    return gamma_sample(jump, start, times, gamma, 0.0, noise)


@gamma_sample.mistake
def too_noisy(jump, start, times, gamma, eps, noise):
    """After a jump that ended at eps as much noise is added as if it had ended at 0: the *variances* of what is left
    and what is added make s squared. At the last time nothing is to be added."""
    x = times[0] * start
    for t, s, z in zip(times, times[1:], noise, strict=False):
        x = jump(x, t, _beyond(s, gamma, eps)) + gamma * s * z
    return x


@gamma_sample.mistake
def differences(jump, start, times, gamma, eps, noise):
    """The noise added is the difference of two standard deviations: independent noises add up in their variances."""
    x = times[0] * start
    for t, s, z in zip(times, times[1:], noise, strict=False):
        r = _beyond(s, gamma, eps)
        x = jump(x, t, r) + (s - r) * z
    return x


@gamma_sample.mistake
def variance(jump, start, times, gamma, eps, noise):
    """The noise is multiplied by a variance: a root is missing."""
    x = times[0] * start
    for t, s, z in zip(times, times[1:], noise, strict=False):
        r = _beyond(s, gamma, eps)
        x = jump(x, t, r) + (s**2 - r**2) * z
    return x


@gamma_sample.mistake
def no_overshoot(jump, start, times, gamma, eps, noise):
    """The jump goes to s, and noise comes on top: then the level is above s. To have room for noise a jump goes
    further."""
    x = times[0] * start
    for t, s, z in zip(times, times[1:], noise, strict=False):
        x = jump(x, t, s) + (s**2 - _beyond(s, gamma, eps) ** 2) ** 0.5 * z
    return x


@gamma_sample.mistake
def on_top(jump, start, times, gamma, eps, noise):
    """The jump goes to s, and gamma s of noise comes on top: a point that is at level s already has no room for it."""
    x = times[0] * start
    for t, s, z in zip(times, times[1:], noise, strict=False):
        x = jump(x, t, s) + gamma * s * z
    return x


@gamma_sample.mistake
def gamma_not_squared(jump, start, times, gamma, eps, noise):
    """gamma is not squared: gamma s is the standard deviation of the noise, so that gamma squared goes with s
    squared."""
    return gamma_sample(jump, start, times, gamma**0.5, eps, noise)


@gamma_sample.mistake
def root_forgotten(jump, start, times, gamma, eps, noise):
    """It overshoots to (1 - gamma^2) s: a share of the variance, where a level is a standard deviation."""
    return gamma_sample(jump, start, times, (1 - (1 - gamma**2) ** 2) ** 0.5, eps, noise)


@gamma_sample.mistake
def one_noise(jump, start, times, gamma, eps, noise):
    """The same noise is added each time: what is added must not know of the noise before."""
    return gamma_sample(jump, start, times, gamma, eps, noise[:1].expand_as(noise))


@gamma_sample.mistake
def from_below(jump, start, times, gamma, eps, noise):
    """The next jump is told the level that the last one ended at; noise has been added since."""
    x, t = times[0] * start, times[0]
    for s, z in zip(times[1:], noise, strict=True):
        r = _beyond(s, gamma, eps)
        x, t = jump(x, t, r) + (s**2 - r**2) ** 0.5 * z, r
    return x


@gamma_sample.mistake
def without_noise(jump, start, times, gamma, eps, noise):
    """No noise is added, though room was made for it: the points are closer to the data than they are told to be."""
    return gamma_sample(jump, start, times, gamma, eps, 0 * noise)


@gamma_sample.mistake
def chained(jump, start, times, gamma, eps, noise):
    """The jumps are chained along the trajectory whatever gamma is."""
    return gamma_sample(jump, start, times, 0.0, eps, noise)


@gamma_sample.mistake
def always_to_the_end(jump, start, times, gamma, eps, noise):
    """Each jump goes to the end, whatever gamma is: that is multistep sampling of consistency models, gamma = 1."""
    return gamma_sample(jump, start, times, 1.0, eps, noise)


@gamma_sample.mistake
def share_of_level(jump, start, times, gamma, eps, noise):
    """It overshoots to (1 - gamma) s: what is left and what is added share a *variance*, not a level."""
    return gamma_sample(jump, start, times, (1 - (1 - gamma) ** 2) ** 0.5, eps, noise)


@gamma_sample.mistake
def whole_noise(jump, start, times, gamma, eps, noise):
    """Noise of size s is added, though the jump has left some: the variances of both make s squared."""
    x = times[0] * start
    for t, s, z in zip(times, times[1:], noise, strict=False):
        x = jump(x, t, _beyond(s, gamma, eps)) + s * z
    return x


@gamma_sample.mistake
def noise_from_end(jump, start, times, gamma, eps, noise):
    """As much noise is added as if each jump had gone to eps; most end above it."""
    x = times[0] * start
    for t, s, z in zip(times, times[1:], noise, strict=False):
        x = jump(x, t, _beyond(s, gamma, eps)) + (s**2 - eps**2) ** 0.5 * z
    return x


@gamma_sample.mistake
def start_above_eps(jump, start, times, gamma, eps, noise):
    """The start lacks the variance eps^2: that is for noise on top of a point at level eps, and here is none yet."""
    return _jumped(jump, (times[0] ** 2 - eps**2) ** 0.5 * start, times, gamma, eps, noise)


@gamma_sample.mistake
def one_jump_short(jump, start, times, gamma, eps, noise):
    """The last jump is missing: n + 1 times are n jumps."""
    return gamma_sample(jump, start, times[:-1], gamma, eps, noise)


@gamma_sample.mistake
def always_from_start(jump, start, times, gamma, eps, noise):
    """Each jump is told the time of the start: it begins where the last one and its noise have led."""
    return gamma_sample(lambda x, _, s: jump(x, times[0], s), start, times, gamma, eps, noise)
