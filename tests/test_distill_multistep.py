"""Where multistep sampling goes back to, and the search for better places."""

from __future__ import annotations

import math

import pytest
import torch
from worlds import F64, normal, seeded

from lecture_lib.core import EDM, VPLinear
from lecture_lib.distill import exact_consistency, greedy_grid, multistep_grid
from lecture_lib.errors import RangeError
from lecture_lib.oracles import GaussianMixture
from lecture_lib.samplers import ConsistencyMultistep, consistency, last, sample


def test_the_levels_of_the_docstring():
    assert multistep_grid(EDM(), 1).tolist() == pytest.approx([80, 0.002])
    assert multistep_grid(EDM(), 2, end=0.0).tolist() == pytest.approx([80, 2.515, 0], rel=1e-3)
    middle = (0.5 * (80 ** (1 / 7) + 0.002 ** (1 / 7))) ** 7
    assert multistep_grid(EDM(), 2)[1].item() == pytest.approx(middle, rel=1e-9)
    assert multistep_grid(EDM(), 4).tolist() == pytest.approx([80, 17.53, 2.515, 0.1698, 0.002], rel=1e-3)
    levels = torch.exp(-VPLinear().lam(multistep_grid(VPLinear(), 2, sigma_max=50.0, end=1e-4)))
    assert levels[0].item() == pytest.approx(50, rel=1e-6)


def test_multistep_sampling_of_the_exact_function_keeps_the_law_at_any_number_of_steps():
    """The truth loses nothing by going back: a Gaussian's variance stays s^2 (+ eps^2), by closed form."""
    s, path = 0.5, EDM()

    def f(x, t):
        return x * torch.sqrt((s**2 + 0.002**2) / (s**2 + t**2))[:, None]

    for steps in (1, 2, 3, 6):
        grid, x = multistep_grid(path, steps), math.sqrt(80**2 + s**2) * normal(40_000, 1)
        y = last(sample(consistency(f, path), path, ConsistencyMultistep(0.002), grid, x, generator=seeded(2)))
        assert y.var().item() == pytest.approx(s**2, rel=0.03)  # 4 standard errors of 40 000 draws


def test_the_search_finds_a_minimum_that_is_known():
    """A score with its minimum at levels 3 and 0.4: each is found to the width that eight rounds leave."""
    asked = []

    def score(grid):
        asked.append(grid)
        inner = grid[1:-1].log()
        return float((inner - torch.tensor([math.log(3.0), math.log(0.4)], dtype=F64)[: len(inner)]).square().sum())

    grid = greedy_grid(score, EDM(), 3)
    width = math.log(80 / 0.02) * (2 / 3) ** 8
    assert grid[0].item() == pytest.approx(80, rel=1e-12) and grid[-1] == 0.002
    assert (grid[1:-1].log() - torch.tensor([3.0, 0.4], dtype=F64).log()).abs().max() < width
    assert len(asked) == 2 * 2 * 8
    assert greedy_grid(score, EDM(), 1).tolist() == pytest.approx([80, 0.002])
    with pytest.raises(RangeError, match="sigma_min"):
        greedy_grid(score, EDM(), 2, sigma_min=90.0)


def test_a_second_step_repairs_a_first_that_was_blurred():
    """f that shrinks at high noise: one step misses the variance; the level to go back to is where f is right."""
    world, path = GaussianMixture([1.0], [[0.0]], [0.25]), EDM()
    truth = exact_consistency(world.denoise(path), path, 0.002, tolerance=1e-6)

    def f(x, t):  # right below level 2, an eighth too small above it
        return truth(x, t) * torch.where(t < 2, 1.0, 0.875)[:, None]

    def error(grid):
        x = 80 * normal(4000, 1)
        y = last(sample(consistency(f, path), path, ConsistencyMultistep(0.002), grid, x, generator=seeded(2)))
        return abs(float(y.std()) - 0.5)

    assert error(greedy_grid(error, path, 2, rounds=5)) < 0.3 * error(multistep_grid(path, 1))
