"""Inception-style score: are single samples clear, and do all of them together show everything?"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import ShapeError
from lecture_lib.tensors import check_finite


def inception_score(logits: Float[Tensor, " n k"]) -> float:
    """``exp(mean_i KL(p(y | x_i) || mean_j p(y | x_j)))``: 1 if all look alike, at most k.

    With a classifier of digits instead of Inception the score is one of digits: at most 10, and comparable only with
    scores of the same classifier and the same number of samples.

    Args:
        logits: of any classifier, one row per sample.

    Raises:
        ShapeError: not (n, k), or no rows.
        NonFiniteError: NaN or infinity.

    Source: Salimans et al. 2016 (1606.03498), section 4; Barratt & Sharma 2018 (1801.01973) on its limits.
    """
    if logits.ndim != 2 or not logits.numel():
        raise ShapeError(f"logits: got shape {tuple(logits.shape)}, expected (n, k), one row of classes per sample")
    log_p = torch.log_softmax(check_finite("logits", logits).double(), dim=1)
    marginal = torch.logsumexp(log_p, dim=0) - torch.log(torch.tensor(float(len(log_p)), dtype=torch.float64))
    return float((log_p.exp() * (log_p - marginal)).sum(1).mean().exp())
