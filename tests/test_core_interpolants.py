"""Two-sided interpolants and the exact bridge between mixtures: ends, slopes, transport, and the one-sided limit."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from worlds import F64, PATH_NAMES, PATHS, gap, inner_times, normal, plane, seeded, times, tiny_pictures

from lecture_lib.core import (
    EDM,
    VELOCITY,
    BrownianNoise,
    Denoiser,
    Interpolant,
    RectifiedFlow,
    TwoSided,
    UniformTimes,
    VPLinear,
    encoding_decoding,
    linear_interpolant,
    no_noise,
    one_sided,
    parabolic_noise,
    sine_noise,
    trigonometric_interpolant,
    uniform_grid,
)
from lecture_lib.errors import RangeError, ShapeError, SingularError
from lecture_lib.oracles import GaussianBridge, GaussianMixture
from lecture_lib.samplers import Euler, Heun, last, sample

GAMMAS = {"brownian": BrownianNoise(1.0), "none": no_noise, "parabola": parabolic_noise, "sine": sine_noise}
TWO_SIDED = {f"linear, {name}": linear_interpolant(gamma) for name, gamma in GAMMAS.items()}
TWO_SIDED |= {f"trigonometric, {name}": trigonometric_interpolant(gamma) for name, gamma in GAMMAS.items()}
TWO_SIDED |= {"encoding-decoding": encoding_decoding(), "default": linear_interpolant()}
NOISY = {name: path for name, path in TWO_SIDED.items() if "none" not in name}
every_path = pytest.mark.parametrize("path", TWO_SIDED.values(), ids=TWO_SIDED)
noisy_path = pytest.mark.parametrize("path", NOISY.values(), ids=NOISY)
T = times(0.1, 0.25, 0.4, 0.62, 0.75, 0.9)  # 1/2 apart: there encoding-decoding changes its formula


def other_plane() -> GaussianMixture:
    """The other end: two components, one of them tilted, away from the origin."""
    covs = torch.tensor([[[0.2, -0.1], [-0.1, 0.3]], [[0.5, 0.0], [0.0, 0.1]]], dtype=F64)
    return GaussianMixture([0.7, 0.3], [[2.0, 2.0], [-1.0, 3.0]], covs)


def line() -> GaussianBridge:
    """A bridge over one dimension."""
    x0 = GaussianMixture([0.4, 0.6], [[-1.5], [1.0]], [0.1, 0.3])
    return GaussianBridge(x0, GaussianMixture([0.5, 0.5], [[0.0], [3.0]], [0.4, 0.2]))


BRIDGE = GaussianBridge(plane(), other_plane())


# Interpolants


@every_path
def test_it_leads_from_x0_to_x1(path):
    x0, x1, z = normal(2, 3), normal(2, 3, seed=1), normal(2, 3, seed=2)
    assert gap(path.interpolate(x0, x1, z, times(0, 0)), x0) <= 1e-15
    assert gap(path.interpolate(x0, x1, z, times(1, 1)), x1) <= 1e-15
    assert torch.equal(path.gamma(times(0, 1)), times(0, 0))


@every_path
@pytest.mark.parametrize("shape", [(6, 2), (6, 1, 8, 8)])
def test_interpolate_broadcasts_one_time_per_sample(path, shape):
    x0, x1, z = (normal(*shape, seed=seed) for seed in range(3))
    x_t = path.interpolate(x0, x1, z, T)
    for i in range(6):
        a, b, c = (float(f(T[i : i + 1])) for f in (path.alpha, path.beta, path.gamma))
        assert gap(x_t[i], a * x0[i] + b * x1[i] + c * z[i]) <= 1e-15
    assert path.interpolate(x0.float(), x1.float(), z.float(), T).dtype == torch.float32


@every_path
def test_slopes_are_those_of_finite_differences(path):
    h = 1e-6
    rows = path.alpha, path.beta, path.gamma
    for got, f in zip(path.derivatives(T), rows, strict=True):
        assert gap(got, (f(T + h) - f(T - h)) / (2 * h)) <= 1e-8
    assert torch.equal(path.sigma(T), path.gamma(T)) and torch.equal(path.slopes(T)[1], path.derivatives(T)[2])
    with torch.inference_mode():
        again = path.derivatives((T[:1] * 1.0).expand(4))
    assert all(torch.equal(a, b[:1].expand(4)) for a, b in zip(again, path.derivatives(T), strict=True))


def test_gammas_have_their_closed_forms():
    assert gap(BrownianNoise(2.0)(T), (2 * T * (1 - T)).sqrt()) <= 1e-15
    assert gap(sine_noise(T), torch.sin(math.pi * T) ** 2) <= 1e-15
    assert gap(parabolic_noise(T), T - T**2) <= 1e-15
    assert linear_interpolant().gamma == BrownianNoise(2.0)
    with pytest.raises(RangeError, match="scale"):
        BrownianNoise(0.0)


def test_equal_interpolants_are_equal():
    for make in (linear_interpolant, trigonometric_interpolant, encoding_decoding, lambda: one_sided(VPLinear())):
        assert make() == make() == copy.deepcopy(make()) == pickle.loads(pickle.dumps(make()))
    assert linear_interpolant(BrownianNoise(1.0)) != linear_interpolant(BrownianNoise(2.0))
    assert one_sided(RectifiedFlow()) != linear_interpolant(no_noise)  # the same numbers by other functions
    assert repr(encoding_decoding()) == "Interpolant(_encode, _decode, sine_noise, t_max=1)"
    assert "gamma z" in linear_interpolant()._repr_markdown_()


def test_what_needs_a_noise_level_is_refused():
    path = linear_interpolant()
    with pytest.raises(RangeError, match="two times"):
        path.time_of(times(0.0))
    with pytest.raises(RangeError, match="forward SDE"):
        path.drift_diffusion(T)
    with pytest.raises(ShapeError, match="interpolate"):
        Denoiser(torch.nn.Identity(), path, VELOCITY).loss(normal(4, 2), times=UniformTimes())


def up(t):
    return t * 1.0


def down(t):
    return 1 - t


NOT_INTERPOLANTS = {
    "no beta": ((down, None, no_noise), ShapeError, "beta: got None"),
    "ends swapped": ((up, down, no_noise), RangeError, "alpha: got 0, expected 1 .*t = 0"),
    "two x0": ((down, lambda t: 1 - t / 2, no_noise), RangeError, "beta: got 1, expected 0"),
    "no x1": ((down, lambda t: t * (1 - t), no_noise), RangeError, "beta: got 0, expected a positive number .*t = 1"),
    "x0 at the end": ((lambda t: 1 - t / 2, up, no_noise), RangeError, "alpha: got 0.5, expected 0"),
    "noise at an end": ((down, up, up), RangeError, "gamma: got noise, expected 0 at both ends at t = 1"),
    "negative gamma": ((down, up, lambda t: t * (t - 1)), RangeError, "gamma: got a negative"),
    "no slope": ((down, up, lambda t: (t * (1 - t)).detach()), ShapeError, "gamma: changes"),
    "t_max": ((down, up, no_noise, -1.0), RangeError, "t_max"),
}


@pytest.mark.parametrize("name", NOT_INTERPOLANTS)
def test_what_is_no_interpolant_is_refused_by_name(name):
    args, error, message = NOT_INTERPOLANTS[name]
    with pytest.raises(error, match=message):
        Interpolant(*args)


# Predictions


def test_parts_are_read_by_name():
    x = normal(2, 3)
    p = TwoSided(linear_interpolant(), T[:2], x, 2 * x, 3 * x, 4 * x)
    assert [(w, gap(part, k * x)) for (w, part), k in zip(p.parts(x0=0.5, z=2.0), (2, 4), strict=True)] == [
        (0.5, 0.0),
        (2.0, 0.0),
    ]
    assert p.on(linear_interpolant()) is p and p.nfe == 1
    with pytest.raises(ShapeError, match="path"):
        p.on(encoding_decoding())


def test_singular_ends_are_explained():
    x = normal(1, 2)
    for t in (0.0, 1.0):
        p = TwoSided(linear_interpolant(), times(t), x, x, x, x)
        with pytest.raises(SingularError, match="infinity times 0"):
            _ = p.velocity
        with pytest.raises(SingularError, match="gamma = 0"):
            _ = p.score
        assert torch.isfinite(TwoSided(encoding_decoding(), times(t), x, x, x, x).velocity).all()
    with pytest.raises(SingularError, match="gamma = 0"):
        _ = TwoSided(linear_interpolant(no_noise), times(0.5), x, x, x, x).score


# The exact bridge


@every_path
def test_conditional_means_add_up_to_x_t(path):
    x, t = normal(6, 2), T
    p = BRIDGE.denoise(path)(x, t)
    assert gap(path.interpolate(p.x0, p.x1, p.z, t), x) <= 1e-12
    assert p.velocity.shape == x.shape and torch.equal(p.t, t) and p.path == path


@every_path
def test_density_is_normalised_and_is_that_of_samples(path):
    bridge, x = line(), torch.linspace(-12, 12, 3001, dtype=F64)
    for t in (0.0, 0.3, 0.5, 0.7, 1.0):
        density = bridge.log_prob(x[:, None], path, times(t).expand(3001)).exp()
        assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=1e-9)
        g = seeded(7)
        x0, x1 = bridge.x0.sample(20000, generator=g), bridge.x1.sample(20000, generator=g)
        drawn = path.interpolate(x0, x1, torch.randn(20000, 1, generator=g, dtype=F64), times(t).expand(20000))
        mean = torch.trapezoid(x * density, x)
        assert float(drawn.mean()) == pytest.approx(float(mean), abs=0.05)
        assert float(drawn.var()) == pytest.approx(float(torch.trapezoid((x - mean) ** 2 * density, x)), rel=0.05)


@noisy_path
def test_score_is_the_gradient_of_the_log_density(path):
    x = normal(6, 2).requires_grad_()
    expected = torch.autograd.grad(BRIDGE.log_prob(x, path, T).sum(), x)[0]
    assert gap(BRIDGE.denoise(path)(x.detach(), T).score, expected) <= 1e-11


@every_path
def test_velocity_carries_the_density(path):
    # The continuity equation d p/dt + d(p velocity)/dx = 0, by finite differences on a grid.
    bridge, x, h = line(), torch.linspace(-3, 4, 201, dtype=F64)[:, None], 1e-4
    for t in (0.1, 0.3, 0.7, 0.9):
        now = times(t).expand(201)
        p = lambda x, t: bridge.log_prob(x, path, t).exp()  # noqa: E731
        flux = lambda x: p(x, now) * bridge.denoise(path)(x, now).velocity[:, 0]  # noqa: E731, B023
        change = (p(x, now + h) - p(x, now - h)) / (2 * h) + (flux(x + h) - flux(x - h)) / (2 * h)
        assert float(change.abs().max()) <= 1e-4 * float(flux(x).abs().max() + 1)


@pytest.mark.parametrize("path", PATHS, ids=PATH_NAMES)
def test_with_noise_at_the_end_it_is_the_mixture_on_the_path(path):
    # x1 ~ N(0, I) and gamma = 0: the one-sided case, which the other oracle knows.
    white = GaussianMixture([1.0], torch.zeros(1, 2, dtype=F64), [1.0])
    t = inner_times(path, 6)
    x = path.mix(plane().sample(6, generator=seeded()), normal(6, 2), t)
    expected = plane().denoise(path)(x, t)
    got = GaussianBridge(plane(), white).denoise(one_sided(path))(x, t)
    assert gap(got.x0, expected.x0) <= 1e-10 and gap(got.x1, expected.eps) <= 1e-10
    assert gap(got.velocity, expected.velocity) <= 1e-9 and gap(got.z, torch.zeros_like(x)) == 0
    log_prob = GaussianBridge(plane(), white).log_prob(x, one_sided(path), t)
    assert gap(log_prob, plane().log_prob(x, path, t)) <= 1e-10


@every_path
def test_at_the_ends_nothing_is_left_to_guess(path):
    x = normal(3, 2)
    start, end = (BRIDGE.denoise(path)(x, times(t, t, t)) for t in (0.0, 1.0))
    assert gap(start.x0, x) <= 1e-12 and gap(end.x1, x) <= 1e-12
    means = [(mixture.weights[:, None] * mixture.means).sum(0).expand(3, 2) for mixture in (plane(), other_plane())]
    assert gap(start.x1, means[1]) <= 1e-12 and gap(end.x0, means[0]) <= 1e-12  # the ends are independent
    assert gap(start.z, 0 * x) <= 1e-15 and gap(end.z, 0 * x) <= 1e-15


def test_half_way_encoding_decoding_knows_nothing():
    x = normal(1, 2)
    p = BRIDGE.denoise(encoding_decoding())(x, times(0.5))
    assert gap(p.z, x) <= 1e-12
    assert gap(p.x0[0], (plane().weights[:, None] * plane().means).sum(0)) <= 1e-12


@pytest.mark.parametrize("path", [linear_interpolant(), trigonometric_interpolant(sine_noise)], ids=["linear", "trig"])
def test_the_ode_turns_one_end_into_the_other(path):
    # N(3, .5^2) at the other end, N(0, 1) at this one (FORMULAS, U25), by the samplers that follow a velocity.
    bridge = GaussianBridge(GaussianMixture([1.0], [[0.0]], [1.0]), GaussianMixture([1.0], [[3.0]], [0.25]))
    u = torch.linspace(-2, 2, 5, dtype=F64)[:, None]  # in one dimension the map keeps the order: 3 + u/2 becomes u
    grid = uniform_grid(path, 200, start=1 - 1e-6, end=1e-6)
    for sampler, bound in ((Euler(), 0.05), (Heun(), 1e-3)):
        assert gap(last(sample(bridge.denoise(path), path, sampler, grid, 3 + u / 2)), u) <= bound


def test_pictures_and_float32():
    bridge, x, t = GaussianBridge(tiny_pictures(), tiny_pictures()), normal(3, 1, 8, 8).float(), times(0.2, 0.5, 0.8)
    p = bridge.denoise(linear_interpolant())(x, t)
    assert {part.dtype for part in (p.x0, p.x1, p.z, p.velocity, p.score)} == {torch.float32}
    assert {part.shape for part in (p.x0, p.x1, p.z, p.velocity, p.score)} == {x.shape}


def test_a_bridge_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match="x1"):
        GaussianBridge(plane(), tiny_pictures())
    with pytest.raises(ShapeError, match="x: got"):
        BRIDGE.log_prob(normal(3, 3), linear_interpolant(), T[:3])
    with pytest.raises(ShapeError, match="one_sided"):
        BRIDGE.denoise(EDM())(normal(3, 2), T[:3])
    with pytest.raises(RangeError, match="t:"):
        BRIDGE.denoise(linear_interpolant())(normal(3, 2), 2 * T[-3:])
