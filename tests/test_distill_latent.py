"""Latent consistency on Gaussians with classes, where guided teacher and guided student are known in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import nn
from worlds import F64, gap, normal, seeded, times

from lecture_lib.core import EDM, EPS, VELOCITY, Denoiser, Discrete, RectifiedFlow, V, VPLinear, stable_diffusion
from lecture_lib.core.conditions import tell
from lecture_lib.distill import (
    ConsistencyFunction,
    SkippedSteps,
    adapter_consistency_loss,
    guided_leg,
    huber,
    latent_consistency_loss,
    squared,
)
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets import MMDiT, add_lora
from lecture_lib.samplers import DDIM, ConsistencyMultistep, Heun, last, sample

# Latents of class c are N(m_c, I), all together count as N(0, I). Both scores are then linear with the same slope, and
# the guided score with scale w is *exactly* that of N(w m_c, I) at every time: so are its trajectories.
MEANS = torch.tensor([[1.0, -0.5, 2.0], [-0.7, 0.3, 0.1], [0.0, 0.0, 0.0]], dtype=F64)  # the last is "no class"
NULL = torch.tensor(2)
WORLDS = [(RectifiedFlow(), VELOCITY), (VPLinear(), EPS), (EDM(), V)]
IDS = ["rf-velocity", "vp-eps", "edm-v"]


class Exact(nn.Module):
    """A network that knows it: the mean of x0 for a teacher, the end of the guided trajectory for a student."""

    def __init__(self, path, parameterization, *, jump, w=None):
        super().__init__()
        self.path, self.parameterization, self.jump, self.w = path, parameterization, jump, w
        self.shift = nn.Parameter(torch.zeros(3, dtype=F64))
        self.heard = []

    def forward(self, x, t, cond):
        self.heard.append(cond)
        label, w = (cond["label"], cond["w"]) if isinstance(cond, dict) else (cond, torch.full((len(x),), self.w or 1))
        c = self.path.coeffs(t / 1000 * self.path.t_max)
        alpha, sigma = c.alpha[:, None], c.sigma[:, None]
        mean, norm2 = w.to(F64)[:, None] * MEANS[label], alpha**2 + sigma**2
        shrink = norm2.sqrt() if self.jump else norm2 / alpha
        x0 = mean + (x - alpha * mean) / shrink + self.shift
        return self.parameterization.encode(x0, (x - alpha * x0) / sigma, c)


def teacher_of(world):
    return Denoiser(Exact(*world, jump=False), *world, null=NULL).requires_grad_(False)


def student_of(world, w=None):
    """One that hears w, or one made for a single w."""
    null = NULL if w else {"label": NULL, "w": torch.tensor(1.0)}
    return Denoiser(Exact(*world, jump=True, w=w), *world, null=null)


@pytest.fixture
def batch():
    label = torch.tensor([0, 1, 0, 1])
    return MEANS[label] + normal(4, 3), label, torch.tensor([1.0, 2.0, 3.5, 6.0], dtype=F64)


# The pair law


def test_the_pairs_are_those_of_the_published_scheduler():
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.LCMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler.set_timesteps(50, original_inference_steps=50)  # 999, 979, ..., 19: all that LCM was trained on
    path, pairs = Discrete(stable_diffusion()), SkippedSteps(1000, 20)
    t, u = pairs.sample(2000, path, generator=seeded())
    index = (t * 1000).round().long() - 1  # theirs count from 0
    assert sorted(set(index.tolist()), reverse=True) == scheduler.timesteps.tolist() and pairs.legs == 50
    assert gap(path.alpha(t) ** 2, scheduler.alphas_cumprod.double()[index]) <= 1e-6
    assert gap(t - u, torch.full_like(t, 0.02)) <= 1e-12 and u.min() == 0 and t.max() == 1


@pytest.mark.parametrize("path", [RectifiedFlow(), EDM()], ids=["rf", "edm"])
def test_every_leg_is_as_likely_and_they_join(path):
    t, u = SkippedSteps(20, 5).sample(4000, path, generator=seeded(1))
    ends = torch.linspace(0, path.t_max, 5, dtype=F64)
    counts = torch.stack([((t == high) & (u == low)).sum() for low, high in pairwise(ends)])
    assert counts.sum() == 4000  # no other pair; four standard deviations of a binomial are 110
    assert (counts - 1000).abs().max() < 110
    same = SkippedSteps(20, 5).sample(4000, path, generator=seeded(1))
    assert torch.equal(same[0], t)


def test_pairs_that_do_not_fit():
    with pytest.raises(RangeError, match="k: got 30, expected a divisor of timesteps = 1000"):
        SkippedSteps(1000, 30)
    with pytest.raises(RangeError, match="k: got 0"):
        SkippedSteps(1000, 0)


# The teacher's leg


@pytest.mark.parametrize("world", WORLDS, ids=IDS)
def test_the_leg_is_lcms_formula_with_omega_one_less_than_w(world, batch):
    """(1 + omega) eps_c - omega eps_null, the same for x0, and DDIM; eq. 10-14 of the paper, written out."""
    x0, label, w = batch
    path, teacher = world[0], teacher_of(world)
    leg = guided_leg(teacher, x0, label, w, pairs=SkippedSteps(10, 2), solver=DDIM(), generator=seeded(3))
    inside = leg.t < path.t_max  # DDIM from pure noise of a straight path has no eps to divide by: tested below
    assert inside.sum() >= 3
    omega, p_c, p_0 = (w - 1)[:, None], teacher(leg.x_t, leg.t, label), teacher(leg.x_t, leg.t)
    c, s = path.coeffs(leg.t), path.coeffs(leg.u)
    eps = (1 + omega) * p_c.eps - omega * p_0.eps
    z0 = (leg.x_t - c.sigma[:, None] * eps) / c.alpha[:, None]
    x_u = s.alpha[:, None] * z0 + s.sigma[:, None] * eps
    assert gap(leg.x_u[inside], x_u[inside]) <= 1e-11 * float(leg.x_t.abs().max())


def test_on_a_straight_path_the_leg_is_eulers_step_from_pure_noise_too(batch):
    x0, label, w = batch
    teacher = teacher_of(WORLDS[0])
    teacher.network.forward = lambda x, t, cond: MEANS[cond] * 3 + t[:, None] / 1000  # some velocity, finite at t = 1
    for pairs in (SkippedSteps(1, 1), SkippedSteps(8, 2)):
        leg = guided_leg(teacher, x0, label, w, pairs=pairs, solver=DDIM(), generator=seeded(3))
        v = w[:, None] * MEANS[label] * 3 + leg.t[:, None]
        assert gap(leg.x_u, leg.x_t - (leg.t - leg.u)[:, None] * v) <= 1e-12
        assert gap(leg.x_t, (1 - leg.t)[:, None] * x0 + leg.t[:, None] * noise_of(pairs)) <= 1e-12


def noise_of(pairs, n=4):
    """The noise that ``guided_leg`` draws after its pairs."""
    generator = seeded(3)
    pairs.sample(n, RectifiedFlow(), generator=generator)
    return torch.randn(n, 3, generator=generator, dtype=F64)


def test_a_leg_may_be_several_steps_of_the_teacher(batch):
    """Two Euler steps by hand, from pure noise to data, with a velocity that depends on x and t."""
    x0, label, w = batch
    teacher = teacher_of(WORLDS[0])
    teacher.network.forward = lambda x, t, cond: (1 + t[:, None] / 1000) * x + MEANS[cond]
    options = {"pairs": SkippedSteps(1, 1), "solver": DDIM(), "substeps": 2}
    leg = guided_leg(teacher, x0, label, w, generator=seeded(3), **options)
    middle = leg.x_t - 0.5 * (2 * leg.x_t + w[:, None] * MEANS[label])
    assert gap(leg.x_u, middle - 0.5 * (1.5 * middle + w[:, None] * MEANS[label])) <= 1e-12
    assert len(leg.x_u) == 4 and (leg.u == 0).all() and (leg.t == 1).all()
    for loss, heard in ((latent_consistency_loss, w), (adapter_consistency_loss, 2.0)):
        student = student_of(WORLDS[0], None if loss is latent_consistency_loss else 2.0)
        student.network.forward = lambda x, t, cond: torch.zeros_like(x)  # f(x, t) = x
        got = loss(student, teacher, x0, label, heard, distance=squared, generator=seeded(3), **options)
        own = guided_leg(teacher, x0, label, torch.as_tensor(heard).expand(4), generator=seeded(3), **options)
        assert gap(got, (own.x_t - own.x_u).square().mean(1)) <= 1e-12


def test_the_teacher_is_asked_once_for_both_branches(batch):
    x0, label, w = batch
    teacher = teacher_of(WORLDS[1])
    guided_leg(teacher, x0, label, w, pairs=SkippedSteps(10, 2), solver=DDIM(), generator=seeded())
    (heard,) = teacher.network.heard
    assert heard.tolist() == [2, 2, 2, 2, *label.tolist()]


# The loss


def loss_of(world, student, batch, k=20, seed=3, **options):
    x0, label, w = batch
    options = {"pairs": SkippedSteps(1000, k), "generator": seeded(seed)} | options
    return latent_consistency_loss(student, teacher_of(world), x0, label, w, **options)


@dataclass(frozen=True)
class OnePair:
    """A pair law that always gives the same pair, in shares of t_max."""

    t: float
    u: float

    def sample(self, n, path, *, generator=None, device=None):
        return times(self.t * path.t_max).expand(n), times(self.u * path.t_max).expand(n)


@pytest.mark.parametrize("world", WORLDS, ids=IDS)
@pytest.mark.parametrize(("solver", "order"), [(DDIM(), 2), (Heun(), 3)], ids=["ddim", "heun"])
def test_the_exact_student_is_wrong_by_the_solvers_local_error_alone(world, solver, order, batch):
    """Its two ends differ by the error of one step: O(h^2) for DDIM, O(h^3) for Heun, and nothing is left as h -> 0."""

    def error(h):
        pairs = OnePair(0.6, 0.6 - h)
        return loss_of(world, student_of(world), batch, pairs=pairs, distance=squared, solver=solver).sqrt()

    slopes = torch.log2(error(0.01) / error(0.005))
    assert (slopes - order).abs().max() < 0.15
    assert error(1e-4).max() < 1e-6


@pytest.mark.parametrize("world", WORLDS[1:], ids=IDS[1:])
def test_only_the_right_w_makes_the_loss_vanish(world, batch):
    """A student that hears w - 1 or another sample's w in its place is far off, and so is one that is deaf."""
    _, label, w = batch
    right = loss_of(world, student_of(world), batch, k=1, distance=squared)
    assert right.max() < 1e-5
    for wrong in (lambda cond: cond | {"w": cond["w"] - 1}, lambda cond: cond | {"w": cond["w"].flip(0)}):
        student, inner = student_of(world), student_of(world).network
        student.network.forward = lambda x, t, cond, wrong=wrong, inner=inner: inner(x, t, wrong(cond))
        # The drift of one short leg is wrong by a share of (dw m_c): small, but far more than the solver's error.
        assert (loss_of(world, student, batch, k=1, distance=squared) > 10 * right).sum() >= 3
    student = student_of(world)
    loss_of(world, student, batch)
    assert len(student.network.heard) == 2  # ahead and behind, one pass each
    for heard in student.network.heard:
        assert torch.equal(heard["w"], w) and torch.equal(heard["label"], label)


