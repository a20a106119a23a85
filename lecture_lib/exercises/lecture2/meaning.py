"""2.5 to 2.7: which density guidance points at, for Gaussians, on a table, and for several prompts."""

from __future__ import annotations

import torch
from torch import Tensor

from lecture_lib.exercises.drawing import count, normal, number, shape, uniform
from lecture_lib.exercises.lecture2.rule import A, B
from lecture_lib.exercises.task import Case, Mistake, Task

# 2.5 What it means: the tilted Gaussian ----------------------------------------------------------------------------------


def tilted_gaussian(mean_u: float, var_u: float, mean_c: float, var_c: float, w: float) -> list[float]:
    precision = (1 - w) / var_u + w / var_c
    return [((1 - w) * mean_u / var_u + w * mean_c / var_c) / precision, 1 / precision]


def _mixed(mean_u, var_u, mean_c, var_c, w):
    mean = (1 - w) * mean_u + w * mean_c
    return [mean, (1 - w) * var_u + w * var_c]


TILTED = Task(
    "2.5", "tilted_gaussian", 12, "the density that guidance points at, for Gaussians", tilted_gaussian,
    lambda g: {"mean_u": number(g, -1.0, 1.0), "var_u": number(g, 2.0, 3.0), "mean_c": number(g, 1.5, 2.5),
               "var_c": number(g, 0.3, 0.9), "w": number(g, 1.5, 4.0)},
    edges=(
        Case({"mean_u": 0.3, "var_u": 2.0, "mean_c": 1.7, "var_c": 0.5, "w": 0.0}, "w = 0 is the unconditional density", [0.3, 2.0]),
        Case({"mean_u": 0.3, "var_u": 2.0, "mean_c": 1.7, "var_c": 0.5, "w": 1.0}, "w = 1 is the conditional one", [1.7, 0.5]),
    ),
    mistakes=(
        Mistake("Means and variances are mixed as if samples were averaged. Densities are multiplied: precisions (1/variance) add up.", _mixed),
        Mistake("A standard deviation is returned where a variance is asked for.",
                lambda **k: [tilted_gaussian(**k)[0], tilted_gaussian(**k)[1] ** 0.5]),
        Mistake("The precision is returned: the variance is one over it.",
                lambda **k: [tilted_gaussian(**k)[0], 1 / tilted_gaussian(**k)[1]]),
        Mistake("The exponents are exchanged: p(x)^(1-w) p(x|c)^w.",
                lambda mean_u, var_u, mean_c, var_c, w: tilted_gaussian(mean_c, var_c, mean_u, var_u, w)),
        Mistake("The exponents 1 and w: that is p(x) p(x|c)^w, and counts p(x) once too often; p(c|x) is p(x|c)/p(x).",
                lambda mean_u, var_u, mean_c, var_c, w: [(mean_u / var_u + w * mean_c / var_c) / (1 / var_u + w / var_c),
                                                         1 / (1 / var_u + w / var_c)]),
        Mistake("The mean is not weighted by the precisions: the narrower factor pulls harder.",
                lambda mean_u, var_u, mean_c, var_c, w: [(1 - w) * mean_u + w * mean_c,
                                                         tilted_gaussian(mean_u, var_u, mean_c, var_c, w)[1]]),
    ),
)  # fmt: skip

# 2.6 The same on a table -------------------------------------------------------------------------------------------------


def tilted_table(p_x: Tensor, p_c_given_x: Tensor, w: float) -> Tensor:
    raw = p_x * p_c_given_x**w
    return raw / raw.sum()


def _table(g: torch.Generator) -> dict:
    n = count(g, 5, 9)
    return {"p_x": torch.softmax(normal(g, n), 0), "p_c_given_x": uniform(g, n, low=0.1), "w": number(g, 1.5, 5.0)}


