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


def _there(velocity, x, here, t, h):
    """Heun's second slope, where a step at the first one ends."""
    return velocity(x - h * here, t - h)


def _solved(velocity, noise, steps, there=_there):
    """The ends of steps whose slope is the mean of two, and the slopes at which they start."""
    x, h, slopes = noise, 1 / steps, []
    for k in range(steps):
        t = 1 - k * h
        slopes.append(velocity(x, t))
        x = x - h * (slopes[-1] + there(velocity, x, slopes[-1], t, h)) / 2
    return x, torch.stack(slopes)


def _by_steps(velocity, noise, steps, times, there, evaluations):
    """All four, with another second slope."""
    ends, slopes = _solved(velocity, noise, steps, there)
    return ends, _bend(noise - ends, slopes), _fitted(ends, noise, times), evaluations


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
    return _by_steps(velocity, noise, steps, times, lambda v, x, here, t, h: here, steps)


@reflow.mistake
def counted_by_steps(velocity, noise, spare, steps, times):
    """Steps are counted instead of evaluations: how often is the velocity asked in one step?"""
    return (*reflow(velocity, noise, spare, steps, times)[:3], steps)


@reflow.mistake
def uphill(velocity, noise, spare, steps, times):
    """The steps have the wrong sign: from t = 1 down to 0, dt is negative."""
    ends, slopes = _solved(lambda x, t: -velocity(x, t), noise, steps)
    return ends, _bend(noise - ends, -slopes), _fitted(ends, noise, times), 2 * steps


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


@reflow.mistake
def overwritten(velocity, noise, spare, steps, times):
    """The steps are made in place and overwrite `noise`: from an end to itself no line leads."""
    ends, slopes = _solved(velocity, noise, steps)
    return ends, _bend(0 * ends, slopes), _fitted(ends, ends, times), 2 * steps


@reflow.mistake
def last_step_of_euler(velocity, noise, spare, steps, times):
    """The last step is one of Euler's, as EDM's sampler makes it, to save an evaluation: here all steps are Heun's."""

    def there(v, x, here, t, h):
        return here if t < 1.5 * h else _there(v, x, here, t, h)

    return _by_steps(velocity, noise, steps, times, there, 2 * steps - 1)


@reflow.mistake
def one_saved(velocity, noise, spare, steps, times):
    """One evaluation too few: it is saved where the last step is one of Euler's, and here all steps are Heun's."""
    return (*reflow(velocity, noise, spare, steps, times)[:3], 2 * steps - 1)


@reflow.mistake
def bill_of_bend(velocity, noise, spare, steps, times):
    """The bill contains the bend: the slopes where steps start are known from the pairs, and asked for is what those
    cost."""
    return (*reflow(velocity, noise, spare, steps, times)[:3], 3 * steps)


@reflow.mistake
def bill_of_batch(velocity, noise, spare, steps, times):
    """The bill is that of the whole batch: asked for is that of a sample."""
    return (*reflow(velocity, noise, spare, steps, times)[:3], 2 * steps * len(noise))


@reflow.mistake
def one_point_moved(velocity, noise, spare, steps, times):
    """The second slope is asked at the time where the step starts: the point has moved, and so has time."""
    return _by_steps(velocity, noise, steps, times, lambda v, x, here, t, h: v(x - h * here, t), 2 * steps)


@reflow.mistake
def time_moved_alone(velocity, noise, spare, steps, times):
    """The second slope is asked at the point where the step starts: time has moved, and so has the point."""
    return _by_steps(velocity, noise, steps, times, lambda v, x, here, t, h: v(x, t - h), 2 * steps)


@reflow.mistake
def midpoint(velocity, noise, spare, steps, times):
    """The slope is that in the middle of each step: that is the midpoint method, of the same order."""

    def there(v, x, here, t, h):
        return 2 * v(x - h / 2 * here, t - h / 2) - here

    return _by_steps(velocity, noise, steps, times, there, 2 * steps)


@reflow.mistake
def wrong_direction_throughout(velocity, noise, spare, steps, times):
    """All lines point from noise to data, in the bend, too: dx_t/dt is for a t that grows, towards the noise."""
    ends, slopes = _solved(velocity, noise, steps)
    return ends, _bend(ends - noise, slopes), -_fitted(ends, noise, times), 2 * steps


@reflow.mistake
def bend_of_lengths(velocity, noise, spare, steps, times):
    """The bend is a mean of lengths: they are squared."""
    ends, slopes = _solved(velocity, noise, steps)
    return ends, (noise - ends - slopes).norm(dim=-1).mean(), _fitted(ends, noise, times), 2 * steps


@reflow.mistake
def bend_on_new_lines(velocity, noise, spare, steps, times):
    """For the bend the velocity is asked on the new lines: how crooked the *old* way was is seen on it."""
    ends = _solved(velocity, noise, steps)[0]
    t = [1 - k / steps for k in range(steps)]
    slopes = torch.stack([velocity((1 - time) * ends + time * noise, time) for time in t])
    return ends, _bend(noise - ends, slopes), _fitted(ends, noise, times), 2 * steps


@reflow.mistake
def bend_where_steps_end(velocity, noise, spare, steps, times):
    """The bend is taken at the times where steps end."""
    ends, slopes = _solved(velocity, noise, steps)
    slopes = torch.cat([slopes[1:], velocity(ends, 0.0)[None]])
    return ends, _bend(noise - ends, slopes), _fitted(ends, noise, times), 2 * steps


@reflow.mistake
def with_constant(velocity, noise, spare, steps, times):
    """A constant is fitted beside the matrix, or the mean taken away: the new velocity is linear, x A and no more."""
    ends, bend, _, evaluations = reflow(velocity, noise, spare, steps, times)
    centred = [y - y.mean(0) for y in (ends, noise)]
    return ends, bend, _fitted(*centred, times), evaluations


@reflow.mistake
def old_velocity_fitted(velocity, noise, spare, steps, times):
    """The matrices copy the old velocity on the new lines: reflow learns where the *lines* go."""
    ends, bend, _, evaluations = reflow(velocity, noise, spare, steps, times)
    lines = [((1 - t) * ends + t * noise, t) for t in times]
    return ends, bend, torch.stack([torch.linalg.lstsq(x, velocity(x, t)).solution for x, t in lines]), evaluations


@reflow.mistake
def bend_of_mean_slopes(velocity, noise, spare, steps, times):
    """The bend is that of the steps' mean slopes: asked for is the velocity where each starts."""
    means = []

    def there(v, x, here, t, h):
        second = _there(v, x, here, t, h)
        means.append((here + second) / 2)
        return second

    ends = _solved(velocity, noise, steps, there)[0]
    return ends, _bend(noise - ends, torch.stack(means)), _fitted(ends, noise, times), 2 * steps


@reflow.mistake
def mixed_pairs(velocity, noise, spare, steps, times):
    """The lines are those of the pairs, but the points on them are made with fresh noise: they lie on other lines."""
    ends, bend, _, evaluations = reflow(velocity, noise, spare, steps, times)
    return ends, bend, _fitted(ends, spare, times, target=noise - ends), evaluations
