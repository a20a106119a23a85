"""2.1 to 2.4: the rule, where it comes from, what it needs of training, and in which words it is told."""

from __future__ import annotations

import torch
from torch import Tensor

from lecture_lib.exercises.drawing import count, normal, number, shape, uniform
from lecture_lib.exercises.task import Case, Mistake, Task

A, B = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]]), torch.tensor([[1.0, 0.5, -1.5], [-0.5, 2.0, 0.3]])

# 2.1 The rule ----------------------------------------------------------------------------------------------------------


def guided(uncond: Tensor, cond: Tensor, w: float) -> Tensor:
    return uncond + w * (cond - uncond)


RULE = Task(
    "2.1", "guided", 5, "the guidance rule", guided,
    lambda g: {"uncond": normal(g, *(s := shape(g))), "cond": normal(g, *s), "w": number(g, 1.6, 8.4)},
    edges=(
        Case({"uncond": A, "cond": B, "w": 0.0}, "w = 0 gives the unconditional prediction", A),
        Case({"uncond": A, "cond": B, "w": 1.0}, "w = 1 gives the conditional prediction", B),
    ),
    mistakes=(
        Mistake("That is the convention of 1 + w (Ho & Salimans): there w = 0 is the conditional model. In this course w = 1 is.",
                lambda uncond, cond, w: (1 + w) * cond - w * uncond),
        Mistake("The conditional prediction is scaled by w and the unconditional one by w - 1, with a plus: they must add up to 1.",
                lambda uncond, cond, w: w * cond + (w - 1) * uncond),
        Mistake("The two predictions are exchanged: the step goes from the unconditional one towards the conditional one.",
                lambda uncond, cond, w: cond + w * (uncond - cond)),
        Mistake("That scales the conditional prediction alone: with w = 0 the unconditional one must be left.",
                lambda uncond, cond, w: w * cond),
        Mistake("The unconditional prediction that the step starts from is missing.",
                lambda uncond, cond, w: w * (cond - uncond)),
    ),
)  # fmt: skip

# 2.2 Classifier guidance -----------------------------------------------------------------------------------------------


def classifier_guided(eps: Tensor, grad_log_prob: Tensor, sigma: Tensor, scale: float) -> Tensor:
    return eps - scale * sigma[:, None] * grad_log_prob


def _noisy(g: torch.Generator) -> dict:
    b, d = shape(g)
    return {"eps": normal(g, b, d), "grad_log_prob": normal(g, b, d), "sigma": uniform(g, b, low=0.2, high=0.9),
            "scale": number(g, 1.3, 4.7)}  # fmt: skip


CLASSIFIER = Task(
    "2.2", "classifier_guided", 8, "classifier guidance of a noise prediction", classifier_guided, _noisy,
    edges=(
        Case({"eps": A, "grad_log_prob": B, "sigma": torch.tensor([0.3, 0.8]), "scale": 0.0}, "scale 0 changes nothing", A),
        Case({"eps": A, "grad_log_prob": B, "sigma": torch.zeros(2), "scale": 2.5}, "without noise the prediction stays", A),
    ),
    mistakes=(
        Mistake("The sign: the score is minus the noise over sigma, so what is added to the score is taken from the noise.",
                lambda eps, grad_log_prob, sigma, scale: eps + scale * sigma[:, None] * grad_log_prob),
        Mistake("The gradient is added to the noise as if it were a score: a factor sigma lies between the two.",
                lambda eps, grad_log_prob, sigma, scale: eps - scale * grad_log_prob),
        Mistake("sigma squared: that factor belongs to the prediction of the clean data, for the noise it is sigma.",
                lambda eps, grad_log_prob, sigma, scale: eps - scale * sigma[:, None] ** 2 * grad_log_prob),
        Mistake("Divided by sigma: score = -noise/sigma, so a change of the score is *multiplied* by sigma.",
                lambda eps, grad_log_prob, sigma, scale: eps - scale * grad_log_prob / sigma[:, None]),
        Mistake("One sigma for the whole batch: each sample has its own.",
                lambda eps, grad_log_prob, sigma, scale: eps - scale * sigma.mean() * grad_log_prob),
    ),
)  # fmt: skip

# 2.3 Label dropout -----------------------------------------------------------------------------------------------------


def drop_labels(labels: Tensor, null: int, p: float, u: Tensor) -> Tensor:
    return torch.where(u < p, torch.full_like(labels, null), labels)


