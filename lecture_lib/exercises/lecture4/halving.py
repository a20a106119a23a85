"""4.10: two steps told as one."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import normal, number, shape
from lecture_lib.exercises.lecture4.numbers import MEAN, WEIGHT, A
from lecture_lib.exercises.stages import lecture4 as stages
from lecture_lib.exercises.task import question


@question("4.10", 7, "two steps told as one")
def halved_target(denoise, z, now, mid, then):
    z_mid = _step(z, denoise(z, now), now, mid)
    return _told(z, _step(z_mid, denoise(z_mid, mid), mid, then), now, then)


def _step(z, x0, now, then):
    return then[0] * x0 + then[1] * (z - now[0] * x0) / now[1]


def _told(z, z_then, now, then):
    """The clean data with which one step leads from z to z_then."""
    ratio = then[1] / now[1]
    return (z_then - ratio * z) / (then[0] - ratio * now[0])


halved_target.stage(stages.halved_target)


@halved_target.inputs
def _(g):
    b, d = shape(g)
    now, mid, then = ([number(g, *a), number(g, *s)] for a, s in _RANGES)
    layer = {"weight": normal(g, d, d), "bias": normal(g, d)}
    return {**layer, "z": normal(g, b, d), "now": now, "mid": mid, "then": then}


_RANGES = (((0.1, 0.3), (0.8, 0.95)), ((0.4, 0.6), (0.55, 0.75)), ((0.7, 0.95), (0.15, 0.4)))
_LEVELS = {"now": [0.3, 0.9], "mid": [0.5, 0.7]}
halved_target.edge(
    "a teacher that does not change its mind",
    MEAN.expand(2, 3),
    weight=torch.zeros(3, 3),
    bias=MEAN,
    z=A,
    **_LEVELS,
    then=[0.8, 0.25],
)
_X1 = MEAN + torch.tanh(-1.5 * A @ WEIGHT)
halved_target.edge(
    "where the two steps lead to clean data",
    MEAN + torch.tanh(-0.9 * (0.5 * _X1 + 0.7 * (A - 0.3 * _X1) / 0.9) @ WEIGHT),
    weight=WEIGHT, bias=MEAN, z=A, **_LEVELS, then=[1.0, 0.0],
)  # fmt: skip


@halved_target.mistake
def first_word(denoise, z, now, mid, then):
    """That is the teacher's x_0 at the start: a student that learns it makes one of the teacher's steps, not two."""
    return denoise(z, now)


@halved_target.mistake
def second_word(denoise, z, now, mid, then):
    """That is the teacher's x_0 in the middle: with it one step from the start ends elsewhere than two do."""
    return denoise(_step(z, denoise(z, now), now, mid), mid)


@halved_target.mistake
def mean_word(denoise, z, now, mid, then):
    """The mean of the teacher's two x_0: the two steps do not count alike. Ask where one step must *arrive*."""
    return (first_word(denoise, z, now, mid, then) + second_word(denoise, z, now, mid, then)) / 2


@halved_target.mistake
def arrival(denoise, z, now, mid, then):
    """That is the point where two steps arrive: asked for is the x_0 that leads there in one."""
    return _step(_step(z, denoise(z, now), now, mid), second_word(denoise, z, now, mid, then), mid, then)


@halved_target.mistake
def noise_left(denoise, z, now, mid, then):
    """The point of arrival is divided by its alpha: the noise in it is still there."""
    return arrival(denoise, z, now, mid, then) / then[0]


@halved_target.mistake
def from_the_middle(denoise, z, now, mid, then):
    """The one step is made from the middle: it must lead over all of the way."""
    return _told(z, arrival(denoise, z, now, mid, then), mid, then)


@halved_target.mistake
def alphas(denoise, z, now, mid, then):
    """The ratio is that of the alphas. Then x_0 drops out below; it is the *noise* that one step keeps."""
    ratio = then[0] / now[0]
    return (arrival(denoise, z, now, mid, then) - ratio * z) / (then[1] - ratio * now[1])


@halved_target.mistake
def without_below(denoise, z, now, mid, then):
    """The division is by the new alpha alone: the z that was taken away had x_0 in it, too."""
    return (arrival(denoise, z, now, mid, then) - then[1] / now[1] * z) / then[0]


@halved_target.mistake
def old_noise(denoise, z, now, mid, then):
    """The second step puts back the noise of the first: each step reads its own, from where it starts."""
    x0 = denoise(z, now)
    eps = (z - now[0] * x0) / now[1]
    return _told(z, then[0] * denoise(mid[0] * x0 + mid[1] * eps, mid) + then[1] * eps, now, then)


@halved_target.mistake
def old_level(denoise, z, now, mid, then):
    """In the middle the teacher is told the level of the start."""
    z_mid = _step(z, denoise(z, now), now, mid)
    return _told(z, _step(z_mid, denoise(z_mid, now), mid, then), now, then)


@halved_target.mistake
def third_word(denoise, z, now, mid, then):
    """The teacher is asked a third time, where its two steps arrive: what it says there leads on, not there."""
    return denoise(arrival(denoise, z, now, mid, then), then)


@halved_target.mistake
def noise_of_edm(denoise, z, now, mid, then):
    """The noise is read as (z - x_0)/sigma, in both steps: on this path x_0 stands in z with its alpha."""
    x1 = denoise(z, now)
    z_mid = mid[0] * x1 + mid[1] * (z - x1) / now[1]
    x2 = denoise(z_mid, mid)
    return _told(z, then[0] * x2 + then[1] * (z_mid - x2) / mid[1], now, then)


@halved_target.mistake
def not_solved(denoise, z, now, mid, then):
    """The last division is missing: what stands there is x_0 times a number."""
    return arrival(denoise, z, now, mid, then) - then[1] / now[1] * z


@halved_target.mistake
def second_from_start(denoise, z, now, mid, then):
    """The teacher's second step begins at z again: it begins where the first has led."""
    x2 = second_word(denoise, z, now, mid, then)
    return _told(z, _step(z, x2, mid, then), now, then)
