"""Two-dimensional worlds: n points (n, 2), drawn from a generator, of a size that fits in [-2, 2]^2 or so."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.errors import ShapeError
from lecture_lib.tensors import check_count, check_number

Points = Float[Tensor, " n 2"]


def _uniform(n: int, generator: torch.Generator | None, *more: int) -> Tensor:
    device = None if generator is None else generator.device
    return torch.rand(check_count("n", n), *more, generator=generator, device=device)


def _normal(n: int, generator: torch.Generator | None, *more: int) -> Tensor:
    device = None if generator is None else generator.device
    return torch.randn(check_count("n", n), *more, generator=generator, device=device)


def _pick(n: int, choices: int, generator: torch.Generator | None) -> Int[Tensor, " n"]:
    device = None if generator is None else generator.device
    return torch.randint(choices, (check_count("n", n),), generator=generator, device=device)


def _direction(angle: Float[Tensor, " n"]) -> Points:
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def ring(
    n: int, *, modes: int = 8, radius: float = 1.5, std: float = 0.1, generator: torch.Generator | None = None
) -> tuple[Points, Int[Tensor, " n"]]:
    """Gaussians of equal weight on a circle; the label is the number of the Gaussian, counter-clockwise."""
    check_number("std", std, 0.0)
    labels = _pick(n, check_count("modes", modes), generator)
    centres = radius * _direction(2 * math.pi * labels / modes)
    return centres + std * _normal(n, generator, 2), labels


def moons(n: int, *, std: float = 0.08, generator: torch.Generator | None = None) -> tuple[Points, Int[Tensor, " n"]]:
    """Two interleaved half circles of radius 1, centred on the origin as a pair; the label is the moon (0 upper)."""
    labels = _pick(n, 2, generator)
    arc = _direction(math.pi * _uniform(n, generator))
    sign = 1.0 - 2.0 * labels[:, None]
    # The lower moon is the upper one turned by 180 degrees about (1/2, 1/4), the centre of the pair.
    points = sign * (arc - torch.tensor([0.5, 0.25], device=arc.device))
    return points + check_number("std", std, 0.0) * _normal(n, generator, 2), labels


def checkerboard(n: int, *, generator: torch.Generator | None = None) -> tuple[Points, Int[Tensor, " n"]]:
    """Uniform on the 8 dark squares of a 4x4 board over [-2, 2]^2; the label is the row, 0..3 from below."""
    column, row = _pick(n, 2, generator), _pick(n, 4, generator)
    corner = torch.stack([2 * column + row % 2, row], dim=-1) - 2.0
    return corner + _uniform(n, generator, 2), row


def spirals(
    n: int, *, arms: int = 2, turns: float = 1.25, std: float = 0.05, generator: torch.Generator | None = None
) -> tuple[Points, Int[Tensor, " n"]]:
    """Archimedean spirals of radius up to 2, evenly turned against one another; the label is the arm.

    The square root makes the points roughly uniform along the arm.
    """
    labels = _pick(n, check_count("arms", arms), generator)
    along = _uniform(n, generator).sqrt()
    angle = 2 * math.pi * (turns * along + labels / arms)
    return 2.0 * along[:, None] * _direction(angle) + check_number("std", std, 0.0) * _normal(n, generator, 2), labels


def labelled_mixture(
    n: int,
    means: Float[Tensor, " k 2"],
    *,
    std: float = 0.3,
    weights: Float[Tensor, " k"] | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Points, Int[Tensor, " n"]]:
    """Isotropic Gaussians at ``means`` with the given weights (equal by default); the label is the component.

    Raises:
        ShapeError: not one weight per mean.
    """
    weights = torch.ones(len(means)) if weights is None else weights
    if weights.shape != (len(means),):
        raise ShapeError(f"weights: got shape {tuple(weights.shape)}, expected ({len(means)},), one per mean")
    labels = torch.multinomial(weights.to(means.device), check_count("n", n), replacement=True, generator=generator)
    return means[labels] + check_number("std", std, 0.0) * _normal(n, generator, means.shape[1]), labels
