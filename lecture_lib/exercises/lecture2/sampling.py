"""2.11 and 2.12: a guided step, and the boss."""

from __future__ import annotations

import torch
from torch import Tensor

from lecture_lib.exercises.drawing import count, normal, number, shape, uniform
from lecture_lib.exercises.lecture2.rule import A, B
from lecture_lib.exercises.task import Case, Mistake, Task

# 2.11 A guided DDIM step --------------------------------------------------------------------------------------------------


def guided_step(x: Tensor, eps_uncond: Tensor, eps_cond: Tensor, w: float, now: list[float], then: list[float]) -> Tensor:
    eps = eps_uncond + w * (eps_cond - eps_uncond)
    (alpha, sigma), (alpha_then, sigma_then) = now, then
    return alpha_then * (x - sigma * eps) / alpha + sigma_then * eps


def _step(g: torch.Generator) -> dict:
    s = shape(g)
    return {"x": normal(g, *s), "eps_uncond": normal(g, *s), "eps_cond": normal(g, *s), "w": number(g, 1.6, 5.0),
            "now": [number(g, 0.3, 0.45), number(g, 0.85, 0.95)], "then": [number(g, 0.6, 0.75), number(g, 0.5, 0.7)]}  # fmt: skip


def _with(change):
    """A guided step with its guided noise, or its two levels, changed."""

    def step(x, eps_uncond, eps_cond, w, now, then):
        return change(x, eps_uncond, eps_cond, eps_uncond + w * (eps_cond - eps_uncond), *now, *then)

    return step


STEP = Task(
    "2.11", "guided_step", 8, "one guided step of DDIM", guided_step, _step,
    edges=(
        Case({"x": A, "eps_uncond": B, "eps_cond": B / 2, "w": 2.0, "now": [0.6, 0.8], "then": [0.6, 0.8]}, "a step of length 0 stays", A),
        Case({"x": 0.6 * A + 0.8 * B, "eps_uncond": B, "eps_cond": B, "w": 3.0, "now": [0.6, 0.8], "then": [1.0, 0.0]}, "with the true noise the last step gives the data", A),
    ),
    mistakes=(
        Mistake("The noise that is put back is the unconditional one: that is CFG++, a sampler of its own. Here both uses of the noise are guided.",
                _with(lambda x, u, c, e, a, s, a2, s2: a2 * (x - s * e) / a + s2 * u)),
        Mistake("The clean data are computed with the conditional noise: guidance belongs there, too.",
                _with(lambda x, u, c, e, a, s, a2, s2: a2 * (x - s * c) / a + s2 * e)),
        Mistake("The noise is put back at the *old* level.", _with(lambda x, u, c, e, a, s, a2, s2: a2 * (x - s * e) / a + s * e)),
        Mistake("The clean data are not divided by the old alpha.", _with(lambda x, u, c, e, a, s, a2, s2: a2 * (x - s * e) + s2 * e)),
        Mistake("The clean data are not scaled by the new alpha.", _with(lambda x, u, c, e, a, s, a2, s2: (x - s * e) / a + s2 * e)),
        Mistake("`now` and `then` are exchanged: the step leads from now to then.",
                lambda x, eps_uncond, eps_cond, w, now, then: guided_step(x, eps_uncond, eps_cond, w, then, now)),
        Mistake("The convention of 1 + w.", lambda x, eps_uncond, eps_cond, w, now, then: guided_step(x, eps_uncond, eps_cond, 1 + w, now, then)),
        Mistake("No noise is put back: that is the clean data, scaled.", _with(lambda x, u, c, e, a, s, a2, s2: a2 * (x - s * e) / a)),
    ),
)  # fmt: skip

# 2.12 Boss: does the product exist? ---------------------------------------------------------------------------------------


def expert_precision(precision_u: Tensor, precisions: Tensor, weights: Tensor) -> list:
    total = precision_u + (weights[:, None, None] * (precisions - precision_u)).sum(0)
    total = (total + total.mT) / 2
    return [total, bool(torch.linalg.eigvalsh(total).min() > 0)]


