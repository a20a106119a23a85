"""2.8 to 2.10: what is done against too much of it."""

from __future__ import annotations

import torch
from torch import Tensor

from lecture_lib.exercises.drawing import normal, number, shape, uniform
from lecture_lib.exercises.lecture2.rule import A, B
from lecture_lib.exercises.task import Case, Mistake, Task

# 2.8 Rescaling -----------------------------------------------------------------------------------------------------------


def rescaled(guided: Tensor, cond: Tensor, phi: float) -> Tensor:
    ratio = cond.flatten(1).std(1) / guided.flatten(1).std(1)
    return phi * ratio.reshape(-1, *[1] * (guided.ndim - 1)) * guided + (1 - phi) * guided


def _pictures(g: torch.Generator) -> dict:
    b, c, h, w = shape(g, 4)
    return {"guided": normal(g, b, c, h, w, scale=2.5) + 0.7, "cond": normal(g, b, c, h, w) - 0.4, "phi": number(g, 0.3, 0.8)}


def _ratio(guided, cond, phi, ratio):
    return phi * ratio * guided + (1 - phi) * guided


RESCALED = Task(
    "2.8", "rescaled", 10, "rescaled guidance", rescaled, _pictures,
    edges=(
        Case({"guided": 3 * A[:, :, None], "cond": A[:, :, None], "phi": 0.0}, "phi = 0 changes nothing", 3 * A[:, :, None]),
        Case({"guided": 3 * A[:, :, None], "cond": A[:, :, None], "phi": 1.0}, "phi = 1 gives the spread of the conditional prediction", A[:, :, None]),
    ),
    mistakes=(
        Mistake("The ratio is upside down: what is too wide must become narrower.",
                lambda guided, cond, phi: _ratio(guided, cond, phi, guided.flatten(1).std(1)[:, None, None, None] / cond.flatten(1).std(1)[:, None, None, None]) if guided.ndim == 4 else rescaled(cond, guided, phi)),
        Mistake("One standard deviation for the whole batch: each sample has its own, or one picture depends on its neighbours.",
                lambda guided, cond, phi: _ratio(guided, cond, phi, cond.std() / guided.std())),
        Mistake("The standard deviation is taken over the first axis after the batch alone: a sample has one, over all its numbers.",
                lambda guided, cond, phi: _ratio(guided, cond, phi, cond.std(1, keepdim=True) / guided.std(1, keepdim=True))),
        Mistake("A ratio of variances: for the spread to fit, it takes standard deviations.",
                lambda guided, cond, phi: _ratio(guided, cond, phi, (cond.flatten(1).var(1) / guided.flatten(1).var(1)).reshape(-1, *[1] * (guided.ndim - 1)))),
        Mistake("phi is the share of the *rescaled* prediction; the two shares are exchanged.",
                lambda guided, cond, phi: rescaled(guided, cond, 1 - phi)),
        Mistake("Mixed with the conditional prediction: mix with the guided one, or guidance itself is weakened.",
                lambda guided, cond, phi: rescaled(guided, cond, 1.0) * phi + (1 - phi) * cond),
    ),
)  # fmt: skip

# 2.9 Projection ----------------------------------------------------------------------------------------------------------


def projected(uncond: Tensor, cond: Tensor, w: float, eta: float) -> Tensor:
    push = cond - uncond
    along = (push * cond).sum(1, keepdim=True) / cond.square().sum(1, keepdim=True) * cond
    return cond + (w - 1) * (push - along + eta * along)


def _vectors(g: torch.Generator) -> dict:
    b, d = shape(g)
    return {"uncond": normal(g, b, d), "cond": normal(g, b, d), "w": number(g, 2.0, 6.0), "eta": number(g, 0.15, 0.7)}


def _along(push, onto):
    return (push * onto).sum(1, keepdim=True) / onto.square().sum(1, keepdim=True) * onto


