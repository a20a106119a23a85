"""4.3: two points of one trajectory, from data alone; judged with the gradient."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import normal, shape, uniform
from lecture_lib.exercises.lecture4.numbers import WEIGHT, A, B, C, rows
from lecture_lib.exercises.stages import lecture4 as stages
from lecture_lib.exercises.task import question


@question("4.3", 9, "the loss of consistency training")
def ct_loss(f, x0, noise, spare, t, u):
    return apart(f(at(x0, noise, t), t), f(at(x0, noise, u), u).detach())


def at(x0, noise, t):
    """x_t on EDM's path."""
    return x0 + rows(t) * noise


def apart(a, b):
    """The mean square of the difference."""
    return (a - b).square().mean()


ct_loss.stage(stages.ct_loss)


@ct_loss.inputs
def _(g):
    b, d = shape(g)
    times = {"t": uniform(g, b, low=1.2, high=2.0), "u": uniform(g, b, low=0.4, high=0.9)}
    points = {k: normal(g, b, d) for k in ("x0", "noise", "spare")}
    return {"weight": normal(g, d, d, scale=0.5), **points, **times}


T, U = torch.tensor([1.5, 0.8]), torch.tensor([0.5, 0.3])


def of_identity(x_t, step):
    """Loss and gradient at W = 0, where f(x, t) = x and x_t - x_u = step."""
    return [step.square().mean(), 2 / step.numel() * x_t.mT @ (rows(T) * step)]


ct_loss.edge(
    "u = t asks for nothing", [0.0, torch.zeros(3, 3)], weight=WEIGHT, x0=A, noise=B, spare=C, t=T, u=T.clone()
)
ct_loss.edge(
    "where f(x, t) = x the two ends are as far apart as the points",
    of_identity(A + rows(T) * B, rows(T - U) * B), weight=0 * WEIGHT, x0=A, noise=B, spare=C, t=T, u=U,
)  # fmt: skip


@ct_loss.mistake
def fresh_noise(f, x0, noise, spare, t, u):
    """Each point has a noise of its own. Then x_t says nothing about x_u but its x_0, and f collapses to the mean of
    the data: both points are to lie on one line."""
    return apart(f(at(x0, noise, t), t), f(at(x0, spare, u), u).detach())


@ct_loss.mistake
def both_ways(f, x0, noise, spare, t, u):
    """The number is right, its gradient is not: both ends learn, and move towards each other. What is known near the
    data is to travel up, so one end must stand still."""
    return apart(f(at(x0, noise, t), t), f(at(x0, noise, u), u))


@ct_loss.mistake
def wrong_end_stopped(f, x0, noise, spare, t, u):
    """The number is right, but the wrong end learns: the one that knows less is to follow the one that knows more.
    Which of the two is nearer to the data?"""
    return apart(f(at(x0, noise, t), t).detach(), f(at(x0, noise, u), u))


@ct_loss.mistake
def nothing_learns(f, x0, noise, spare, t, u):
    """The number is right, but no gradient reaches f: is all of it stopped, or made a plain number?"""
    return both_ways(f, x0, noise, spare, t, u).detach()


@ct_loss.mistake
def towards_data(f, x0, noise, spare, t, u):
    """The target is x_0 itself: that trains a denoiser, whose one step is a mean. f is to agree with *itself*."""
    return apart(f(at(x0, noise, t), t), x0)


@ct_loss.mistake
def one_point(f, x0, noise, spare, t, u):
    """f is asked twice at the same point x_t, at two times: at time u the point has less noise."""
    return apart(f(at(x0, noise, t), t), f(at(x0, noise, t), u).detach())


@ct_loss.mistake
def time_not_told(f, x0, noise, spare, t, u):
    """The second point is right, but f is told t there, too: it is asked at u."""
    return apart(f(at(x0, noise, t), t), f(at(x0, noise, u), t).detach())


@ct_loss.mistake
def squared_level(f, x0, noise, spare, t, u):
    """The noise is multiplied by t squared: t is its standard deviation, not its variance."""
    return apart(f(at(x0, noise, t**2), t), f(at(x0, noise, u**2), u).detach())


@ct_loss.mistake
def other_path(f, x0, noise, spare, t, u):
    """(1 - t) x_0 + t eps is the path of a rectified flow; on EDM's the data keep their size."""
    x_t, x_u = (at(rows(1 - time) * x0, noise, time) for time in (t, u))
    return apart(f(x_t, t), f(x_u, u).detach())


@ct_loss.mistake
def summed(f, x0, noise, spare, t, u):
    """A sum over the batch: its size, and with it the learning rate, would hang on the size of the batch."""
    return ct_loss(f, x0, noise, spare, t, u) * x0.numel()


@ct_loss.mistake
def lengths_squared(f, x0, noise, spare, t, u):
    """The squares of a sample are added up before the mean: the mean is over all numbers."""
    return ct_loss(f, x0, noise, spare, t, u) * x0.shape[1]


@ct_loss.mistake
def other_draw(f, x0, noise, spare, t, u):
    """One draw for both points is right; it is to be `noise`, and not `spare`."""
    return ct_loss(f, x0, spare, noise, t, u)


@ct_loss.mistake
def ancestral(f, x0, noise, spare, t, u):
    """x_u is made from x_t by taking away noise that is not in it: the noise of x_t is known here, use that."""
    x_t = at(x0, noise, t)
    return apart(f(x_t, t), f(x_t + rows(u - t) * spare, u).detach())


@ct_loss.mistake
def not_squared(f, x0, noise, spare, t, u):
    """The mean is over absolute values: asked for are their squares."""
    return (f(at(x0, noise, t), t) - f(at(x0, noise, u), u).detach()).abs().mean()
