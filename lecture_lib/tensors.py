"""The few tensor habits that everything else shares: broadcasting times, checking input, drawing noise."""

from __future__ import annotations

import math
from numbers import Integral

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import NonFiniteError, RangeError, ShapeError


def per_sample(c: Float[Tensor, " b"], like: Float[Tensor, " b *d"]) -> Float[Tensor, " b *ones"]:
    """One number per sample, shaped ``(b, 1, 1, ...)`` to multiply ``like`` and cast to its dtype.

    This is the only place of the library where times meet images (trap 5 of the design: a ``(b,)`` that
    silently broadcasts over the width of an image).
    """
    return c.to(like.dtype).reshape(c.shape[0], *(1,) * (like.ndim - 1))


def randn_like(x: Float[Tensor, " b *d"], generator: torch.Generator | None = None) -> Float[Tensor, " b *d"]:
    """Standard normal noise of the shape, dtype and device of ``x``, drawn from ``generator``.

    A CPU generator also serves a GPU tensor (drawn on the CPU, then moved), so that the same seed gives the same
    picture on every device.
    """
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)


def check_batch(name: str, x: Tensor) -> Tensor:
    """``x`` itself, if it is a finite floating tensor ``(b, ...)`` with b >= 1; otherwise a named error."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = f"{x.dtype} tensor" if isinstance(x, Tensor) else type(x).__name__
        raise ShapeError(f"{name}: got {got}, expected a floating-point tensor of shape (b, ...)")
    if x.ndim < 2 or x.shape[0] < 1:
        raise ShapeError(
            f"{name}: got shape {tuple(x.shape)}, expected (b, ...) with b >= 1 and at least one more axis"
        )
    return check_finite(name, x)


def check_finite(name: str, x: Tensor) -> Tensor:
    """``x`` itself, if it holds neither NaN nor infinity."""
    if not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x)).sum())
        raise NonFiniteError(f"{name}: {bad} of {x.numel()} entries are NaN or infinite, expected finite numbers")
    return x


def check_times(name: str, t: Tensor, b: int, t_max: float = math.inf) -> Tensor:
    """``t`` itself, if it is a floating tensor of shape ``(b,)`` with entries in ``[0, t_max]``."""
    if not isinstance(t, Tensor) or t.shape != (b,) or not t.is_floating_point():
        got = f"{t.dtype} {tuple(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
        raise ShapeError(f"{name}: got {got}, expected a floating-point tensor of shape ({b},), one time per sample")
    if not ((t >= 0) & (t <= t_max * (1 + 1e-6))).all():  # a float32 pi/2 lies a little past the end; NaN fails too
        raise RangeError(f"{name}: got times in [{t.min():g}, {t.max():g}], expected path time in [0, {t_max:g}]")
    return t


def check_number(name: str, value: float, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a float, if it is finite and ``low <= value <= high``."""
    if isinstance(value, str | bool):
        raise RangeError(f"{name}: got {value!r}, expected a number")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise RangeError(f"{name}: got {value!r}, expected a number") from None
    if not math.isfinite(number) or not low <= number <= high:
        raise RangeError(f"{name}: got {value!r}, expected a finite number in [{low:g}, {high:g}]")
    return number


def check_count(name: str, value: int, low: int = 1) -> int:
    """``value`` as an int, if it is a whole number (not a bool) of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < low:
        raise RangeError(f"{name}: got {value!r}, expected a whole number >= {low}")
    return int(value)
