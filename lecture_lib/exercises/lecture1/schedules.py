"""1.6 and 1.7: a schedule, and what zero terminal SNR does to it."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import count, number, uniform
from lecture_lib.exercises.stages import lecture1 as stages
from lecture_lib.exercises.task import question

# 1.6 -----------------------------------------------------------------------------------------------------------------


@question("1.6", 8, "the cosine schedule, with its offset and its clip", tol=1e-5)
def cosine_table(steps):
    return _of_betas(_betas(_curve(_times(steps))).clamp(max=0.999))


def _times(steps):
    return torch.arange(steps + 1, dtype=torch.float64) / steps


def _curve(t, offset=0.008):
    return torch.cos(math.pi / 2 * (t + offset) / (1 + offset)) ** 2


def _betas(curve):
    return 1 - curve[1:] / curve[:-1]


def _of_betas(betas):
    return betas, (1 - betas).cumprod(0)


@cosine_table.inputs
def _(g):
    return {"steps": count(g, 5, 30)}


cosine_table.edge("one step: the clip is all there is", [torch.tensor([0.999]), torch.tensor([0.001])], steps=1)
_HALF = math.cos(math.pi / 2 * 0.508 / 1.008) ** 2 / math.cos(math.pi / 2 * 0.008 / 1.008) ** 2
cosine_table.edge("two steps", [torch.tensor([1 - _HALF, 0.999]), torch.tensor([_HALF, 0.001 * _HALF])], steps=2)


@cosine_table.mistake
def ten_times_the_offset(steps):
    """The offset is ten times too large: count the zeros."""
    return _of_betas(_betas(_curve(_times(steps), 0.08)).clamp(max=0.999))


@cosine_table.mistake
def no_offset(steps):
    """The offset is missing: without it the first steps add hardly any noise."""
    return _of_betas(_betas(_curve(_times(steps), 0.0)).clamp(max=0.999))


@cosine_table.mistake
def no_clip(steps):
    """The betas are not clipped: the last one is 1, and divides by zero later on."""
    return _of_betas(_betas(_curve(_times(steps))))


@cosine_table.mistake
def another_clip(steps):
    """The clip is another one, 0.9999 from above, as some notebooks have it: have a look at the formula."""
    return _of_betas(_betas(_curve(_times(steps))).clamp(1e-4, 0.9999))


@cosine_table.mistake
def clip_not_carried_on(steps):
    """The betas are clipped, and alpha-bar is still that of the curve: what is 1 - beta multiplied up?"""
    curve = _curve(_times(steps))
    return _betas(curve).clamp(max=0.999), curve[1:] / curve[0]


@cosine_table.mistake
def not_squared(steps):
    """The cosine is not squared: that is the curve of alpha, not of alpha-bar."""
    return _of_betas(_betas(_curve(_times(steps)).sqrt()).clamp(max=0.999))


@cosine_table.mistake
def one_step_early(steps):
    """Off by one: the table starts with time 0, whose beta is 0, and never reaches time 1. Entry t belongs to the end
    of step t."""
    t = _times(steps)
    return _of_betas(_betas(_curve(torch.cat([t[:1], t[:-1]]))).clamp(max=0.999))


@cosine_table.mistake
def one_interval_too_few(steps):
    """T levels from 0 to 1 have T - 1 steps between them: how many levels do T steps need?"""
    t = torch.linspace(0, 1, steps).double()
    return _of_betas(_betas(_curve(torch.cat([t[:1], t]))).clamp(max=0.999))


@cosine_table.mistake
def not_divided_by_the_start(steps):
    """Before the first step alpha-bar is 1, and the curve with its offset starts a little lower: by what must it be
    divided?"""
    curve = _curve(_times(steps))
    return _of_betas(_betas(torch.cat([torch.ones(1), curve[1:]])).clamp(max=0.999))


@cosine_table.mistake
def offset_outside(steps):
    """Parentheses: time *and* offset are divided by 1 + s, so that the curve ends exactly at a right angle."""
    t = _times(steps)
    return _of_betas(_betas(torch.cos(math.pi / 2 * (t + 0.008 / 1.008)) ** 2).clamp(max=0.999))


@cosine_table.mistake
def product_forgotten(steps):
    """The second table is 1 - beta, one step's alone: alpha-bar is what is left after *all* steps up to there."""
    betas = cosine_table(steps)[0]
    return betas, 1 - betas


