"""Recipes of the transformers on latents: what equal cost means, and that a step trains them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lecture_lib.nets import multiply_adds, parameter_count
from lecture_lib.zoo.shapes_text_to_image import TEXT_TO_IMAGE, shapes_text
from lecture_lib.zoo.shapes_transformers import MMDIT
from lecture_lib.zoo.workshop import initial


def cost_of_a_sample(recipe):
    null = shapes_text().null
    cond = {name: value[None] for name, value in null.items()}
    return multiply_adds(recipe.network(), torch.zeros(1, 4, 8, 8), torch.zeros(1), cond)


def test_the_mmdit_trains_for_as_many_multiply_adds_as_the_unet():
    mine, theirs = cost_of_a_sample(MMDIT), cost_of_a_sample(TEXT_TO_IMAGE)
    assert (mine / 1e6, theirs / 1e6) == (pytest.approx(29.21, abs=0.01), pytest.approx(57.85, abs=0.01))
    total = [c * r.steps * r.batch_size for c, r in ((mine, MMDIT), (theirs, TEXT_TO_IMAGE))]
    assert total[0] / total[1] == pytest.approx(1, abs=0.002)


def test_it_is_as_large_as_the_unet_and_sees_the_same_data():
    assert parameter_count(MMDIT.network()) == 2_297_104
    same = ("path", "parameterization", "times", "p_uncond", "scenes", "two", "batch_size", "seed")
    assert all(getattr(MMDIT, name) == getattr(TEXT_TO_IMAGE, name) for name in same)


def test_a_few_steps_lower_the_loss():
    recipe = replace(MMDIT, scenes=64)
    model, batch = initial(recipe), recipe.batches().draw(torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def loss(seed):
        return recipe.loss(model, batch, torch.Generator().manual_seed(seed)).mean()

    before = loss(0).item()  # the network says 0 at first: E|eps - x0|^2 = 2 for latents of variance 1
    assert before == pytest.approx(2, abs=0.15)
    for seed in range(1, 25):
        optimizer.zero_grad()
        loss(seed).backward()
        optimizer.step()
    assert loss(0).item() < 0.95 * before
