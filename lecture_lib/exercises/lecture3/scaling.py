"""3.9 and 3.10: at which times to train for more pixels, and what a scaling law foretells."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import count, normal, number
from lecture_lib.exercises.task import question

# 3.9 -----------------------------------------------------------------------------------------------------------------


@question("3.9", 7, "training times for more pixels")
def training_times(u, mean, std, old, new):
    return _shifted(torch.sigmoid(mean + std * u), math.sqrt(new / old))


def _shifted(t, kappa):
    return kappa * t / (1 + (kappa - 1) * t)


@training_times.inputs
def _(g):
    law = {"mean": number(g, 0.2, 0.6), "std": number(g, 0.4, 0.7)}
    return {"u": normal(g, count(g, 5, 9)), **law, "old": count(g, 200, 300), "new": count(g, 1000, 3000)}


_ODDS = torch.tensor([0.0, 2 * math.log(3), -2 * math.log(3)])
training_times.edge("as many pixels as before: logit-normal", torch.tensor([0.5, 0.75, 0.25]),
                    u=_ODDS, mean=0.0, std=0.5, old=100, new=100)  # fmt: skip
training_times.edge(
    "four times the pixels", torch.tensor([2 / 3, 6 / 7, 0.4]), u=_ODDS, mean=0.0, std=0.5, old=100, new=400
)
training_times.edge("mean and no spread: one time", torch.tensor([0.75] * 3),
                    u=_ODDS, mean=math.log(3), std=0.0, old=100, new=100)  # fmt: skip


@training_times.mistake
def no_root(u, mean, std, old, new):
    """kappa is the ratio of pixel numbers: noise averages out like the *root* of a number of pixels."""
    return _shifted(torch.sigmoid(mean + std * u), new / old)


@training_times.mistake
def upside_down(u, mean, std, old, new):
    """kappa is upside down: a picture with more pixels looks *less* noisy, so it must be trained with more noise, and
    in this course t = 1 is noise."""
    return training_times(u, mean, std, new, old)


@training_times.mistake
def variance(u, mean, std, old, new):
    """`std` is squared: a normal number is mean + std u."""
    return training_times(u, mean, std**2, old, new)


@training_times.mistake
def standardised(u, mean, std, old, new):
    """The mean is taken away and the rest divided, which is how one gets *to* a standard normal number. u is one."""
    return training_times((u - mean) / std, 0.0, 1.0, old, new)


@training_times.mistake
def not_shifted(u, mean, std, old, new):
    """Not shifted: these are the times for the old number of pixels."""
    return torch.sigmoid(mean + std * u)


@training_times.mistake
def noise_first(u, mean, std, old, new):
    """Time runs the other way: here t = 0 is data and t = 1 is noise."""
    return 1 - training_times(u, mean, std, old, new)


@training_times.mistake
def reversed_first(u, mean, std, old, new):
    """The shift acts on 1 - t: t is the share of noise already, and is not turned round."""
    return _shifted(1 - torch.sigmoid(mean + std * u), math.sqrt(new / old))


@training_times.mistake
def mean_scaled(u, mean, std, old, new):
    """`std` multiplies the mean, too: it scales the spread alone."""
    return training_times(mean + u, 0.0, std, old, new)


@training_times.mistake
def no_mean(u, mean, std, old, new):
    """The mean is not used: the logit is normal around it."""
    return training_times(u, 0.0, std, old, new)


@training_times.mistake
def no_deviation(u, mean, std, old, new):
    """The deviation is not used: u varies by 1, the logit by `std`."""
    return training_times(u, mean, 1.0, old, new)


@training_times.mistake
def noise_level(u, mean, std, old, new):
    """Returned is the noise level t/(1-t): the *time* is asked for, and lies between 0 and 1."""
    t = training_times(u, mean, std, old, new)
    return t / (1 - t)


@training_times.mistake
def exchanged(u, mean, std, old, new):
    """Mean and deviation are exchanged: one is added, the other multiplies."""
    return training_times(u, std, mean, old, new)


@training_times.mistake
def no_parentheses(u, mean, std, old, new):
    """Parentheses are missing around the denominator: Python divides by its first term alone."""
    t, kappa = torch.sigmoid(mean + std * u), math.sqrt(new / old)
    return kappa * t / 1 + (kappa - 1) * t


@training_times.mistake
def multiplied(u, mean, std, old, new):
    """The times are multiplied and cut off at 1: kappa multiplies the noise level t/(1-t), and no time reaches 1."""
    return (math.sqrt(new / old) * torch.sigmoid(mean + std * u)).clamp(max=1)


@training_times.mistake
def within_the_spread(u, mean, std, old, new):
    """The shift passes through `std`: first the logit-normal time, then the shift."""
    return torch.sigmoid(mean + std * (u + 0.5 * math.log(new / old)))


@training_times.mistake
def normal_cdf(u, mean, std, old, new):
    """The normal distribution function stands where the sigmoid should: a logit-normal time is one whose *logit* is
    normal."""
    return _shifted(torch.special.ndtr(mean + std * u), math.sqrt(new / old))


# 3.10 ----------------------------------------------------------------------------------------------------------------


@question("3.10", 8, "a scaling law with a floor")
def foretold(compute, loss, floors, far):
    return _forecast(far, *_best(compute, loss, floors))


def _line(x, y):
    """Level and slope of the straight line through points."""
    design = torch.stack([torch.ones_like(x), x], dim=1)
    return torch.linalg.lstsq(design, y[:, None]).solution[:, 0].tolist()


def _squares(y, line, floor):
    """Sum of squared errors in the logarithm of what lies above the floor; ``y`` and ``line`` are such logarithms."""
    return (y - line).square().sum()


def _best(compute, loss, floors, error=_squares):
    """The floor with the smallest error, and level and slope of its line."""
    x, lines = compute.double().log(), {}
    for floor in floors.tolist():
        y = (loss.double() - floor).log()
        level, slope = _line(x, y)
        lines[floor] = float(error(y, level + slope * x, floor)), level, slope
    floor = min(lines, key=lambda floor: lines[floor][0])
    return floor, *lines[floor][1:]


def _forecast(far, floor, level, slope):
    return floor, -slope, floor + math.exp(level) * far**slope


@foretold.inputs
def _(g):
    E, A, alpha = number(g, 0.4, 0.7), number(g, 0.6, 0.9), number(g, 0.35, 0.48)
    compute = 10.0 ** torch.linspace(0, 2, count(g, 6, 9)).double()
    noise = 0.006 * normal(g, len(compute)).clamp(-1.5, 1.5)
    noise[-1] = 0.03
    loss = E + A * compute**-alpha * (1 + noise)
    floors = torch.tensor([0.0, E - 0.25, E - 0.12, E, E + 0.75 * (float(loss.min()) - E)])
    order = torch.tensor([[2, 3, 0, 4, 1], [1, 0, 4, 3, 2]][count(g, 0, 1)])
    return {"compute": compute.float(), "loss": loss.float(), "floors": floors[order], "far": number(g, 1000, 4000)}


_C = torch.tensor([1.0, 4.0, 16.0, 64.0])
foretold.edge("a law without noise", (0.5, 0.5, 0.625), compute=_C, loss=0.5 + 2 / _C.sqrt(),
              floors=torch.tensor([0.25, 0.5, 0.0]), far=256.0)  # fmt: skip
foretold.edge("a law without a floor", (0.0, 0.25, 0.75), compute=_C, loss=3 / _C**0.25,
              floors=torch.tensor([0.3, 0.0, 0.9]), far=256.0)  # fmt: skip

# Errors without level and slope, so that the law stays exact; another measure of error chooses another floor.
_MORE = torch.tensor([1.0, 4.0, 16.0, 64.0, 256.0])
for _label, _errors, _floors in (
    ("losses with noise, five floors", [0.2, -0.3, 0.0, 0.1, 0.0], [1.2, 0.0, 1.0, 1.15, 1.1]),
    ("losses with noise, two floors", [0.1, -0.15, 0.1, -0.15, 0.1], [1.15, 1.0]),
):
    foretold.edge(_label, (1.0, 0.5, 1.125), compute=_MORE, loss=1 + 4 * torch.tensor(_errors).exp() / _MORE.sqrt(),
                  floors=torch.tensor(_floors), far=1024.0)  # fmt: skip


@foretold.mistake
def no_floor(compute, loss, floors, far):
    """A straight line through log loss, without a floor: the exponent comes out far too small. Take the floor away
    before the logarithm."""
    return _forecast(far, 0.0, *_line(compute.double().log(), loss.double().log()))


@foretold.mistake
def floor_forgotten(compute, loss, floors, far):
    """The forecast lacks the floor: only what lies above it shrinks, and it has to be added again."""
    floor, alpha, there = foretold(compute, loss, floors, far)
    return floor, alpha, there - floor


@foretold.mistake
def slope(compute, loss, floors, far):
    """The exponent's sign: the law has -alpha in the exponent, and loss falls."""
    floor, alpha, there = foretold(compute, loss, floors, far)
    return floor, -alpha, there


