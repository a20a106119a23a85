"""Langevin dynamics on a landscape that stands still: down the energy, and noise against it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.tensors import blend, check_batch, check_finite, check_number, randn_like, root


def langevin(
    force: Callable[[Tensor], Tensor],
    x: Float[Tensor, " b *d"],
    *,
    step: float,
    temperatures: Iterable[float],
    generator: torch.Generator | None = None,
) -> Iterator[Float[Tensor, " b *d"]]:
    """``x <- x + h force(x) + sqrt(2 T h) z``, unadjusted; yields after every step. No gradients.

    With ``force = -grad E`` and T = 1 long chains draw from exp(-E), up to a bias that grows with the step: for
    E = x^2/2 they settle at variance 1/(1 - h/2), 1.0050 at h = 0.01. T = 0 is gradient descent.

    Args:
        force: ``(b, ...) -> (b, ...)``; the score of a density at T = 1.
        x: where the chains start.
        step: h > 0.
        temperatures: T of each step in turn, at least 0; as many steps as there are.
        generator: of the noise.

    Raises (while iterating):
        NonFiniteError: a chain has run away; the step is too long for this landscape.

    Source: Roberts & Tweedie 1996, section 1.4.2 (the unadjusted Langevin algorithm).
    """
    check_number("step", step, 1e-12)
    check_batch("x", x)
    for temperature in temperatures:
        noise = root(2 * step * check_number("temperature", temperature, 0))
        with torch.no_grad():
            moved = blend((1.0, x), (step, force(x)))
            x = blend((1.0, moved), (noise, randn_like(x, generator))) if noise else moved
        yield check_finite("x", x)
