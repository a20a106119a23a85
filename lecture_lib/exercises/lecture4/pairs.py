"""4.3 and 4.4: two points of one trajectory, from data alone or from a teacher; judged with their gradients."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import normal, number, shape, uniform
from lecture_lib.exercises.lecture4.numbers import MEAN, WEIGHT, A, B, C, rows
from lecture_lib.exercises.stages import lecture4 as stages
from lecture_lib.exercises.task import question

# 4.3 -----------------------------------------------------------------------------------------------------------------


@question("4.3", 9, "the loss of consistency training")
def ct_loss(f, x0, noise, spare, t, u):
    return _apart(f(_at(x0, noise, t), t), f(_at(x0, noise, u), u).detach())


def _at(x0, noise, t):
    return x0 + rows(t) * noise


def _apart(a, b):
    return (a - b).square().mean()


ct_loss.stage(stages.ct_loss)


@ct_loss.inputs
def _(g):
    b, d = shape(g)
    times = {"t": uniform(g, b, low=1.2, high=2.0), "u": uniform(g, b, low=0.4, high=0.9)}
    points = {k: normal(g, b, d) for k in ("x0", "noise", "spare")}
    return {"weight": normal(g, d, d, scale=0.5), **points, **times}


_T, _U = torch.tensor([1.5, 0.8]), torch.tensor([0.5, 0.3])


def _of_identity(x_t, step):
    """Loss and gradient at W = 0, where f(x, t) = x and x_t - x_u = step."""
    return [step.square().mean(), 2 / step.numel() * x_t.mT @ (rows(_T) * step)]


ct_loss.edge(
    "u = t asks for nothing", [0.0, torch.zeros(3, 3)], weight=WEIGHT, x0=A, noise=B, spare=C, t=_T, u=_T.clone()
)
ct_loss.edge(
    "where f(x, t) = x the two ends are as far apart as the points",
    _of_identity(A + rows(_T) * B, rows(_T - _U) * B), weight=0 * WEIGHT, x0=A, noise=B, spare=C, t=_T, u=_U,
)  # fmt: skip


@ct_loss.mistake
def fresh_noise(f, x0, noise, spare, t, u):
    """Each point has a noise of its own. Then x_t says nothing about x_u but its x_0, and f collapses to the mean of
    the data: both points are to lie on one line."""
    return _apart(f(_at(x0, noise, t), t), f(_at(x0, spare, u), u).detach())


@ct_loss.mistake
def both_ways(f, x0, noise, spare, t, u):
    """The number is right, its gradient is not: both ends learn, and move towards each other. What is known near the
    data is to travel up, so one end must stand still."""
    return _apart(f(_at(x0, noise, t), t), f(_at(x0, noise, u), u))


@ct_loss.mistake
def wrong_end_stopped(f, x0, noise, spare, t, u):
    """The number is right, but the wrong end learns: the one that knows less is to follow the one that knows more.
    Which of the two is nearer to the data?"""
    return _apart(f(_at(x0, noise, t), t).detach(), f(_at(x0, noise, u), u))


@ct_loss.mistake
def nothing_learns(f, x0, noise, spare, t, u):
    """The number is right, but no gradient reaches f: is all of it stopped, or made a plain number?"""
    return both_ways(f, x0, noise, spare, t, u).detach()


@ct_loss.mistake
def towards_data(f, x0, noise, spare, t, u):
    """The target is x_0 itself: that trains a denoiser, whose one step is a mean. f is to agree with *itself*."""
    return _apart(f(_at(x0, noise, t), t), x0)


@ct_loss.mistake
def one_point(f, x0, noise, spare, t, u):
    """f is asked twice at the same point x_t, at two times: at time u the point has less noise."""
    return _apart(f(_at(x0, noise, t), t), f(_at(x0, noise, t), u).detach())


@ct_loss.mistake
def time_not_told(f, x0, noise, spare, t, u):
    """The second point is right, but f is told t there, too: it is asked at u."""
    return _apart(f(_at(x0, noise, t), t), f(_at(x0, noise, u), t).detach())


@ct_loss.mistake
def squared_level(f, x0, noise, spare, t, u):
    """The noise is multiplied by t squared: t is its standard deviation, not its variance."""
    return _apart(f(_at(x0, noise, t**2), t), f(_at(x0, noise, u**2), u).detach())


@ct_loss.mistake
def other_path(f, x0, noise, spare, t, u):
    """(1 - t) x_0 + t eps is the path of a rectified flow; on EDM's the data keep their size."""
    x_t, x_u = (_at(rows(1 - time) * x0, noise, time) for time in (t, u))
    return _apart(f(x_t, t), f(x_u, u).detach())


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
    x_t = _at(x0, noise, t)
    return _apart(f(x_t, t), f(x_t + rows(u - t) * spare, u).detach())


