"""Digits in few steps: the student before training, what one update asks of it, and what the shipped one can."""

from __future__ import annotations

import pytest
import torch

from lecture_lib import zoo
from lecture_lib.data import digits
from lecture_lib.distill import ConsistencyFunction
from lecture_lib.zoo import evaluate_students
from lecture_lib.zoo.evaluate_students import distance, student_digits, student_rows, teacher_digits
from lecture_lib.zoo.recipes import DISTILLED, ONE_STEP
from lecture_lib.zoo.workshop import initial

LABELS = digits("train").labels[:700]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def asked(n, seed=0):
    """Noisy pictures, times, and conditions with all labels and scales."""
    x = torch.randn(n, 1, 8, 8, generator=seeded(seed))
    t = torch.rand(n, generator=seeded(seed + 1), dtype=torch.float64)
    return x, t, {"label": torch.arange(n) % 10, "w": torch.linspace(1, 2.5, n)}


def test_the_student_starts_as_its_teacher():
    x, t, cond = asked(30)
    student, teacher = initial(ONE_STEP), zoo.load(DISTILLED.name)
    with torch.no_grad():
        assert torch.equal(student(x, t, cond).velocity, teacher(x, t, cond).velocity)
    assert any(p.requires_grad for p in student.parameters()) and student is not teacher


def test_at_the_data_it_is_the_identity_and_near_it_almost():
    x, t, cond = asked(30)
    f = ConsistencyFunction(zoo.load(ONE_STEP.name), cond)
    assert torch.equal(f(x, torch.zeros_like(t)), x)
    near = (f(x, torch.full_like(t, 1e-3)) - x).abs().max()
    assert 0 < near < 0.02
    assert (f(x, torch.ones_like(t)) - x).abs().max() > 1


def test_grids_double_after_equal_shares_of_the_updates():
    share = ONE_STEP.steps // 4
    at = [0, share - 1, share, 2 * share, 3 * share, ONE_STEP.steps - 1, ONE_STEP.steps]
    assert [ONE_STEP.grid_steps(done) for done in at] == [4, 4, 8, 16, 32, 32, 32]


def test_one_update_by_hand():
    """Heun's step of the teacher, both jumps and the distance, written out from the networks' velocities."""
    teacher, student = zoo.load(DISTILLED.name), initial(ONE_STEP)
    for p in student.parameters():
        p.data.mul_(1.01)  # else student and teacher say the same
    images, labels = ONE_STEP.batches().draw(seeded(5))
    loss = ONE_STEP.loss_at(700)(student, (images, labels), seeded(6))

    draws, n = seeded(6), len(images)
    w = 1 + 1.5 * torch.rand(n, generator=draws)
    k = torch.randint(8, (n,), generator=draws)
    eps = torch.randn(n, 1, 8, 8, generator=draws)
    t, u = ((k + 1) / 8)[:, None, None, None], (k / 8)[:, None, None, None]

    def velocity(model, x, time):
        return model.network(x, 1000 * time.flatten(), {"label": labels, "w": w})

    with torch.no_grad():
        x_t = (1 - t) * images + t * eps
        first = velocity(teacher, x_t, t)
        second = velocity(teacher, x_t + (u - t) * first, u)
        x_u = x_t + (u - t) * (first + second) / 2
        jump = x_t - t * velocity(student, x_t, t), x_u - u * velocity(student, x_u, u)
    c = 0.00054 * 8
    expected = ((jump[0] - jump[1]).square().sum((1, 2, 3)) + c**2).sqrt() - c
    assert torch.allclose(loss, expected, rtol=1e-4, atol=1e-5)
    assert loss.min() > 1e-3


@pytest.fixture(scope="module")
def pools():
    """700 digits from the same noise: sixteen steps of the teacher, one of the teacher, few of the student."""
    student, teacher = zoo.load(ONE_STEP.name), zoo.load(DISTILLED.name)
    few = {n: student_digits(student, LABELS, 1.5, n, generator=seeded(7)) for n in (1, 2)}
    once = student_digits(teacher, LABELS, 1.5, 1, generator=seeded(7))
    return few | {"once": once, "teacher": teacher_digits(teacher, LABELS, 1.5, generator=seeded(7))}


def test_the_shipped_student_draws_digits_in_one_step(pools):
    """A loose form of the bars of ``course zoo --evaluate``: 700 digits, one seed."""
    far = {name: distance(x) for name, x in pools.items()}
    assert zoo.judge().accuracy(pools[1], LABELS) >= 0.97
    assert far[1] <= 1.5 * far["teacher"] and far[2] <= 1.25 * far["teacher"]
    assert far["once"] > 3 * far[1]  # undistilled, one step draws means


def test_one_step_ends_where_the_teacher_ends(pools):
    """From the same noise: much nearer to the end of the teacher's trajectory than the teacher's own first guess."""
    end = pools["teacher"]
    error = {name: (pools[name] - end).square().mean().sqrt() for name in (1, "once")}
    assert error[1] < 0.5 * error["once"]


def test_rows_compare_pools_of_one_seed(monkeypatch):
    """With the student in the teacher's place the ratio is 1 for one step at one w; bars are those of the issue."""
    monkeypatch.setattr(evaluate_students, "SETS", 1)
    monkeypatch.setattr(evaluate_students, "GRIDS", {n: evaluate_students.GRIDS[n] for n in (1, 2)})
    student = zoo.load(ONE_STEP.name)
    instead = lambda _, labels, w, **seed: student_digits(student, labels, w, 1, **seed)  # noqa: E731
    monkeypatch.setattr(evaluate_students, "teacher_digits", instead)
    rows = list(student_rows(ONE_STEP.name, (0,)))
    assert [row.measure for row in rows if "over" in row.measure and row.values == (1.0,)] == [
        "Frechet distance over the teacher's at w = 1, w = 1, 1 step",
        "Frechet distance over the teacher's at w = 1.5, w = 1.5, 1 step",
    ]
    ratios = [row for row in rows if "over" in row.measure]
    assert [(row.bar, row.at_least) for row in ratios] == [(1.5, False), (1.25, False)] + 4 * [(None, False)]
    best = ratios[0].values[0] * next(row for row in rows if "distance of the teacher, w = 1," in row.measure).values[0]
    pool = student_digits(student, digits("train").labels, 1.2, 1, generator=torch.Generator().manual_seed(0))
    assert best == pytest.approx(distance(pool), rel=1e-12)  # the first ratios are of w = 1.2 over w = 1
    assert all(row.bar == 0.97 and row.at_least for row in rows if "judge" in row.measure)
