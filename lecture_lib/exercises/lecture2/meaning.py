"""2.5 to 2.7: which density guidance points at, for Gaussians, on a table, and for several prompts."""

from __future__ import annotations

import torch

from lecture_lib.exercises.drawing import count, normal, number, shape, uniform
from lecture_lib.exercises.lecture2.rule import A, B
from lecture_lib.exercises.task import question

# 2.5 -----------------------------------------------------------------------------------------------------------------


@question("2.5", 12, "the density that guidance points at, for Gaussians")
def tilted_gaussian(mean_u, var_u, mean_c, var_c, w):
    precision = (1 - w) / var_u + w / var_c
    return ((1 - w) * mean_u / var_u + w * mean_c / var_c) / precision, 1 / precision


@tilted_gaussian.inputs
def _(g):
    wide = {"mean_u": number(g, -1, 1), "var_u": number(g, 2, 3)}
    narrow = {"mean_c": number(g, 1.5, 2.5), "var_c": number(g, 0.3, 0.9)}
    return {**wide, **narrow, "w": number(g, 1.5, 4)}


_PAIR = {"mean_u": 0.3, "var_u": 2.0, "mean_c": 1.7, "var_c": 0.5}
tilted_gaussian.edge("w = 0 is the unconditional density", [0.3, 2.0], **_PAIR, w=0.0)
tilted_gaussian.edge("w = 1 is the conditional density", [1.7, 0.5], **_PAIR, w=1.0)


@tilted_gaussian.mistake
def averaged(mean_u, var_u, mean_c, var_c, w):
    """Means and variances are mixed as if samples were. Densities are multiplied: precisions, 1/variance, add up."""
    return (1 - w) * mean_u + w * mean_c, (1 - w) * var_u + w * var_c


@tilted_gaussian.mistake
def deviation(**k):
    """A standard deviation is returned where a variance is asked for."""
    mean, variance = tilted_gaussian(**k)
    return mean, variance**0.5


@tilted_gaussian.mistake
def precision(**k):
    """The precision is returned: the variance is one over it."""
    mean, variance = tilted_gaussian(**k)
    return mean, 1 / variance


@tilted_gaussian.mistake
def exponents_exchanged(mean_u, var_u, mean_c, var_c, w):
    """The exponents are exchanged: 1 - w belongs to p(x) and w to p(x|c)."""
    return tilted_gaussian(mean_c, var_c, mean_u, var_u, w)


@tilted_gaussian.mistake
def counted_twice(mean_u, var_u, mean_c, var_c, w):
    """Exponents 1 and w: p(x) is counted once too often. The exponent w belongs to p(c|x), which is p(x|c)/p(x)."""
    total = 1 / var_u + w / var_c
    return (mean_u / var_u + w * mean_c / var_c) / total, 1 / total


@tilted_gaussian.mistake
def mean_unweighted(mean_u, var_u, mean_c, var_c, w):
    """The mean is not weighted by the precisions: the narrower factor pulls harder."""
    return (1 - w) * mean_u + w * mean_c, tilted_gaussian(mean_u, var_u, mean_c, var_c, w)[1]


@tilted_gaussian.mistake
def geometric_mean(mean_u, var_u, mean_c, var_c, w):
    """A geometric mean of the variances: with it the guided *ODE* ends (section 3.5), but not this product."""
    return (1 - w) * mean_u + w * mean_c, var_u ** (1 - w) * var_c**w


@tilted_gaussian.mistake
def variance_of_the_ode(mean_u, var_u, mean_c, var_c, w):
    """The mean is right; the variance is that with which the guided *ODE* ends (section 3.5)."""
    return tilted_gaussian(mean_u, var_u, mean_c, var_c, w)[0], var_u ** (1 - w) * var_c**w


@tilted_gaussian.mistake
def one_plus_w(mean_u, var_u, mean_c, var_c, w):
    """The convention of 1 + w: here the exponents are 1 - w and w, and w = 1 is p(x|c)."""
    return tilted_gaussian(mean_u, var_u, mean_c, var_c, 1 + w)


