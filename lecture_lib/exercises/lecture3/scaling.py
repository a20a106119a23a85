"""3.10: what a scaling law foretells."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import count, normal, number
from lecture_lib.exercises.task import question


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
