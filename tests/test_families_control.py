"""A ControlNet around the course's own model: silent at birth, the same hint for every branch, words dropped alone."""

from __future__ import annotations

import pytest
import torch

from lecture_lib import zoo
from lecture_lib.core import UniformTimes
from lecture_lib.data.shapes import captioned, edges
from lecture_lib.errors import ShapeError
from lecture_lib.families import control_loss, controlled
from lecture_lib.families.control import Hinted
from lecture_lib.guidance import linear
from lecture_lib.zoo.evaluate_control import follows
from lecture_lib.zoo.shapes_control import CONTROL
from lecture_lib.zoo.workshop import initial

PROMPTS = ("a small red circle", "a large blue square above a small green ring")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def awake():
    """A branch with something to say: its zero layers moved."""
    branch = initial(CONTROL)
    for layer in (branch.hint.leave, branch.zero_middle, *branch.zeros):
        torch.nn.init.normal_(layer.weight, std=0.05, generator=seeded(1))
    branch.hint.leave.weight.data *= 4
    return branch


def hints(n=2):
    return edges(captioned(n, seeded(3)).images)


def test_the_branch_starts_as_a_copy_of_the_trained_half():
    base, branch = zoo.text_to_image().denoiser.network.state_dict(), initial(CONTROL).state_dict()
    copied = [name for name in base if name.split(".")[0] in ("time", "vector", "enter", "down", "middle")]
    assert len(copied) > 50 and all(torch.equal(base[name], branch[name]) for name in copied)
    zeros = [name for name in branch if name not in base and not name.startswith(("hint.enter", "hint.layers"))]
    assert len(zeros) == 2 * (1 + 1 + 4) and not any(branch[name].any() for name in zeros)


def test_at_birth_the_pictures_are_those_of_the_model_alone_and_later_they_are_not():
    model, options = zoo.text_to_image(), {"steps": 2, "rule": linear(2.0)}
    alone = model.generate(PROMPTS, generator=seeded(), **options)
    born = controlled(model, initial(CONTROL), hints())
    assert torch.equal(born.generate(PROMPTS, generator=seeded(), **options), alone)
    moved = controlled(model, awake(), hints()).generate(PROMPTS, generator=seeded(), **options)
    assert (moved - alone).abs().amax((1, 2, 3)).min() > 0.05
    silenced = controlled(model, awake(), hints(), strength=0.0)
    assert torch.equal(silenced.generate(PROMPTS, generator=seeded(), **options), alone)


def test_both_branches_of_guidance_see_the_hint_of_their_sample():
    """One fused pass over [without words | with words] is what two passes with the same hints give."""
    model = controlled(zoo.text_to_image(), awake(), hints())
    x, t, w = torch.randn(2, 4, 8, 8, generator=seeded(4)), torch.tensor([0.4, 0.9]).double(), 2.5
    with torch.no_grad():
        both = model.guided(PROMPTS, rule=linear(w))(x, t).velocity
        told, silent = (model.denoiser.given(model.condition(p))(x, t).velocity for p in (PROMPTS, ("", "")))
        assert (both - torch.lerp(silent, told, w)).abs().max() <= 1e-4
        swapped = controlled(zoo.text_to_image(), awake(), hints().flip(0))
        assert (swapped.guided(PROMPTS, rule=linear(w))(x, t).velocity - both).abs().amax((1, 2, 3)).min() > 1e-3


def test_one_hint_serves_all_and_a_wrong_number_is_refused():
    model, x, t = zoo.text_to_image(), torch.randn(4, 4, 8, 8, generator=seeded(4)), torch.full((4,), 0.5).double()
    cond = model.condition(PROMPTS[:1] * 4)
    one, four = (controlled(model, awake(), h).denoiser for h in (hints(1), hints(1).expand(4, -1, -1, -1)))
    with torch.no_grad():
        assert torch.equal(one.given(cond)(x, t).velocity, four.given(cond)(x, t).velocity)
    with pytest.raises(ShapeError, match="got 3 hints for a batch of 4"):
        Hinted(one.network.network, hints(3))(x, t.float(), cond)


def test_at_birth_the_loss_is_the_denoisers_own_and_only_words_are_dropped():
    model, latents, times = zoo.text_to_image(), torch.randn(16, 4, 8, 8, generator=seeded(5)), UniformTimes()
    cond, hint = model.condition(PROMPTS * 8), hints(16)

    def loss(branch, hint=hint, p=1.0):
        with torch.no_grad():
            return control_loss(
                branch, model.denoiser, latents, cond, hint, times=times, p_uncond=p, generator=seeded(6)
            )

    with torch.no_grad():  # dropping a caption takes the first 16 uniforms
        generator = seeded(6)
        torch.rand(16, generator=generator)
        silent = model.denoiser.loss(latents, times=times, generator=generator)
    assert torch.allclose(loss(initial(CONTROL)), silent, rtol=1e-5)
    assert (loss(awake()) - loss(awake(), hint=torch.zeros_like(hint))).abs().min() > 1e-6
    half, never = loss(awake(), p=0.5), loss(awake(), p=0.0)
    dropped, told = torch.isclose(half, loss(awake()), rtol=1e-5), torch.isclose(half, never, rtol=1e-5)
    assert (dropped ^ told).all() and 2 < dropped.sum() < 14


def test_follows_reads_form_and_place_and_no_colour():
    images = captioned(40, seeded(8), two=0.5).images
    assert follows(images, images).double().mean() == 1
    assert follows(images.flip(1), images).double().mean() > 0.9  # red and blue exchanged
    assert follows(images.roll(3, -1), images).double().mean() < 0.1
    assert follows(images.roll(1, 0), images).double().mean() < 0.1