def _labels(g: torch.Generator) -> dict:
    n, classes = count(g, 40, 60), count(g, 5, 9)
    return {"labels": torch.randint(classes, (n,), generator=g), "null": classes, "p": number(g, 0.15, 0.4),
            "u": uniform(g, n)}  # fmt: skip


def _labels_at(p: float) -> dict:
    return {"labels": torch.tensor([3, 0, 2, 1]), "null": 4, "p": p, "u": torch.tensor([0.05, 0.3, 0.6, 0.95])}


DROPOUT = Task(
    "2.3", "drop_labels", 8, "label dropout", drop_labels, _labels,
    edges=(
        Case(_labels_at(0.0), "p = 0 drops nothing", torch.tensor([3, 0, 2, 1])),
        Case(_labels_at(1.0), "p = 1 drops all", torch.tensor([4, 4, 4, 4])),
    ),
    mistakes=(
        Mistake("Inverted: p is the share of labels that are *dropped*; this keeps that share.",
                lambda labels, null, p, u: torch.where(u < p, labels, torch.full_like(labels, null))),
        Mistake("The whole batch is dropped or kept together: each sample has a number u of its own.",
                lambda labels, null, p, u: torch.full_like(labels, null) if u[0] < p else labels),
        Mistake("Dropped labels become class 0, which is a class like any other: `null` stands for none.",
                lambda labels, null, p, u: torch.where(u < p, torch.zeros_like(labels), labels)),
        Mistake("Kept where u > 1 - p: with the numbers u as they are given, a label goes where u < p.",
                lambda labels, null, p, u: torch.where(u > 1 - p, torch.full_like(labels, null), labels)),
        Mistake("Dropped labels become null - 1, the last class: labels count from 0, so `null` itself is the free number.",
                lambda labels, null, p, u: torch.where(u < p, torch.full_like(labels, null - 1), labels)),
    ),
)  # fmt: skip

# 2.4 Guidance of noise, told as data -----------------------------------------------------------------------------------


def guided_data(x_t: Tensor, eps_uncond: Tensor, eps_cond: Tensor, w: float, alpha: float, sigma: float) -> Tensor:
    return (x_t - sigma * guided(eps_uncond, eps_cond, w)) / alpha


def _told(g: torch.Generator) -> dict:
    s = shape(g)
    return {"x_t": normal(g, *s), "eps_uncond": normal(g, *s), "eps_cond": normal(g, *s), "w": number(g, 1.6, 5.0),
            "alpha": number(g, 0.3, 0.6), "sigma": number(g, 0.65, 0.9)}  # fmt: skip


TOLD = Task(
    "2.4", "guided_data", 8, "guided noise, told as clean data", guided_data, _told,
    edges=(Case({"x_t": A, "eps_uncond": B, "eps_cond": -B, "w": 2.5, "alpha": 1.0, "sigma": 0.0}, "without noise x_t is the data", A),),
    mistakes=(
        Mistake("The guided *noise* is returned; asked for are the clean data that it implies.",
                lambda x_t, eps_uncond, eps_cond, w, alpha, sigma: guided(eps_uncond, eps_cond, w)),
        Mistake("The sign of the noise: x_t = alpha x0 + sigma eps, so the noise is taken away.",
                lambda x_t, eps_uncond, eps_cond, w, alpha, sigma: (x_t + sigma * guided(eps_uncond, eps_cond, w)) / alpha),
        Mistake("The division by alpha is missing: what is left of x_t without noise is alpha x0.",
                lambda x_t, eps_uncond, eps_cond, w, alpha, sigma: x_t - sigma * guided(eps_uncond, eps_cond, w)),
        Mistake("alpha and sigma are exchanged.",
                lambda x_t, eps_uncond, eps_cond, w, alpha, sigma: (x_t - alpha * guided(eps_uncond, eps_cond, w)) / sigma),
        Mistake("The convention of 1 + w, here too.",
                lambda x_t, eps_uncond, eps_cond, w, alpha, sigma: (x_t - sigma * guided(eps_uncond, eps_cond, 1 + w)) / alpha),
        Mistake("Only the noise within the bracket is divided by alpha: all of it must be.",
                lambda x_t, eps_uncond, eps_cond, w, alpha, sigma: x_t - sigma * guided(eps_uncond, eps_cond, w) / alpha),
    ),
)  # fmt: skip

