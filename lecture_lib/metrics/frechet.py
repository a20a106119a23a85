"""Frechet distance between the Gaussians that fit two clouds of features (Heusel et al. 2017: with Inception, FID)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import RangeError
from lecture_lib.metrics._clouds import two_clouds
from lecture_lib.tensors import check_count

Features = Callable[[Tensor], Tensor]


def frechet_gaussians(
    mean1: Float[Tensor, " d"], cov1: Float[Tensor, " d d"], mean2: Float[Tensor, " d"], cov2: Float[Tensor, " d d"]
) -> Float[Tensor, ""]:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), the squared 2-Wasserstein distance of two Gaussians.

    With C = R R^T, the trace of the root is the sum of the singular values of R1^T R2, so that singular covariances
    need neither complex numbers nor an added epsilon. Source: Dowson & Landau 1982, eq. 4.
    """
    cross = torch.linalg.svdvals(_root(cov1).T @ _root(cov2)).sum()
    return (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross


def _root(cov: Float[Tensor, " d d"]) -> Float[Tensor, " d d"]:
    """R with R R^T the covariance."""
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt()


@torch.no_grad()
def frechet_distance(x: Float[Tensor, " n *d"], y: Float[Tensor, " m *d"], features: Features | None = None) -> float:
    """Frechet distance of two sets of samples, in ``features(x)`` or in the samples themselves.

    It is biased upwards for few samples (two draws from the *same* 64-d Gaussian are 21 apart with n = 100 and
    2 with n = 1000): compare only numbers with equal n, equal features and the same reference set.

    Args:
        x, y: samples, or features already if ``features`` is None; flattened to vectors.
        features: map from samples to vectors (n, d).

    Raises:
        ShapeError, NonFiniteError: clouds that cannot be compared.
    """
    if features is not None:
        x, y = features(x), features(y)
    x, y = two_clouds(x, y)
    return float(frechet_gaussians(x.mean(0), _covariance(x), y.mean(0), _covariance(y)))


@torch.no_grad()
def frechet_infinity(
    x: Float[Tensor, " n *d"], y: Float[Tensor, " m *d"], features: Features | None = None, *, parts: int = 7
) -> float:
    """The Frechet distance that more and more samples like ``x`` would tend to, with ``y`` as it stands.

    The bias is c/n to leading order, so it is k c/n for a k-th part of x, and the two tell c: with the mean over k
    parts, ``D_inf = (k D(x) - mean D(part))/(k - 1)``, Richardson's extrapolation. Chong & Forsyth 2020 (1911.07023)
    fit a line through many n for the same purpose.

    Args:
        x, y, features: as for ``frechet_distance``.
        parts: k, into how many consecutive parts x falls. Each must be drawn as the whole is: where the whole has
            fixed shares of classes, parts in random order would add a bias that it has not.

    Raises:
        ShapeError, NonFiniteError, RangeError: clouds that cannot be compared; fewer than two samples per part.
    """
    if check_count("parts", parts, 2) > len(x) // 2:
        raise RangeError(f"parts: got {parts} of {len(x)} samples, expected at least two samples per part")
    if features is not None:
        x, y = features(x), features(y)
    apart = [frechet_distance(part, y) for part in x.tensor_split(parts)]
    return (parts * frechet_distance(x, y) - sum(apart) / parts) / (parts - 1)


def _covariance(x: Float[Tensor, " n d"]) -> Float[Tensor, " d d"]:
    """Unbiased covariance (torch.cov would return a scalar for d = 1)."""
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)
