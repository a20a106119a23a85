"""Guidance distillation of text-to-image networks: conditions of several tensors, w beside them as an input."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lecture_lib.core import VELOCITY, Denoiser, RectifiedFlow, UniformTimes
from lecture_lib.errors import ShapeError
from lecture_lib.guidance import guidance_distillation_loss
from lecture_lib.nets import Flux, MMDiT

G = torch.Generator().manual_seed(7)
SIZES = {"dim": 16, "heads": 2, "context_dim": 6, "vector_dim": 5}
NETS = {
    "mmdit": lambda guidance: MMDiT(2, depth=2, grid=4, guidance=guidance, **SIZES),
    "flux": lambda guidance: Flux(2, double=1, single=1, axes=(4, 2, 2), guidance=guidance, **SIZES),
}
W = torch.tensor([1.0, 0.0, 3.0, 6.0])


def randn(*shape):
    return torch.randn(*shape, generator=G)


def condition(b=4):
    mask = torch.arange(3)[None] < torch.randint(1, 4, (b, 1), generator=G)
    return {"tokens": randn(b, 3, 6), "mask": mask, "vector": randn(b, 5)}


@pytest.fixture(params=NETS)
def pair(request):
    """A random teacher, and a student that starts as its copy, deaf to w."""
    teacher, student = NETS[request.param](False), NETS[request.param](True)
    for p in teacher.parameters():
        p.data.normal_(std=0.2, generator=G)
    missing = student.load_state_dict(teacher.state_dict(), strict=False).missing_keys
    assert all(name.startswith("condition.scale.") for name in missing) and len(missing) == 4
    for p in student.condition.scale.parameters():
        p.data.zero_()
    null = {name: value[0] for name, value in condition(1).items()}
    told = {**null, "w": torch.tensor(1.0)}
    path = RectifiedFlow()
    return Denoiser(student, path, VELOCITY, null=told), Denoiser(teacher, path, VELOCITY, null=null)


def loss(student, teacher, cond, w, seed=0, x0=None):
    x0 = torch.ones(len(w), 2, 4, 4) if x0 is None else x0
    generator = torch.Generator().manual_seed(seed)
    return guidance_distillation_loss(student, teacher, x0, cond, w, times=UniformTimes(), generator=generator)


def test_the_target_is_the_guided_velocity(pair):
    """A deaf copy says v_cond, so it misses the target by (w - 1)(v_cond - v_null), and by nothing where w = 1."""
    student, teacher = pair
    cond, x0 = condition(), torch.ones(4, 2, 4, 4)
    generator = torch.Generator().manual_seed(0)
    t = UniformTimes().sample(4, generator=generator)
    noise = torch.randn(4, 2, 4, 4, generator=generator)
    x_t = teacher.path.mix(x0, noise, t)
    with torch.no_grad():
        gap = teacher(x_t, t, cond).velocity - teacher(x_t, t).velocity
        expected = ((W - 1)[:, None, None, None] * gap).square().flatten(1).mean(1)
        got = loss(student, teacher, cond, W)
    assert expected[2:].min() > 1e-3
    assert torch.allclose(got, expected, rtol=1e-3, atol=1e-9)


class ExactStudent(nn.Module):
    """Says what the guided teacher says: its network holds the teacher."""

    def __init__(self, teacher, null):
        super().__init__()
        self.teacher, self.null = teacher, null

    def forward(self, x, t, cond):
        heard = {name: value for name, value in cond.items() if name != "w"}
        nothing = {name: value.expand(len(x), *value.shape) for name, value in self.null.items()}
        reference, main = self.teacher(x, t, nothing), self.teacher(x, t, heard)
        return reference + cond["w"][:, None, None, None] * (main - reference)


def test_an_exact_student_has_no_loss_whatever_w(pair):
    student, teacher = pair
    exact = Denoiser(ExactStudent(teacher.network, teacher.null), teacher.path, VELOCITY, null=student.null)
    for shift in (0.0, 2.0):
        got = loss(exact, teacher, condition(), W + shift)
        assert got.shape == (4,) and got.max() <= 1e-9


def test_the_student_learns_to_guide_itself(pair):
    """In 80 steps on one batch the copy loses most of its error, through the embedding of w; the teacher stays."""
    student, teacher = pair
    cond, before = condition(), {name: p.clone() for name, p in teacher.named_parameters()}
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    first = loss(student, teacher, cond, W).mean().item()
    for _ in range(80):
        optimizer.zero_grad()
        loss(student, teacher, cond, W).mean().backward()
        optimizer.step()
    assert loss(student, teacher, cond, W).mean().item() < 0.2 * first
    assert student.network.condition.scale.mlp[2].bias.abs().max() > 0
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in teacher.named_parameters())


def test_bad_conditions_are_named(pair):
    student, teacher = pair
    cond = condition()
    with pytest.raises(ShapeError, match=r"cond: got \['mask', 'tokens', 'w'\], expected a dict with the keys"):
        loss(student, teacher, {name: cond[name] for name in ("tokens", "mask")}, W)
    with pytest.raises(ShapeError, match=r"got \['label', 'w'\]"):
        loss(student, teacher, torch.zeros(4, dtype=torch.long), W)
    with pytest.raises(ShapeError, match="got 3 conditions for a batch of 4"):
        loss(student, teacher, cond, W[:3], x0=torch.ones(4, 2, 4, 4))
    with pytest.raises(ShapeError, match=r"expected a dict with the keys \['mask', 'tokens', 'vector'\]"):
        loss(teacher, teacher, cond, W)  # a student without an ear for w