@pytest.mark.parametrize("world", WORLDS[1:], ids=IDS[1:])
def test_the_last_leg_leads_to_the_boundary(world, batch):
    """With one leg u = 0, where f is the identity: the target is the guided DDIM jump itself, and nothing is learned
    from the network."""
    x0, label, w = batch
    student, teacher, pairs = student_of(world), teacher_of(world), SkippedSteps(7, 7)
    leg = guided_leg(teacher, x0, label, w, pairs=pairs, solver=DDIM(), generator=seeded(3))
    assert (leg.u == 0).all()
    f = ConsistencyFunction(student, tell(label, w=w))(leg.x_t, leg.t)
    broken = student_of(world)
    broken.network.shift.data += 100.0  # a target that is never asked for its opinion
    got = loss_of(world, student, batch, pairs=pairs, target=broken)
    delta = f - leg.x_u
    assert gap(got, ((delta**2 + 1e-6).sqrt() - 1e-3).mean(1)) <= 1e-12  # Huber, c = 0.001, element by element
    assert delta.abs().max() > 0.1  # one step of a mean-seeking teacher is not the trajectory


def test_the_target_may_be_another_network_and_gets_no_gradient(batch):
    world = WORLDS[1]
    student, slow = student_of(world), student_of(world)
    slow.network.shift.data += torch.tensor([0.3, -0.2, 0.1], dtype=F64)
    loss = loss_of(world, student, batch, distance=squared, target=slow)
    ours = loss_of(world, student, batch, distance=squared)
    assert (loss - ours).abs().min() > 1e-3 and gap(loss, torch.full((4,), (0.09 + 0.04 + 0.01) / 3)) < 2e-2
    loss.sum().backward()
    assert slow.network.shift.grad is None
    assert (student.network.shift.grad + 2 * 4 / 3 * slow.network.shift.detach()).abs().max() < 0.1
    student.zero_grad()
    loss_of(world, student, batch, distance=squared).sum().backward()
    # With a gradient through both ends a common shift would cancel, and the slope would be zero to rounding.
    assert student.network.shift.grad.abs().max() > 1e-4


