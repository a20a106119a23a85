"""3.12: the second-order multistep solver, DPM-Solver++(2M)."""

from __future__ import annotations

import itertools
import math

import torch

from lecture_lib.exercises.drawing import count, normal, shape
from lecture_lib.exercises.stages.lecture3 import two_clusters
from lecture_lib.exercises.task import question


@question("3.12", 9, "DPM-Solver++(2M), the whole loop")
def sample_2m(x, denoise, alphas, sigmas):
    return _walk(x, denoise, alphas, sigmas, _extrapolated)


def _extrapolated(now, before, r):
    return now if before is None else (1 + 1 / (2 * r)) * now - before / (2 * r)


def _lambda(alpha, sigma):
    return math.log(alpha / sigma)


def _step(x, guess, s, t, h):
    """From s = (alpha, sigma) to t."""
    return t[1] / s[1] * x - t[0] * math.expm1(-h) * guess


def _walk(x, denoise, alphas, sigmas, mixed, clock=_lambda, step=_step):
    """All steps; ``mixed`` makes one guess of the last two and of the ratio of steps."""
    levels, before, h_before = list(zip(alphas.tolist(), sigmas.tolist(), strict=True)), None, math.nan
    for s, t in itertools.pairwise(levels):
        h, now = clock(*t) - clock(*s), denoise(x, *s)
        x, before, h_before = step(x, mixed(now, before, h_before / h), s, t, h), now, h
    return x


sample_2m.stage(two_clusters)


@sample_2m.inputs
def _(g):
    b, d = shape(g)
    steps = (0.4 + torch.rand(count(g, 4, 6), generator=g)).cumsum(0)
    sigmas = 0.92 - 0.75 * torch.cat([torch.zeros(1), steps / steps[-1]])
    return {"x": normal(g, b, d), "alphas": 1.03 - sigmas, "sigmas": sigmas, "mean": 0.4 + torch.rand(d, generator=g)}


_X, _A, _B = torch.tensor([[2.4, 4.0]]), torch.tensor([0.2, 0.5, 0.8]), torch.tensor([0.8, 0.4, 0.2])
sample_2m.edge("data that are zero: nothing but noise shrinks", _X / 4, x=_X, alphas=_A, sigmas=_B, mean=torch.zeros(2))
sample_2m.edge("a guess that never changes: exact", _X / 4 + 0.75 * torch.tensor([10.0, 20.0]),
               x=_X, alphas=_A, sigmas=_B, mean=torch.tensor([10.0, 20.0]))  # fmt: skip


@sample_2m.mistake
def first_order(x, denoise, alphas, sigmas):
    """First order throughout (DDIM): the last guess is not used. From the second step on, extrapolate."""
    return _walk(x, denoise, alphas, sigmas, lambda now, before, r: now)


@sample_2m.mistake
def ratio_upside_down(x, denoise, alphas, sigmas):
    """The ratio of the two steps is upside down, in r or in its weight: r is the *old* step over the new one, and
    Python reads `1/2*r` as r/2."""
    return _walk(x, denoise, alphas, sigmas, lambda now, before, r: _extrapolated(now, before, 1 / r))


@sample_2m.mistake
def equal_steps(x, denoise, alphas, sigmas):
    """The weights 3/2 and -1/2 are those of equal steps: here steps differ, so r does."""
    return _walk(x, denoise, alphas, sigmas, lambda now, before, r: _extrapolated(now, before, 1.0))


@sample_2m.mistake
def too_far(x, denoise, alphas, sigmas):
    """Extrapolated twice as far: the guess is wanted in the *middle* of the step. Look at the 2 below."""
    return _walk(x, denoise, alphas, sigmas, lambda now, before, r: _extrapolated(now, before, r / 2))


@sample_2m.mistake
def towards_the_past(x, denoise, alphas, sigmas):
    """The sign of the correction: it leads back to the old guess. An extrapolation goes beyond the new one."""
    return _walk(x, denoise, alphas, sigmas, lambda now, before, r: _extrapolated(now, before, -r))


