"""The few tensor habits: weighted sums, checks, roots."""

from __future__ import annotations

import math

import pytest
import torch
from worlds import F64, gap, normal, times

from lecture_lib.errors import NonFiniteError
from lecture_lib.tensors import all_finite, all_zero, blend, check_finite, root

X, Y, Z = normal(3, 2, 4), normal(3, 2, 4, seed=1), normal(3, 2, 4, seed=2)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "weights",
    [
        (0.3, -1.2, 0.7),
        (1.0, 0.5, 0.0),  # x + d y in one pass
        (0.25, 0.0, 0.75),  # (1 - d) x + d z in one pass
        (0.7, 0.5, -0.2),  # a running mean
        (0.5, -0.499999, 0.999999),  # a mean, but its first two weights nearly cancel
        (0.0, 0.0, 2.0),
        (0.0, 1.0, 0.0),  # still a new tensor
        (times(0.1, 0.2, 0.3), 1.0, 0.0),
        (1.0, 0.5, times(-1.0, 0.0, 2.0)),
    ],
    ids=str,
)
def test_blend_is_the_weighted_sum(weights, grad):
    kept = [v.clone() for v in (X, Y, Z)]
    column = [w[:, None, None] if isinstance(w, torch.Tensor) else w for w in weights]
    with torch.set_grad_enabled(grad):
        got = blend(*zip(weights, (X, Y, Z), strict=True))
    assert gap(got, column[0] * X + column[1] * Y + column[2] * Z) <= 1e-14
    assert all(torch.equal(a, b) for a, b in zip(kept, (X, Y, Z), strict=True))  # inputs are never changed
    assert got.data_ptr() not in {v.data_ptr() for v in (X, Y, Z)}


def test_blend_merges_terms_of_the_same_tensor():
    assert gap(blend((1.0, X), (0.5, Y), (-0.25, X), (0.5, Y)), 0.75 * X + Y) <= 1e-14
    assert gap(blend((1.0, X), (-1.0, X)), torch.zeros_like(X)) == 0
    assert gap(blend((times(1, 2, 3), X), (1.0, X)), times(2, 3, 4)[:, None, None] * X) <= 1e-14


def test_blend_keeps_dtype_and_graph():
    x = X.float().requires_grad_()
    out = blend((times(0.1, 0.2, 0.3), x), (0.5, Y.float()))
    assert out.dtype == torch.float32
    out.sum().backward()
    assert gap(x.grad, times(0.1, 0.2, 0.3)[:, None, None].float().expand(x.shape)) <= 1e-7
    _, slope = torch.func.jvp(lambda v: blend((2.0, X), (3.0, v), (1.0, Z)), (Y,), (torch.ones_like(Y),))
    assert gap(slope, torch.full_like(Y, 3.0)) == 0


def test_finite_is_told_from_overflow():
    big = torch.full((2, 3), 3e38)  # the sum overflows, the entries do not
    assert check_finite("big", big) is big
    for bad in (math.nan, math.inf, -math.inf):
        x = torch.zeros(2, 3)
        x[1, 2] = bad
        with pytest.raises(NonFiniteError, match="x: 1 of 6"):
            check_finite("x", x)
    with pytest.raises(NonFiniteError, match="2 of 6"):  # two infinities that cancel in the sum to NaN
        check_finite("x", torch.tensor([[math.inf, -math.inf, 0.0], [0.0, 0.0, 0.0]]))


def test_numbers_are_floats_or_tensors():
    assert all_finite(1.0) and all_finite(times(1, 2))
    assert not all_finite(math.nan) and not all_finite(times(1, math.inf)) and not all_finite(times(1, math.nan))
    assert all_zero(0.0) and all_zero(times(0, 0)) and not all_zero(times(0, 1)) and not all_zero(1e-30)
    assert root(-1e-17) == 0.0 and root(4.0) == 2.0 and math.isnan(root(math.nan))
    assert torch.equal(root(times(-1e-17, 9.0)), torch.tensor([0.0, 3.0], dtype=F64))
