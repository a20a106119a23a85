"""5.10 and 5.11: an energy is learned, and a density goes downhill."""

from __future__ import annotations

import math

import torch

from lecture_lib.exercises.drawing import normal, number, shape
from lecture_lib.exercises.lecture5.mixing import A
from lecture_lib.exercises.stages import lecture5 as stages
from lecture_lib.exercises.task import question

# 5.10 ----------------------------------------------------------------------------------------------------------------


@question("5.10", 8, "Hyvärinen's loss of an energy")
def hyvarinen(energy, x):
    slope, curves = _derivatives(energy, x)
    return (0.5 * slope.square().sum(1) - curves.diagonal(dim1=1, dim2=2).sum(1)).mean()


def _derivatives(energy, x):
    """Gradient (b, d) and Hessian (b, d, d) of each sample."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    rows = [torch.autograd.grad(s.sum(), x, create_graph=True)[0] for s in slope.unbind(1)]
    return slope, torch.stack(rows, 1)


hyvarinen.stage(stages.matching)
hyvarinen.compares("the loss", "what the energy's stiffness hears", "what the weights of its waves hear")


@hyvarinen.inputs
def _(g):
    b, d = shape(g)
    turn = normal(g, d, d, scale=0.4)
    waves = {"weights": normal(g, d + 2, scale=0.7), "waves": normal(g, d + 2, d, scale=0.8)}
    return {"x": normal(g, b, d), "stiffness": torch.eye(d) + turn + turn.T, **waves}


_NO_WAVES = {"weights": torch.zeros(2), "waves": torch.zeros(2, 3)}
_SECOND = A.T @ A / len(A)


def _parabola(k):
    """E = k |x|^2 / 2, and what its stiffness hears."""
    loss = k**2 / 2 * float(_SECOND.trace()) - 3 * k
    return loss, k * _SECOND - torch.eye(3), torch.zeros(2)


hyvarinen.edge("a parabola", _parabola(1.5), x=A, stiffness=1.5 * torch.eye(3), **_NO_WAVES)
hyvarinen.edge("no landscape yet: it is told to bend", _parabola(0.0), x=A, stiffness=torch.zeros(3, 3), **_NO_WAVES)


def _loss(energy, x, half=0.5, bent=-1.0):
    slope, curves = _derivatives(energy, x)
    return (half * slope.square().sum(1) + bent * curves.diagonal(dim1=1, dim2=2).sum(1)).mean()


@hyvarinen.mistake
def slope_alone(energy, x):
    """The second derivative is missing: what is left is smallest for an energy that is the same everywhere."""
    return _loss(energy, x, bent=0.0)


@hyvarinen.mistake
def bent_down(energy, x):
    """The sign of the second term: a score's divergence is *added*, and the score is minus the slope of the energy."""
    return _loss(energy, x, bent=1.0)


@hyvarinen.mistake
def no_half(energy, x):
    """A factor before the squared slope is missing: for normal data the best parabola would be too flat."""
    return _loss(energy, x, half=1.0)


@hyvarinen.mistake
def half_of_both(energy, x):
    """The half belongs to the squared slope only: integration by parts takes the cross term, which has a factor 2."""
    return _loss(energy, x, bent=-0.5)


@hyvarinen.mistake
def whole_hessian(energy, x):
    """The gradient of the *sum* of the slopes adds up the whole Hessian: the Laplacian is its diagonal alone."""
    slope, curves = _derivatives(energy, x)
    return (0.5 * slope.square().sum(1) - curves.sum((1, 2))).mean()


@hyvarinen.mistake
def curvature_constant(energy, x):
    """The number is right, but no gradient flows through the second derivative: keep the way back there, too."""
    slope, curves = _derivatives(energy, x)
    return (0.5 * slope.square().sum(1) - curves.detach().diagonal(dim1=1, dim2=2).sum(1)).mean()


@hyvarinen.mistake
def length(energy, x):
    """The length of the slope stands where its square belongs."""
    slope, curves = _derivatives(energy, x)
    return (0.5 * (slope.square().sum(1) + 1e-12).sqrt() - curves.diagonal(dim1=1, dim2=2).sum(1)).mean()


@hyvarinen.mistake
def summed_batch(energy, x):
    """A sum over the batch: the mean is asked for."""
    return len(x) * _loss(energy, x)


