"""CT, CD, iCT and ECT on networks, by hand: with dropout, with a moving target. test_distill_exact: what they learn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from worlds import F64, normal, seeded

from lecture_lib.core import EDM, Denoiser, RectifiedFlow, edm
from lecture_lib.core import X0 as PLAIN_X0
from lecture_lib.core.denoiser import unit_input
from lecture_lib.distill import (
    ConsistencyFunction,
    LogNormalPairs,
    NeighbourPairs,
    Pair,
    RatioPairs,
    cd_loss,
    consistency_scalings,
    ct_loss,
    ect_loss,
    huber,
    ict_loss,
    seeded_masks,
    twins,
)
from lecture_lib.distill.consistency import inverse_gap
from lecture_lib.oracles import GaussianMixture

PATH = EDM()
WORLD = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.5]], [0.1, 0.2])


class Dropped(nn.Module):
    """A network with dropout, p = 1/2, that hears time and label."""

    def __init__(self, p=0.5):
        super().__init__()
        self.enter, self.leave, self.drop = nn.Linear(4, 32), nn.Linear(32, 2), nn.Dropout(p)

    def forward(self, x, t, cond=None):
        label = torch.zeros_like(t) if cond is None else cond.to(t)
        return self.leave(self.drop(torch.tanh(self.enter(torch.cat([x, t[:, None] / 100, label[:, None]], 1)))))


def student(p=0.0, end=0.002, seed=0) -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Dropped(p).double()
    return Denoiser(
        network, PATH, consistency_scalings(0.5, end), null=torch.tensor(0), input_scale=unit_input(0.5)
    ).train()


class Fixed:
    """One pair for every sample."""

    def __init__(self, t, u):
        self.pair = t, u

    def sample(self, n, *, generator=None, device=None):
        return Pair(*(torch.full((n,), time, dtype=F64) for time in self.pair))


X0, EPS = normal(6, 2), normal(6, 2, seed=1)
GIVEN = {"coupling": lambda x0, generator: EPS}


def f(model, x, t, end=0.002, cond=None):
    """c_skip x + c_out F(c_in x), written out."""
    skip, out = 0.25 / ((t - end) ** 2 + 0.25), 0.5 * (t - end) / math.sqrt(t**2 + 0.25)
    time = torch.full((len(x),), 1000 * t / 80, dtype=F64)
    return skip * x + out * model.network(x / math.sqrt(t**2 + 0.25), time, cond)


def test_ct_by_hand_with_a_label_and_a_moving_target():
    model, target, label = student(), student(seed=1), torch.tensor([0, 1, 2, 3, 4, 5])
    loss = ct_loss(model, X0, label, pairs=Fixed(2.0, 1.5), target=target, **GIVEN)
    apart = f(model, X0 + 2 * EPS, 2.0, cond=label) - f(target, X0 + 1.5 * EPS, 1.5, cond=label)
    assert torch.allclose(loss, apart.square().mean(1), rtol=1e-10)
    loss.sum().backward()
    assert all(p.grad is None for p in target.parameters()) and model.network.enter.weight.grad.abs().sum() > 0


def test_cd_by_hand_takes_heuns_step_of_the_teacher():
    model = student()
    loss = cd_loss(model, WORLD.denoise(PATH), X0, pairs=Fixed(2.0, 1.5), distance=huber(0.1), **GIVEN)
    x_t = X0 + 2 * EPS
    k = -2.0 * WORLD.score(x_t, PATH, torch.full((6,), 2.0, dtype=F64))  # dx/dt = -t score
    euler = x_t - 0.5 * k
    x_u = x_t - 0.25 * (k - 1.5 * WORLD.score(euler, PATH, torch.full((6,), 1.5, dtype=F64)))
    apart = f(model, x_t, 2.0) - f(model, x_u, 1.5)
    assert torch.allclose(loss, ((apart.square() + 0.01).sqrt() - 0.1).mean(1), rtol=1e-9)


def test_ict_and_ect_by_hand():
    """The norm of the whole sample, over the gap; ECT's target at u = 0 is the data itself."""
    model, gap = student(), 0.5
    apart = (f(model, X0 + 2 * EPS, 2.0) - f(model, X0 + 1.5 * EPS, 1.5)).square().sum(1)
    c = 0.00054 * math.sqrt(2)
    expected = ((apart + c**2).sqrt() - c) / gap
    assert torch.allclose(ict_loss(model, X0, pairs=Fixed(2.0, 1.5), **GIVEN), expected, rtol=1e-10)
    model = student(end=0.0)
    expected = (f(model, X0 + 2 * EPS, 2.0, end=0.0) - X0).norm(dim=1) / 2.0
    assert torch.allclose(ect_loss(model, X0, pairs=Fixed(2.0, 0.0), **GIVEN), expected, rtol=1e-10)
    near = f(model, X0 + 0.001 * EPS, 0.001, end=0.0)  # its trajectories end at 0, not at 0.002
    expected = (f(model, X0 + 2 * EPS, 2.0, end=0.0) - near).norm(dim=1) / 1.999
    assert torch.allclose(ect_loss(model, X0, pairs=Fixed(2.0, 0.001), **GIVEN), expected, rtol=1e-10)