@cosine_table.mistake
def betas_multiplied(steps):
    """The betas are multiplied up: what stays of the signal is 1 - beta at each step."""
    betas = cosine_table(steps)[0]
    return betas, 1 - betas.cumprod(0)


@cosine_table.mistake
def alpha_for_its_square(steps):
    """The second table holds alpha, the factor of the data: alpha-bar is its square."""
    betas, alpha_bar = cosine_table(steps)
    return betas, alpha_bar.sqrt()


# 1.7 -----------------------------------------------------------------------------------------------------------------


@question("1.7", 8, "zero terminal SNR")
def zero_terminal(alpha_bar):
    return _stretched(alpha_bar.sqrt()).square()


zero_terminal.stage(stages.with_last_entry)


def _stretched(y):
    return (y - y[-1]) * y[0] / (y[0] - y[-1])


@zero_terminal.inputs
def _(g):
    betas = torch.linspace(number(g, 0.05, 0.15), number(g, 0.3, 0.5), count(g, 4, 9))
    return {"alpha_bar": (1 - betas * uniform(g, len(betas), low=0.8, high=1.0)).cumprod(0)}


zero_terminal.edge(
    "the first entry stays, and the last one is 0",
    [torch.tensor([0.81, (0.3 * 0.9 / 0.7) ** 2, 0.0]), torch.zeros(1)],
    alpha_bar=torch.tensor([0.81, 0.25, 0.04]),
)
_ENDED = torch.tensor([0.9, 0.6, 0.2, 0.0])
zero_terminal.edge("a table that ends at 0 stays as it is", [_ENDED, torch.zeros(1)], alpha_bar=_ENDED)


@zero_terminal.mistake
def itself(alpha_bar):
    """The recipe is applied to alpha-bar itself: it acts on the factor of the data, and alpha-bar is its square."""
    return _stretched(alpha_bar)


@zero_terminal.mistake
def over_the_last(alpha_bar):
    """Divided by the last entry, that becomes 1 and all others larger: what was wanted there?"""
    return alpha_bar / alpha_bar[-1]


@zero_terminal.mistake
def last_entry_alone(alpha_bar):
    """Only the last entry is changed: the others have to follow, or the last step has to do all the work."""
    return torch.cat([alpha_bar[:-1], torch.zeros(1)])


@zero_terminal.mistake
def time_turned(alpha_bar):
    """The numbers are right and in reverse order: which end of time comes first?"""
    return zero_terminal(alpha_bar).flip(0)


@zero_terminal.mistake
def kept_off_zero(alpha_bar):
    """The last entry is kept a little above 0, as if somebody divided by it: zero is the point, and what could not bear
    it, predicting the noise, has to go."""
    return zero_terminal(alpha_bar).clamp(min=1e-8)


@zero_terminal.mistake
def shifted_only(alpha_bar):
    """The table is shifted and not stretched again: the first entry has to stay what it was."""
    return (alpha_bar.sqrt() - alpha_bar[-1].sqrt()).square()


@zero_terminal.mistake
def to_the_unit_interval(alpha_bar):
    """Stretched until the first entry is 1: after one step there already is some noise, and it has to stay."""
    root = alpha_bar.sqrt()
    return ((root - root[-1]) / (root[0] - root[-1])).square()


@zero_terminal.mistake
def first_entry_unrooted(alpha_bar):
    """Stretched by alpha-bar of the first entry where its root belongs: inside the square everything is a root."""
    root = alpha_bar.sqrt()
    return ((root - root[-1]) * alpha_bar[0] / (root[0] - root[-1])).square()


@zero_terminal.mistake
def not_squared_again(alpha_bar):
    """The root is returned: alpha-bar was asked for."""
    return _stretched(alpha_bar.sqrt())


@zero_terminal.mistake
def noise_stretched(alpha_bar):
    """The factor of the *noise* is stretched until it ends at 1: the ends are right, and between them it is another
    schedule. What is shifted is the factor of the data."""
    sigma = (1 - alpha_bar).sqrt()
    sigma = sigma[0] + (sigma - sigma[0]) * (1 - sigma[0]) / (sigma[-1] - sigma[0])
    return 1 - sigma.square()
