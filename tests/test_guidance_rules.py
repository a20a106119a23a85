"""Guidance: what w means, the repairs by hand, composition, classifier guidance, memory, distillation."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from worlds import (
    F64,
    PATH_NAMES,
    PATHS,
    ROW_NAMES,
    ROWS,
    Counted,
    TinyNetwork,
    gap,
    inner_times,
    normal,
    plane,
    seeded,
    times,
    tiny_pictures,
)

from lecture_lib.core import (
    EDM,
    VELOCITY,
    X0,
    Denoiser,
    Prediction,
    RectifiedFlow,
    UniformTimes,
    V,
    VPLinear,
    karras_grid,
    uniform_grid,
)
from lecture_lib.guidance import (
    cached,
    classifier_guidance,
    clipped,
    compose,
    extrapolate,
    fused,
    guidance_distillation_loss,
    guide,
    interval,
    linear,
    log_prob_gradient,
    plus_plus,
    project,
    projected,
    projected_momentum,
    rescaled,
    thresholded,
)
from lecture_lib.oracles import GaussianMixture
from lecture_lib.samplers import DDIM, DDPM, DPMSolverPP2M, Euler, last, sample

every_path = pytest.mark.parametrize("path", PATHS, ids=PATH_NAMES)


def branches(path, mixture=None):
    mixture = mixture or plane()
    return mixture.denoise(path), mixture.given(1).denoise(path)


def same(p: Prediction, q: Prediction) -> bool:
    return torch.equal(p.x0, q.x0) and torch.equal(p.eps, q.eps)


def constant(path, x0, nfe=1):
    """A denoiser that always says x0."""

    def denoise(x_t, t):
        c = path.coeffs(t)
        eps = (x_t - c.alpha[:, None] * x0) / c.sigma[:, None]
        return Prediction(path, t, x_t, x0.expand(x_t.shape), eps, nfe)

    return denoise


# What w means


@every_path
def test_w_one_is_the_conditional_model_and_w_zero_the_unconditional_to_the_bit(path):
    x, t = normal(9, 2), inner_times(path)
    reference, main = branches(path)
    for dtype in (torch.float32, F64):
        z = x.to(dtype)
        assert same(extrapolate(reference, main, 1.0)(z, t), main(z, t))
        assert same(extrapolate(reference, main, 0.0)(z, t), reference(z, t))


def test_w_one_and_zero_with_a_network_on_every_channel():
    # Trap 4: guidance on part of the channels, a habit of some public code, fails here.
    net = TinyNetwork(d=4 * 3 * 3)
    d = Denoiser(net, RectifiedFlow(), V, null=torch.tensor(3))
    x, t = normal(2, 4, 3, 3), times(0.3, 0.8)
    with torch.no_grad():
        assert same(extrapolate(d.given(None), d.given(1), 1.0)(x, t), d.given(1)(x, t))
        assert same(extrapolate(d.given(None), d.given(1), 0.0)(x, t), d.given(None)(x, t))
        p, a, b = extrapolate(d.given(None), d.given(1), 3.0)(x, t), d.given(None)(x, t), d.given(1)(x, t)
    assert gap(p.x0, 3 * b.x0 - 2 * a.x0) <= 1e-12  # every channel, and w = 3 is (1 + 2) main - 2 reference
    assert gap(p.eps, 3 * b.eps - 2 * a.eps) <= 1e-12


@every_path
@pytest.mark.parametrize("row", ROWS, ids=ROW_NAMES)
def test_guidance_is_the_same_line_in_every_parameterization(path, row):
    x, t, w = normal(9, 2), inner_times(path), 4.0
    reference, main = branches(path)
    a, b, g = reference(x, t), main(x, t), extrapolate(reference, main, w)(x, t)
    c = path.coeffs(t)
    ya, yb = row.encode(a.x0, a.eps, c), row.encode(b.x0, b.eps, c)
    x0, eps = row.decode(ya + w * (yb - ya), x, c)
    tolerance = 1e-9 * max(1, float(ya.abs().max()))
    assert gap(x0, g.x0) <= tolerance and gap(eps, g.eps) <= tolerance
    assert gap(path.mix(g.x0, g.eps, t), x) <= 1e-9
    assert g.nfe == 2


def test_guided_score_is_the_extrapolated_score():
    x, t, w = normal(9, 2), inner_times(VPLinear()), 2.5
    mixture, path = plane(), VPLinear()
    g = extrapolate(*branches(path), w)(x, t)
    expected = (1 - w) * mixture.score(x, path, t) + w * mixture.given(1).score(x, path, t)
    assert gap(g.score, expected) <= 1e-10


def test_a_scale_per_sample_and_a_schedule():
    path, x, t = RectifiedFlow(), normal(4, 2), times(0.2, 0.4, 0.6, 0.8)
    reference, main = branches(path)
    w = times(0.0, 1.0, 2.0, -3.0)
    g = extrapolate(reference, main, w)(x, t)
    schedule = extrapolate(reference, main, lambda path, t: 1 + 5 * t)(x, t)
    for i in range(4):
        one = extrapolate(reference, main, float(w[i]))(x[i : i + 1], t[i : i + 1])
        assert gap(g.x0[i : i + 1], one.x0) <= 1e-13
        one = extrapolate(reference, main, 1 + 5 * float(t[i]))(x[i : i + 1], t[i : i + 1])
        assert gap(schedule.eps[i : i + 1], one.eps) <= 1e-13
    pictures = tiny_pictures()
    z = normal(4, 1, 8, 8)
    g = extrapolate(*branches(path, pictures), w)(z, t)
    one = extrapolate(*branches(path, pictures), 2.0)(z, t)
    assert gap(g.x0[2], one.x0[2]) <= 1e-13 and not torch.allclose(g.x0[3], one.x0[3])


@pytest.mark.parametrize(
    "rule", [linear(3.0), rescaled(3.0), projected(3.0), plus_plus(0.6), linear(times(1, 2, 3, 4, 5))], ids=str
)
def test_fused_is_the_two_passes_in_one(rule):
    net = TinyNetwork().requires_grad_(False)
    d = Denoiser(net, RectifiedFlow(), VELOCITY, null=torch.tensor(3))
    x, t, label = normal(5, 2, dtype=torch.float32), times(0.1, 0.3, 0.5, 0.7, 0.9), torch.tensor([0, 1, 2, 1, 0])
    two = guide(d.given(None), d.given(label), rule)(x, t)
    net.calls.clear()
    one = fused(d, None, label, rule)(x, t)
    assert net.calls == [10]  # one pass over both branches
    assert gap(one.x0, two.x0) <= 1e-6 and gap(one.eps, two.eps) <= 1e-6
    assert one.nfe == two.nfe == 2 and torch.equal(one.t, t) and torch.equal(one.x_t, x)


def test_fused_with_a_negative_class():
    d = Denoiser(TinyNetwork().requires_grad_(False), RectifiedFlow(), VELOCITY, null=torch.tensor(3))
    x, t = normal(3, 2), times(0.1, 0.5, 0.9)
    one, two = fused(d, 2, 0, linear(4.0))(x, t), extrapolate(d.given(2), d.given(0), 4.0)(x, t)
    assert gap(one.x0, two.x0) <= 1e-12 and gap(one.eps, two.eps) <= 1e-12


def test_autoguidance_is_extrapolate_from_a_weaker_model():
    path, x, t = EDM(), normal(4, 2), times(0.1, 1, 5, 40)
    strong = Denoiser(TinyNetwork(seed=1).requires_grad_(False), path, X0)
    weak = Denoiser(TinyNetwork(seed=2).requires_grad_(False), path, X0)
    g = extrapolate(weak, strong, 2.0)(x, t)
    assert gap(g.x0, 2 * strong(x, t).x0 - weak(x, t).x0) <= 1e-13
    assert same(extrapolate(strong, strong, 7.0)(x, t), strong(x, t))  # nothing to learn from oneself


# Interval


def test_interval_is_open_below_and_closed_above():
    path = EDM()
    plain, guided = branches(path)[1], extrapolate(*branches(path), 3.0)
    limited = interval(path, guided, plain, 0.28, 1.61)
    for level, inside in (
        (0.28, False),
        (0.2801, True),
        (1.0, True),
        (1.61, True),
        (1.6101, False),
        (0.0, False),
        (80.0, False),
    ):
        t = torch.full((3,), level, dtype=F64)
        assert limited(normal(3, 2), t).nfe == (2 if inside else 1), level
        assert same(limited(normal(3, 2), t), (guided if inside else plain)(normal(3, 2), t))


@pytest.mark.parametrize("level", [0.1, 0.3, 1.1, 1.61, 2.0, 3.3, 7.0])
def test_an_inclusive_bound_survives_rounding(level):
    path = EDM()
    plain, guided = branches(path)[1], extrapolate(*branches(path), 3.0)
    t = torch.full((2,), level, dtype=F64)
    assert interval(path, guided, plain, 0.0, level)(normal(2, 2), t).nfe == 2
    assert interval(path, guided, plain, level, 100.0)(normal(2, 2), t).nfe == 1


def test_interval_measures_noise_to_signal_on_any_path():
    path = RectifiedFlow()
    plain, guided = branches(path)[1], extrapolate(*branches(path), 3.0)
    limited = interval(path, guided, plain, 1.0, 9.0)  # t in (1/2, 9/10]
    got = [limited(normal(1, 2), times(t)).nfe for t in (0.4, 0.51, 0.89, 0.91, 1.0)]
    assert got == [1, 2, 2, 1, 1]


def test_a_mixed_batch_gets_each_sample_its_own_side():
    path = RectifiedFlow()
    plain, guided = branches(path)[1], extrapolate(*branches(path), 3.0)
    x, t = normal(4, 2), times(0.2, 0.6, 0.8, 0.95)
    p = interval(path, guided, plain, 1.0, 9.0)(x, t)
    a, b = guided(x, t), plain(x, t)
    for i, inside in enumerate((False, True, True, False)):
        assert torch.equal(p.x0[i], (a if inside else b).x0[i]) and torch.equal(p.eps[i], (a if inside else b).eps[i])
    assert p.nfe == 3  # both ran


def test_interval_saves_what_it_says():
    path, n = RectifiedFlow(), 10
    reference, main = (Counted(f) for f in branches(path))
    limited = interval(path, extrapolate(reference, main, 3.0), main, 1.0, 9.0)
    *_, final = sample(limited, path, DDIM(), uniform_grid(path, n), normal(4, 2))
    assert final.nfe == main.calls + reference.calls == n + 4  # A26: 1 + p evaluations per step, p = 4/10


# Rescaling and projection


@every_path
@pytest.mark.parametrize("row", [V, X0], ids=["v", "x0"])
def test_rescaling_restores_the_standard_deviation(path, row):
    mixture = tiny_pictures()
    x, t = normal(9, 1, 8, 8), inner_times(path)
    reference, main = branches(path, mixture)
    c = path.coeffs(t)

    def std(p):
        return row.encode(p.x0, p.eps, c).flatten(1).std(1)

    target, full = std(main(x, t)), std(guide(reference, main, linear(5.0))(x, t))
    for phi in (0.0, 0.3, 1.0):
        p = guide(reference, main, rescaled(5.0, phi, row))(x, t)
        assert gap(std(p) / (phi * target + (1 - phi) * full), torch.ones(9, dtype=F64)) <= 1e-8
        assert gap(path.mix(p.x0, p.eps, t), x) <= 1e-9 and p.nfe == 2


def test_rescaling_by_hand_is_per_sample_over_all_dimensions():
    # x0 rows (2, 0) and (6, 0) against main (1, 0) and (1, 0): stds shrink by 2 and by 6, not by their mean.
    path, t = RectifiedFlow(), times(0.5, 0.5)
    x = torch.zeros(2, 2, dtype=F64)
    main = constant(path, torch.tensor([[1.0, 0.0]], dtype=F64))
    reference = constant(path, torch.tensor([[0.0, 0.0], [-4.0, 0.0]], dtype=F64))
    p = guide(reference, main, rescaled(2.0, 1.0, X0))(x, t)
    assert gap(p.x0, torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=F64)) <= 1e-14
    p = guide(reference, main, rescaled(2.0, 0.5, X0))(x, t)
    assert gap(p.x0, torch.tensor([[1.5, 0.0], [3.5, 0.0]], dtype=F64)) <= 1e-14


def test_project_is_orthogonal_and_shortens():
    d, u = normal(5, 1, 3, 3, seed=1), normal(5, 1, 3, 3, seed=2)
    out = project(d, u, 0.0, math.inf)
    assert float((out * u).flatten(1).sum(1).abs().max()) <= 1e-13
    assert gap(project(d, u, 1.0, math.inf), d) <= 1e-14
    parallel = d - out
    assert gap(project(d, u, 0.25, math.inf), out + 0.25 * parallel) <= 1e-14
    short = project(d, u, 1.0, 0.5)
    assert gap(short.flatten(1).norm(dim=1), torch.full((5,), 0.5, dtype=F64)) <= 1e-14
    assert gap(project(d, u, 1.0, 1e6), d) <= 1e-14  # a long leash changes nothing
    assert gap(project(torch.zeros_like(d), u, 0.0, 1.0), torch.zeros_like(d)) == 0


def test_projection_by_hand():
    # main (3, 4), reference (3, 0): the update (0, 4) has 16/5 along (.6, .8); what is left is (-1.92, 1.44).
    path, x, t = RectifiedFlow(), torch.zeros(1, 2, dtype=F64), times(0.5)
    main, reference = constant(path, times(3, 4)), constant(path, times(3, 0))
    p = guide(reference, main, projected(3.0))(x, t)
    assert gap(p.x0, times(3 - 2 * 1.92, 4 + 2 * 1.44)[None]) <= 1e-14
    assert gap(path.mix(p.x0, p.eps, t), x) <= 1e-14


@every_path
def test_projection_with_everything_kept_is_linear(path):
    x, t = normal(9, 2), inner_times(path)
    reference, main = branches(path)
    p, q = guide(reference, main, projected(4.0, eta=1.0))(x, t), extrapolate(reference, main, 4.0)(x, t)
    assert gap(p.x0, q.x0) <= 1e-12 * max(1, float(q.x0.abs().max())) and gap(p.eps, q.eps) <= 1e-9
    assert same(guide(reference, main, projected(1.0))(x, t), main(x, t))


# CFG++


def test_plus_plus_takes_the_references_noise():
    path, x, t = VPLinear(), normal(5, 2), times(0.1, 0.3, 0.5, 0.7, 0.9)
    reference, main = branches(path)
    p = guide(reference, main, plus_plus(0.6))(x, t)
    a, b = reference(x, t), main(x, t)
    assert torch.equal(p.eps, a.eps) and gap(p.x0, a.x0 + 0.6 * (b.x0 - a.x0)) <= 1e-13
    assert same(guide(reference, main, plus_plus(0.0))(x, t), a)


def test_plus_plus_with_ddim_is_the_papers_loop():
    # Chung et al. 2024, Alg. 2: x0 from eps_lambda, re-noised with eps_null.
    path, x, lam = VPLinear(), normal(5, 2), 0.7
    reference, main = branches(path)
    grid = uniform_grid(path, 8, end=0.05)
    got = last(sample(guide(reference, main, plus_plus(lam)), path, DDIM(), grid, x))
    for t, s in pairwise(grid):
        a, b = (f(x, t.expand(5)) for f in (reference, main))
        eps = a.eps + lam * (b.eps - a.eps)
        x0 = (x - path.sigma(t) * eps) / path.alpha(t)
        x = path.alpha(s) * x0 + path.sigma(s) * a.eps
    assert gap(got, x) <= 1e-10


def test_plus_plus_outside_ddim_is_what_its_docstring_says():
    path, x, grid = EDM(), 5 * normal(4, 2), karras_grid(EDM(), 6, sigma_max=5.0)
    reference, main = branches(path)
    plus = guide(reference, main, plus_plus(0.6))

    def end(denoise, sampler):
        return last(sample(denoise, path, sampler, grid, x, generator=seeded()))

    for sampler in (DDPM(), DPMSolverPP2M()):
        assert gap(end(plus, sampler), end(extrapolate(reference, main, 0.6), sampler)) <= 1e-12
    assert gap(end(plus, Euler()), end(reference, Euler())) <= 1e-12


# Composition


@every_path
def test_composing_one_concept_is_guidance(path):
    x, t = normal(9, 2), inner_times(path)
    reference, main = branches(path)
    p, q = compose(reference, [(main, 3.0)])(x, t), extrapolate(reference, main, 3.0)(x, t)
    assert gap(p.x0, q.x0) <= 1e-11 * max(1, float(q.x0.abs().max())) and gap(p.eps, q.eps) <= 1e-11
    assert p.nfe == 2 and compose(reference, [])(x, t).nfe == 1


def test_and_and_not_of_gaussians_are_closed_forms():
    # At one noise level the score of p0 prod (pi/p0)^wi; for Gaussians, weighted precisions at that level.
    path, x = EDM(), normal(6, 1, seed=2) * 2
    p0, p1, p2 = (GaussianMixture([1.0], [[m]], [v]) for m, v in ((0.0, 4.0), (1.0, 1.0), (-0.5, 0.5)))
    t = times(0.1, 0.3, 0.6, 1.0, 2.0, 5.0)
    for w1, w2 in ((1.0, 1.0), (2.0, -0.5)):
        p = compose(p0.denoise(path), [(p1.denoise(path), w1), (p2.denoise(path), w2)])(x, t)
        q = t[:, None] ** 2
        terms = ((1 - w1 - w2, 0.0, 4.0), (w1, 1.0, 1.0), (w2, -0.5, 0.5))
        score = -sum(w * (x - m) / (v + q) for w, m, v in terms)
        assert gap(p.score, score) <= 1e-11 and p.nfe == 3


# Classifier guidance


@every_path
def test_the_exact_classifier_is_bayes_rule(path):
    mixture, t = plane(), inner_times(path)
    x = path.mix(mixture.sample(9, generator=seeded(1)), normal(9, 2), t)

    def classifier(y, s):
        return mixture.log_prob_label(1, y, path, s)

    reference, main = branches(path)
    one = classifier_guidance(reference, classifier, 1.0)(x, t)
    assert gap(one.x0, main(x, t).x0) <= 1e-10 and gap(one.eps, main(x, t).eps) <= 1e-10
    for w in (0.0, 3.0):
        p, q = classifier_guidance(reference, classifier, w)(x, t), extrapolate(reference, main, w)(x, t)
        assert gap(p.x0, q.x0) <= 1e-9 and gap(p.eps, q.eps) <= 1e-9
    on_top = classifier_guidance(main, classifier, 2.0)(x, t)  # on a conditional model, scale is w - 1
    assert gap(on_top.x0, extrapolate(reference, main, 3.0)(x, t).x0) <= 1e-9
    assert one.nfe == 2


def test_classifier_gradient_inside_no_grad_and_only_on_x():
    x = normal(3, 2)
    with torch.no_grad():
        g = log_prob_gradient(lambda y, t: -(y**2).sum(1) * t, x, times(1, 2, 3))
    assert gap(g, -2 * x * times(1, 2, 3)[:, None]) <= 1e-14 and not x.requires_grad


# Repairs by hand


def test_clipping_by_hand():
    path, x, t = RectifiedFlow(), torch.zeros(1, 3, dtype=F64), times(0.5)
    p = clipped(constant(path, times(2.0, -0.3, -5.0)))(x, t)
    assert gap(p.x0, times(1.0, -0.3, -1.0)[None]) == 0
    assert gap(p.eps, -times(1.0, -0.3, -1.0)[None]) <= 1e-15  # eps follows, x_t stays
    inside = constant(path, times(0.2, -0.3, 0.9))
    assert same(clipped(inside)(x, t), inside(x, t))
    assert clipped(constant(path, times(2.0, 0, 0), nfe=2))(x, t).nfe == 2


def test_dynamic_thresholding_by_hand():
    path, t = RectifiedFlow(), times(0.5, 0.5)
    x0 = torch.tensor([[0.0, 1.0, 2.0, -3.0, 4.0], [0.1, -0.2, 0.3, 0.4, -0.5]], dtype=F64)
    p = thresholded(constant(path, x0), percentile=0.75)(torch.zeros(2, 5, dtype=F64), t)
    # sample 1: the 75th percentile of |x0| is 3, so clip to 3 and divide by 3; sample 2: below 1, untouched
    assert gap(p.x0, torch.tensor([[0.0, 1 / 3, 2 / 3, -1.0, 1.0], [0.1, -0.2, 0.3, 0.4, -0.5]], dtype=F64)) <= 1e-15


def test_thresholding_is_no_longer_affine_but_clipping_keeps_plus_plus():
    path, x, t = RectifiedFlow(), torch.zeros(1, 2, dtype=F64), times(0.5)
    a, b = constant(path, times(0.5, 0.5)), constant(path, times(0.6, 0.9))
    p = clipped(guide(a, b, plus_plus(0.5)))(x, t)
    assert gap(p.eps, a(x, t).eps) == 0  # nothing was clipped, so CFG++'s own eps survives


# Memory


def test_momentum_of_nothing_is_projection():
    path, x = VPLinear(), normal(4, 2)
    reference, main = branches(path)
    denoise = projected_momentum(reference, main, 3.0, beta=0.0, eta=0.2, radius=2.0).fresh()
    for t in (0.9, 0.5, 0.1):
        t = torch.full((4,), t, dtype=F64)
        expected = guide(reference, main, projected(3.0, eta=0.2, radius=2.0))(x, t)
        assert same(denoise(x, t), expected) and expected.nfe == 2


def test_momentum_by_hand():
    # updates 1, 1, 1 along y with beta = -1/2: running 1, 1/2, 3/4
    path, x, t = RectifiedFlow(), torch.zeros(1, 2, dtype=F64), times(0.5)
    denoise = projected_momentum(constant(path, times(1, 0)), constant(path, times(1, 1)), 2.0, eta=1.0).fresh()
    pushes = [float(denoise(x, t).x0[0, 1]) - 1 for _ in range(3)]
    assert pushes == pytest.approx([1, 0.5, 0.75])


def test_cached_every_one_is_linear_and_others_count():
    path, x = RectifiedFlow(), normal(4, 2)
    reference, main = branches(path)
    denoise = cached(reference, main, 3.0, every=1).fresh()
    t = torch.full((4,), 0.5, dtype=F64)
    p, q = denoise(x, t), extrapolate(reference, main, 3.0)(x, t)
    assert gap(p.x0, q.x0) <= 1e-12 and gap(p.eps, q.eps) <= 1e-12
    for every, expected in ((1, 20), (2, 15), (3, 14), (10, 11)):
        counted = Counted(reference), Counted(main)
        *_, final = sample(cached(*counted, 3.0, every=every), path, DDIM(), uniform_grid(path, 10), x)
        assert final.nfe == expected == counted[0].calls + counted[1].calls


def test_cached_reuses_the_last_difference():
    path, x = RectifiedFlow(), normal(4, 2)
    reference, main = branches(path)
    denoise = cached(reference, main, 3.0, every=2).fresh()
    t, s = torch.full((4,), 0.8, dtype=F64), torch.full((4,), 0.6, dtype=F64)
    first, second = denoise(x, t), denoise(x, s)
    assert first.nfe == 2 and second.nfe == 1
    kept = main(x, t).x0 - reference(x, t).x0
    assert gap(second.x0, main(x, s).x0 + 2 * kept) <= 1e-13


def test_two_trajectories_never_see_each_other():
    path, x = RectifiedFlow(), normal(3, 2)
    recipe = projected_momentum(*branches(path), 3.0, beta=-0.5)
    frames = [sample(recipe, path, DDIM(), uniform_grid(path, 5), x) for _ in range(2)]
    for a, b in zip(*frames, strict=True):  # interleaved
        assert torch.equal(a.x, b.x)


def test_a_repair_around_guidance_with_memory():
    path, x = RectifiedFlow(), normal(3, 2)
    recipe = cached(*branches(path), 5.0, every=2).then(clipped)
    *_, final = sample(recipe, path, DDIM(), uniform_grid(path, 6), x)
    assert final.nfe == 9 and float(final.x0.abs().max()) <= 1


# Distillation


class ExactStudent(torch.nn.Module):
    """Says what the guided teacher says: its network holds the teacher."""

    def __init__(self, teacher):
        super().__init__()
        self.teacher = teacher

    def forward(self, x, t, cond):
        reference = self.teacher(x, t, torch.full_like(cond["label"], 3))
        main = self.teacher(x, t, cond["label"])
        return reference + cond["w"][:, None] * (main - reference)


def test_an_exact_student_has_no_distillation_loss_and_others_do():
    net = TinyNetwork()
    teacher = Denoiser(net, RectifiedFlow(), VELOCITY, null=torch.tensor(3))
    null = {"label": torch.tensor(3), "w": torch.tensor(1.0)}
    student = Denoiser(ExactStudent(net), RectifiedFlow(), VELOCITY, null=null)
    x0, label, w = normal(32, 2), torch.arange(32) % 3, torch.linspace(0, 5, 32, dtype=F64)
    arguments = {"times": UniformTimes(), "generator": seeded()}
    loss = guidance_distillation_loss(student, teacher, x0, label, w, **arguments)
    assert loss.shape == (32,) and float(loss.detach().max()) <= 1e-20
    wrong = guidance_distillation_loss(student, teacher, x0, label, w + 1, times=UniformTimes(), generator=seeded())
    assert float(wrong.detach().max()) <= 1e-20  # exact for every w
    net_of_the_student = TinyNetwork(seed=5)

    class Deaf(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net_of_the_student

        def forward(self, x, t, cond):
            return self.net(x, t, cond["label"])

    deaf = guidance_distillation_loss(
        Denoiser(Deaf(), RectifiedFlow(), VELOCITY, null=null),
        teacher,
        x0,
        label,
        w,
        times=UniformTimes(),
        generator=seeded(),
    )
    assert float(deaf.detach().min()) > 1e-3
    deaf.mean().backward()
    assert net_of_the_student.weight.grad.abs().sum() > 0 and net.weight.grad is None  # the teacher is fixed
