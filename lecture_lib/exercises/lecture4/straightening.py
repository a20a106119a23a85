"""4.12: the boss, a reflow from beginning to end."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import count, normal
from lecture_lib.exercises.lecture4.numbers import A, B
from lecture_lib.exercises.stages import lecture4 as stages
from lecture_lib.exercises.task import question


@question("4.12", 12, "boss: reflow", tol=3e-4)
def reflow(velocity, noise, spare, steps, times):
    ends, slopes = _solved(velocity, noise, steps)
    return ends, _bend(noise - ends, slopes), _fitted(ends, noise, times), 2 * steps


def _solved(velocity, noise, steps, sign=1, second=0.5):
    """The ends of Heun's steps, and the slopes at which they start."""
    x, h, slopes = noise, 1 / steps, []
    for k in range(steps):
        t = 1 - k * h
        slope = velocity(x, t)
        x = x - sign * h * ((1 - second) * slope + second * velocity(x - sign * h * slope, t - h))
        slopes.append(slope)
    return x, torch.stack(slopes)


def _bend(line, slopes):
    return (line - slopes).square().sum(-1).mean()


def _fitted(ends, noise, times, target=None, at=None):
    """The linear velocity that fits the pairs best, for each time."""
    target = noise - ends if target is None else target
    return torch.stack([torch.linalg.lstsq((1 - t) * ends + t * noise, target).solution for t in at or times])


reflow.stage(stages.reflow)


@reflow.inputs
def _(g):
    d, steps = count(g, 2, 3), count(g, 3, 5)
    b = count(g, 9, 12)
    flow = {"linear": normal(g, d, d, scale=0.4), "curved": normal(g, d, d)}
    times = [round(0.2 * (k + 1) + 0.1 * float(torch.rand((), generator=g)), 3) for k in range(4)]
    return {**flow, "noise": normal(g, b, d), "spare": normal(g, b, d), "steps": steps, "times": times}


_E, _S = torch.cat([A.mT, B.mT, A.mT + 0.5]), torch.cat([B.mT - 0.25, A.mT, A.mT * 2])
_NONE, _ONE = torch.zeros(2, 2), torch.eye(2)
reflow.edge(
    "a velocity of zero", [_E, 0.0, torch.zeros(2, 2, 2), 6],
    linear=_NONE, curved=_NONE, noise=_E, spare=_S, steps=3, times=[0.25, 1.0],
)  # fmt: skip


def _shrinking(steps, times):
    """v(x, t) = x: each step of Heun's is a factor 1 - h + h^2/2."""
    factor = 1 - 1 / steps + 0.5 / steps**2
    end = factor**steps
    bend = sum((1 - end - factor**k) ** 2 for k in range(steps)) / steps * float(_E.square().sum(1).mean())
    lines = torch.stack([(1 - end) / ((1 - t) * end + t) * _ONE for t in times])
    return [end * _E, bend, lines, 2 * steps]


reflow.edge(
    "v(x, t) = x", _shrinking(4, [0.25, 1.0]),
    linear=_ONE, curved=_NONE, noise=_E, spare=_S, steps=4, times=[0.25, 1.0],
)  # fmt: skip


@reflow.mistake
def fresh_noise(velocity, noise, spare, steps, times):
    """The ends are paired with fresh noise: that is the first training again, with lines that cross. Each end belongs
    to the noise it came from."""
    ends, slopes = _solved(velocity, noise, steps)
    return ends, _bend(noise - ends, slopes), _fitted(ends, spare, times), 2 * steps


@reflow.mistake
def euler(velocity, noise, spare, steps, times):
    """Those are Euler's steps; Heun's ask for the slope at both ends of each."""
    ends, slopes = _solved(velocity, noise, steps, second=0)
    return ends, _bend(noise - ends, slopes), _fitted(ends, noise, times), steps


@reflow.mistake
def counted_by_steps(velocity, noise, spare, steps, times):
    """Steps are counted instead of evaluations: how often is the velocity asked in one step?"""
    return (*reflow(velocity, noise, spare, steps, times)[:3], steps)


@reflow.mistake
def uphill(velocity, noise, spare, steps, times):
    """The steps have the wrong sign: from t = 1 down to 0, dt is negative."""
    ends, slopes = _solved(velocity, noise, steps, sign=-1)
    return ends, _bend(noise - ends, slopes), _fitted(ends, noise, times), 2 * steps


@reflow.mistake
def from_zero(velocity, noise, spare, steps, times):
    """The first flow is asked at times from 0 to 1; noise is at t = 1, so the way begins there."""
    ends, slopes = _solved(lambda x, t: velocity(x, 1 - t), noise, steps)
    return ends, _bend(noise - ends, slopes), _fitted(ends, noise, times), 2 * steps


@reflow.mistake
def wrong_direction(velocity, noise, spare, steps, times):
    """The pairs' velocity points from noise to data: dx_t/dt is for a t that grows, towards the noise."""
    ends, bend, lines, evaluations = reflow(velocity, noise, spare, steps, times)
    return ends, bend, -lines, evaluations


@reflow.mistake
def other_clock(velocity, noise, spare, steps, times):
    """On the new lines the data are at t = 1; in this course they are at t = 0."""
    ends, slopes = _solved(velocity, noise, steps)
    return ends, _bend(noise - ends, slopes), _fitted(ends, noise, times, at=[1 - t for t in times]), 2 * steps


@reflow.mistake
def noise_alone(velocity, noise, spare, steps, times):
    """The new velocity is fitted at pure noise for every time: that is distillation, which makes a one-step map. A flow
    is asked at all points of its lines."""
    ends, slopes = _solved(velocity, noise, steps)
    return ends, _bend(noise - ends, slopes), _fitted(ends, noise, times, at=[1.0] * len(times)), 2 * steps


@reflow.mistake
def map_for_velocity(velocity, noise, spare, steps, times):
    """What is fitted is the end of the line: a velocity says how far it is to go there."""
    ends, slopes = _solved(velocity, noise, steps)
    return ends, _bend(noise - ends, slopes), _fitted(ends, noise, times, target=ends), 2 * steps


@reflow.mistake
def transposed(velocity, noise, spare, steps, times):
    """The matrices are each other's transposes: points are rows here, x A."""
    ends, bend, lines, evaluations = reflow(velocity, noise, spare, steps, times)
    return ends, bend, lines.mT, evaluations


@reflow.mistake
def always_straight(velocity, noise, spare, steps, times):
    """The bend is nearly 0, for any flow: velocities are averaged before they are compared, and their mean *is* the
    line from end to end. The square belongs inside the mean over time."""
    ends, slopes = _solved(velocity, noise, steps)
    return ends, _bend(noise - ends, slopes.mean(0)), _fitted(ends, noise, times), 2 * steps


@reflow.mistake
def bend_per_number(velocity, noise, spare, steps, times):
    """The bend is a mean over dimensions: it is the squared length of a vector."""
    ends, bend, *rest = reflow(velocity, noise, spare, steps, times)
    return ends, bend / noise.shape[1], *rest


@reflow.mistake
def bend_summed(velocity, noise, spare, steps, times):
    """The bend is summed over the steps: it is an integral over a time of 1, so a mean."""
    ends, bend, *rest = reflow(velocity, noise, spare, steps, times)
    return ends, bend * steps, *rest
