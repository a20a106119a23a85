"""4.4: two points of one trajectory, the second from a teacher; judged with its gradients."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import normal, number, shape, uniform
from lecture_lib.exercises.lecture4.numbers import MEAN, WEIGHT, A, B, rows
from lecture_lib.exercises.lecture4.pairs import T, U, apart, at, of_identity
from lecture_lib.exercises.stages import lecture4 as stages
from lecture_lib.exercises.task import question


@question("4.4", 9, "the loss of consistency distillation")
def cd_loss(f, f_slow, denoiser, x0, noise, t, u):
    x_t = at(x0, noise, t)
    return apart(f(x_t, t), f_slow(_step(x_t, denoiser(x_t, t), t, u), u).detach())


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
    weight=WEIGHT, slow=WEIGHT.clone(), mean=MEAN, std=0.6, x0=A, noise=B, t=T, u=T.clone(),
)  # fmt: skip
cd_loss.edge(
    "where f(x, t) = x, with a teacher whose data are a single point",
    [*of_identity(MEAN + rows(T) * B, rows(T - U) * B), torch.zeros(3, 3)],
    **_STILL, mean=MEAN, std=0.0, x0=MEAN.expand(2, 3), noise=B, t=T, u=U,
)  # fmt: skip


@cd_loss.mistake
def towards_denoiser(f, f_slow, denoiser, x0, noise, t, u):
    """The target is the teacher's x_0 at x_t. Then the best student is the teacher, and its one step a mean: the
    teacher gives a *direction*, the target is a shorter jump."""
    x_t = at(x0, noise, t)
    return apart(f(x_t, t), denoiser(x_t, t).detach())


@cd_loss.mistake
def own_target(f, f_slow, denoiser, x0, noise, t, u):
    """The target comes from the student itself; here its slow average is asked."""
    return cd_loss(f, f, denoiser, x0, noise, t, u)


@cd_loss.mistake
def average_learns(f, f_slow, denoiser, x0, noise, t, u):
    """The number is right, but a gradient reaches the average: it follows the student, it is not trained."""
    x_t = at(x0, noise, t)
    return apart(f(x_t, t), f_slow(_step(x_t, denoiser(x_t, t), t, u), u))


@cd_loss.mistake
def without_teacher(f, f_slow, denoiser, x0, noise, t, u):
    """The second point is x_0 + u eps: that is consistency *training*. Distillation takes it from the teacher."""
    return apart(f(at(x0, noise, t), t), f_slow(at(x0, noise, u), u).detach())


@cd_loss.mistake
def uphill(f, f_slow, denoiser, x0, noise, t, u):
    """The step has the wrong sign: it leads to more noise. u is less than t."""
    x_t = at(x0, noise, t)
    return apart(f(x_t, t), f_slow(_step(x_t, denoiser(x_t, t), t, 2 * t - u), u).detach())


@cd_loss.mistake
def divided_by_u(f, f_slow, denoiser, x0, noise, t, u):
    """The slope is divided by u: it is taken where the step starts."""
    x_t = at(x0, noise, t)
    return apart(f(x_t, t), f_slow(x_t + rows((u - t) / u) * (x_t - denoiser(x_t, t)), u).detach())


@cd_loss.mistake
def not_divided(f, f_slow, denoiser, x0, noise, t, u):
    """x - x_0 is the noise t eps; the slope dx/dt is eps: a division is missing."""
    x_t = at(x0, noise, t)
    return apart(f(x_t, t), f_slow(x_t + rows(u - t) * (x_t - denoiser(x_t, t)), u).detach())


@cd_loss.mistake
def weights_do_not_add_up(f, f_slow, denoiser, x0, noise, t, u):
    """x_u is printed in places as (u/t) x_t + (u - t) x_0: the two weights must add up to 1, or points that are all
    equal would move."""
    x_t = at(x0, noise, t)
    return apart(f(x_t, t), f_slow(rows(u / t) * x_t + rows(u - t) * denoiser(x_t, t), u).detach())


@cd_loss.mistake
def score_for_slope(f, f_slow, denoiser, x0, noise, t, u):
    """The step goes along the score, -eps/t. The slope of the flow is another multiple of eps, and another sign."""
    x_t = at(x0, noise, t)
    return apart(f(x_t, t), f_slow(x_t - rows((u - t) / t**2) * (x_t - denoiser(x_t, t)), u).detach())


@cd_loss.mistake
def heun(f, f_slow, denoiser, x0, noise, t, u):
    """That is a step of Heun's method. It is the better one, at two evaluations of the teacher; asked for is Euler's,
    at one."""
    x_t = at(x0, noise, t)
    x_u = _step(x_t, denoiser(x_t, t), t, u)
    slopes = (x_t - denoiser(x_t, t)) / rows(t) + (x_u - denoiser(x_u, u)) / rows(u)
    return apart(f(x_t, t), f_slow(x_t + rows(u - t) * slopes / 2, u).detach())


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
    x_t = at(x0, noise, t)
    return apart(f(x_t, t).detach(), f_slow(_step(x_t, denoiser(x_t, t), t, u), u))


@cd_loss.mistake
def exchanged(f, f_slow, denoiser, x0, noise, t, u):
    """f and its average are exchanged: the student jumps from x_t, its average from the nearer point."""
    return cd_loss(f_slow, f, denoiser, x0, noise, t, u)


@cd_loss.mistake
def told_the_old_time(f, f_slow, denoiser, x0, noise, t, u):
    """After the step the average is told t: the point has come down to u."""
    x_t = at(x0, noise, t)
    return apart(f(x_t, t), f_slow(_step(x_t, denoiser(x_t, t), t, u), t).detach())


@cd_loss.mistake
def teacher_told_u(f, f_slow, denoiser, x0, noise, t, u):
    """The teacher is asked at x_t and told u: it is told the level of the point it sees."""
    x_t = at(x0, noise, t)
    return apart(f(x_t, t), f_slow(_step(x_t, denoiser(x_t, u), t, u), u).detach())


@cd_loss.mistake
def towards_denoiser_below(f, f_slow, denoiser, x0, noise, t, u):
    """The target is the teacher's x_0, asked after the step: it is still a mean. The target is a shorter jump of the
    student's average."""
    x_t = at(x0, noise, t)
    return apart(f(x_t, t), denoiser(_step(x_t, denoiser(x_t, t), t, u), u).detach())


@cd_loss.mistake
def by_score(f, f_slow, denoiser, x0, noise, t, u):
    """The slope is divided by t squared: that is a score with its sign turned, and no dx/dt."""
    x_t = at(x0, noise, t)
    return apart(f(x_t, t), f_slow(x_t + rows((u - t) / t**2) * (x_t - denoiser(x_t, t)), u).detach())


@cd_loss.mistake
def rectified(f, f_slow, denoiser, x0, noise, t, u):
    """x_t is made on the line of a rectified flow, (1 - t) x_0 + t eps; on EDM's path the data keep their size."""
    x_t = at(rows(1 - t) * x0, noise, t)
    return apart(f(x_t, t), f_slow(_step(x_t, denoiser(x_t, t), t, u), u).detach())