@foretold.mistake
def all_shrinks(compute, loss, floors, far):
    """The floor shrinks, too: from the last point on, the *whole* loss is multiplied. Only loss minus floor is."""
    floor, alpha, _ = foretold(compute, loss, floors, far)
    return floor, alpha, float(loss[-1]) * (far / float(compute[-1])) ** -alpha


@foretold.mistake
def last_point(compute, loss, floors, far):
    """The forecast starts at the last point, with its noise: the fitted line has a level of its own."""
    floor, alpha, _ = foretold(compute, loss, floors, far)
    return floor, alpha, floor + (float(loss[-1]) - floor) * (far / float(compute[-1])) ** -alpha


@foretold.mistake
def two_points(compute, loss, floors, far):
    """The line goes through the first and the last point: least squares listens to all of them."""
    floor, *_ = _best(compute, loss, floors)
    x, y = compute.double().log(), (loss.double() - floor).log()
    return _forecast(far, floor, *_line(x[[0, -1]], y[[0, -1]]))


@foretold.mistake
def worst_floor(compute, loss, floors, far):
    """The floor with the *largest* error is taken."""
    return _forecast(far, *_best(compute, loss, floors, lambda *what: -_squares(*what)))


@foretold.mistake
def errors_of_the_loss(compute, loss, floors, far):
    """Floors are compared by the errors of the loss itself: there the first points outweigh all others. Compare where
    the line is straight."""
    return _forecast(far, *_best(compute, loss, floors, lambda y, line, floor: (y.exp() - line.exp()).square().sum()))


