"""The one check every metric makes of its two clouds of points."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import ShapeError
from lecture_lib.tensors import check_batch


def two_clouds(
    x: Float[Tensor, " n *d"], y: Float[Tensor, " m *d"], least: int = 2
) -> tuple[Float[Tensor, " n k"], Float[Tensor, " m k"]]:
    """Both clouds flattened to (n, k) and (m, k), in float64.

    Raises:
        ShapeError: different features, or fewer than ``least`` samples in one of them.
        NonFiniteError: NaN or infinity among the features.
    """
    x, y = (check_batch(name, cloud).detach().flatten(1).double() for name, cloud in (("x", x), ("y", y)))
    if x.shape[1] != y.shape[1] or min(len(x), len(y)) < least:
        raise ShapeError(
            f"x, y: got shapes {tuple(x.shape)} and {tuple(y.shape)}, expected the same features and at least "
            f"{least} samples each"
        )
    return x, y