def test_the_exact_student_samples_the_guided_law_in_one_step_and_in_many():
    """N(w m, I) from N(0, I): mean and variance after 1 and 4 jumps, w = 3, with the noise of each jump fresh."""
    path, parameterization = VPLinear(beta_max=40.0), EPS  # ends in noise that remembers nothing of the data
    student, n = student_of((path, parameterization)), 20_000
    cond = {"label": torch.zeros(n, dtype=torch.long), "w": torch.full((n,), 3.0, dtype=F64)}
    for steps in (1, 4):
        grid = torch.linspace(1, 0, steps + 1, dtype=F64)
        x = last(sample(student.given(cond), path, ConsistencyMultistep(), grid, normal(n, 3), generator=seeded(steps)))
        assert gap(x.mean(0), 3 * MEANS[0]) < 5 / math.sqrt(n) and gap(x.var(0), torch.ones(3)) < 5 * math.sqrt(2 / n)


def test_what_does_not_fit_is_named(batch):
    x0, label, w = batch
    student, teacher, pairs = student_of(WORLDS[1]), teacher_of(WORLDS[1]), SkippedSteps(10, 2)
    with pytest.raises(ShapeError, match="student: speaks RectifiedFlow"):
        latent_consistency_loss(student_of(WORLDS[0]), teacher, x0, label, w, pairs=pairs)
    with pytest.raises(ShapeError, match="student: speaks RectifiedFlow"):
        adapter_consistency_loss(student_of(WORLDS[0], 2.0), teacher, x0, label, 2.0, pairs=pairs)
    with pytest.raises(ShapeError, match="cond: got"):  # a student with no ear for w
        latent_consistency_loss(student_of(WORLDS[1], 2.0), teacher, x0, label, w, pairs=pairs)
    with pytest.raises(ShapeError, match="one per sample"):
        latent_consistency_loss(student, teacher, x0, label, w[:3], pairs=pairs)
    with pytest.raises(ShapeError, match="steps a batch together"):
        latent_consistency_loss(student, teacher, x0, label, w, pairs=pairs, solver=ConsistencyMultistep())


