"""4.7: a network differentiated along trajectories, and where it should go from there."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import normal, number, shape, uniform
from lecture_lib.exercises.lecture4.numbers import MEAN, WEIGHT, A, B, rows
from lecture_lib.exercises.stages import lecture4 as stages
from lecture_lib.exercises.task import question


@question("4.7", 9, "the target of sCM")
def scm_target(F_jvp, x, t, velocity, r, c):
    return _stepped(_parts(F_jvp, x, t, velocity, r), c)


def _parts(F_jvp, x, t, velocity, r, along=None, beside=None):
    """F and g, before normalisation; with other directions of the derivative, and something else beside it than x."""
    along = (velocity, torch.ones_like(t)) if along is None else along
    said, slope = F_jvp(x, t, *along)
    cos, sin = rows(t.cos()), rows(t.sin())
    return said, -(cos**2) * (said - velocity) - r * cos * sin * ((x if beside is None else beside) + slope)


def _length(g):
    return g.norm(dim=1, keepdim=True)


def _stepped(parts, c):
    said, g = parts
    return said + g / (_length(g) + c)


scm_target.stage(stages.scm_target)


@scm_target.inputs
def _(g):
    b, d = shape(g)
    layer = {"weight": normal(g, d, d, scale=0.7), "bias": normal(g, d)}
    points = {"x": normal(g, b, d), "t": uniform(g, b, low=0.2, high=0.7), "velocity": normal(g, b, d)}
    return {**layer, **points, "r": number(g, 0.4, 0.8), "c": number(g, 0.1, 0.3)}


_ANGLE = torch.full((2,), math.atan2(0.8, 0.6))
_G = 0.36 * B - 0.5 * 0.48 * A
scm_target.edge(
    "at the end of pure noise F is at rest",
    torch.tanh(A @ WEIGHT + math.pi / 2 * MEAN),
    weight=WEIGHT, bias=MEAN, x=A, t=torch.full((2,), math.pi / 2), velocity=B, r=0.5, c=0.1,
)  # fmt: skip
scm_target.edge(
    "a network that says nothing, yet",
    _G / (_G.norm(dim=1, keepdim=True) + 0.2),
    weight=0 * WEIGHT, bias=0 * MEAN, x=A, t=_ANGLE, velocity=B, r=0.5, c=0.2,
)  # fmt: skip


@scm_target.mistake
def time_alone(F_jvp, x, t, velocity, r, c):
    """The derivative is the partial one, in t alone: the point moves as well, with the velocity."""
    return _stepped(_parts(F_jvp, x, t, velocity, r, (0 * x, torch.ones_like(t))), c)


@scm_target.mistake
def place_alone(F_jvp, x, t, velocity, r, c):
    """The derivative is that along the velocity at a fixed time: time goes on as well."""
    return _stepped(_parts(F_jvp, x, t, velocity, r, (velocity, 0 * t)), c)


@scm_target.mistake
def backwards(F_jvp, x, t, velocity, r, c):
    """Point and time move in opposite directions: dx/dt belongs to a t that *grows*."""
    return _stepped(_parts(F_jvp, x, t, velocity, r, (-velocity, torch.ones_like(t))), c)


@scm_target.mistake
def no_derivative(F_jvp, x, t, velocity, r, c):
    """dF/dt is missing."""
    return _stepped(_parts(F_jvp, x, t, velocity, r, (0 * x, 0 * t)), c)


@scm_target.mistake
def no_place(F_jvp, x, t, velocity, r, c):
    """x_t beside dF/dt is missing: it comes from differentiating cos t and sin t."""
    return _stepped(_parts(F_jvp, x, t, velocity, r, beside=0 * x), c)


@scm_target.mistake
def not_normalised(F_jvp, x, t, velocity, r, c):
    """The tangent is not normalised; some are thousands of times longer than others."""
    return sum(_parts(F_jvp, x, t, velocity, r))


@scm_target.mistake
def one_length(F_jvp, x, t, velocity, r, c):
    """One length for the whole batch: each sample's tangent has its own."""
    said, g = _parts(F_jvp, x, t, velocity, r)
    return said + g / (g.norm() + c)


@scm_target.mistake
def exactly_one(F_jvp, x, t, velocity, r, c):
    """Divided by the length alone, so that every tangent has length one, even one that is nearly 0."""
    return scm_target(F_jvp, x, t, velocity, r, 0.0)


@scm_target.mistake
def length_squared(F_jvp, x, t, velocity, r, c):
    """Divided by the *squared* length: long tangents would hardly count."""
    said, g = _parts(F_jvp, x, t, velocity, r)
    return said + g / (_length(g) ** 2 + c)


