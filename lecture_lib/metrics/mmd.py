"""Maximum mean discrepancy, unbiased (Gretton et al. 2012, eq. 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import RangeError
from lecture_lib.metrics._clouds import two_clouds
from lecture_lib.tensors import check_batch, check_count, check_number

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
    """Median distance between the samples: the usual choice of bandwidth (at most 2000 samples are looked at).

    Raises:
        ShapeError, NonFiniteError: not a cloud.
        RangeError: a single sample, or more than half of all pairs in one place: there is no such distance.
    """
    distances = torch.pdist(check_batch("x", x).detach()[:2000].flatten(1).double())
    median = float(distances.median()) if len(distances) else 0.0
    if not median > 0:
        raise RangeError(f"x: got a median distance of 0 between {len(x)} samples, expected samples that differ")
    return median


@torch.no_grad()
def mmd2(x: Float[Tensor, " n *d"], y: Float[Tensor, " m *d"], kernel: Kernel | None = None) -> float:
    """Squared MMD by the U-statistic: pairs of a sample with itself are left out, so that it is unbiased.

    E k(x, x') + E k(y, y') - 2 E k(x, y). For equal distributions it scatters around 0 and may be negative.

    Args:
        x, y: samples, flattened to vectors.
        kernel: function of two clouds; by default Gaussian with the median distance within ``y``.

    Raises:
        ShapeError, NonFiniteError: clouds that cannot be compared.
        RangeError: no kernel is given, and the samples that would choose one hardly differ.
    """
    x, y = two_clouds(x, y)
    kernel = kernel or GaussianKernel(median_bandwidth(y))
    return float(_off_diagonal_mean(kernel(x, x)) + _off_diagonal_mean(kernel(y, y)) - 2 * kernel(x, y).mean())


@dataclass(frozen=True)
class TwoSampleTest:
    """Whether two clouds come from one distribution.

    Attributes:
        mmd2: of the two clouds.
        threshold: what ``1 - level`` of the random relabellings stay below.
        p_value: share of relabellings, the given one included, with an MMD at least as large.
    """

    mmd2: float
    threshold: float
    p_value: float

    @property
    def same(self) -> bool:
        """Not told apart at this level."""
        return self.mmd2 <= self.threshold


@torch.no_grad()
def two_sample_test(
    x: Float[Tensor, " n *d"],
    y: Float[Tensor, " m *d"],
    kernel: Kernel | None = None,
    *,
    permutations: int = 200,
    level: float = 0.05,
    generator: torch.Generator,
) -> TwoSampleTest:
    """The permutation test with MMD: if x and y are alike, it does not matter which points are called x.

    Of clouds from one distribution a share ``level`` is told apart all the same, exactly, whatever the kernel.

    Args:
        x, y: samples, independent draws; the pooled Gram matrix has (n + m)^2 entries.
        kernel: by default Gaussian with the median distance within both clouds.
        permutations: relabellings.
        level: chance of a false alarm.
        generator: of the relabellings.

    Source: Gretton et al. 2012, section 5.
    """
    x, y = two_clouds(x, y)
    n, pooled = len(x), torch.cat([x, y])
    shuffled = pooled[torch.randperm(len(pooled), generator=generator)]
    gram = (kernel or GaussianKernel(median_bandwidth(shuffled)))(pooled, pooled)
    seen = _mmd2_of(gram, torch.arange(len(pooled)) < n)
    null = gram.new_empty(check_count("permutations", permutations))
    for i in range(permutations):
        null[i] = _mmd2_of(gram, torch.randperm(len(pooled), generator=generator) < n)
    p_value = (1 + int((null >= seen).sum())) / (1 + permutations)
    threshold = torch.cat([null, null.new_tensor([seen])]).quantile(1 - check_number("level", level, 0, 1))
    return TwoSampleTest(seen, float(threshold), p_value)


def _mmd2_of(gram: Float[Tensor, " n n"], first: Tensor) -> float:
    """``mmd2`` of the points that are ``first`` and of the others, from the Gram matrix of all."""
    a = first.to(gram)
    b = 1 - a
    n, m, trace = a.sum(), b.sum(), gram.diagonal()
    ga, gb = gram @ a, gram @ b
    xx, yy, xy = a @ ga - a @ trace, b @ gb - b @ trace, a @ gb
    return float(xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m))


def _off_diagonal_mean(gram: Float[Tensor, " n n"]) -> Float[Tensor, ""]:
    n = len(gram)
    return (gram.sum() - gram.trace()) / (n * (n - 1))
