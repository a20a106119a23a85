"""The consistency students of the ring: one world and network, and figures that each method can be held to."""

from __future__ import annotations

import pytest
import torch
from worlds import seeded

from lecture_lib import zoo
from lecture_lib.core import EDM
from lecture_lib.distill import exact_consistency
from lecture_lib.zoo.evaluate_plane import distance
from lecture_lib.zoo.plane import ring
from lecture_lib.zoo.ring_consistency import ECT, RING_CONSISTENCY, start
from lecture_lib.zoo.workshop import initial

PATH = EDM()
# Sliced Wasserstein distance of one step (teacher: 20), about 1.5 times what is embedded in the weights.
LARGEST = {"ring-teacher": 0.06, "ring-cd": 0.12, "ring-ct": 0.16, "ring-ect": 0.06, "ring-ict": 0.06}


def test_all_have_one_network_and_budget():
    students = [r for r in RING_CONSISTENCY if r.name != "ring-teacher"]
    assert len({(r.network, r.steps, r.batch_size, r.lr) for r in students}) == 1
    assert set(LARGEST) == {r.name for r in RING_CONSISTENCY}


@pytest.mark.parametrize("recipe", RING_CONSISTENCY, ids=lambda r: r.name)
def test_samples_are_near_the_ring(recipe):
    steps = 20 if recipe.name == "ring-teacher" else 1
    points = recipe.draw(zoo.load(recipe.name), 10_000, steps=steps, generator=seeded(11))
    assert distance(points, seeded(12)) < LARGEST[recipe.name]
    again = recipe.draw(zoo.load(recipe.name), 10_000, steps=steps, generator=seeded(11))
    assert torch.equal(points, again)


def test_noise_is_multiplied_by_its_level():
    """A start of N(0, I) instead of N(0, 80^2 I) falls onto the middle of the ring (the popular mistake)."""
    assert start(20_000, seeded()).std().item() == pytest.approx(80, rel=0.02)
    jump = zoo.recipe("ring-ict").jump(zoo.load("ring-ict"))
    t, z = torch.full((2000,), 80.0, dtype=torch.float64), torch.randn(2000, 2, generator=seeded())
    assert jump(z, t).norm(dim=1).mean() < 0.3 < 0.85 < jump(80 * z, t).norm(dim=1).mean()


@pytest.mark.parametrize("name", ["ring-cd", "ring-ect", "ring-ict"])
def test_one_step_is_the_flow_map_for_most_noise(name):
    """Against the exact flow map from the same noise: half of the points end within a fifth of a data unit."""
    recipe, x = zoo.recipe(name), start(300, seeded(5))
    t = torch.full((300,), 80.0, dtype=torch.float64)
    exact = exact_consistency(ring().denoise(PATH), PATH, 0.002, tolerance=1e-4)(x.double(), t)
    gap = (recipe.jump(zoo.load(name))(x, t) - exact).norm(dim=1)
    assert gap.median() < 0.2 and gap.median() < 0.3 * exact.norm(dim=1).median()


def test_ect_starts_as_its_teacher_and_the_others_from_nothing():
    student, teacher = initial(ECT), zoo.load("ring-teacher")
    x, t = start(50, seeded()), torch.full((50,), 3.0, dtype=torch.float64)
    assert torch.allclose(student(x, t).x0, teacher(x, t).x0, atol=1e-4)
    fresh = initial(zoo.recipe("ring-ict"))
    assert all(not p.any() for p in (fresh.network.leave.weight, fresh.network.leave.bias))


def test_curricula_change_the_loss_as_training_goes_on():
    """The same weights, batch and generator: the loss is another one at the start and at the end."""
    for name in ("ring-ct", "ring-ect", "ring-ict"):
        recipe = zoo.recipe(name)
        batch = (ring().sample(64, generator=seeded()),)
        model = zoo.load(name)
        early, late = (recipe.loss_at(done)(model, batch, seeded(1)).mean() for done in (0, recipe.steps - 1))
        assert abs(early - late) > 0.05 * late