@ct_loss.mistake
def not_squared(f, x0, noise, spare, t, u):
    """The mean is over absolute values: asked for are their squares."""
    return (f(_at(x0, noise, t), t) - f(_at(x0, noise, u), u).detach()).abs().mean()


# 4.4 -----------------------------------------------------------------------------------------------------------------


@question("4.4", 9, "the loss of consistency distillation")
def cd_loss(f, f_slow, denoiser, x0, noise, t, u):
    x_t = _at(x0, noise, t)
    return _apart(f(x_t, t), f_slow(_step(x_t, denoiser(x_t, t), t, u), u).detach())


def _step(x, x0_hat, t, u):
    """Along the slope that the teacher's x_0 gives."""
    return x + rows((u - t) / t) * (x - x0_hat)


cd_loss.stage(stages.cd_loss)


@cd_loss.inputs
def _(g):
    b, d = shape(g)
    weights = {"weight": normal(g, d, d, scale=0.5), "slow": normal(g, d, d, scale=0.5)}
    teacher = {"mean": normal(g, d) + 0.6, "std": number(g, 0.4, 0.9)}
    times = {"t": uniform(g, b, low=1.2, high=2.0), "u": uniform(g, b, low=0.4, high=0.9)}
    return {**weights, **teacher, "x0": normal(g, b, d), "noise": normal(g, b, d), **times}


_STILL = {"weight": 0 * WEIGHT, "slow": 0 * WEIGHT}
cd_loss.edge(
    "u = t asks for nothing of a student that is its own average",
    [0.0, torch.zeros(3, 3), torch.zeros(3, 3)],
    weight=WEIGHT, slow=WEIGHT.clone(), mean=MEAN, std=0.6, x0=A, noise=B, t=_T, u=_T.clone(),
)  # fmt: skip
cd_loss.edge(
    "where f(x, t) = x, with a teacher whose data are a single point",
    [*_of_identity(MEAN + rows(_T) * B, rows(_T - _U) * B), torch.zeros(3, 3)],
    **_STILL, mean=MEAN, std=0.0, x0=MEAN.expand(2, 3), noise=B, t=_T, u=_U,
)  # fmt: skip


@cd_loss.mistake
def towards_denoiser(f, f_slow, denoiser, x0, noise, t, u):
    """The target is the teacher's x_0 at x_t. Then the best student is the teacher, and its one step a mean: the
    teacher gives a *direction*, the target is a shorter jump."""
    x_t = _at(x0, noise, t)
    return _apart(f(x_t, t), denoiser(x_t, t).detach())


@cd_loss.mistake
def own_target(f, f_slow, denoiser, x0, noise, t, u):
    """The target comes from the student itself; here its slow average is asked."""
    return cd_loss(f, f, denoiser, x0, noise, t, u)


@cd_loss.mistake
def average_learns(f, f_slow, denoiser, x0, noise, t, u):
    """The number is right, but a gradient reaches the average: it follows the student, it is not trained."""
    x_t = _at(x0, noise, t)
    return _apart(f(x_t, t), f_slow(_step(x_t, denoiser(x_t, t), t, u), u))


@cd_loss.mistake
def without_teacher(f, f_slow, denoiser, x0, noise, t, u):
    """The second point is x_0 + u eps: that is consistency *training*. Distillation takes it from the teacher."""
    return _apart(f(_at(x0, noise, t), t), f_slow(_at(x0, noise, u), u).detach())


@cd_loss.mistake
def uphill(f, f_slow, denoiser, x0, noise, t, u):
    """The step has the wrong sign: it leads to more noise. u is less than t."""
    x_t = _at(x0, noise, t)
    return _apart(f(x_t, t), f_slow(_step(x_t, denoiser(x_t, t), t, 2 * t - u), u).detach())


@cd_loss.mistake
def divided_by_u(f, f_slow, denoiser, x0, noise, t, u):
    """The slope is divided by u: it is taken where the step starts."""
    x_t = _at(x0, noise, t)
    return _apart(f(x_t, t), f_slow(x_t + rows((u - t) / u) * (x_t - denoiser(x_t, t)), u).detach())


@cd_loss.mistake
def not_divided(f, f_slow, denoiser, x0, noise, t, u):
    """x - x_0 is the noise t eps; the slope dx/dt is eps: a division is missing."""
    x_t = _at(x0, noise, t)
    return _apart(f(x_t, t), f_slow(x_t + rows(u - t) * (x_t - denoiser(x_t, t)), u).detach())


