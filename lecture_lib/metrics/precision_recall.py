"""Fidelity and diversity apart: precision, recall (Kynkaanniemi et al. 2019), density, coverage (Naeem et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import RangeError
from lecture_lib.metrics._clouds import two_clouds
from lecture_lib.tensors import check_count


@dataclass(frozen=True)
class FidelityDiversity:
    """Four numbers; precision and density judge fidelity, recall and coverage judge diversity.

    Attributes:
        precision: share of fakes inside the ball of some real sample.
        recall: share of reals inside the ball of some fake.
        density: mean number of real balls around a fake, over k; near 1 for equal distributions, may exceed 1.
        coverage: share of reals whose own ball holds a fake.
    """

    precision: float
    recall: float
    density: float
    coverage: float


@torch.no_grad()
def fidelity_diversity(real: Float[Tensor, " n *d"], fake: Float[Tensor, " m *d"], k: int = 3) -> FidelityDiversity:
    """Precision, recall, density and coverage of ``fake`` against ``real``.

    The ball of a sample reaches to its k-th nearest neighbour among its own kind, itself not counted.

    Args:
        real, fake: features, flattened to vectors; use equal sizes when recall and precision are compared.
        k: neighbours; 3 for precision and recall in the paper (Naeem et al. use 5 for coverage).

    Raises:
        ShapeError, NonFiniteError: clouds that cannot be compared.
        RangeError: k < 1, or not smaller than both numbers of samples.
    """
    check_count("k", k)
    real, fake = two_clouds(real, fake)
    if k >= min(len(real), len(fake)):
        raise RangeError(f"k: got {k}, expected less than the {min(len(real), len(fake))} samples of the smaller cloud")
    apart = torch.cdist(real, fake)  # (n, m)
    in_real_ball = apart <= _radii(real, k)[:, None]
    in_fake_ball = apart <= _radii(fake, k)[None, :]
    return FidelityDiversity(
        precision=float(in_real_ball.any(dim=0).double().mean()),
        recall=float(in_fake_ball.any(dim=1).double().mean()),
        density=float(in_real_ball.sum(dim=0).double().mean() / k),
        coverage=float(in_real_ball.any(dim=1).double().mean()),
    )


def _radii(x: Float[Tensor, " n d"], k: int) -> Float[Tensor, " n"]:
    """Distance of each sample to its k-th nearest neighbour."""
    distances = torch.cdist(x, x).fill_diagonal_(torch.inf)
    return distances.kthvalue(k, dim=1).values