@tilted_gaussian.mistake
def squared_again(mean_u, var_u, mean_c, var_c, w):
    """The inputs are squared as if they were standard deviations: they are variances already."""
    return tilted_gaussian(mean_u, var_u**2, mean_c, var_c**2, w)


@tilted_gaussian.mistake
def mean_not_divided(mean_u, var_u, mean_c, var_c, w):
    """The variance is right; returned as mean is what stands before x in the exponent: a division is missing."""
    mean, variance = tilted_gaussian(mean_u, var_u, mean_c, var_c, w)
    return mean / variance, variance


@tilted_gaussian.mistake
def half_forgotten(**k):
    """The mean is right and the variance twice too large: before x^2 stands *half* of a precision."""
    mean, variance = tilted_gaussian(**k)
    return mean, 2 * variance


@tilted_gaussian.mistake
def half_too_many(**k):
    """The mean is right and the variance half of what it should be: look at the 1/2 in the exponent of a Gaussian."""
    mean, variance = tilted_gaussian(**k)
    return mean, variance / 2


@tilted_gaussian.mistake
def variance_first(**k):
    """Both numbers are right, but the mean comes first."""
    return tilted_gaussian(**k)[::-1]


# 2.6 -----------------------------------------------------------------------------------------------------------------


@question("2.6", 8, "the tilted distribution of a finite world")
def tilted_table(p_x, p_c_given_x, w):
    return _normalised(p_x * p_c_given_x**w)


def _normalised(p):
    return p / p.sum()


@tilted_table.inputs
def _(g):
    n = count(g, 5, 9)
    return {"p_x": torch.softmax(normal(g, n), 0), "p_c_given_x": uniform(g, n, low=0.1), "w": number(g, 1.5, 5)}


_P = torch.tensor([0.5, 0.25, 0.25])
tilted_table.edge("w = 0 is p(x)", _P, p_x=_P, p_c_given_x=torch.tensor([0.9, 0.5, 0.1]), w=0.0)
tilted_table.edge("w = 1 is Bayes' rule", _P[[1, 0, 1]], p_x=_P, p_c_given_x=torch.tensor([0.2, 0.8, 0.4]), w=1.0)


@tilted_table.mistake
def not_normalised(p_x, p_c_given_x, w):
    """It is not normalised: probabilities add up to 1."""
    return p_x * p_c_given_x**w


@tilted_table.mistake
def factor_for_exponent(p_x, p_c_given_x, w):
    """w is a factor here, and cancels: it belongs into the exponent, since it multiplies the *logarithm*."""
    return _normalised(w * p_x * p_c_given_x)


@tilted_table.mistake
def exponent_on_all(p_x, p_c_given_x, w):
    """The exponent is on all of p(x) p(c|x): p(x) itself has exponent 1."""
    return _normalised((p_x * p_c_given_x) ** w)


@tilted_table.mistake
def exponent_on_prior(p_x, p_c_given_x, w):
    """The exponent is on p(x) instead of p(c|x)."""
    return _normalised(p_x**w * p_c_given_x)


@tilted_table.mistake
def without_prior(p_x, p_c_given_x, w):
    """p(x) is missing: p(c|x)^w alone is a likelihood, not a distribution of x."""
    return _normalised(p_c_given_x**w)


@tilted_table.mistake
def largest_is_one(p_x, p_c_given_x, w):
    """Divided by the largest number: they must *add up* to 1."""
    p = p_x * p_c_given_x**w
    return p / p.max()


@tilted_table.mistake
def taken_for_a_class(p_x, p_c_given_x, w):
    """The exponents 1 - w and w belong to p(x) and p(x|c); what is given here is p(c|x)."""
    return _normalised(p_x ** (1 - w) * p_c_given_x**w)


@tilted_table.mistake
def exponent_one_plus_w(p_x, p_c_given_x, w):
    """The exponent is 1 + w: in this course w = 0 is p(x), and w = 1 is Bayes' rule."""
    return tilted_table(p_x, p_c_given_x, 1 + w)


