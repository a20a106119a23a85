"""The Schroedinger bridge between two Gaussians, in closed form and in any dimension.

Its two ends are jointly Gaussian, and between them a Brownian bridge is Gaussian, so every x_t is; all that has to be
found is one matrix, the covariance of x0 and x1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.interpolants import BrownianNoise, Interpolant, TwoSided, linear_interpolant
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.oracles.mixture import symmetric
from lecture_lib.tensors import check_count, check_number, check_times


@dataclass(frozen=True, eq=False)
class GaussianSchrodinger:
    """``N(mean0, cov0)`` at t = 0 and ``N(mean1, cov1)`` at t = 1, joined by a Brownian motion of variance sigma^2.

    Args:
        mean0, mean1: (d,), float64 recommended.
        cov0, cov1: (d, d), positive definite.
        sigma: >= 0; 0 is optimal transport, the interpolation of McCann.

    Raises:
        ShapeError, RangeError: shapes that do not fit, covariances that are none.

    Source: Janati et al. 2020 (2006.02572), theorem 1; Bunne et al. 2022 (2202.05722), theorem 3.
    """

    mean0: Float[Tensor, " d"]
    cov0: Float[Tensor, " d d"]
    mean1: Float[Tensor, " d"]
    cov1: Float[Tensor, " d d"]
    sigma: float = 1.0

    def __post_init__(self):
        check_number("sigma", self.sigma, 0)
        for name in ("0", "1"):
            mean, cov = getattr(self, "mean" + name), getattr(self, "cov" + name)
            if mean.shape != self.mean0.shape or mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
                got = f"{tuple(mean.shape)} and {tuple(cov.shape)}"
                raise ShapeError(f"mean{name}, cov{name}: got {got}, expected (d,) and (d, d), the same d at both ends")
            if not symmetric(cov) or not (torch.linalg.eigvalsh(cov) > 0).all():
                raise RangeError(f"cov{name}: expected a symmetric positive definite matrix")

    @cached_property
    def cross_covariance(self) -> Float[Tensor, " d d"]:
        """``Cov(x0, x1)`` of the entropic plan: ``(A D A^-1 - sigma^2 I)/2``, ``D = (4 A cov1 A + sigma^4 I)^(1/2)``.

        A is the root of cov0. In one dimension ``(sqrt(4 s0^2 s1^2 + sigma^4) - sigma^2)/2``.
        """
        a = _root(self.cov0)
        squares, axes = torch.linalg.eigh(a @ self.cov1 @ a)
        squares = squares.clamp(min=torch.finfo(squares.dtype).tiny)
        # (D - sigma^2 I)/2 as a quotient: at large sigma the difference of two large numbers would be rounding alone.
        half = (axes * (2 * squares / ((4 * squares + self.sigma**4).sqrt() + self.sigma**2))) @ axes.mT
        return a @ half @ torch.linalg.inv(a)

    @property
    def path(self) -> Interpolant:
        """``(1 - t) x0 + t x1 + sigma sqrt(t (1 - t)) z``.

        Raises:
            RangeError: sigma = 0; there the path has no noise.
        """
        return linear_interpolant(BrownianNoise(check_number("sigma", self.sigma, 1e-6) ** 2))

    def moments(self, t: float) -> tuple[Float[Tensor, " d"], Float[Tensor, " d d"]]:
        """Mean and covariance of x_t."""
        t, one = check_number("t", t, 0, 1), torch.eye(len(self.mean0)).to(self.cov0)
        cross = self.cross_covariance + self.cross_covariance.mT + self.sigma**2 * one
        cov = (1 - t) ** 2 * self.cov0 + t**2 * self.cov1 + t * (1 - t) * cross
        return (1 - t) * self.mean0 + t * self.mean1, cov

    def sample_ends(
        self, n: int, *, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, " n d"], Float[Tensor, " n d"]]:
        """``n`` draws of (x0, x1) from the entropic plan."""
        d, z = len(self.mean0), torch.randn(check_count("n", n), 2 * len(self.mean0), generator=generator)
        z0, z1 = z.to(self.cov0).split(d, dim=1)
        x0 = self.mean0 + z0 @ torch.linalg.cholesky(self.cov0).mT
        # Cov(x1 | x0) = cov1 - C^T cov0^-1 C = sigma^2 cov0^-1 C, also where nothing is left of it.
        spread = self.sigma * torch.linalg.cholesky(torch.linalg.solve(self.cov0, self.cross_covariance))
        return x0, self.map(x0) + z1 @ spread.mT

    def denoise(self, path: Interpolant) -> Callable[[Tensor, Tensor], TwoSided]:
        """The ideal two-sided denoiser; with ``EulerMaruyama(ConstantDiffusion(sigma^2))`` it samples the bridge.

        Raises:
            ShapeError: ``path`` is not that of this bridge.
        """
        if path != self.path:
            raise ShapeError(f"path: got {path!r}, expected {self.path!r}")

        def denoise(x_t: Tensor, t: Tensor) -> TwoSided:
            t = check_times("t", t, len(x_t), 1.0).double()
            u, c = t.to(self.cov0)[:, None, None], self.cross_covariance
            one = torch.eye(len(self.mean0)).to(self.cov0)
            mean = (1 - u[..., 0]) * self.mean0 + u[..., 0] * self.mean1
            gamma = path.gamma(t).to(self.cov0)[:, None, None]
            cov = (1 - u) ** 2 * self.cov0 + u**2 * self.cov1 + u * (1 - u) * (c + c.mT) + gamma**2 * one
            pulled = torch.linalg.solve(cov, (x_t.to(self.cov0) - mean)[..., None])
            # E[y | x_t] = E y + Cov(y, x_t) cov^-1 (x_t - E x_t) for y = x0, x1, z.
            x0 = self.mean0 + (((1 - u) * self.cov0 + u * c) @ pulled)[..., 0]
            x1 = self.mean1 + (((1 - u) * c.mT + u * self.cov1) @ pulled)[..., 0]
            return TwoSided(path, t, x_t, *(y.to(x_t) for y in (x0, x1, (gamma * pulled)[..., 0])))

        return denoise

    def drift(self, x: Float[Tensor, " b d"], t: Float[Tensor, " b"]) -> Float[Tensor, " b d"]:
        """Of the SDE from x0 to x1, ``dx = drift dt + sigma dW``: ``b + sigma^2/2 s = E[x1 - x_t | x_t]/(1 - t)``."""
        p = self.denoise(self.path)(x, t)
        return p.velocity + self.sigma**2 / 2 * p.score

    def map(self, x0: Float[Tensor, " n d"]) -> Float[Tensor, " n d"]:
        """``E[x1 | x0]``: with sigma = 0 the optimal transport map."""
        slope = torch.linalg.solve(self.cov0, self.cross_covariance)  # cov0^-1 C, applied from the right
        return self.mean1 + (x0 - self.mean0) @ slope


def _root(square: Float[Tensor, " d d"]) -> Float[Tensor, " d d"]:
    """The symmetric square root."""
    values, axes = torch.linalg.eigh(square)
    return (axes * values.clamp(min=0).sqrt()) @ axes.mT