def _spd(g: torch.Generator, d: int, low: float, high: float) -> Tensor:
    turn, _ = torch.linalg.qr(normal(g, d, d))
    out = (turn * uniform(g, d, low=low, high=high)) @ turn.mT
    return (out + out.mT) / 2


def _experts(g: torch.Generator) -> dict:
    d, k = count(g, 2, 3), 2
    negative = -number(g, 0.3, 1.6)
    return {"precision_u": _spd(g, d, 0.4, 0.8), "precisions": torch.stack([_spd(g, d, 1.0, 2.0) for _ in range(k)]),
            "weights": torch.tensor([number(g, 1.2, 1.9), negative])}  # fmt: skip


ONE, WIDE, FLAT = torch.eye(2), torch.diag(torch.tensor([0.5, 0.5])), torch.tensor([[2.0, 1.5], [1.5, 2.0]])
EXPERTS = Task(
    "2.12", "expert_precision", 8, "boss: a product of Gaussian experts that may not exist", expert_precision, _experts,
    edges=(
        Case({"precision_u": WIDE, "precisions": torch.stack([ONE, FLAT]), "weights": torch.zeros(2)}, "weights 0: the unconditional density", [WIDE, True]),
        Case({"precision_u": WIDE, "precisions": torch.stack([ONE, FLAT]), "weights": torch.tensor([1.0, -1.0])},
             "a negative prompt as strong as the positive one", [WIDE + (ONE - WIDE) - (FLAT - WIDE), False]),
        Case({"precision_u": 2 * ONE, "precisions": torch.stack([torch.diag(torch.tensor([5.0, 0.5])), ONE]), "weights": torch.tensor([1.6, 0.0])},
             "one direction grows without bound, the other does not", [torch.diag(torch.tensor([6.8, -0.4])), False]),
        Case({"precision_u": ONE, "precisions": torch.stack([4 * ONE, WIDE]), "weights": torch.tensor([-1.0, 0.0])}, "all directions grow without bound", [-2 * ONE, False]),
        Case({"precision_u": ONE, "precisions": torch.stack([FLAT, FLAT]), "weights": torch.tensor([3.0, 0.0])}, "a correlation that is too strong", [4 * ONE - 4 * ONE + torch.tensor([[4.0, 4.5], [4.5, 4.0]]), False]),
    ),
    mistakes=(
        Mistake("Covariances are mixed where precisions add up: densities are multiplied.",
                lambda precision_u, precisions, weights: _as_covariances(precision_u, precisions, weights)),
        Mistake("The precisions are summed without taking the unconditional one away from each.",
                lambda precision_u, precisions, weights: [(t := precision_u + (weights[:, None, None] * precisions).sum(0)), bool(torch.linalg.eigvalsh(t).min() > 0)]),
        Mistake("A density exists if *all* eigenvalues of its precision are positive; the trace says only that their sum is.",
                lambda precision_u, precisions, weights: [(t := expert_precision(precision_u, precisions, weights)[0]), bool(torch.trace(t) > 0)]),
        Mistake("A density exists if *all* eigenvalues of its precision are positive; the determinant is positive for two negative ones, too.",
                lambda precision_u, precisions, weights: [(t := expert_precision(precision_u, precisions, weights)[0]), bool(torch.linalg.det(t) > 0)]),
        Mistake("The diagonal being positive is not enough: look at the eigenvalues.",
                lambda precision_u, precisions, weights: [(t := expert_precision(precision_u, precisions, weights)[0]), bool((t.diagonal() > 0).all())]),
        Mistake("It is said to exist always; with negative weights the product can grow without bound.",
                lambda precision_u, precisions, weights: [expert_precision(precision_u, precisions, weights)[0], True]),
        Mistake("The answer is turned round: True stands for a density that exists.",
                lambda precision_u, precisions, weights: [(r := expert_precision(precision_u, precisions, weights))[0], not r[1]]),
    ),
)  # fmt: skip


def _as_covariances(precision_u, precisions, weights):
    cov = torch.linalg.inv(precision_u) + (weights[:, None, None] * (torch.linalg.inv(precisions) - torch.linalg.inv(precision_u))).sum(0)
    total = torch.linalg.inv(cov)
    return [total, bool(torch.linalg.eigvalsh((total + total.mT) / 2).min() > 0)]
