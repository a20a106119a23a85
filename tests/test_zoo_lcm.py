"""The few-step students of the text-to-image transformer: how they start, how they jump, and what they reach."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from worlds import gap, seeded

from lecture_lib import zoo
from lecture_lib.core import Denoiser
from lecture_lib.core.conditions import tell
from lecture_lib.data.shapes import judge_captions
from lecture_lib.errors import ShapeError
from lecture_lib.families import TextToImage
from lecture_lib.guidance import linear
from lecture_lib.nets import add_lora
from lecture_lib.samplers import ConsistencyMultistep
from lecture_lib.zoo import evaluate_lcm
from lecture_lib.zoo.evaluate_shapes import fresh_scenes
from lecture_lib.zoo.shapes_latent_consistency import LCM, LCM_LORA
from lecture_lib.zoo.shapes_text import shapes_tokenizer
from lecture_lib.zoo.shapes_text_to_image import shapes_space, shapes_text
from lecture_lib.zoo.workshop import initial

PROMPTS = ["a small red circle", "a big blue square on a black background", "a green triangle above a cyan cross", ""]
SCENES = 16


@pytest.fixture(scope="module")
def teacher():
    return zoo.transformer_text_to_image()


@pytest.fixture(scope="module")
def asked(teacher):
    """Latents at four times, pure noise among them, and what is asked for."""
    return torch.randn(4, 4, 8, 8, generator=seeded()), torch.tensor([0.05, 0.4, 0.8, 1.0]), teacher.condition(PROMPTS)


def assembled(denoiser):
    return TextToImage(denoiser, shapes_space(), shapes_text(), shapes_tokenizer()).eval()


def with_style(net):
    """Another adapter on ``net``, of another rank, with some learned difference."""
    style = add_lora(net, 2, generator=seeded(1))
    for part in style.parameters():
        part.data = 0.05 * torch.randn(part.shape, generator=seeded(part.numel()))
    return style


# How they start


def test_the_student_starts_as_its_teacher_bit_for_bit_whatever_w(teacher, asked):
    x, t, cond = asked
    student, before = initial(LCM), teacher.denoiser(x, t, cond).velocity
    for w in (0.0, 1.0, 2.7, 100.0):
        assert torch.equal(student(x, t, tell(cond, w=torch.full((4,), w))).velocity, before)
    student.network.condition.scale.mlp[2].bias.data += 0.1
    assert not torch.equal(student(x, t, tell(cond, w=torch.ones(4))).velocity, before)


def test_the_first_update_opens_its_ear():
    """The last layer of the embedding of w starts at zero and moves at once; then the answer depends on w."""
    recipe = replace(LCM, scenes=SCENES, batch_size=8)
    student, batch = initial(recipe), recipe.batches().draw(seeded(3))
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    recipe.loss(student, batch, seeded(1)).mean().backward()
    last = student.network.condition.scale.mlp[2]
    assert last.weight.grad.abs().max() > 0 and last.bias.grad.abs().max() > 0
    optimizer.step()
    x, t, cond = batch[0], torch.full((8,), 0.7), shapes_text()(batch[1])
    one, four = (student(x, t, tell(cond, w=torch.full((8,), w))).velocity for w in (1.0, 4.0))
    assert gap(one.detach(), four.detach()) > 1e-5


def test_scales_are_drawn_from_the_recipes_interval(monkeypatch):
    import lecture_lib.zoo.shapes_latent_consistency as module

    heard = []

    def record(student, teacher, x0, cond, w, **options):
        heard.append(w)
        return w

    monkeypatch.setattr(module, "latent_consistency_loss", record)
    batch = torch.zeros(4000, 4, 8, 8), shapes_tokenizer().encode([""]).expand(4000, -1)
    LCM.loss(None, batch, seeded())
    assert heard[0].min() >= LCM.w_low and heard[0].max() <= LCM.w_high
    assert heard[0].mean().item() == pytest.approx((LCM.w_low + LCM.w_high) / 2, abs=0.07)  # five standard errors


def test_the_adapter_starts_as_nothing_and_trains_alone(teacher, asked):
    x, t, cond = asked
    recipe = replace(LCM_LORA, scenes=SCENES, batch_size=8)
    adapter = initial(recipe)
    before = teacher.denoiser(x, t, cond).velocity
    path, parameterization = teacher.path, teacher.denoiser.parameterization
    student = Denoiser(adapter.network, path, parameterization, null=teacher.denoiser.null)
    assert torch.equal(student(x, t, cond).velocity, before)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=1.0)
    for _ in range(2):  # B moves first, and only then A
        optimizer.zero_grad()
        recipe.loss(adapter, recipe.batches().draw(seeded(3)), seeded(1)).mean().backward()
        optimizer.step()
    assert all(p.grad.abs().max() > 0 for p in adapter.parameters())
    own = zoo.load("shapes-mmdit").network.state_dict()
    assert all(torch.equal(p, own[name]) and p.grad is None for name, p in adapter.network.named_parameters())
    assert not torch.equal(student(x, t, cond).velocity, before)
    adapter.scale = 0.0
    assert torch.equal(student(x, t, cond).velocity, before)


# How they jump


def test_a_jump_is_data_then_fresh_noise_then_data(teacher):
    """Three steps by hand, on a straight path: x <- (1 - s) f(x, t) + s z; the student hears w all the way.

    Equal steps start at 1, 2/3, 1/3; with noise levels t/(1 - t) of 2/3 of theirs, 2 and 1/2, at 1, 4/7, 1/4.
    """
    student = initial(LCM)
    student.network.condition.scale.mlp[2].bias.data += 0.05  # an ear that is open
    model = assembled(student)
    got = model.jump(PROMPTS, generator=seeded(5), steps=3, kappa=2 / 3, w=2.0)
    generator = seeded(5)
    x, cond = torch.randn(4, 4, 8, 8, generator=generator), tell(model.condition(PROMPTS), w=torch.full((4,), 2.0))
    with torch.no_grad():
        for t, s in ((1.0, 4 / 7), (4 / 7, 1 / 4), (1 / 4, 0.0)):
            f = student(x, torch.full((4,), t, dtype=torch.float64), cond).x0
            x = (1 - s) * f + (s * torch.randn(f.shape, generator=generator) if s else 0)
    assert gap(got, model.space.decode(x).clamp(-1, 1).detach()) <= 1e-4
    assert torch.equal(got, model.jump(PROMPTS, generator=seeded(5), steps=3, kappa=2 / 3, w=2.0))
    assert gap(got, model.jump(PROMPTS, generator=seeded(5), steps=3, w=2.0)) > 1e-2


def test_four_jumps_cost_a_tenth_of_twenty_guided_steps():
    """Counted at the network: samples that passed through it, for two pictures."""
    model, passed = assembled(initial(LCM)), []
    model.denoiser.network.register_forward_hook(lambda net, args, out: passed.append(len(out)))
    model.jump(PROMPTS[:2], generator=seeded(), steps=4, w=2.0)
    assert passed == [2] * 4
    teacher, passed = assembled(copy.deepcopy(zoo.load("shapes-mmdit"))), []
    teacher.denoiser.network.register_forward_hook(lambda net, args, out: passed.append(len(out)))
    teacher.generate(PROMPTS[:2], generator=seeded(), steps=20)
    assert passed == [4] * 20


def test_what_is_not_heard_is_refused(teacher):
    student = assembled(initial(LCM))
    with pytest.raises(ShapeError, match=r"expected a dict with the keys \['mask', 'tokens', 'vector', 'w'\]"):
        student.jump("a red circle", generator=seeded())
    with pytest.raises(ShapeError, match=r"expected a dict with the keys \['mask', 'tokens', 'vector'\]"):
        teacher.jump("a red circle", generator=seeded(), w=2.0)


# What they reach: regression floors, three standard errors of 100 captions below what 900 gave; see `zoo --evaluate`


@pytest.mark.parametrize(
    ("name", "steps", "split", "two", "least"),
    [
        ("lcm", 4, "test", 0.0, 0.85),
        ("lcm", 4, "held_out", 0.0, 0.75),
        ("lcm", 4, "test", 1.0, 0.70),
        ("lcm-lora", 4, "test", 0.0, 0.60),
    ],
)
def test_pictures_in_a_few_jumps(name, steps, split, two, least):
    model, heard = {"lcm": (zoo.lcm_text_to_image, {"w": 3.0}), "lcm-lora": (zoo.lcm_lora_text_to_image, {})}[name]
    scenes = fresh_scenes(100, 60, split=split, two=two)
    pictures = model().jump(scenes.captions, generator=seeded(9), steps=steps, **heard)
    assert judge_captions(pictures, scenes.captions).all.double().mean() >= least


def test_w_is_heard_in_the_pictures():
    """The same noise with another w: other pictures; and more of what is asked for than from the plain w = 1."""
    model, scenes = zoo.lcm_text_to_image(), fresh_scenes(100, 61, two=1.0)
    rates = {}
    for w in (1.0, 3.0):
        pictures = model.jump(scenes.captions, generator=seeded(9), steps=2, w=w)
        rates[w] = judge_captions(pictures, scenes.captions).all.double().mean().item()
    assert rates[3.0] > rates[1.0] + 0.1


def test_the_merged_adapter_is_the_adapter_beside_and_a_style_adds_up(teacher, asked):
    x, t, cond = asked
    merged, adapter = zoo.lcm_lora_text_to_image().denoiser, copy.deepcopy(zoo.load("shapes-lcm-lora"))
    beside = Denoiser(adapter.network, merged.path, merged.parameterization, null=merged.null)
    with torch.no_grad():
        wanted = beside(x, t, cond).velocity
        assert gap(merged(x, t, cond).velocity, wanted) <= 1e-4
        assert gap(teacher.denoiser(x, t, cond).velocity, wanted) > 0.1
        adapter.scale = 0.0
        assert torch.equal(beside(x, t, cond).velocity, teacher.denoiser(x, t, cond).velocity)
        adapter.scale, style = 1.0, with_style(adapter.network)
        by_hand = copy.deepcopy(teacher.denoiser)
        for part, strength in ((adapter, 0.9), (style, 0.5)):
            part.scale = strength
            for name in part.names:
                by_hand.network.get_submodule(name).weight += part.delta(name)
        assert gap(beside(x, t, cond).velocity, by_hand(x, t, cond).velocity) <= 1e-4


def test_guidance_may_be_added_to_the_adapter():
    """LCM-LoRA is used with w in [1, 2] on top: two passes again, by the sampler of jumps."""
    model = zoo.lcm_lora_text_to_image()
    options = {"steps": 2, "sampler": ConsistencyMultistep()}
    plain = model.generate(PROMPTS[:2], generator=seeded(1), rule=linear(1.0), **options)
    assert gap(plain, model.jump(PROMPTS[:2], generator=seeded(1), steps=2)) <= 1e-4
    assert gap(plain, model.generate(PROMPTS[:2], generator=seeded(1), rule=linear(1.5), **options)) > 0.05


def test_the_bar_is_about_all_captions(monkeypatch):
    """The quotient of all captions is that of the sums, not the mean of the three kinds' quotients."""
    teacher = dict(zip(evaluate_lcm.KINDS, (1.0, 0.5, 0.25), strict=True))
    monkeypatch.setattr(evaluate_lcm, "teacher_rate", lambda kind, seed: teacher[kind])
    monkeypatch.setattr(evaluate_lcm, "student_rate", lambda _, kind, seed, *, steps, **asked: steps / 8)
    rows = {row.measure: row for row in evaluate_lcm.jump_rows("shapes-lcm", None, {"all captions": 0.95}, (0, 1))}
    assert rows["all captions: 4 NFE over its teacher"].values == (pytest.approx(1.5 / 1.75),)
    assert rows["all captions: 4 NFE over its teacher"].bar == 0.95
    assert [rows[f"{kind}: 4 NFE over its teacher"].values[0] for kind in teacher] == [0.5, 1.0, 2.0]
