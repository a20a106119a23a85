"""Training recipes: resumed runs end with the same bits, and checkpoints become weights of the zoo."""

from __future__ import annotations

import copy
import itertools
import json
import math
from dataclasses import replace
from functools import partial
from itertools import islice

import pytest
import torch

from lecture_lib import zoo
from lecture_lib.core import RectifiedFlow
from lecture_lib.errors import DamagedFileError
from lecture_lib.training import checkpoint
from lecture_lib.zoo import library, recipes, store
from lecture_lib.zoo.models import digit_dit, guided_digit_dit
from lecture_lib.zoo.workshop import initial

TINY = replace(
    recipes.DIT,
    name="tiny",
    network=partial(digit_dit, dim=16, depth=1, heads=2, ratio=1.0),
    steps=12,
    warmup=3,
    batch_size=8,
)


def final(directory):
    content = checkpoint.read(directory / "tiny.ckpt")
    return content["parts"]["model"] | {f"ema {k}": v for k, v in content["parts"]["ema"]["average"].items()}


def test_interrupted_and_uninterrupted_runs_are_the_same_bits(tmp_path):
    losses = [step.loss for step in zoo.train(TINY, tmp_path / "whole", save_every=100)]
    for stop in (1, 4, 3, 5, 12):  # leave the loop, come back, several times
        broken = itertools.islice(zoo.train(TINY, tmp_path / "parts", save_every=2), stop)
        numbers = [step.number for step in broken]
    assert numbers[-1] == 12 and len(losses) == 12
    whole, parts = final(tmp_path / "whole"), final(tmp_path / "parts")
    assert whole.keys() == parts.keys() and all(torch.equal(whole[k], parts[k]) for k in whole)
    name = "network.time.mlp.0.weight"
    fresh, last, average = initial(TINY).state_dict()[name], whole[name], whole[f"ema {name}"]
    assert not torch.equal(average, fresh) and not torch.equal(average, last)  # it follows, at a distance
    assert list(zoo.train(TINY, tmp_path / "whole")) == []  # finished: nothing left to do
    afresh = next(zoo.train(TINY, tmp_path / "whole", resume=False))
    assert afresh.number == 1 and afresh.loss == losses[0]


def test_another_recipe_does_not_resume_this_checkpoint(tmp_path):
    list(itertools.islice(zoo.train(TINY, tmp_path, save_every=1), 2))
    for other in (replace(TINY, lr=1e-3), replace(TINY, seed=7), replace(TINY, p_uncond=0.5)):
        with pytest.raises(DamagedFileError, match="another training"):
            zoo.train(other, tmp_path)


def test_initial_weights_are_a_function_of_the_recipe_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    a, b, c = initial(TINY), initial(TINY), initial(replace(TINY, seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    name = "network.embed.weight"
    assert torch.equal(a.state_dict()[name], b.state_dict()[name])
    assert not torch.equal(a.state_dict()[name], c.state_dict()[name])


def test_install_puts_the_average_into_the_zoo(tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "tiny", TINY)
    source = tmp_path / "tiny.ckpt"
    list(itertools.islice(zoo.train(TINY, tmp_path, save_every=1), 3))
    with pytest.raises(DamagedFileError, match="update 3 of 12"):
        zoo.install(source, folder=tmp_path / "weights")
    list(zoo.train(TINY, tmp_path))
    zoo.install(source, folder=tmp_path / "weights")
    state, metadata = store.read("tiny", tmp_path / "weights")
    average = checkpoint.read(source)["parts"]["ema"]["average"]
    assert all(torch.equal(state[key], average[key].half().float()) for key in average)
    assert metadata["steps"] == 12 and metadata["seed"] == 0 and metadata["metrics"] == {}
    assert metadata["seconds"] > 0 and metadata["versions"].keys() == {"lecture_lib", "python", "torch"}
    assert metadata["recipe"] == json.loads(json.dumps(TINY.describe()))
    line = {s.name: s for s in library.status(tmp_path / "weights")}
    assert line["tiny"].state == "ready" and line["tiny"].steps == 12 and line["tiny"].bytes > 1000
    assert "course train digits-dit" in line["digits-dit"].state
    monkeypatch.setitem(recipes.RECIPES, "tiny", replace(TINY, steps=13))
    assert "earlier recipe" in {s.name: s for s in library.status(tmp_path / "weights")}["tiny"].state
    with pytest.raises(DamagedFileError, match="another recipe"):
        zoo.install(source, folder=tmp_path / "weights")


@pytest.mark.parametrize("name", zoo.names())
def test_every_recipe_builds_and_takes_a_step(name, tmp_path):
    recipe = zoo.recipe(name)
    few = {"batch_size": 4} | ({"scenes": 8} if hasattr(recipe, "scenes") else {})
    steps = list(
        islice(zoo.train(replace(recipe, **few), tmp_path), 3)
    )  # in games the first turn may have nothing to do
    assert [step.number for step in steps] == [1, 2, 3]
    assert all(math.isfinite(step.loss) for step in steps) and max(step.gradient_norm for step in steps) > 0
    assert json.dumps(zoo.recipe(name).describe())


def test_the_student_starts_as_its_teacher_and_learns_the_guided_prediction(tmp_path):
    recipe = zoo.recipe("digits-dit-distilled")
    student, teacher = initial(recipe), zoo.load(recipe.teacher.name)
    x, t, label = torch.randn(4, 1, 8, 8), torch.tensor([0.1, 0.4, 0.7, 0.95]).double(), torch.tensor([0, 3, 7, 10])
    silent = copy.deepcopy(student)
    for p in silent.network.condition.scale.parameters():
        p.data.zero_()  # without its embedding of w ...
    got = silent.given({"label": label, "w": torch.full((4,), 3.0)})(x, t).velocity
    assert torch.allclose(got, teacher.given(label)(x, t).velocity, atol=1e-5)  # ... it is the teacher, copied
    batch = (torch.randn(64, 1, 8, 8).clamp(-1, 1), torch.randint(10, (64,)))
    always = replace(recipe, w_low=1.0, w_high=1.0 + 1e-6)
    at_one = always.loss(silent, batch, torch.Generator().manual_seed(0)).mean()
    at_six = replace(recipe, w_low=6.0, w_high=6.0 + 1e-6).loss(silent, batch, torch.Generator().manual_seed(0)).mean()
    assert at_one < 1e-8 < at_six  # w = 1 is the conditional teacher, which the copy already is


def test_classifier_recipe_knows_its_path():
    classifier = zoo.recipe("digits-classifier").build()
    assert classifier.path == RectifiedFlow()
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 0.5, 0.9])
    log_p = torch.stack([classifier.given(c)(x, t) for c in range(10)], dim=1)
    assert torch.allclose(log_p.exp().sum(1), torch.ones(3), atol=1e-5)
    mixed = classifier.given(torch.tensor([2, 0, 9]))(x, t)
    assert torch.allclose(mixed, log_p[torch.arange(3), torch.tensor([2, 0, 9])])
    assert guided_digit_dit(dim=16, depth=1, heads=2, ratio=1.0)(x, 1000 * t).shape == x.shape