@hyvarinen.mistake
def mean_over_numbers(energy, x):
    """A mean over the dimensions as well: squared length and Laplacian are sums over them."""
    return _loss(energy, x) / x.shape[1]


@hyvarinen.mistake
def slope_averaged(energy, x):
    """The squared slope is averaged over the dimensions: a squared length is a *sum* over them."""
    return _loss(energy, x, half=0.5 / x.shape[1])


@hyvarinen.mistake
def slope_of_the_mean(energy, x):
    """Slope and curvature of the *mean* energy have a factor 1/b in them: each sample has its own."""
    return _loss(energy, x, half=0.5 / len(x) ** 2, bent=-1 / len(x))


@hyvarinen.mistake
def slope_constant(energy, x):
    """The number is right, but no gradient flows through the squared slope: it must get through both terms."""
    slope, curves = _derivatives(energy, x)
    return (0.5 * slope.detach().square().sum(1) - curves.diagonal(dim1=1, dim2=2).sum(1)).mean()


@hyvarinen.mistake
def without_a_way(energy, x):
    """The number is right, but it is nothing else: no gradient flows from it. Is there an `item()`, a `detach()`, a
    `no_grad`?"""
    return _loss(energy, x).item()


@hyvarinen.mistake
def curves_squared(energy, x):
    """The second derivatives are squared: the Laplacian adds them up with their signs."""
    slope, curves = _derivatives(energy, x)
    return (0.5 * slope.square().sum(1) - curves.diagonal(dim1=1, dim2=2).square().sum(1)).mean()


# 5.11 ----------------------------------------------------------------------------------------------------------------


@question("5.11", 7, "a step of JKO between Gaussians")
def jko_step(mean, var, tau, goal_mean, goal_var):
    spread = _stationary(1 / goal_var + 1 / tau, math.sqrt(var) / tau)
    return _mean(mean, tau, goal_mean, goal_var), spread**2


def _mean(mean, tau, goal_mean, goal_var):
    return (mean / tau + goal_mean / goal_var) / (1 / tau + 1 / goal_var)


def _stationary(a, b, sign=1):
    """The root of a s^2 - b s - 1."""
    return (b + sign * math.sqrt(b**2 + 4 * a)) / (2 * a)


@jko_step.inputs
def _(g):
    start = {"mean": number(g, 1, 3), "var": number(g, 0.1, 0.5), "tau": number(g, 0.3, 0.9)}
    return {**start, "goal_mean": number(g, -1, -0.2), "goal_var": number(g, 1.3, 2.4)}


jko_step.compares("the mean", "the variance")
_GOAL = {"goal_mean": -0.4, "goal_var": 1.7}
jko_step.edge("the goal stays where it is", [-0.4, 1.7], mean=-0.4, var=1.7, tau=0.6, **_GOAL)
jko_step.edge("a very long step arrives", [-0.4, 1.7], mean=2.5, var=0.3, tau=1e7, **_GOAL)
jko_step.edge(
    "from a single point", [(2.5 / 0.5 - 0.4 / 1.7) / (2 + 1 / 1.7), 1 / (2 + 1 / 1.7)], mean=2.5, var=0.0, tau=0.5,
    **_GOAL,
)  # fmt: skip


@jko_step.mistake
def deviation(**k):
    """A standard deviation is returned where a variance is asked for."""
    mean, var = jko_step(**k)
    return mean, math.sqrt(var)


@jko_step.mistake
def explicit(mean, var, tau, goal_mean, goal_var):
    """An explicit step, by the slope where it *starts*: JKO is implicit, it looks for the best place to arrive."""
    return mean - tau * (mean - goal_mean) / goal_var, var + 2 * tau * (1 - var / goal_var)


@jko_step.mistake
def exact_flow(mean, var, tau, goal_mean, goal_var):
    """The exact flow for a time tau, Ornstein-Uhlenbeck: JKO's step comes close to it only as tau goes to 0."""
    left = math.exp(-tau / goal_var)
    return goal_mean + (mean - goal_mean) * left, goal_var + (var - goal_var) * left**2


@jko_step.mistake
def half_forgotten(mean, var, tau, goal_mean, goal_var):
    """The squared distance is divided by tau, not by 2 tau: the step is too short."""
    return jko_step(mean, var, tau / 2, goal_mean, goal_var)


