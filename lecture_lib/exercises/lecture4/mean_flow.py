"""4.9: an average velocity, by one derivative along trajectories; judged with its gradient."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import normal, shape, uniform
from lecture_lib.exercises.lecture4.numbers import WEIGHT, A, B, rows
from lecture_lib.exercises.stages import lecture4 as stages
from lecture_lib.exercises.task import question


@question("4.9", 9, "the loss of MeanFlow")
def mean_flow_loss(u_jvp, x0, noise, t, s):
    return _loss(u_jvp, _between(x0, noise, t), noise - x0, t, s)


def _between(x0, noise, t):
    return rows(1 - t) * x0 + rows(t) * noise


def _loss(u_jvp, x, v, t, s, span=None, along=None, keep=torch.Tensor.detach):
    """With a factor before the derivative, its directions, and what is kept of the target."""
    along = (v, torch.ones_like(t), 0 * s) if along is None else along
    said, slope = u_jvp(x, t, s, *along)
    return (said - keep(v - rows(t - s if span is None else span) * slope)).square().mean()


mean_flow_loss.stage(stages.mean_flow_loss)


@mean_flow_loss.inputs
def _(g):
    b, d = shape(g)
    layer = {"weight": normal(g, d, d, scale=0.7), "on_t": normal(g, d), "on_s": normal(g, d)}
    times = {"t": uniform(g, b, low=0.6, high=0.9), "s": uniform(g, b, low=0.1, high=0.4)}
    return {**layer, "x0": normal(g, b, d), "noise": normal(g, b, d), **times}


_T, _S, _Z = torch.tensor([0.75, 0.5]), torch.tensor([0.25, 0.125]), torch.zeros(3)


def _of_silence(x, v):
    """Loss and gradient at W = 0, where u = 0 and, s and t not being heard, stays so as t grows."""
    return [v.square().mean(), -2 / v.numel() * x.mT @ v]


mean_flow_loss.edge(
    "s = t is flow matching",
    _of_silence(_between(A, B, _T), B - A), weight=0 * WEIGHT, on_t=_Z, on_s=_Z, x0=A, noise=B, t=_T, s=_T.clone(),
)  # fmt: skip
mean_flow_loss.edge(
    "a network that says nothing, yet",
    _of_silence(_between(A, B, _T), B - A), weight=0 * WEIGHT, on_t=_Z, on_s=_Z, x0=A, noise=B, t=_T, s=_S,
)  # fmt: skip


@mean_flow_loss.mistake
def both_ways(u_jvp, x0, noise, t, s):
    """The number is right, its gradient is not: the target, derivative and all, must stand still."""
    return _loss(u_jvp, _between(x0, noise, t), noise - x0, t, s, keep=lambda y: y)


@mean_flow_loss.mistake
def nothing_learns(u_jvp, x0, noise, t, s):
    """The number is right, but no gradient reaches u: is all of it stopped, or made a plain number?"""
    return mean_flow_loss(u_jvp, x0, noise, t, s).detach()


@mean_flow_loss.mistake
def plus(u_jvp, x0, noise, t, s):
    """The sign of the derivative: write down (t - s) u, the integral of v from s to t, and differentiate in t."""
    return _loss(u_jvp, _between(x0, noise, t), noise - x0, t, s, s - t)


@mean_flow_loss.mistake
def plain(u_jvp, x0, noise, t, s):
    """The derivative is missing: that is flow matching, and u becomes the velocity at t whatever s is."""
    return _loss(u_jvp, _between(x0, noise, t), noise - x0, t, s, 0 * t)


@mean_flow_loss.mistake
def partial(u_jvp, x0, noise, t, s):
    """The derivative is the partial one, in t alone: x_t moves as well, with the velocity."""
    return _loss(u_jvp, _between(x0, noise, t), noise - x0, t, s, along=(0 * x0, torch.ones_like(t), 0 * s))


@mean_flow_loss.mistake
def time_stands_still(u_jvp, x0, noise, t, s):
    """The derivative is that along v at a fixed time: u hears t as well, and t moves."""
    return _loss(u_jvp, _between(x0, noise, t), noise - x0, t, s, along=(noise - x0, 0 * t, 0 * s))


@mean_flow_loss.mistake
def both_times_move(u_jvp, x0, noise, t, s):
    """s moves along with t in the derivative: the other end of the jump is held fast."""
    ones = torch.ones_like(t)
    return _loss(u_jvp, _between(x0, noise, t), noise - x0, t, s, along=(noise - x0, ones, ones))


@mean_flow_loss.mistake
def whole_time(u_jvp, x0, noise, t, s):
    """The derivative is multiplied by t: the jump is not that long."""
    return _loss(u_jvp, _between(x0, noise, t), noise - x0, t, s, t)


@mean_flow_loss.mistake
def no_span(u_jvp, x0, noise, t, s):
    """The derivative is not multiplied by anything: for s = t it must vanish."""
    return _loss(u_jvp, _between(x0, noise, t), noise - x0, t, s, torch.ones_like(t))


@mean_flow_loss.mistake
def wrong_direction(u_jvp, x0, noise, t, s):
    """The velocity points from noise to data: here t = 1 is noise, so dx_t/dt points to the noise."""
    return _loss(u_jvp, _between(x0, noise, t), x0 - noise, t, s)


@mean_flow_loss.mistake
def other_clock(u_jvp, x0, noise, t, s):
    """x_t runs from noise at t = 0 to data: in this course t = 0 is data."""
    return _loss(u_jvp, _between(noise, x0, t), noise - x0, t, s)


@mean_flow_loss.mistake
def summed(u_jvp, x0, noise, t, s):
    """A sum over the batch where a mean is asked for."""
    return mean_flow_loss(u_jvp, x0, noise, t, s) * x0.numel()


@mean_flow_loss.mistake
def lengths_squared(u_jvp, x0, noise, t, s):
    """The squares of a sample are added up before the mean: it is over all numbers."""
    return mean_flow_loss(u_jvp, x0, noise, t, s) * x0.shape[1]


@mean_flow_loss.mistake
def other_convention(u_jvp, x0, noise, t, s):
    """Line and velocity are those of a text in which t = 1 is data; here t = 0 is."""
    return mean_flow_loss(u_jvp, noise, x0, t, s)


@mean_flow_loss.mistake
def order_of_paper(u_jvp, x0, noise, t, s):
    """The two times are told in the paper's order, the end first: here it is u(x, t, s), and so with `dt`, `ds`."""
    return mean_flow_loss(lambda x, t, s, dx, dt, ds: u_jvp(x, s, t, dx, ds, dt), x0, noise, t, s)


