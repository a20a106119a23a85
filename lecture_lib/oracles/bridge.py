"""A bridge between two Gaussian mixtures: the two-sided interpolant for which everything is known exactly.

Between independent ends, component i of x0 and component j of x1 meet in
``N(alpha m_i + beta n_j, alpha^2 C_i + beta^2 D_j + gamma^2 I)``: x_t is a mixture of all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.interpolants import Interpolant, TwoSided
from lecture_lib.errors import ShapeError
from lecture_lib.oracles.mixture import GaussianMixture
from lecture_lib.tensors import check_times


@dataclass(frozen=True)
class GaussianBridge:
    """``x0`` and ``x1`` drawn independently from two mixtures over the same space; arithmetic in the dtype of ``x0``.

    Raises:
        ShapeError: the two mixtures speak about events of different shapes.
    """

    x0: GaussianMixture
    x1: GaussianMixture

    def __post_init__(self):
        if self.x0.event != self.x1.event:
            raise ShapeError(f"x1: got events of shape {self.x1.event}, expected {self.x0.event} as in x0")

    def log_prob(self, x: Float[Tensor, " b *d"], path: Interpolant, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """``log p_t(x)``, normalised."""
        return self._whiten(x, *self._scales(x, path, t))[0].logsumexp(1)

    def denoise(self, path: Interpolant) -> Callable[[Tensor, Tensor], TwoSided]:
        """The ideal two-sided denoiser on ``path``: E[x0 | x_t], E[x1 | x_t] and E[z | x_t], each on its own."""

        def denoise(x_t: Tensor, t: Tensor) -> TwoSided:
            alpha, beta, gamma = self._scales(x_t, path, t)
            joint, pulled = self._whiten(x_t, alpha, beta, gamma)
            r = joint.softmax(1)
            # E[x0 | x_t, ij] = m_i + alpha C_i S_ij^-1 (x_t - alpha m_i - beta n_j), and likewise for x1 and z.
            (m, c, _), (n, d, _) = self._pairs()
            x0 = m + alpha * torch.einsum("kde,bke->bkd", c, pulled)
            x1 = n + beta * torch.einsum("kde,bke->bkd", d, pulled)
            means = (torch.einsum("bk,bkd->bd", r, part) for part in (x0, x1, gamma * pulled))
            return TwoSided(path, t, x_t, *(mean.reshape(x_t.shape).to(x_t) for mean in means))

        return denoise

    def _scales(self, x: Tensor, path: Interpolant, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, beta and gamma, each ``(b, 1, 1)``."""
        if tuple(x.shape[1:]) != self.x0.event:
            raise ShapeError(f"x: got shape {tuple(x.shape)}, expected (b, {', '.join(map(str, self.x0.event))})")
        if not isinstance(path, Interpolant):
            raise ShapeError(f"path: got {type(path).__name__}, expected an Interpolant; one_sided(path) makes one")
        t = check_times("t", t, len(x), path.t_max).double()
        return tuple(f(t).to(self.x0.means)[:, None, None] for f in (path.alpha, path.beta, path.gamma))

    def _pairs(self) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Means ``(k, d)``, covariances ``(k, d, d)`` and log-weights ``(k,)`` of both ends; k counts the pairs."""
        k0, k1 = len(self.x0.means), len(self.x1.means)
        i = torch.arange(k0).repeat_interleave(k1), torch.arange(k1).repeat(k0)
        covs = (p.axes @ torch.diag_embed(p.variances) @ p.axes.mT for p in (self.x0, self.x1))
        ends = zip((self.x0, self.x1), covs, i, strict=True)
        return tuple(tuple(part[k].to(self.x0.means) for part in (p.means, c, p.log_weights)) for p, c, k in ends)

    def _whiten(self, x: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """``log(weight_k N_k(x))``, ``(b, k)``, and ``S_k^-1 (x - mean_k)``, ``(b, k, d)``, for all pairs k."""
        (m, c, log_u), (n, d, log_v) = self._pairs()
        delta = x.flatten(1).to(m)[:, None] - alpha * m - beta * n
        square = (alpha**2)[..., None] * c + (beta**2)[..., None] * d
        root = torch.linalg.cholesky(square + (gamma**2)[..., None] * torch.eye(m.shape[1]).to(m))
        pulled = torch.cholesky_solve(delta[..., None], root)[..., 0]
        log_det = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_norm = -0.5 * ((delta * pulled).sum(-1) + log_det + m.shape[1] * math.log(2 * math.pi))
        return log_u + log_v + log_norm, pulled
