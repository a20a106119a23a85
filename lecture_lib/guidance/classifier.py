"""Classifier guidance: Bayes on scores, ``grad log p(x|c) = grad log p(x) + grad log p(c|x)``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.prediction import Denoise, Prediction
from lecture_lib.tensors import check_number

LogProb = Callable[[Tensor, Tensor], Tensor]
"""``(x_t (b, ...), t (b,)) -> log p(c | x_t) (b,)``: one classifier that has seen every noise level."""


def log_prob_gradient(log_prob: LogProb, x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"]) -> Float[Tensor, " b *d"]:
    """``grad_x log p(c | x_t)``."""
    with torch.enable_grad():
        x = x_t.detach().requires_grad_()
        return torch.autograd.grad(log_prob(x, t).sum(), x)[0]


def classifier_guidance(denoise: Denoise, log_prob: LogProb, scale: float) -> Denoise:
    """The score plus ``scale * grad log p(c|x_t)`` (Dhariwal & Nichol 2021, Alg. 2: eps - scale sigma grad).

    With an unconditional ``denoise``, scale 1 is Bayes' rule and matches w = 1; with a conditional one it matches
    w = 1 + scale. One forward-backward pass of the classifier counts as one more network evaluation.
    """
    scale = check_number("scale", scale)

    def guided(x_t: Tensor, t: Tensor) -> Prediction:
        p = denoise(x_t, t).with_score_shift(scale * log_prob_gradient(log_prob, x_t, t))
        return replace(p, nfe=p.nfe + 1)

    return guided
