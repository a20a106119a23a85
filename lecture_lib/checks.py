"""``verify``: a claim, its two sides, and how far apart they are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lecture_lib.errors import CourseError, RangeError, ShapeError


class ClaimFailed(CourseError, AssertionError):
    """A claim of a notebook did not hold."""


def verify(claim: str, left, right, *, tol: float = 1e-6) -> None:
    """States ``claim`` and shows that ``left`` and ``right`` agree to ``tol`` (largest absolute difference).

    Prints one line with the *measured* difference; raises ClaimFailed, with both sides, if it is larger, if shapes
    differ, or if anything is not finite. Real numbers, lists, arrays and tensors are welcome; two bools state a fact.
    """
    a, b = _pair(claim, left, right)
    error = (a - b).abs().max().item()
    if not error <= tol:  # a NaN fails as well
        where = int((a - b).abs().nan_to_num(torch.inf).argmax())
        raise ClaimFailed(
            f"NOT so: {claim}\n  largest difference {error:.3g} > tolerance {tol:.3g}\n"
            f"  there: left {a.flatten()[where]:.8g}, right {b.flatten()[where]:.8g}"
        )
    allowed = f"{tol:.0e}" if float(f"{tol:.0e}") >= error else f"{tol:.3g}"  # 0.15 in one digit would be below 0.14
    print(f"\N{CHECK MARK} {claim}   [off by {error:.1e}, allowed {allowed}]")


def verify_less(claim: str, small, large) -> None:
    """States that ``small < large``, entry by entry, and prints the closest call; raises ClaimFailed otherwise."""
    a, b = _pair(claim, small, large)
    closest = int((b - a).nan_to_num(-torch.inf).argmin())
    left, right = a.flatten()[closest].item(), b.flatten()[closest].item()
    if not left < right:  # a NaN fails as well
        raise ClaimFailed(f"NOT so: {claim}\n  left {left:.6g} is not below right {right:.6g}")
    print(f"\N{CHECK MARK} {claim}   [{left:.4g} < {right:.4g}]")


def _pair(claim: str, left, right) -> tuple[Tensor, Tensor]:
    """Both sides in float64 and of one shape; a single number may stand against many."""
    a, b = _real(claim, "left", left), _real(claim, "right", right)
    if not a.numel() or not b.numel():
        raise ShapeError(f"verify({claim!r}): nothing to compare, a side is empty")
    if a.shape != b.shape and 1 not in (a.numel(), b.numel()):
        raise ShapeError(f"verify({claim!r}): left has shape {tuple(a.shape)}, right {tuple(b.shape)}")
    return torch.broadcast_tensors(a, b)


def _real(claim: str, name: str, side) -> Tensor:
    """One side in float64; a complex one is refused, since float64 would keep its real part alone."""
    if isinstance(side, np.ndarray):
        side = torch.as_tensor(side.copy())  # torch takes no array that runs backwards
    if isinstance(side, complex | np.complexfloating) or (isinstance(side, Tensor) and side.is_complex()):
        raise RangeError(f"verify({claim!r}): {name} is complex, expected real numbers: compare .real and .imag")
    return torch.as_tensor(side, dtype=torch.float64).detach().cpu()