TABLE = Task(
    "2.6", "tilted_table", 8, "the tilted distribution of a finite world", tilted_table, _table,
    edges=(
        Case({"p_x": torch.tensor([0.2, 0.3, 0.5]), "p_c_given_x": torch.tensor([0.9, 0.5, 0.1]), "w": 0.0},
             "w = 0 is p(x)", torch.tensor([0.2, 0.3, 0.5])),
        Case({"p_x": torch.tensor([0.5, 0.25, 0.25]), "p_c_given_x": torch.tensor([0.2, 0.8, 0.4]), "w": 1.0},
             "w = 1 is Bayes' rule", torch.tensor([0.1, 0.2, 0.1]) / 0.4),
    ),
    mistakes=(
        Mistake("It is not normalised: probabilities add up to 1.", lambda p_x, p_c_given_x, w: p_x * p_c_given_x**w),
        Mistake("w multiplies p(c|x); as an exponent it belongs there: w times the *logarithm*.",
                lambda p_x, p_c_given_x, w: (w * p_x * p_c_given_x) / (w * p_x * p_c_given_x).sum()),
        Mistake("The exponent is on all of p(x) p(c|x); p(x) has exponent 1.",
                lambda p_x, p_c_given_x, w: (p_x * p_c_given_x) ** w / ((p_x * p_c_given_x) ** w).sum()),
        Mistake("The exponent is on p(x) instead of p(c|x).",
                lambda p_x, p_c_given_x, w: p_x**w * p_c_given_x / (p_x**w * p_c_given_x).sum()),
        Mistake("p(x) is missing: p(c|x)^w alone is a likelihood, not a distribution of x.",
                lambda p_x, p_c_given_x, w: p_c_given_x**w / (p_c_given_x**w).sum()),
        Mistake("Divided by the largest number; they must add up to 1.",
                lambda p_x, p_c_given_x, w: p_x * p_c_given_x**w / (p_x * p_c_given_x**w).max()),
    ),
)  # fmt: skip

# 2.7 Several prompts -----------------------------------------------------------------------------------------------------


def composed(uncond: Tensor, conds: Tensor, weights: Tensor) -> Tensor:
    return uncond + (weights[:, None, None] * (conds - uncond)).sum(0)


def _several(g: torch.Generator) -> dict:
    k, b, d = shape(g, 3)
    return {"uncond": normal(g, b, d), "conds": normal(g, k, b, d), "weights": uniform(g, k, low=-2.0, high=4.0)}


def _one_after_the_other(uncond, conds, weights):
    for cond, w in zip(conds, weights, strict=True):
        uncond = uncond + w * (cond - uncond)
    return uncond


COMPOSED = Task(
    "2.7", "composed", 7, "several prompts, some of them negative", composed, _several,
    edges=(
        Case({"uncond": A, "conds": torch.stack([B, -B]), "weights": torch.zeros(2)}, "weights 0 leave the unconditional prediction", A),
        Case({"uncond": A, "conds": torch.stack([B, -B]), "weights": torch.tensor([1.0, 0.0])}, "one weight 1: that prompt's prediction", B),
    ),
    mistakes=(
        Mistake("The predictions are summed without taking the unconditional one away from each.",
                lambda uncond, conds, weights: uncond + (weights[:, None, None] * conds).sum(0)),
        Mistake("The mean over prompts: the weights say how much each counts, and they need not add up to anything.",
                lambda uncond, conds, weights: uncond + (weights[:, None, None] * (conds - uncond)).mean(0)),
        Mistake("The weights are normalised; then a single prompt could never have w = 3.",
                lambda uncond, conds, weights: uncond + (weights[:, None, None] * (conds - uncond)).sum(0) / weights.sum()),
        Mistake("Negative weights are counted as positive ones: those prompts are to be avoided.",
                lambda uncond, conds, weights: uncond + (weights.abs()[:, None, None] * (conds - uncond)).sum(0)),
        Mistake("The unconditional prediction that everything starts from is missing.",
                lambda uncond, conds, weights: (weights[:, None, None] * (conds - uncond)).sum(0)),
        Mistake("Each step starts where the last one ended; all of them start at the unconditional prediction.",
                _one_after_the_other),
    ),
)  # fmt: skip