@jko_step.mistake
def no_entropy(mean, var, tau, goal_mean, goal_var):
    """The entropy is missing from F: with the potential alone all mass falls into one point."""
    return _mean(mean, tau, goal_mean, goal_var), var / (1 + tau / goal_var) ** 2


@jko_step.mistake
def precisions_added(mean, var, tau, goal_mean, goal_var):
    """Variances are mixed as means are, by precisions: between Gaussians W2 is a distance of standard *deviations*."""
    share = 1 / (1 + tau / goal_var)
    return _mean(mean, tau, goal_mean, goal_var), share * var + (1 - share) * goal_var


@jko_step.mistake
def mixture(mean, var, tau, goal_mean, goal_var):
    """A share of the mass is sent all the way, the rest stays: a mixture, which is far too wide. A step moves *all*."""
    go = 1 - 1 / (1 + tau / goal_var)
    spread = (1 - go) * var + go * goal_var + go * (1 - go) * (goal_mean - mean) ** 2
    return _mean(mean, tau, goal_mean, goal_var), spread


@jko_step.mistake
def unit_goal(mean, var, tau, goal_mean, goal_var):
    """The width of the goal is not used, as if it were 1."""
    return jko_step(mean, var, tau, goal_mean, 1.0)


@jko_step.mistake
def centred_goal(mean, var, tau, goal_mean, goal_var):
    """The goal is taken to lie at 0."""
    return jko_step(mean, var, tau, 0.0, goal_var)


@jko_step.mistake
def variance_in_distance(mean, var, tau, goal_mean, goal_var):
    """W2 is written with variances: between Gaussians it is the difference of the standard deviations that counts."""
    spread = _stationary(1 / goal_var + 1 / tau, var / tau)
    return _mean(mean, tau, goal_mean, goal_var), spread**2


@jko_step.mistake
def exchanged(**k):
    """Mean and variance are exchanged: the mean comes first."""
    mean, var = jko_step(**k)
    return var, mean


@jko_step.mistake
def negative_root(mean, var, tau, goal_mean, goal_var):
    """Of the two roots the negative one: squared it looks like a variance, but no standard deviation is negative."""
    spread = _stationary(1 / goal_var + 1 / tau, math.sqrt(var) / tau, sign=-1)
    return _mean(mean, tau, goal_mean, goal_var), spread**2


@jko_step.mistake
def goal_as_deviation(mean, var, tau, goal_mean, goal_var):
    """goal_var is squared: it is a variance already."""
    return jko_step(mean, var, tau, goal_mean, goal_var**2)


@jko_step.mistake
def goal_deviation(mean, var, tau, goal_mean, goal_var):
    """The goal's standard deviation divides the KL: its variance does."""
    return jko_step(mean, var, tau, goal_mean, math.sqrt(goal_var))


@jko_step.mistake
def square_not_derived(mean, var, tau, goal_mean, goal_var):
    """The derivative of the squared distance lacks its factor: the step is too long."""
    return jko_step(mean, var, 2 * tau, goal_mean, goal_var)


@jko_step.mistake
def goal_not_derived(mean, var, tau, goal_mean, goal_var):
    """The half in the KL is lost when it is differentiated: the goal pulls twice too hard."""
    return jko_step(mean, var, tau, goal_mean, goal_var / 2)


@jko_step.mistake
def deviations_mixed(mean, var, tau, goal_mean, goal_var):
    """Standard deviations are mixed as means are. The logarithm in the KL makes the second equation a quadratic one."""
    spread = _mean(math.sqrt(var), tau, math.sqrt(goal_var), goal_var)
    return _mean(mean, tau, goal_mean, goal_var), spread**2


@jko_step.mistake
def weights_exchanged(mean, var, tau, goal_mean, goal_var):
    """The weights of the two means are exchanged: a long step ends near the *goal*."""
    return _mean(goal_mean, tau, mean, goal_var), jko_step(mean, var, tau, goal_mean, goal_var)[1]


@jko_step.mistake
def explicit_deviation(mean, var, tau, goal_mean, goal_var):
    """An explicit step of the standard deviation, which fails from a single point: set the derivative to zero at the
    place where the step *arrives*."""
    std = math.sqrt(var)
    return mean - tau * (mean - goal_mean) / goal_var, (std - tau * (std / goal_var - 1 / std)) ** 2