@cd_loss.mistake
def weights_do_not_add_up(f, f_slow, denoiser, x0, noise, t, u):
    """x_u is printed in places as (u/t) x_t + (u - t) x_0: the two weights must add up to 1, or points that are all
    equal would move."""
    x_t = _at(x0, noise, t)
    return _apart(f(x_t, t), f_slow(rows(u / t) * x_t + rows(u - t) * denoiser(x_t, t), u).detach())


@cd_loss.mistake
def score_for_slope(f, f_slow, denoiser, x0, noise, t, u):
    """The step goes along the score, -eps/t. The slope of the flow is another multiple of eps, and another sign."""
    x_t = _at(x0, noise, t)
    return _apart(f(x_t, t), f_slow(x_t - rows((u - t) / t**2) * (x_t - denoiser(x_t, t)), u).detach())


@cd_loss.mistake
def heun(f, f_slow, denoiser, x0, noise, t, u):
    """That is a step of Heun's method. It is the better one, at two evaluations of the teacher; asked for is Euler's,
    at one."""
    x_t = _at(x0, noise, t)
    x_u = _step(x_t, denoiser(x_t, t), t, u)
    slopes = (x_t - denoiser(x_t, t)) / rows(t) + (x_u - denoiser(x_u, u)) / rows(u)
    return _apart(f(x_t, t), f_slow(x_t + rows(u - t) * slopes / 2, u).detach())


@cd_loss.mistake
def summed_up(f, f_slow, denoiser, x0, noise, t, u):
    """A sum over the batch where a mean is asked for."""
    return cd_loss(f, f_slow, denoiser, x0, noise, t, u) * x0.numel()


@cd_loss.mistake
def lengths_added_up(f, f_slow, denoiser, x0, noise, t, u):
    """The squares of a sample are added up before the mean: it is over all numbers."""
    return cd_loss(f, f_slow, denoiser, x0, noise, t, u) * x0.shape[1]


@cd_loss.mistake
def student_stopped(f, f_slow, denoiser, x0, noise, t, u):
    """The number is right, but no gradient reaches f: is all of it stopped, or made a plain number?"""
    return cd_loss(f, f_slow, denoiser, x0, noise, t, u).detach()


@cd_loss.mistake
def average_chases(f, f_slow, denoiser, x0, noise, t, u):
    """The number is right, but the average learns, and the student stands still: it is the other way round."""
    x_t = _at(x0, noise, t)
    return _apart(f(x_t, t).detach(), f_slow(_step(x_t, denoiser(x_t, t), t, u), u))


@cd_loss.mistake
def exchanged(f, f_slow, denoiser, x0, noise, t, u):
    """f and its average are exchanged: the student jumps from x_t, its average from the nearer point."""
    return cd_loss(f_slow, f, denoiser, x0, noise, t, u)


@cd_loss.mistake
def told_the_old_time(f, f_slow, denoiser, x0, noise, t, u):
    """After the step the average is told t: the point has come down to u."""
    x_t = _at(x0, noise, t)
    return _apart(f(x_t, t), f_slow(_step(x_t, denoiser(x_t, t), t, u), t).detach())


@cd_loss.mistake
def teacher_told_u(f, f_slow, denoiser, x0, noise, t, u):
    """The teacher is asked at x_t and told u: it is told the level of the point it sees."""
    x_t = _at(x0, noise, t)
    return _apart(f(x_t, t), f_slow(_step(x_t, denoiser(x_t, u), t, u), u).detach())


@cd_loss.mistake
def towards_denoiser_below(f, f_slow, denoiser, x0, noise, t, u):
    """The target is the teacher's x_0, asked after the step: it is still a mean. The target is a shorter jump of the
    student's average."""
    x_t = _at(x0, noise, t)
    return _apart(f(x_t, t), denoiser(_step(x_t, denoiser(x_t, t), t, u), u).detach())


@cd_loss.mistake
def by_score(f, f_slow, denoiser, x0, noise, t, u):
    """The slope is divided by t squared: that is a score with its sign turned, and no dx/dt."""
    x_t = _at(x0, noise, t)
    return _apart(f(x_t, t), f_slow(x_t + rows((u - t) / t**2) * (x_t - denoiser(x_t, t)), u).detach())


@cd_loss.mistake
def rectified(f, f_slow, denoiser, x0, noise, t, u):
    """x_t is made on the line of a rectified flow, (1 - t) x_0 + t eps; on EDM's path the data keep their size."""
    x_t = _at(rows(1 - t) * x0, noise, t)
    return _apart(f(x_t, t), f_slow(_step(x_t, denoiser(x_t, t), t, u), u).detach())
