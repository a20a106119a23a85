"""Gaussian mixtures: the worlds in which score, denoiser, density and flow are known exactly.

Noised along any path, a mixture stays a mixture: component k becomes N(alpha m_k, alpha^2 C_k + sigma^2 I). So every
quantity that a network estimates can be written down, and every claim of the course can be checked against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.core.paths import Path
from lecture_lib.core.prediction import Denoise, Prediction
from lecture_lib.errors import RangeError, ShapeError, UnknownNameError
from lecture_lib.tensors import check_count, check_finite, check_times


def symmetric(cov: Float[Tensor, " *k d d"]) -> bool:
    """Whether covariances are symmetric up to rounding, which is a share of the two standard deviations of an entry."""
    std = cov.diagonal(dim1=-2, dim2=-1).abs().sqrt()
    return bool(((cov - cov.mT).abs() <= 1e-5 * std[..., :, None] * std[..., None, :]).all())


class GaussianMixture:
    """``sum_k weight_k N(mean_k, cov_k)``, each component optionally carrying a class label.

    Args:
        weights: ``(k,)``, positive; normalised here.
        means: ``(k, *event)``; the event may be an image.
        covs: ``(k,)`` variances (isotropic) or ``(k, d, d)`` covariances of the flattened event; positive definite.
        labels: ``(k,)`` whole numbers, for ``given`` and ``log_prob_label``; None for no classes.
    All arithmetic runs in the dtype of ``means``; float64 recommended.

    ``variances`` ``(k, d)`` and ``axes`` ``(k, d, d)`` hold the eigenvalues of each covariance, rising, and their
    directions as columns: not the variances along the coordinate axes.
    """

    def __init__(
        self,
        weights: Float[Tensor, " k"] | Sequence[float],
        means: Float[Tensor, " k *event"] | Sequence,
        covs: Float[Tensor, " k *dd"] | Sequence,
        labels: Int[Tensor, " k"] | Sequence[int] | None = None,
    ):
        means = torch.as_tensor(means, dtype=None if isinstance(means, Tensor) else torch.float64)
        if means.ndim < 2 or not means.is_floating_point():
            raise ShapeError(f"means: got {means.dtype} {tuple(means.shape)}, expected floating numbers (k, *event)")
        k, self.event = means.shape[0], tuple(means.shape[1:])
        self.means = check_finite("means", means.reshape(k, -1))
        like = {"dtype": means.dtype, "device": means.device}
        weights, covs = torch.as_tensor(weights, **like), torch.as_tensor(covs, **like)
        d = self.means.shape[1]
        if weights.shape != (k,) or covs.shape not in {(k,), (k, d, d)}:
            raise ShapeError(
                f"weights, covs: got {tuple(weights.shape)} and {tuple(covs.shape)} for means {tuple(means.shape)}, "
                f"expected ({k},) and ({k},) or ({k}, {d}, {d})"
            )
        check_finite("covs", covs)
        if not (weights > 0).all() or not torch.isfinite(weights).all():
            raise RangeError(f"weights: got {weights.tolist()}, expected positive numbers")
        self.log_weights = (weights / weights.sum()).log()
        # C = U diag(S) U^T once; then alpha^2 C + sigma^2 I is diagonal in the same basis at every time.
        full = covs[:, None, None] * torch.eye(d, **like) if covs.ndim == 1 else covs
        self.variances, self.axes = torch.linalg.eigh(full)
        if not symmetric(full):
            raise RangeError("covs: expected symmetric matrices")
        if not (self.variances > 0).all():
            raise RangeError(f"covs: smallest eigenvalue {float(self.variances.min()):g}, expected positive definite")
        self.labels = None if labels is None else torch.as_tensor(labels, device=means.device)
        if self.labels is not None and self.labels.shape != (k,):
            raise ShapeError(f"labels: got shape {tuple(self.labels.shape)}, expected ({k},), one per component")

    @property
    def weights(self) -> Float[Tensor, " k"]:
        """Mixture weights, summing to 1."""
        return self.log_weights.exp()

    def given(self, label: int) -> GaussianMixture:
        """The exact conditional p(x | label): the components of that class, reweighted.

        Raises:
            UnknownNameError: no component carries this label.
        """
        keep = torch.zeros(0, dtype=torch.bool) if self.labels is None else self.labels == label
        if not keep.any():
            known = [] if self.labels is None else sorted(set(self.labels.tolist()))
            raise UnknownNameError(f"label: got {label!r}, expected one of {known}")
        cov = self.axes[keep] @ torch.diag_embed(self.variances[keep]) @ self.axes[keep].mT
        means = self.means[keep].reshape(-1, *self.event)
        return GaussianMixture(self.weights[keep], means, cov, self.labels[keep])

    def sample(self, n: int, *, generator: torch.Generator | None = None, return_labels: bool = False):
        """``n`` exact draws ``(n, *event)``; with ``return_labels`` also the label of each."""
        n = check_count("n", n)
        if return_labels and self.labels is None:
            raise ShapeError("return_labels: got True, but the components of this mixture carry no labels")
        pick = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype, device=self.means.device)
        x = self.means[pick] + torch.einsum("nij,nj->ni", self.axes[pick], self.variances[pick].sqrt() * z)
        x = x.reshape(n, *self.event)
        return (x, self.labels[pick]) if return_labels else x

    # What follows happens at a point x_t of a path; without path and t, on clean data (alpha = 1, sigma = 0).

    def log_prob(self, x: Float[Tensor, " b *d"], path: Path | None = None, t: Float[Tensor, " b"] | None = None):
        """``log p_t(x)``, ``(b,)``, normalised; ``log p(x)`` of the data if no path is given."""
        return self._whiten(x, *self._scales(x, path, t))[0].logsumexp(1)

    def log_prob_label(self, label: int, x: Float[Tensor, " b *d"], path: Path | None = None, t=None):
        """The exact noise-aware classifier ``log p(label | x_t)``, ``(b,)``."""
        joint = self._whiten(x, *self._scales(x, path, t))[0]
        self.given(label)  # raises for an unknown label
        return joint[:, self.labels == label].logsumexp(1) - joint.logsumexp(1)

    def score(self, x: Float[Tensor, " b *d"], path: Path | None = None, t=None) -> Float[Tensor, " b *d"]:
        """``grad log p_t(x)``, exact."""
        alpha, sigma = self._scales(x, path, t)
        joint, pulled = self._whiten(x, alpha, sigma)
        return -torch.einsum("bk,bkd->bd", joint.softmax(1), pulled).reshape(x.shape)

    def denoise(self, path: Path) -> Denoise:
        """The ideal denoiser on ``path``: ``x0 = E[x0 | x_t]`` and ``eps = E[eps | x_t]``, each on its own."""

        def denoise(x_t: Tensor, t: Tensor) -> Prediction:
            alpha, sigma = self._scales(x_t, path, t)
            joint, pulled = self._whiten(x_t, alpha, sigma)
            r = joint.softmax(1)
            # E[x0 | x_t, k] = m_k + alpha C_k (alpha^2 C_k + sigma^2 I)^-1 (x_t - alpha m_k)
            back = torch.einsum("kde,ke,kfe,bkf->bkd", self.axes, self.variances, self.axes, pulled)
            x0 = torch.einsum("bk,bkd->bd", r, self.means + alpha[:, None, None] * back)
            eps = sigma[:, None] * torch.einsum("bk,bkd->bd", r, pulled)
            return Prediction(path, t, x_t, x0.reshape(x_t.shape).to(x_t), eps.reshape(x_t.shape).to(x_t))

        return denoise

    def _scales(self, x: Tensor, path: Path | None, t: Tensor | None) -> tuple[Tensor, Tensor]:
        if tuple(x.shape[1:]) != self.event:
            raise ShapeError(f"x: got shape {tuple(x.shape)}, expected (b, {', '.join(map(str, self.event))})")
        if path is None and t is None:
            return self.means.new_ones(len(x)), self.means.new_zeros(len(x))
        if path is None:
            raise ShapeError("path: got None together with a time t, expected both or neither")
        t = check_times("t", t, len(x), path.t_max).double()
        return path.alpha(t).to(self.means), path.sigma(t).to(self.means)

    def _whiten(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """``log(weight_k N_k(x))``, ``(b, k)``, and ``(alpha^2 C_k + sigma^2 I)^-1 (x - alpha m_k)``, ``(b, k, d)``."""
        delta = x.flatten(1).to(self.means)[:, None] - alpha[:, None, None] * self.means
        variance = alpha[:, None, None] ** 2 * self.variances + sigma[:, None, None] ** 2
        local = torch.einsum("kde,bkd->bke", self.axes, delta)
        log_norm = -0.5 * (local**2 / variance + variance.log() + math.log(2 * math.pi)).sum(2)
        return self.log_weights + log_norm, torch.einsum("kde,bke->bkd", self.axes, local / variance)