def test_a_target_below_the_end_is_the_data_point_itself():
    """n = 1: x_1 lies at eps, where f is the identity, in float32 too."""
    model = student().float()
    loss = ct_loss(model, X0.float(), pairs=Fixed(1.0, 0.002), coupling=lambda x0, generator: EPS.float())
    x_1 = X0.float() + 0.002 * EPS.float()
    at = (torch.full((6,), 1.0), None)
    expected = (model(X0.float() + EPS.float(), *at).x0 - x_1).square().mean(1)
    assert torch.allclose(loss, expected, rtol=1e-5)


def test_the_end_is_met_whatever_the_rounding():
    """0.002 in float32, or through exp(log(.)), lies a hair above 0.002; f is the identity there all the same."""
    g = ConsistencyFunction(Denoiser(Dropped().double(), PATH, PLAIN_X0), end=0.002)
    for t in (torch.full((6,), 0.002), NeighbourPairs(PATH, 9).grid[:1].expand(6) * (1 + 1e-12)):
        assert torch.equal(g(X0, t), X0)
    assert not torch.equal(g(X0, torch.full((6,), 0.0021)), X0)


def test_the_gap_is_one_of_noise_levels():
    """On a rectified flow t = 2/3 and 1/2 are the levels 2 and 1."""
    pair = Pair(torch.tensor([2 / 3], dtype=F64), torch.tensor([0.5], dtype=F64))
    assert inverse_gap(RectifiedFlow(), pair).item() == pytest.approx(1.0, rel=1e-12)
    clean = Pair(torch.tensor([0.5], dtype=F64), torch.tensor([0.0], dtype=F64))
    assert inverse_gap(RectifiedFlow(), clean).item() == pytest.approx(1.0, rel=1e-12)


def test_both_evaluations_see_the_same_dropout_mask():
    """p = 1/2: at t = u and one network, the two ends are equal to the bit; with two masks they are far apart."""
    model = student(0.5)
    ahead, behind = twins(model, generator=seeded())
    x, t = normal(64, 2), torch.full((64,), 1.3, dtype=F64)
    assert torch.equal(ahead(x, t), behind(x, t)) and torch.equal(ahead(x, t), ahead(x, t))
    two_masks = model(x, t).x0 - model(x, t).x0
    assert two_masks.abs().mean() > 0.05
    other, _ = twins(model, generator=seeded(1))
    assert (other(x, t) - ahead(x, t)).abs().mean() > 0.05  # a new mask for every loss
    kept = (ahead(x, t) == model.eval()(x, t).x0).all()
    assert not kept  # and it is a mask: evaluation mode differs


@pytest.mark.parametrize("loss", [ct_loss, ict_loss, ect_loss], ids=["ct", "ict", "ect"])
def test_with_shared_masks_the_loss_of_a_close_pair_vanishes(loss):
    model, settings = student(0.5), {"pairs": Fixed(1.0, 1.0 - 1e-6), "generator": seeded()}
    close = loss(model, X0, **settings)
    assert close.max() < (1e-10 if loss is ct_loss else 20)  # |f - f| ~ 1e-6, over a gap of 1e-6


def test_masks_come_from_the_generator_and_leave_the_global_one_alone():
    model = student(0.5)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b = (ct_loss(model, X0, pairs=NeighbourPairs(PATH, 12), generator=seeded(2)) for _ in range(2))
    assert torch.equal(a, b) and torch.equal(before, torch.get_rng_state())
    with seeded_masks(7):
        inside = torch.rand(3)
    with seeded_masks(7):
        assert torch.equal(inside, torch.rand(3))
    assert torch.equal(before, torch.get_rng_state())


def test_ects_student_starts_as_its_teacher():
    """EDM's F and the consistency scalings with end = 0 are one parameterization: weights can be handed over."""
    teacher, model = student(end=0.0), student(end=0.0, seed=3)
    as_edm = Denoiser(teacher.network, PATH, edm(0.5), null=torch.tensor(0), input_scale=unit_input(0.5))
    model.load_state_dict(as_edm.state_dict())
    x, t = normal(4, 2), torch.full((4,), 0.7, dtype=F64)
    assert torch.allclose(model(x, t).x0, as_edm(x, t).x0, atol=1e-12)


@pytest.mark.parametrize("loss", [ct_loss, ict_loss, ect_loss], ids=["ct", "ict", "ect"])
def test_losses_run_on_images_of_any_path(loss):
    """One number per picture, whatever the clock; pairs by noise level."""

    class Still(nn.Module):
        def forward(self, x, t, cond=None):
            return 0.1 * x

    for path in (EDM(), RectifiedFlow()):
        pairs = RatioPairs(path, 2) if loss is ect_loss else LogNormalPairs(path, 9)
        model, x0 = Denoiser(Still(), path, edm(0.5)), normal(3, 1, 4, 4)
        got = loss(model, x0, pairs=pairs, generator=seeded())
        assert got.shape == (3,) and torch.isfinite(got).all() and (got > 0).all()
