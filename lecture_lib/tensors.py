"""The few tensor habits that everything else shares: broadcasting times, checking input, drawing noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import NonFiniteError, RangeError, ShapeError


def per_sample(c: Number, like: Float[Tensor, " b *d"]) -> float | Float[Tensor, " b *ones"]:
    """One number per sample, shaped ``(b, 1, 1, ...)`` to multiply ``like`` and cast to its dtype; a float as it is.

    This is the only place of the library where times meet images (trap 5 of the design: a ``(b,)`` that
    silently broadcasts over the width of an image).
    """
    if not isinstance(c, Tensor):
        return c
    return c.to(like.dtype).reshape(c.shape[0], *(1,) * (like.ndim - 1))


Number = float | Float[Tensor, " b"]
"""A coefficient: one float where the whole batch shares it, ``(b,)`` float64 where each sample has its own."""


def blend(*terms: tuple[Number, Float[Tensor, " b *d"]]) -> Float[Tensor, " b *d"]:
    """``sum_k c_k x_k``: the linear algebra of every sampler, one pass over memory per term, or less.

    Terms of one and the same tensor are merged, those with c = 0.0 dropped. Outside autograd the sum grows in place
    in a new tensor; the inputs are never changed.
    """
    if len(terms) > 2 or terms[0][1] is terms[-1][1]:
        terms = _merged(terms)
    kept = [term for term in terms if isinstance(term[0], Tensor) or term[0] != 0.0]
    if not kept:
        return torch.zeros_like(terms[0][1])
    for c, _ in kept:
        if isinstance(c, Tensor):
            return _per_sample_blend(kept)
    # Two terms in one pass where the weights allow it: x + d y, (1 - d) x + d y, and any mean as a running mean. On the
    # clocks of EDM and of the straight path they often do.
    (c, x), *rest = kept
    if c == 1.0 and rest:
        d, y = rest.pop()
        total = torch.add(x, y, alpha=d)
    elif rest and abs(c + rest[-1][0] - 1.0) < 1e-15:
        d, y = rest.pop()
        total = torch.lerp(x, y, d)
    elif rest and _is_mean(kept):
        return _running_mean(kept)
    else:
        total = c * x
    if rest:
        add = torch.add if torch.is_grad_enabled() else Tensor.add_
        for c, y in rest:
            total = add(total, y, alpha=c)
    return total


def _per_sample_blend(terms: list[tuple[Number, Tensor]]) -> Tensor:
    (c, x), *rest = terms
    total = per_sample(c, x) * x
    add = torch.add if torch.is_grad_enabled() else Tensor.add_
    for c, y in rest:
        total = add(total, per_sample(c, y) * y)
    return total


def _is_mean(terms: list[tuple[float, Tensor]]) -> bool:
    """Whether the weights add up to 1, and no sum on the way is so small that dividing by it would cost digits."""
    so_far = 0.0
    for c, _ in terms:
        so_far += c
        if abs(so_far) < 0.1:
            return False
    return abs(so_far - 1.0) < 1e-15


def _running_mean(terms: list[tuple[float, Tensor]]) -> Tensor:
    """``sum_k c_k x_k`` for weights that add up to 1: each term pulls the mean of those before it."""
    (so_far, mean), *rest = terms
    lerp = torch.lerp  # the first one makes the new tensor
    for c, y in rest:
        so_far += c
        mean = lerp(mean, y, c / so_far)
        lerp = torch.lerp if torch.is_grad_enabled() else Tensor.lerp_
    return mean


def _merged(terms: Sequence[tuple[Number, Tensor]]) -> list[tuple[Number, Tensor]]:
    sums: dict[int, tuple[Number, Tensor]] = {}
    for c, x in terms:
        sums[id(x)] = (sums[id(x)][0] + c if id(x) in sums else c, x)
    return list(sums.values())


def all_finite(c: Number) -> bool:
    """Whether the coefficient is neither NaN nor infinite, for every sample."""
    return bool(torch.isfinite(c).all()) if isinstance(c, Tensor) else math.isfinite(c)


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
    # The sum is finite if all entries are, and 30 times cheaper to look at; only a sum that is not needs a closer look.
    if not math.isfinite(float(x.detach().sum())) and not torch.isfinite(x).all():
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


def root(c: Number) -> Number:
    """``sqrt(c)``, where rounding below zero counts as zero (a float's ``** 0.5`` would turn complex)."""
    if isinstance(c, Tensor):
        return c.clamp(min=0).sqrt()
    return 0.0 if c < 0 else math.sqrt(c)


def all_zero(c: Number) -> bool:
    """Whether the coefficient is zero, for every sample: clean data reached, no noise in sight."""
    return bool((c == 0).all()) if isinstance(c, Tensor) else c == 0


@contextmanager
def few_threads(n: int) -> Iterator[None]:
    """At most ``n`` CPU threads inside, as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(n, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def layers_from(seed: int) -> Iterator[None]:
    """Inside, PyTorch initialises layers from this seed; the global generator is given back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.set_state(torch.Generator().manual_seed(seed).get_state())
        yield
