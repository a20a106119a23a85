"""Unbalanced optimal transport between two discrete measures: marginals are asked for, and may be missed at a price.

    min_{pi >= 0}  <pi, c> + D_Psi(pi 1 | a) + D_Psi(pi^T 1 | b) + entropy KL(pi | a b^T)

with ``D_Psi = penalty KL``; at ``penalty = inf`` the marginals are met and it is (entropic) optimal transport.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.tensors import check_count, check_number


def unbalanced_plan(
    cost: Float[Tensor, " n m"],
    a: Float[Tensor, " n"],
    b: Float[Tensor, " m"],
    *,
    penalty: float,
    entropy: float,
    most: int = 20_000,
    tolerance: float = 1e-9,
) -> Float[Tensor, " n m"]:
    """The plan, by Sinkhorn's iteration on the potentials f and g, in float64.

        f <- -w entropy log sum_j b_j exp((g_j - c_ij)/entropy),   w = penalty/(penalty + entropy)

    and g likewise; w = 1 is Sinkhorn's own.

    Raises:
        ShapeError: the cost does not fit the weights.
        RangeError: a and b differ in mass where the marginals must be met; or it does not settle within ``most``
            iterations.

    Source: Chizat, Peyre, Schmitzer & Vialard 2018 (1607.05816), algorithm 1 and table 1.
    """
    if cost.shape != (len(a), len(b)):
        raise ShapeError(f"cost: got shape {tuple(cost.shape)}, expected ({len(a)}, {len(b)}) as a and b")
    cost, a, b = cost.double(), a.double(), b.double()
    if penalty == math.inf:
        if not torch.isclose(a.sum(), b.sum(), rtol=1e-5):
            raise RangeError(f"a, b: got masses {float(a.sum()):g} and {float(b.sum()):g}, expected equal ones")
        b = b * (a.sum() / b.sum())  # float32 weights miss 1 by 1e-8: potentials would drift
    log_a, log_b = a.log(), b.log()
    entropy = check_number("entropy", entropy, 1e-9)
    give = 1.0 if penalty == math.inf else check_number("penalty", penalty, 1e-9) / (penalty + entropy)
    f, g = torch.zeros_like(log_a), torch.zeros_like(log_b)
    for _ in range(check_count("most", most)):
        before = f
        f = -give * entropy * ((g - cost) / entropy + log_b).logsumexp(1)
        g = -give * entropy * ((f[:, None] - cost) / entropy + log_a[:, None]).logsumexp(0)
        if (f - before).abs().max() <= tolerance * (1 + f.abs().max()):
            return ((f[:, None] + g - cost) / entropy + log_a[:, None] + log_b).exp()
    raise RangeError(f"most: potentials still move after {most} iterations; expected more of them, or more entropy")
