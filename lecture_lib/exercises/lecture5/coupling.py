"""5.5: who goes with whom."""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment

from lecture_lib.exercises.drawing import count, normal, number
from lecture_lib.exercises.task import question

# 5.5 -----------------------------------------------------------------------------------------------------------------


@question("5.5", 7, "minibatch optimal transport")
def partners(x0, x1):
    return x1[_optimal(squared_distances(x0, x1))]


def squared_distances(x0, x1):
    """(n, m), of all pairs."""
    return (x0[:, None] - x1[None]).square().sum(2)


def _optimal(cost, maximize=False):
    return torch.from_numpy(linear_sum_assignment(cost.numpy(), maximize=maximize)[1])


@partners.inputs
def _(g):
    n, d = count(g, 8, 12), count(g, 2, 3)
    return {"x0": normal(g, n, d, scale=0.8), "x1": normal(g, n, d, scale=1.3) + number(g, 0.2, 0.6)}


_CORNERS = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
_STEPS = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [2.0, 0.3]])
partners.edge("the same points in another order find themselves", _CORNERS, x0=_CORNERS, x1=_CORNERS[[1, 2, 0]])
partners.edge("two medium steps, or one long one and none", _STEPS[1], x0=_STEPS[0], x1=_STEPS[1])


@partners.mistake
def as_drawn(x0, x1):
    """The pairs are as they were drawn: the independent coupling."""
    return x1


@partners.mistake
def nearest(x0, x1):
    """Each takes its nearest point, and popular points are taken twice: then x1 does not keep its distribution."""
    return x1[squared_distances(x0, x1).argmin(1)]


@partners.mistake
def greedy(x0, x1):
    """The closest free pair goes first. What is left for the last ones is dear: it is the *sum* that counts."""
    cost, taken = squared_distances(x0, x1), torch.zeros(len(x0), dtype=torch.long)
    for _ in range(len(x0)):
        i, j = divmod(int(cost.argmin()), len(x0))
        taken[i], cost[i], cost[:, j] = j, math.inf, math.inf
    return x1[taken]


@partners.mistake
def first_come(x0, x1):
    """Each takes its nearest point of those that are left, row by row, and the last rows pay. The *sum* counts."""
    cost, taken = squared_distances(x0, x1), []
    for row in cost:
        taken.append(int(row.argmin()))
        cost[:, taken[-1]] = math.inf
    return x1[taken]


@partners.mistake
def taxicab(x0, x1):
    """The cost adds up absolute differences: a *squared* distance adds up squares."""
    return x1[_optimal((x0[:, None] - x1[None]).abs().sum(2))]


@partners.mistake
def torn_apart(x0, x1):
    """Each coordinate is sorted by itself: that tears the points apart, and makes new ones."""
    return x1.sort(0).values.gather(0, x0.argsort(0).argsort(0))


@partners.mistake
def x1_sorted(x0, x1):
    """x1 is sorted by its first coordinate, whatever x0 is: the rows of x0 are in no order."""
    return x1[x1[:, 0].argsort()]


@partners.mistake
def notsquared_distances(x0, x1):
    """The cost is the distance; of *squared* distances the sum is another, and so is the best pairing."""
    return x1[_optimal(squared_distances(x0, x1).sqrt())]


@partners.mistake
def dearest(x0, x1):
    """The dearest pairing: is the cost negative, or maximised?"""
    return x1[_optimal(squared_distances(x0, x1), maximize=True)]


@partners.mistake
def inverse_order(x0, x1):
    """The pairing is right, the order is its inverse: row i is to be the partner of x0[i], not x0's place for x1[i]."""
    return x1[_optimal(squared_distances(x0, x1)).argsort()]


@partners.mistake
def data_returned(x0, x1):
    """The data are brought into the order of x1; asked for is x1 in the order of the data."""
    return x0[_optimal(squared_distances(x0, x1)).argsort()]


@partners.mistake
def one_point(x0, x1):
    """One point of the batch decides for all: x1 is sorted by its distance from the first data point alone."""
    return x1[squared_distances(x0[:1], x1)[0].argsort()]


@partners.mistake
def first_coordinate(x0, x1):
    """Sorted by the first coordinate: that is optimal on a line, but here are more dimensions."""
    return x1[x1[:, 0].argsort()[x0[:, 0].argsort().argsort()]]