@sample_2m.mistake
def guess_mixed_on(x, denoise, alphas, sigmas):
    """What is remembered is the extrapolated guess: remember what the *network* said."""
    last = []

    def mixed(now, before, r):
        last.append(_extrapolated(now, last[-1] if last else None, r))
        return last[-1]

    return _walk(x, denoise, alphas, sigmas, mixed)


@sample_2m.mistake
def whole_log_snr(x, denoise, alphas, sigmas):
    """lambda is taken as log(alpha^2/sigma^2): in this solver it is *half* of that, log(alpha/sigma)."""
    return _walk(x, denoise, alphas, sigmas, _extrapolated, clock=lambda a, s: 2 * _lambda(a, s))


@sample_2m.mistake
def lambda_backwards(x, denoise, alphas, sigmas):
    """h has the other sign, in lambda or in the exponent: lambda *grows* while noise is taken away, so that h is
    positive and exp(-h) below 1."""
    return _walk(x, denoise, alphas, sigmas, _extrapolated, clock=lambda a, s: -_lambda(a, s))


@sample_2m.mistake
def noise_form(x, denoise, alphas, sigmas):
    """x is scaled by the ratio of alphas: that belongs to the form for predicted *noise*. For predicted data, what is
    left of x is its noise."""
    step = lambda x, guess, s, t, h: t[0] / s[0] * x - t[0] * math.expm1(-h) * guess  # noqa: E731
    return _walk(x, denoise, alphas, sigmas, _extrapolated, step=step)


@sample_2m.mistake
def old_alpha(x, denoise, alphas, sigmas):
    """The guess is weighted with the *old* alpha: it arrives at the new level."""
    return _walk(x, denoise, alphas, sigmas, _extrapolated, step=lambda x, p, s, t, h: _step(x, p, s, (s[0], t[1]), h))


@sample_2m.mistake
def other_sign(x, denoise, alphas, sigmas):
    """The guess is taken away instead of added: exp(-h) - 1 is negative, and there is a minus in front of it."""
    return _walk(x, denoise, alphas, sigmas, _extrapolated, step=lambda x, p, s, t, h: _step(x, -p, s, t, h))


@sample_2m.mistake
def last_step_of_first_order(x, denoise, alphas, sigmas):
    """The last step is one of first order, as some libraries do for stability: here all steps but the first
    extrapolate."""
    calls = iter(range(1, len(alphas)))
    last = len(alphas) - 1

    def mixed(now, before, r):
        return now if next(calls) == last else _extrapolated(now, before, r)

    return _walk(x, denoise, alphas, sigmas, mixed)


@sample_2m.mistake
def guess_at_the_end(x, denoise, alphas, sigmas):
    """The guess is asked for at the level where the step *ends*: x is still at the level where it begins."""
    ends = iter(zip(alphas.tolist()[1:], sigmas.tolist()[1:], strict=True))
    return _walk(x, lambda x, *_: denoise(x, *next(ends)), alphas, sigmas, _extrapolated)


@sample_2m.mistake
def levels_exchanged(x, denoise, alphas, sigmas):
    """`denoise` is given sigma and alpha in the wrong order."""
    return _walk(x, lambda x, alpha, sigma: denoise(x, sigma, alpha), alphas, sigmas, _extrapolated)


@sample_2m.mistake
def first_guess_for_ever(x, denoise, alphas, sigmas):
    """The remembered guess is never renewed: it stays that of the first level."""
    first = []

    def mixed(now, before, r):
        first.append(now)
        return _extrapolated(now, before if before is None else first[0], r)

    return _walk(x, denoise, alphas, sigmas, mixed)


@sample_2m.mistake
def old_guess_at_the_new_x(x, denoise, alphas, sigmas):
    """The guess of the level before is asked for again, at the new x: remember what was said then, and each step has
    one evaluation."""
    levels = list(zip(alphas.tolist(), sigmas.tolist(), strict=True))
    h_before = math.nan
    for k, (s, t) in enumerate(itertools.pairwise(levels)):
        h, before = _lambda(*t) - _lambda(*s), denoise(x, *levels[k - 1]) if k else None
        x, h_before = _step(x, _extrapolated(denoise(x, *s), before, h_before / h), s, t, h), h
    return x
