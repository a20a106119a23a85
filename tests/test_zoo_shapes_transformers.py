"""Recipes of the transformers on latents: what equal cost means, and that a step trains them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lecture_lib.nets import multiply_adds, parameter_count
from lecture_lib.zoo.shapes_text_to_image import TEXT_TO_IMAGE, shapes_text
from lecture_lib.zoo.shapes_transformers import MMDIT, TEXT_DIT
from lecture_lib.zoo.workshop import initial


def cost_of_a_sample(recipe):
    null = shapes_text().null
    cond = {name: value[None] for name, value in null.items()}
    return multiply_adds(recipe.network(), torch.zeros(1, 4, 8, 8), torch.zeros(1), cond)


@pytest.mark.parametrize(("recipe", "millions"), [(MMDIT, 30.85), (TEXT_DIT, 28.49)])
def test_they_train_for_as_many_multiply_adds_as_the_unet(recipe, millions):
    mine, theirs = cost_of_a_sample(recipe), cost_of_a_sample(TEXT_TO_IMAGE)
    assert (mine / 1e6, theirs / 1e6) == (pytest.approx(millions, abs=0.01), pytest.approx(59.96, abs=0.01))
    total = [c * r.steps * r.batch_size for c, r in ((mine, recipe), (theirs, TEXT_TO_IMAGE))]
    assert total[0] / total[1] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("recipe", "count"), [(MMDIT, 2_297_104), (TEXT_DIT, 2_294_672)])
def test_they_are_as_large_as_the_unet_and_see_the_same_data(recipe, count):
    assert parameter_count(recipe.network()) == count
    same = ("path", "parameterization", "times", "p_uncond", "scenes", "two", "batch_size", "seed")
    assert all(getattr(recipe, name) == getattr(TEXT_TO_IMAGE, name) for name in same)


@pytest.mark.parametrize("recipe", [MMDIT, TEXT_DIT])
def test_a_few_steps_lower_the_loss(recipe):
    recipe = replace(recipe, scenes=64)
    model, batch = initial(recipe), recipe.batches().draw(torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def loss(seed):
        return recipe.loss(model, batch, torch.Generator().manual_seed(seed)).mean()

    before = loss(0).item()  # the network says 0 at first: E|eps - x0|^2 = 2 where latents have variance 1
    assert before == pytest.approx(2, abs=0.3)  # but these are 64 scenes
    for seed in range(1, 13):
        optimizer.zero_grad()
        loss(seed).backward()
        optimizer.step()
    assert loss(0).item() < 0.95 * before
