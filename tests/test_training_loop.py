"""The loop, the average and the schedule, each against something independent."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from lecture_lib.data import Batches
from lecture_lib.errors import NonFiniteError, RangeError, ShapeError
from lecture_lib.training import ByStep, Ema, adamw, bfloat16, constant, train, warmup_cosine


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def linear(seed=0):
    model = nn.Linear(3, 1)
    for p in model.parameters():
        p.data.normal_(generator=seeded(seed))
    return model


X = torch.randn(64, 3, generator=seeded(1))
Y = X @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3


def squared(model, batch, generator):
    x, y = batch
    return (model(x) - y).square().flatten(1).mean(1)


def test_equals_the_loop_written_by_hand():
    mine, hand = linear(), linear()
    schedule = warmup_cosine(30, warmup=5)
    steps = list(
        train(
            mine,
            squared,
            Batches((X, Y), 8),
            steps=30,
            optimizer=torch.optim.SGD(mine.parameters(), lr=0.1),
            generator=seeded(2),
            schedule=schedule,
            clip=0.5,
        )
    )
    assert len(steps) == 30
    g = seeded(2)
    for i in range(30):
        index = torch.randint(64, (8,), generator=g)
        hand.zero_grad()
        loss = (hand(X[index]) - Y[index]).square().mean()
        loss.backward()
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in hand.parameters()))
        for p in hand.parameters():
            p.data -= 0.1 * schedule(i) * min(1.0, 0.5 / (norm + 1e-6)) * p.grad
        assert steps[i].number == i + 1
        assert steps[i].loss == pytest.approx(loss.item(), rel=1e-5)
        assert steps[i].gradient_norm == pytest.approx(norm, rel=1e-4)
        assert steps[i].learning_rate == pytest.approx(0.1 * schedule(i))
    assert torch.allclose(mine.weight, hand.weight, atol=1e-6)


def test_it_learns_and_the_caller_may_stop():
    model = linear()
    seen = []
    for step in train(
        model, squared, Batches((X, Y), 16), steps=10_000, optimizer=adamw(model, 0.05), generator=seeded(3)
    ):
        seen.append(step.loss)
        if step.loss < 1e-3:
            break
    assert len(seen) < 1000 and seen[0] > 100 * seen[-1]


def test_a_loss_may_change_from_update_to_update():
    """The third update, and only it, minimises something else: weights follow the loop written with two losses."""
    batches, told = Batches((torch.randn(20, 3, generator=seeded(1)), torch.randn(20, 1, generator=seeded(2))), 4), []

    def at(done):
        told.append(done)
        return squared if done != 2 else lambda model, batch, generator: -squared(model, batch, generator)

    by_step, by_hand = linear(), linear()
    optimizer = adamw(by_step, 1e-2)
    list(train(by_step, ByStep(at), batches, steps=4, optimizer=optimizer, generator=seeded(3)))
    optimizer, generator = adamw(by_hand, 1e-2), seeded(3)
    for done in range(4):
        list(train(by_hand, at(done), batches, steps=done + 1, optimizer=optimizer, generator=generator, start=done))
    assert told[:4] == [0, 1, 2, 3]
    assert torch.equal(by_step.weight, by_hand.weight)


def test_nothing_happens_before_the_first_step_is_asked_for():
    model, before = linear(), linear()
    train(model, squared, Batches((X, Y), 4), steps=5, optimizer=adamw(model, 0.1), generator=seeded(0))
    assert torch.equal(model.weight, before.weight)


def test_a_bad_loss_is_named_and_the_weights_survive():
    model, before = linear(), linear()

    def broken(model, batch, generator):
        return squared(model, batch, generator) * float("nan")

    with pytest.raises(NonFiniteError, match="update 1"):
        next(train(model, broken, Batches((X, Y), 4), steps=5, optimizer=adamw(model, 0.1), generator=seeded(0)))
    assert torch.equal(model.weight, before.weight)
    mean = lambda *a: squared(*a).mean()  # noqa: E731
    with pytest.raises(ShapeError, match=r"\(b,\)"):
        next(train(model, mean, Batches((X, Y), 4), steps=5, optimizer=adamw(model, 0.1), generator=seeded(0)))
    with pytest.raises(RangeError):
        next(
            train(model, squared, Batches((X, Y), 4), steps=5, optimizer=adamw(model, 0.1), generator=seeded(0), clip=0)
        )


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights():
    model, kinds = linear(), []

    def loss(model, batch, generator):
        out = model(batch[0])
        kinds.append(out.dtype)
        return (out.float() - batch[1]).square().flatten(1).mean(1)

    step = next(
        train(
            model,
            loss,
            Batches((X, Y), 16),
            steps=1,
            optimizer=adamw(model, 0.1),
            generator=seeded(0),
            precision=bfloat16,
        )
    )
    assert kinds == [torch.bfloat16] and model.weight.dtype == torch.float32 and math.isfinite(step.loss)


def test_warmup_cosine_equals_diffusers_from_the_second_update():
    optimization = pytest.importorskip("diffusers.optimization")
    p = nn.Parameter(torch.zeros(1))
    theirs = optimization.get_cosine_schedule_with_warmup(torch.optim.SGD([p], lr=1.0), 10, 100).lr_lambdas[0]
    mine = warmup_cosine(100, warmup=10)
    for step in (10, 11, 37, 55, 99, 100):
        assert mine(step) == pytest.approx(theirs(step), abs=1e-12)
    assert [mine(s) for s in (0, 4, 9)] == pytest.approx([1 / 11, 5 / 11, 10 / 11])  # theirs wastes the first update
    assert warmup_cosine(100, floor=0.1)(100) == pytest.approx(0.1) and mine(500) == 0.0
    assert constant(7) == 1.0
    for bad in (-1, 100):
        with pytest.raises(RangeError):
            warmup_cosine(100, warmup=bad)


def test_ema_equals_torch_once_its_own_warm_up_is_over():
    swa = torch.optim.swa_utils
    model = nn.BatchNorm1d(3)  # has parameters, float buffers and an integer buffer
    ema = Ema(model, 0.9)
    ema.updates = 10_000  # (1 + n)/(10 + n) is above 0.9 from now on
    theirs = swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(model)  # its first call only copies
    for i in range(5):
        model.weight.data += i + 1.0
        model(torch.randn(8, 3, generator=seeded(i)))
        ema.update(model)
        theirs.update_parameters(model)
    assert torch.allclose(ema.average.weight, theirs.module.weight, atol=1e-6)
    assert torch.equal(ema.average.running_mean, model.running_mean)
    assert ema.average.num_batches_tracked == 5
    assert not ema.average.weight.requires_grad and not ema.average.training


def test_ema_forgets_its_random_start():
    model = linear()
    ema = Ema(model, 0.999)
    target = copy.deepcopy(model)
    target.weight.data += 1.0
    for _ in range(50):
        ema.update(target)
    assert (ema.average.weight - target.weight).abs().max() < 0.01  # a plain 0.999 would still be 0.95 away
    with pytest.raises(RangeError):
        Ema(model, 1.0)


def test_ema_warm_up_by_hand():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.zero_()
    ema = Ema(model, 0.25)
    model.weight.data.fill_(1.0)
    expected = 0.0
    for n, decay in enumerate((1 / 10, 2 / 11, 0.25, 0.25)):  # (1 + n)/(10 + n), until 0.25 is smaller
        ema.update(model)
        expected = decay * expected + (1 - decay)
        assert float(ema.average.weight) == pytest.approx(expected) and ema.updates == n + 1