# LCM-LoRA


@pytest.mark.parametrize("world", WORLDS[1:], ids=IDS[1:])
def test_the_adapters_loss_is_lcms_at_one_w_that_is_not_heard(world, batch):
    x0, label, _ = batch
    options = {"pairs": SkippedSteps(1000, 20), "generator": seeded(5)}
    student = student_of(world, 2.5)
    got = adapter_consistency_loss(student, teacher_of(world), x0, label, 2.5, **options)
    told = loss_of(world, student_of(world), (x0, label, torch.full((4,), 2.5, dtype=F64)), seed=5)
    assert torch.equal(got, told) and torch.equal(student.network.heard[0], label)
    options["generator"] = seeded(5)
    assert (adapter_consistency_loss(student, teacher_of(world), x0, label, 1.5, **options) > got).all()


def condition(b=4, seed=0):
    mask = torch.arange(3)[None] < torch.tensor([1, 2, 3, 3])[:b, None]
    return {
        "tokens": normal(b, 3, 6, seed=seed, dtype=torch.float32),
        "mask": mask,
        "vector": normal(b, 5, seed=seed + 1, dtype=torch.float32),
    }


def transformer(guidance=False):
    net = MMDiT(2, dim=16, heads=2, depth=2, grid=4, context_dim=6, vector_dim=5, guidance=guidance)
    for name, p in net.named_parameters():
        p.data = 0.2 * torch.randn(p.shape, generator=seeded(p.numel() + len(name)))
    null = {name: value[0] for name, value in condition(1).items()}
    null = tell(null, w=torch.tensor(1.0)) if guidance else null
    return Denoiser(net, RectifiedFlow(), VELOCITY, null=null)


