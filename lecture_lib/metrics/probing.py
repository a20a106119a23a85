"""What features are worth: whether they have collapsed, and how well a straight line reads the class off them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.errors import ShapeError
from lecture_lib.tensors import check_batch


def feature_std(features: Float[Tensor, " n d"]) -> float:
    """Standard deviation over the samples, averaged over the features: 0 if all samples have the same features."""
    return float(_table(features).std(dim=0, correction=0).mean())


def effective_rank(features: Float[Tensor, " n d"]) -> float:
    """``exp(entropy of s_i / sum s)``, s the singular values of the centred features: how many directions are in use.

    1 if all samples lie on a line, d if every direction varies equally. Scale does not matter, so that collapsed
    features have a rank as well, that of their rounding errors: look at ``feature_std`` first. If all features are
    exactly equal the rank is 0.

    Source: Roy & Vetterli 2007, "The effective rank", definition 1.
    """
    x = _table(features)
    s = torch.linalg.svdvals(x - x.mean(dim=0))
    if not s.sum() > 0:
        return 0.0
    return float(torch.special.entr(s / s.sum()).sum().exp())


def linear_probe(
    train: Float[Tensor, " n d"], labels: Int[Tensor, " n"], test: Float[Tensor, " m d"], truth: Int[Tensor, " m"]
) -> float:
    """Share of ``test`` that logistic regression on ``train`` classifies as ``truth``; features are standardised.

    Quote it beside the same probe on raw pixels and on an untrained network: both already read a good deal.

    Raises:
        ShapeError: features are not (n, d) of one width, or not one label per row.
    """
    from sklearn.linear_model import LogisticRegression  # heavy, and only probes need it

    train, test = _table(train), _table(test)
    if train.shape[1] != test.shape[1] or labels.shape != train.shape[:1] or truth.shape != test.shape[:1]:
        shapes = [tuple(x.shape) for x in (train, labels, test, truth)]
        raise ShapeError(f"train, labels, test, truth: got {shapes}, expected (n, d), (n,), (m, d), (m,)")
    mean, std = train.mean(dim=0), train.std(dim=0).clamp(min=1e-9)
    train, test = (train - mean) / std, (test - mean) / std
    probe = LogisticRegression(C=0.1, max_iter=1000).fit(train.numpy(), labels.cpu().numpy())
    return float(probe.score(test.numpy(), truth.cpu().numpy()))


def _table(features: Tensor) -> Float[Tensor, " n d"]:
    if check_batch("features", features).ndim != 2:
        raise ShapeError(f"features: got shape {tuple(features.shape)}, expected (n, d)")
    return features.detach().double().cpu()