PROJECTED = Task(
    "2.9", "projected", 12, "guidance without its parallel part (APG)", projected, _vectors,
    edges=(
        Case({"uncond": A, "cond": B, "w": 1.0, "eta": 0.3}, "w = 1 gives the conditional prediction", B),
        Case({"uncond": A, "cond": B, "w": 3.0, "eta": 1.0}, "eta = 1 is plain guidance", A + 3 * (B - A)),
    ),
    mistakes=(
        Mistake("The projection is not divided by the squared length of what it is projected on.",
                lambda uncond, cond, w, eta: cond + (w - 1) * ((cond - uncond) - (1 - eta) * ((cond - uncond) * cond).sum(1, keepdim=True) * cond)),
        Mistake("Divided by the length; a projection has the *squared* length below.",
                lambda uncond, cond, w, eta: cond + (w - 1) * ((cond - uncond) - (1 - eta) * ((cond - uncond) * cond).sum(1, keepdim=True) / cond.norm(dim=1, keepdim=True) * cond)),
        Mistake("Projected on the unconditional prediction: the part that saturates is the one along the conditional prediction.",
                lambda uncond, cond, w, eta: cond + (w - 1) * ((cond - uncond) - (1 - eta) * _along(cond - uncond, uncond))),
        Mistake("One projection for the whole batch: each sample has its own direction.",
                lambda uncond, cond, w, eta: cond + (w - 1) * ((cond - uncond) - (1 - eta) * ((cond - uncond) * cond).sum() / cond.square().sum() * cond)),
        Mistake("The step starts at the conditional prediction and has length w - 1, not w.",
                lambda uncond, cond, w, eta: cond + w * ((cond - uncond) - (1 - eta) * _along(cond - uncond, cond))),
        Mistake("eta is the share of the parallel part that *stays*; here it is the share that goes.",
                lambda uncond, cond, w, eta: cond + (w - 1) * ((cond - uncond) - eta * _along(cond - uncond, cond))),
        Mistake("The parallel part is kept and the rest thrown away: it is the other way round.",
                lambda uncond, cond, w, eta: cond + (w - 1) * _along(cond - uncond, cond)),
    ),
)  # fmt: skip

# 2.10 An interval --------------------------------------------------------------------------------------------------------


def scale_in(sigma: Tensor, w: float, low: float, high: float) -> Tensor:
    return torch.where((sigma > low) & (sigma <= high), torch.full_like(sigma, w), torch.ones_like(sigma))


def _levels(g: torch.Generator) -> dict:
    return {"sigma": torch.exp(normal(g, 11, scale=1.5)), "w": number(g, 2.0, 6.0), "low": number(g, 0.2, 0.6), "high": number(g, 2.0, 4.0)}


LADDER = {"sigma": torch.tensor([0.1, 0.3, 0.5, 2.0, 3.0]), "w": 4.0, "low": 0.3, "high": 2.0}
INTERVAL = Task(
    "2.10", "scale_in", 6, "guidance in an interval of noise levels", scale_in, _levels,
    edges=(Case(LADDER, "above `low`, up to and with `high`", torch.tensor([1.0, 1.0, 4.0, 4.0, 1.0])),),
    mistakes=(
        Mistake("Outside the interval the scale is 0, which is the *unconditional* model: no guidance is w = 1.",
                lambda sigma, w, low, high: torch.where((sigma > low) & (sigma <= high), w, 0.0)),
        Mistake("Inside and outside are exchanged: the middle of the ladder is guided.",
                lambda sigma, w, low, high: torch.where((sigma > low) & (sigma <= high), 1.0, w)),
        Mistake("Only the lower end is looked at.", lambda sigma, w, low, high: torch.where(sigma > low, w, 1.0)),
        Mistake("Only the upper end is looked at.", lambda sigma, w, low, high: torch.where(sigma <= high, w, 1.0)),
        Mistake("The ends: `low` itself is outside and `high` itself inside, so that neighbouring intervals do not overlap.",
                lambda sigma, w, low, high: torch.where((sigma >= low) & (sigma <= high), w, 1.0)),
        Mistake("The ends: `low` itself is outside and `high` itself inside.",
                lambda sigma, w, low, high: torch.where((sigma >= low) & (sigma < high), w, 1.0)),
        Mistake("One decision for the whole batch: each sample has a noise level of its own.",
                lambda sigma, w, low, high: torch.full_like(sigma, w if low < float(sigma[0]) <= high else 1.0)),
    ),
)  # fmt: skip