def test_an_adapter_learns_to_jump_and_can_be_taken_off():
    student, teacher = transformer(), transformer().requires_grad_(False)
    x, t, cond = normal(4, 2, 4, 4, dtype=torch.float32), times(0.2, 0.5, 0.8, 1.0), condition()
    adapter = add_lora(student.network, 2, generator=seeded(1))
    before = teacher(x, t, cond).velocity
    assert torch.equal(student(x, t, cond).velocity, before)  # B = 0
    frozen = {name: p.clone() for name, p in student.network.named_parameters()}
    optimizer, pairs = torch.optim.Adam(adapter.parameters(), lr=1e-2), SkippedSteps(4, 1)

    def loss(seed=9):
        return adapter_consistency_loss(student, teacher, x, cond, 2.0, pairs=pairs, generator=seeded(seed)).mean()

    first = loss().item()
    for _ in range(60):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.5 * first
    assert all(torch.equal(p, frozen[n]) and p.grad is None for n, p in student.network.named_parameters())
    assert gap(student(x, t, cond).velocity, before) > 1e-2
    adapter.scale = 0.0
    assert torch.equal(student(x, t, cond).velocity, before)  # the teacher again, bit for bit
    adapter.scale = 1.0


def test_a_style_is_added_to_the_jump_as_weights():
    """``W_0 + l_1 dW_LCM + l_2 dW_style`` by hand, with both merged, and with both beside the layers."""
    net, x, t, cond = transformer().network, normal(4, 2, 4, 4, dtype=torch.float32), torch.rand(4) * 1000, condition()
    jump, style = (add_lora(net, rank, generator=seeded(rank)) for rank in (2, 3))
    for k, part in enumerate([*jump.parameters(), *style.parameters()]):
        part.data = 0.1 * torch.randn(part.shape, generator=seeded(k))
    jump.scale, style.scale = 0.9, 0.6
    by_hand = transformer().network
    for adapter in (jump, style):
        for name in adapter.names:
            by_hand.get_submodule(name).weight.data += adapter.delta(name)
    wanted, beside = by_hand(x, t, cond), net(x, t, cond)
    assert gap(beside, wanted) <= 2e-5 * float(wanted.abs().max())
    jump.merge()
    style.merge()
    assert gap(net(x, t, cond), wanted) <= 2e-5 * float(wanted.abs().max())
    assert gap(transformer().network(x, t, cond), wanted) > 0.1


def test_huber_is_the_default_distance(batch):
    world = WORLDS[1]
    assert torch.equal(
        loss_of(world, student_of(world), batch), loss_of(world, student_of(world), batch, distance=huber(0.001))
    )
