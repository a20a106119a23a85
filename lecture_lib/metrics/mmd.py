"""Maximum mean discrepancy, unbiased (Gretton et al. 2012, eq. 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.metrics._clouds import two_clouds
from lecture_lib.tensors import check_number

Kernel = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class GaussianKernel:
    """k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2))."""

    bandwidth: float = 1.0

    def __post_init__(self) -> None:
        check_number("bandwidth", self.bandwidth, low=1e-12)

    def __call__(self, x: Float[Tensor, " n d"], y: Float[Tensor, " m d"]) -> Float[Tensor, " n m"]:
        return torch.exp(-0.5 * (torch.cdist(x, y) / self.bandwidth).square())


@dataclass(frozen=True)
class EnergyKernel:
    """k(x, y) = -|x - y|: MMD^2 is then the energy distance, and its gradient does not fade with distance.

    Not a positive kernel, but one up to constants, which cancel between two laws (Szekely & Rizzo 2013; Sejdinovic et
    al. 2013, section 4).
    """

    def __call__(self, x: Float[Tensor, " n d"], y: Float[Tensor, " m d"]) -> Float[Tensor, " n m"]:
        # Not by |x|^2 + |y|^2 - 2 x.y, which loses the small distances that particles of one place have.
        return -torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


@dataclass(frozen=True)
class PolynomialKernel:
    """k(x, y) = (x.y / d + 1)^degree; degree 3 on features is the kernel inception distance (Binkowski et al. 2018)."""

    degree: int = 3

    def __call__(self, x: Float[Tensor, " n d"], y: Float[Tensor, " m d"]) -> Float[Tensor, " n m"]:
        return (x @ y.T / x.shape[1] + 1.0) ** self.degree


def median_bandwidth(x: Float[Tensor, " n *d"]) -> float:
    """Median distance between the samples: the usual choice of bandwidth (at most 2000 samples are looked at)."""
    return float(torch.pdist(x.detach()[:2000].flatten(1).double()).median())


@torch.no_grad()
def mmd2(x: Float[Tensor, " n *d"], y: Float[Tensor, " m *d"], kernel: Kernel | None = None) -> float:
    """Squared MMD by the U-statistic: pairs of a sample with itself are left out, so that it is unbiased.

    E k(x, x') + E k(y, y') - 2 E k(x, y). For equal distributions it scatters around 0 and may be negative.

    Args:
        x, y: samples, flattened to vectors.
        kernel: function of two clouds; by default Gaussian with the median distance within ``y``.

    Raises:
        ShapeError, NonFiniteError: clouds that cannot be compared.
    """
    x, y = two_clouds(x, y)
    kernel = kernel or GaussianKernel(median_bandwidth(y))
    return float(_off_diagonal_mean(kernel(x, x)) + _off_diagonal_mean(kernel(y, y)) - 2 * kernel(x, y).mean())


def _off_diagonal_mean(gram: Float[Tensor, " n n"]) -> Float[Tensor, ""]:
    n = len(gram)
    return (gram.sum() - gram.trace()) / (n * (n - 1))
