"""Progressive distillation: the target is two steps in one, and the chain of rounds loses nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from worlds import F64, normal, seeded, times

from lecture_lib.core import EDM, VELOCITY, X0, Denoiser, RectifiedFlow, Trigonometric, V, VPCosine, uniform_grid
from lecture_lib.distill import Leg, clean_target, ddim_jump, halving, progressive_loss, solved
from lecture_lib.errors import RangeError
from lecture_lib.oracles import GaussianMixture
from lecture_lib.samplers import DDIM, last, sample

WORLD = GaussianMixture([0.4, 0.6], [[-1.0, 0.2], [0.7, 0.5]], [0.05, 0.1])
PATHS = [RectifiedFlow(), VPCosine(), Trigonometric(), EDM()]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_one_step_with_the_target_is_two_steps_of_the_teacher(path):
    """The bar: equal to rounding, from pure noise and from the last step alike."""
    teacher = WORLD.denoise(path)
    t, s = times(1.0, 0.75, 0.5, 0.25) * path.t_max, times(0.75, 0.5, 0.25, 0.0) * path.t_max
    x_t = normal(4, 2) * path.sigma(t)[:, None]
    for i in range(4):  # two steps by the driver that everybody uses
        grid = torch.stack([t[i], (t[i] + s[i]) / 2, s[i]])
        two = last(sample(teacher, path, DDIM(), grid, x_t[i : i + 1]))
        leg = solved(teacher, path, DDIM(), x_t[i : i + 1], t[i : i + 1], s[i : i + 1], steps=2)
        target = clean_target(path, leg)
        student = lambda x, t: teacher(x, t).with_x0(target)  # noqa: B023, E731
        assert torch.allclose(ddim_jump(student, path, s[i : i + 1])(x_t[i : i + 1], t[i : i + 1]), two, atol=1e-13)
        assert (target - teacher(x_t[i : i + 1], t[i : i + 1]).x0).abs().max() > 1e-4 or i == 3


@pytest.mark.parametrize("path", PATHS[:3], ids=lambda path: type(path).__name__)
def test_the_loss_is_the_papers(path):
    """max(SNR, 1) |x0_hat - x~|^2, with x~ as Salimans & Ho 2022 print it."""
    teacher, student = WORLD.denoise(path), GaussianMixture([1.0], [[0.1, 0.3]], [0.3]).denoise(path)
    t, s = times(1.0, 0.75, 0.5, 0.25) * path.t_max, times(0.75, 0.5, 0.25, 0.0) * path.t_max
    z = normal(4, 2)
    alpha, sigma = (lambda t: path.alpha(t)[:, None]), (lambda t: path.sigma(t)[:, None])
    middle = (t + s) / 2
    x = teacher(z, t).x0
    z1 = alpha(middle) * x + sigma(middle) / sigma(t) * (z - alpha(t) * x)
    x = teacher(z1, middle).x0
    z2 = alpha(s) * x + sigma(s) / sigma(middle) * (z1 - alpha(middle) * x)
    target = (z2 - sigma(s) / sigma(t) * z) / (alpha(s) - sigma(s) / sigma(t) * alpha(t))
    snr = (path.alpha(t) / path.sigma(t)) ** 2
    by_hand = torch.maximum(snr, torch.ones(4)) * (student(z, t).x0 - target).square().mean(1)
    assert torch.allclose(progressive_loss(student, teacher, path, z, t, s), by_hand, rtol=1e-10)


def test_a_step_without_length_is_refused():
    """Its weight on x0 is zero, and the quotient NaN."""
    path, t = RectifiedFlow(), times(0.5, 0.75)
    x, teacher = normal(2, 2), WORLD.denoise(path)
    with pytest.raises(RangeError, match=r"^s: .* s < t"):
        progressive_loss(teacher, teacher, path, x, t, times(0.25, 0.75))
    with pytest.raises(RangeError, match=r"^leg: .* s < t"):
        clean_target(path, Leg(x, t, x, t))


class Table(nn.Module):
    """Says ``k(t) x`` with a free number for every sixteenth of the path."""

    def __init__(self):
        super().__init__()
        self.k = nn.Parameter(torch.linspace(1, 2, 17, dtype=F64))

    def forward(self, x, t, cond=None):
        return self.k[(16 * t / 1000).round().long()][:, None] * x


def test_four_rounds_make_one_step_of_sixteen():
    """Each student is set to where its loss is zero; the last one's single step is the first teacher's sixteen."""
    path, world = RectifiedFlow(), GaussianMixture([1.0], [[0.0]], [0.25])
    grid = torch.arange(17, dtype=F64) / 16
    teacher = Denoiser(Table(), path, X0)
    with torch.no_grad():
        teacher.network.k.copy_(world.denoise(path)(torch.ones(17, 1, dtype=F64), grid).x0[:, 0])
    x = normal(5, 1)
    sixteen = last(sample(teacher.given(None), path, DDIM(), uniform_grid(path, 16), x))
    before, seen = teacher.network.k.clone(), []
    for round_ in halving(teacher, 16):
        seen.append(round_.steps)
        n, ones = round_.steps, torch.ones(round_.steps, 1, dtype=F64)
        t, s = ((torch.arange(n, dtype=F64) + k) / n for k in (1, 0))
        with torch.no_grad():
            leg = solved(round_.teacher, path, DDIM(), ones, t, s, steps=2)
            assert round_.loss(round_.student, (normal(64, 1, seed=2),), seeded()).max() > 1e-5
            round_.student.network.k[(16 * t).round().long()] = clean_target(path, leg)[:, 0]
        assert round_.loss(round_.student, (normal(64, 1, seed=2),), seeded()).max() < 1e-24
    assert seen == [8, 4, 2, 1]
    one = last(sample(round_.student.given(None), path, DDIM(), uniform_grid(path, 1), x))
    assert torch.allclose(one, sixteen, atol=1e-14) and (sixteen - x / 2).abs().max() > 1e-3
    assert torch.equal(teacher.network.k, before)


def test_gradients_reach_the_student_alone():
    teacher = Denoiser(Table(), RectifiedFlow(), VELOCITY)
    (first, *_) = halving(teacher, 2)
    first.loss(first.student, (normal(8, 1),), seeded()).sum().backward()
    assert first.student.network.k.grad.abs().max() > 0
    assert teacher.network.k.grad is None and not first.teacher.network.k.requires_grad
    with pytest.raises(RangeError, match="power of two"):
        next(halving(Denoiser(Table(), Trigonometric(), V), 6))
