"""Mixtures that several parts of the course look at."""

from __future__ import annotations

import math

import torch

from lecture_lib.oracles.mixture import GaussianMixture
from lecture_lib.tensors import check_count, check_number


def ring_of_modes(modes: int = 8, radius: float = 1.0, std: float = 0.1) -> GaussianMixture:
    """Round modes on a circle, all of one weight: the course's benchmark of samplers."""
    angle = torch.arange(check_count("modes", modes), dtype=torch.float64) * (2 * math.pi / modes)
    variance = check_number("std", std, 1e-9) ** 2
    return GaussianMixture([1.0] * modes, radius * torch.stack([angle.cos(), angle.sin()], dim=1), [variance] * modes)


def moons_mixture(modes: int = 24, std: float = 0.08) -> GaussianMixture:
    """Two interleaved half circles, each as ``modes`` Gaussians along its arc; the label is the moon (0 upper).

    The noisy arc is the limit of many modes; with 24 of the default width, densities are off by
    less than a hundredth where the data are.
    """
    angle = (torch.arange(check_count("modes", modes), dtype=torch.float64) + 0.5) * (math.pi / modes)
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
    variance = check_number("std", std, 1e-9) ** 2
    return GaussianMixture(
        [1.0] * 2 * modes, torch.cat([upper, -upper]), [variance] * 2 * modes, [0] * modes + [1] * modes
    )