@mean_flow_loss.mistake
def variance_exploding(u_jvp, x0, noise, t, s):
    """x_0 + t eps is EDM's path, with eps for a velocity: MeanFlow lives on a line that ends at pure noise."""
    return _loss(u_jvp, x0 + rows(t) * noise, noise, t, s)


@mean_flow_loss.mistake
def mixed_paths(u_jvp, x0, noise, t, s):
    """x_0 + t eps is EDM's path: on MeanFlow's line the data shrink while the noise grows."""
    return _loss(u_jvp, x0 + rows(t) * noise, noise - x0, t, s)


@mean_flow_loss.mistake
def at_the_end(u_jvp, x0, noise, t, s):
    """The point is made at s: u is asked at the start of the jump, x_t."""
    return _loss(u_jvp, _between(x0, noise, s), noise - x0, t, s)


@mean_flow_loss.mistake
def along_average(u_jvp, x0, noise, t, s):
    """The derivative is taken along u: a point at t moves with the velocity there, and u is an average."""
    x, v = _between(x0, noise, t), noise - x0
    said = u_jvp(x, t, s, v, t, s)[0].detach()
    return _loss(u_jvp, x, v, t, s, along=(said, torch.ones_like(t), 0 * s))


@mean_flow_loss.mistake
def times_exchanged(u_jvp, x0, noise, t, s):
    """u is told s before t, but the directions are in the order asked for: u(x, t, s)."""
    return mean_flow_loss(lambda x, t, s, dx, dt, ds: u_jvp(x, s, t, dx, dt, ds), x0, noise, t, s)


@mean_flow_loss.mistake
def end_moves(u_jvp, x0, noise, t, s):
    """In the derivative s moves and t is held fast: it is the other way round."""
    return mean_flow_loss(lambda x, t, s, dx, dt, ds: u_jvp(x, t, s, dx, ds, dt), x0, noise, t, s)