@foretold.mistake
def errors_of_log_loss(compute, loss, floors, far):
    """Floors are compared by the errors of log loss, as in the lab's fit. Here the errors are those of the straight
    line, in the logarithm of what lies *above* the floor."""

    def error(y, line, floor):
        return ((floor + y.exp()).log() - (floor + line.exp()).log()).square().sum()

    return _forecast(far, *_best(compute, loss, floors, error))


@foretold.mistake
def share_explained(compute, loss, floors, far):
    """Floors are compared by the correlation (or R^2), which divides the squared errors by the spread of the points:
    that differs from floor to floor. Compare the sums themselves."""
    share = lambda y, line, floor: _squares(y, line, floor) / (y - y.mean()).square().sum()  # noqa: E731
    return _forecast(far, *_best(compute, loss, floors, share))


@foretold.mistake
def absolute_errors(compute, loss, floors, far):
    """Floors are compared by the sums of absolute errors: squares are asked for."""
    return _forecast(far, *_best(compute, loss, floors, lambda y, line, floor: (y - line).abs().sum()))


@foretold.mistake
def largest_errors(compute, loss, floors, far):
    """Floors are compared by the largest error alone: each point's square counts."""
    return _forecast(far, *_best(compute, loss, floors, lambda y, line, floor: (y - line).abs().max()))


@foretold.mistake
def highest_floor(compute, loss, floors, far):
    """The highest floor is taken: it is to be the one whose line fits best."""
    return foretold(compute, loss, floors.max()[None], far)


@foretold.mistake
def lowest_floor(compute, loss, floors, far):
    """The lowest floor is taken: it is to be the one whose line fits best."""
    return foretold(compute, loss, floors.min()[None], far)


@foretold.mistake
def last_floor(compute, loss, floors, far):
    """The last floor of the list is taken: is the best one overwritten by each that follows?"""
    return foretold(compute, loss, floors[-1:], far)


@foretold.mistake
def first_floor(compute, loss, floors, far):
    """The first floor of the list is taken: try all, and keep the one whose line fits best."""
    return foretold(compute, loss, floors[:1], far)


@foretold.mistake
def mixed_logarithms(compute, loss, floors, far):
    """Logarithms to base 10, and `exp` for the way back: one base for both."""
    floor, level, slope = _best(compute, loss, floors)
    return floor, -slope, floor + math.exp(level / math.log(10)) * far**slope


@foretold.mistake
def axes_exchanged(compute, loss, floors, far):
    """The line gives log compute from log loss: exchanged, least squares looks at the wrong errors, too."""
    floor, *_ = _best(compute, loss, floors)
    return _forecast(far, floor, *_line((loss.double() - floor).log(), compute.double().log()))


@foretold.mistake
def axes_exchanged_and_back(compute, loss, floors, far):
    """Nearly: the line is fitted to log compute, and solved for log loss. Least squares looks at the errors of what
    stands on the *left*: take log(L - E) there."""
    lines = {}
    for floor in floors.tolist():
        x, y = compute.double().log(), (loss.double() - floor).log()
        level, slope = _line(y, x)
        lines[floor] = float(_squares(y, (x - level) / slope, floor)), -level / slope, 1 / slope
    floor = min(lines, key=lambda floor: lines[floor][0])
    return _forecast(far, floor, *lines[floor][1:])