@scm_target.mistake
def wrong_way(F_jvp, x, t, velocity, r, c):
    """The sign: g already says where F should go."""
    said, g = _parts(F_jvp, x, t, velocity, r)
    return _stepped((said, -g), c)


@scm_target.mistake
def direction_alone(F_jvp, x, t, velocity, r, c):
    """That is how far to go, not where to: F itself, from which one goes, is missing."""
    return scm_target(F_jvp, x, t, velocity, r, c) - F_jvp(x, t, velocity, t)[0]


@scm_target.mistake
def warm_all(F_jvp, x, t, velocity, r, c):
    """r is on all of g: at r = 0 flow matching must be left, and not nothing."""
    said, g = _parts(F_jvp, x, t, velocity, 1.0)
    return _stepped((said, r * g), c)


@scm_target.mistake
def not_warmed(F_jvp, x, t, velocity, r, c):
    """r is not used: the part with the derivative is warmed up."""
    return scm_target(F_jvp, x, t, velocity, 1.0, c)


@scm_target.mistake
def other_end(F_jvp, x, t, velocity, r, c):
    """cos and sin are exchanged: t = 0 is the data, where x_t = cos t x_0 + sin t eps is x_0."""

    def from_noise(y, time, *along):
        return F_jvp(y, t, velocity, torch.ones_like(t))

    return _stepped(_parts(from_noise, x, math.pi / 2 - t, velocity, r), c)


@scm_target.mistake
def along_itself(F_jvp, x, t, velocity, r, c):
    """The point moves with F: it moves along the trajectory, whose velocity is given."""
    said = F_jvp(x, t, velocity, t)[0]
    return _stepped(_parts(F_jvp, x, t, velocity, r, (said, torch.ones_like(t))), c)


@scm_target.mistake
def along_place(F_jvp, x, t, velocity, r, c):
    """The direction of the point is the point itself: `dx` says how it moves."""
    return _stepped(_parts(F_jvp, x, t, velocity, r, (x, torch.ones_like(t))), c)


@scm_target.mistake
def away_from_velocity(F_jvp, x, t, velocity, r, c):
    """The first part leads away from v: at r = 0 F is to come nearer to it."""
    said, g = _parts(F_jvp, x, t, velocity, r)
    return _stepped((said, g + 2 * rows(t.cos()) ** 2 * (said - velocity)), c)


@scm_target.mistake
def second_sign(F_jvp, x, t, velocity, r, c):
    """The sign of the part with the derivative: both parts are taken away."""
    return scm_target(F_jvp, x, t, velocity, -r, c)


@scm_target.mistake
def derivative_taken_away(F_jvp, x, t, velocity, r, c):
    """x_t and dF/dt have different signs: inside the bracket they are added."""
    said, g = _parts(F_jvp, x, t, velocity, -r, beside=-x)
    return _stepped((said, g), c)


@scm_target.mistake
def cosine_once(F_jvp, x, t, velocity, r, c):
    """The cosine in the first part is not squared."""
    cos = rows(t.cos())
    said, g = _parts(F_jvp, x, t, velocity, r)
    return _stepped((said, g - (cos - cos**2) * (said - velocity)), c)


@scm_target.mistake
def warm_backwards(F_jvp, x, t, velocity, r, c):
    """The part with the derivative has 1 - r before it: it would fade, and it is to come in."""
    return scm_target(F_jvp, x, t, velocity, 1 - r, c)


@scm_target.mistake
def warm_first(F_jvp, x, t, velocity, r, c):
    """r is on the part without the derivative: at r = 0 flow matching is what must be left."""
    said, g = _parts(F_jvp, x, t, velocity, 1.0)
    return _stepped((said, g + (1 - r) * rows(t.cos()) ** 2 * (said - velocity)), c)


@scm_target.mistake
def number_by_number(F_jvp, x, t, velocity, r, c):
    """Each number is divided by its own size: then only signs are left of a direction. |g| is a sample's length."""
    said, g = _parts(F_jvp, x, t, velocity, r)
    return said + g / (g.abs() + c)


@scm_target.mistake
def root_mean_square(F_jvp, x, t, velocity, r, c):
    """A mean over the numbers stands within the root; a length squared is a sum."""
    said, g = _parts(F_jvp, x, t, velocity, r)
    return said + g / (g.square().mean(1, keepdim=True).sqrt() + c)


@scm_target.mistake
def fixed_width(F_jvp, x, t, velocity, r, c):
    """Below stands 0.1, as in the lecture: here c is an argument."""
    return scm_target(F_jvp, x, t, velocity, r, 0.1)


@scm_target.mistake
def outside(F_jvp, x, t, velocity, r, c):
    """c is added to the quotient: it belongs below the bar, beside the length."""
    said, g = _parts(F_jvp, x, t, velocity, r)
    return said + g / _length(g) + c