@tilted_table.mistake
def w_unused(p_x, p_c_given_x, w):
    """w does nothing: this is Bayes' rule, whatever w is."""
    return _normalised(p_x * p_c_given_x)


@tilted_table.mistake
def mixed(p_x, p_c_given_x, w):
    """Probabilities are mixed with the weights 1 - w and w, and may turn negative: guidance mixes *logarithms*."""
    return (1 - w) * p_x + w * _normalised(p_x * p_c_given_x)


@tilted_table.mistake
def softmax_of_probabilities(p_x, p_c_given_x, w):
    """A softmax of probabilities: it takes their logarithms. What is positive already is divided by its sum."""
    return torch.softmax(p_x * p_c_given_x**w, 0)


# 2.7 -----------------------------------------------------------------------------------------------------------------


@question("2.7", 7, "several prompts, some of them negative")
def composed(uncond, conds, weights):
    return uncond + (weights[:, None, None] * (conds - uncond)).sum(0)


@composed.inputs
def _(g):
    k, b, d = shape(g, 3)
    return {"uncond": normal(g, b, d), "conds": normal(g, k, b, d), "weights": uniform(g, k, low=-2.0, high=4.0)}


_TWO = torch.stack([B, -B])
composed.edge("weights 0 leave the unconditional prediction", A, uncond=A, conds=_TWO, weights=torch.zeros(2))
composed.edge("one weight 1: that prompt's prediction", B, uncond=A, conds=_TWO, weights=torch.tensor([1.0, 0.0]))
composed.edge(
    "a weight -1 alone mirrors that prompt at the unconditional prediction",
    2 * A + B, uncond=A, conds=_TWO, weights=torch.tensor([0.0, -1.0]),
)  # fmt: skip


@composed.mistake
def not_taken_away(uncond, conds, weights):
    """The predictions are summed without taking the unconditional one away from each."""
    return uncond + (weights[:, None, None] * conds).sum(0)


@composed.mistake
def mean_of_prompts(uncond, conds, weights):
    """A mean over prompts: the weights say how much each counts, and they need not add up to anything."""
    return uncond + (weights[:, None, None] * (conds - uncond)).mean(0)


@composed.mistake
def weights_normalised(uncond, conds, weights):
    """The weights are divided by their sum; then a single prompt could never have w = 3."""
    return uncond + (weights[:, None, None] * (conds - uncond)).sum(0) / weights.sum()


@composed.mistake
def sign_ignored(uncond, conds, weights):
    """Negative weights are counted as positive ones: those prompts are to be avoided."""
    return composed(uncond, conds, weights.abs())


@composed.mistake
def nowhere_to_start(uncond, conds, weights):
    """The unconditional prediction that everything starts from is missing."""
    return composed(uncond, conds, weights) - uncond


@composed.mistake
def one_after_the_other(uncond, conds, weights):
    """Each prompt starts where the last one ended; all of them start at the unconditional prediction."""
    for cond, w in zip(conds, weights, strict=True):
        uncond = uncond + w * (cond - uncond)
    return uncond


@composed.mistake
def conditionals_alone(uncond, conds, weights):
    """The unconditional prediction is nowhere in it: with all weights 0 it is what must be left."""
    return (weights[:, None, None] * conds).sum(0)


@composed.mistake
def start_repeated(uncond, conds, weights):
    """The unconditional prediction that everything starts from is counted once for each prompt."""
    return composed(uncond, conds, weights) + (len(conds) - 1) * uncond


@composed.mistake
def bracket(uncond, conds, weights):
    """The weights stand before the prompts' predictions alone: they belong to the differences."""
    return uncond + (weights[:, None, None] * conds - uncond).sum(0)


@composed.mistake
def last_prompt(uncond, conds, weights):
    """Only the last prompt is left: is the sum overwritten in each turn of a loop?"""
    return composed(uncond, conds[-1:], weights[-1:])


@composed.mistake
def negative_dropped(uncond, conds, weights):
    """Prompts with a negative weight are left out: they push away."""
    return composed(uncond, conds, weights.clamp(min=0))
