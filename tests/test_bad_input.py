"""Whatever comes in, a named error that says which argument, or a right answer; never a silent wrong picture."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import F64, TinyNetwork, normal, plane, seeded, times

from lecture_lib.core import (
    EDM,
    EPS,
    VELOCITY,
    Denoiser,
    Discrete,
    LogitNormalTimes,
    LogNormalNoise,
    RectifiedFlow,
    Trigonometric,
    UniformTimes,
    V,
    VPCosine,
    VPLinear,
    check_grid,
    ddpm_linear,
    drop_condition,
    edm,
    karras_grid,
    log_likelihood,
    logsnr_grid,
    min_snr,
    quadratic_grid,
    rebase,
    timestep_grid,
    uniform_grid,
    zero_terminal_snr,
)
from lecture_lib.errors import CourseError, NonFiniteError, RangeError, ShapeError, UnknownNameError
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
    plus_plus,
    projected,
    projected_momentum,
    rescaled,
    thresholded,
)
from lecture_lib.oracles import Gaussian, GaussianMixture, Tilted, flow_map, guided_moments, tilted_gaussian
from lecture_lib.samplers import DDIM, DPMSolverPP2M, Heun, last, sample

RF, NAN, INF = RectifiedFlow(), math.nan, math.inf
X = normal(3, 2)
T = times(0.2, 0.5, 0.8)


def network(**options):
    return Denoiser(TinyNetwork().requires_grad_(False), RF, VELOCITY, null=torch.tensor(3), **options)


def run(**changes):
    """``sample`` with one argument replaced."""
    a = {"denoise": plane().denoise(RF), "path": RF, "sampler": DDIM(), "grid": uniform_grid(RF, 3), "x_T": X} | changes
    return sample(a["denoise"], a["path"], a["sampler"], a["grid"], a["x_T"])


def with_nan(x):
    x = x.clone()
    x[1] = NAN
    return x


class Wrong(torch.nn.Module):
    """A network whose output has one channel too few, and would broadcast."""

    def forward(self, x, t, cond=None):
        return x[:, :1]


REFERENCE, MAIN = plane().denoise(RF), plane().given(1).denoise(RF)

# (what is wrong, the call, the error, what its message names)
CASES = {
    # the driver, at the call
    "grid ascending": (lambda: run(grid=times(0, 0.5, 1)), RangeError, "grid"),
    "grid repeated": (lambda: run(grid=times(1, 0.5, 0.5, 0)), RangeError, "grid"),
    "grid nan": (lambda: run(grid=times(1, NAN, 0)), RangeError, "grid"),
    "grid negative": (lambda: run(grid=times(1, 0.5, -0.1)), RangeError, "grid"),
    "grid of one": (lambda: run(grid=times(1)), ShapeError, "grid"),
    "grid 2-d": (lambda: run(grid=torch.ones(2, 2)), ShapeError, "grid"),
    "grid of integers": (lambda: run(grid=torch.tensor([2, 1, 0])), ShapeError, "grid"),
    "grid a list": (lambda: run(grid=[1.0, 0.0]), ShapeError, "grid"),
    "grid past the end": (lambda: run(grid=times(1.5, 0.5, 0)), RangeError, "t_max"),
    "grid of timesteps": (lambda: run(grid=times(999, 500, 0)), RangeError, "t_max"),
    "x_T nan": (lambda: run(x_T=with_nan(X)), NonFiniteError, "x_T"),
    "x_T integer": (lambda: run(x_T=torch.ones(3, 2, dtype=torch.long)), ShapeError, "x_T"),
    "x_T without a batch": (lambda: run(x_T=torch.ones(3)), ShapeError, "x_T"),
    "x_T empty": (lambda: run(x_T=torch.ones(0, 2)), ShapeError, "x_T"),
    "x_T an array": (lambda: run(x_T=np.ones((3, 2))), ShapeError, "x_T"),
    "sampler a class": (lambda: run(sampler=DDIM), ShapeError, "sampler"),
    "sampler a name": (lambda: run(sampler="ddim"), ShapeError, "sampler"),
    # the driver, at the first step
    "paths mixed": (lambda: last(run(path=VPLinear(), grid=uniform_grid(VPLinear(), 3))), ShapeError, "path"),
    "two EDM clocks": (lambda: last(run(path=EDM(), denoise=plane().denoise(EDM(t_max=10.0)))), ShapeError, "path"),
    "x_T of another world": (lambda: last(run(x_T=normal(3, 3))), ShapeError, "x"),
    # grids
    "steps 0": (lambda: uniform_grid(RF, 0), RangeError, "steps"),
    "steps -3": (lambda: quadratic_grid(RF, -3), RangeError, "steps"),
    "steps 2.5": (lambda: karras_grid(EDM(), 2.5), RangeError, "steps"),
    "steps True": (lambda: uniform_grid(RF, True), RangeError, "steps"),
    "steps a word": (lambda: logsnr_grid(RF, "10", start=0.9, end=0.1), RangeError, "steps"),
    "start past the end": (lambda: uniform_grid(RF, 3, start=2.0), RangeError, "start"),
    "start nan": (lambda: uniform_grid(RF, 3, start=NAN), RangeError, "start"),
    "end above start": (lambda: uniform_grid(RF, 3, start=0.2, end=0.5), RangeError, "end"),
    "end equals start": (lambda: uniform_grid(RF, 3, start=0.5, end=0.5), RangeError, "grid"),
    "logsnr to clean data": (lambda: logsnr_grid(RF, 3, start=0.9, end=0.0), RangeError, "end"),
    "logsnr from pure noise": (lambda: logsnr_grid(RF, 3, start=1.0, end=0.1), RangeError, "start"),
    "karras upside down": (lambda: karras_grid(EDM(), 3, sigma_min=2.0, sigma_max=1.0), RangeError, "sigma_min"),
    "karras rho 0": (lambda: karras_grid(EDM(), 3, rho=0), RangeError, "rho"),
    "karras past the path": (lambda: karras_grid(EDM(t_max=10.0), 3), RangeError, "sigma_max"),
    "karras past a table": (lambda: karras_grid(Discrete(ddpm_linear()), 3, sigma_max=1e4), RangeError, "sigma_max"),
    "timesteps past the table": (lambda: timestep_grid(Discrete(ddpm_linear()), [1000, 0]), RangeError, "timesteps"),
    "timesteps with fractions": (lambda: timestep_grid(Discrete(ddpm_linear()), [99.5, 0]), RangeError, "timesteps"),
    "timesteps empty": (lambda: timestep_grid(Discrete(ddpm_linear()), []), RangeError, "timesteps"),
    "timesteps ascending": (lambda: timestep_grid(Discrete(ddpm_linear()), [0, 500]), RangeError, "grid"),
    "timesteps without a table": (lambda: timestep_grid(RF, [1]), ShapeError, "path"),
    # paths and tables
    "table rising": (lambda: Discrete(torch.tensor([0.1, 0.5])), RangeError, "alphas_cumprod"),
    "table of betas": (lambda: Discrete(torch.linspace(1e-4, 0.02, 10)), RangeError, "alphas_cumprod"),
    "table nan": (lambda: Discrete(torch.tensor([0.9, NAN])), NonFiniteError, "alphas_cumprod"),
    "table above 1": (lambda: Discrete(torch.tensor([1.1, 0.5])), RangeError, "alphas_cumprod"),
    "zero snr of a rising table": (lambda: zero_terminal_snr(torch.tensor([0.1, 0.5])), RangeError, "alphas_cumprod"),
    "table of one": (lambda: ddpm_linear(1), RangeError, "T"),
    "beta negative": (lambda: VPLinear(beta_min=-1.0), RangeError, "beta_min"),
    "beta upside down": (lambda: VPLinear(beta_min=5.0, beta_max=1.0), RangeError, "beta_max"),
    "cosine shift negative": (lambda: VPCosine(s=-0.1), RangeError, "s"),
    "EDM without noise": (lambda: EDM(t_max=0.0), RangeError, "t_max"),
    "sigma_data 0": (lambda: edm(0.0), RangeError, "sigma_data"),
    "gamma 0": (lambda: min_snr(0.0), RangeError, "gamma"),
    # training times
    "times reversed": (lambda: UniformTimes(0.9, 0.1), RangeError, "low"),
    "times to infinity": (lambda: UniformTimes(0, INF), RangeError, "low"),
    "times nan": (lambda: UniformTimes(NAN, 1), RangeError, "low"),
    "std negative": (lambda: LogitNormalTimes(std=-1.0), RangeError, "std"),
    "noise std nan": (lambda: LogNormalNoise(EDM(), std=NAN), RangeError, "std"),
    "no draws": (lambda: UniformTimes().sample(0), RangeError, "n"),
    # denoiser
    "x_t nan": (lambda: network()(with_nan(X), T), NonFiniteError, "x_t"),
    "x_t integer": (lambda: network()(X.long(), T), ShapeError, "x_t"),
    "t a number": (lambda: network()(X, 0.5), ShapeError, "t"),
    "t without a batch": (lambda: network()(X, torch.tensor(0.5)), ShapeError, "t"),
    "t of another batch": (lambda: network()(X, times(0.5)), ShapeError, "t"),
    "t integer": (lambda: network()(X, torch.tensor([1, 0, 1])), ShapeError, "t"),
    "t a timestep": (lambda: network()(X, times(500.0, 2, 3)), RangeError, "t"),
    "t negative": (lambda: network()(X, times(-0.1, 0.2, 0.3)), RangeError, "t"),
    "t nan": (lambda: network()(X, times(NAN, 0.2, 0.3)), RangeError, "t"),
    "network drops a channel": (lambda: Denoiser(Wrong(), RF, V)(X, T), ShapeError, "network"),
    "network drops a channel in training": (
        lambda: Denoiser(Wrong(), RF, V).loss(X, times=UniformTimes()),
        ShapeError,
        "network",
    ),
    "class 11": (lambda: network().given(11), RangeError, "class 11"),
    "class -1": (lambda: network().given(-1), RangeError, "class -1"),
    "one bad class in a batch": (lambda: network().given(torch.tensor([0, 7, 1])), RangeError, "class 7"),
    "class 2.5": (lambda: network().given(2.5), ShapeError, "cond"),
    "class True": (lambda: network().given(True), ShapeError, "cond"),
    "class a word": (lambda: network().given("cat"), ShapeError, "cond"),
    "class a column": (lambda: network().given(torch.zeros(3, 1, dtype=torch.long)), ShapeError, "cond"),
    "classes of another batch": (lambda: network().given(torch.tensor([0, 1]))(X, T), ShapeError, "cond"),
    "class for a network without": (lambda: Denoiser(TinyNetwork(), RF, V).given(1), ShapeError, "cond"),
    "dict for a label": (lambda: network().given({"label": 1}), ShapeError, "cond"),
    "class 11 in training": (
        lambda: network().loss(X, torch.tensor([0, 11, 2]), times=UniformTimes()),
        RangeError,
        "class 11",
    ),
    "x0 nan in training": (lambda: network().loss(with_nan(X), times=UniformTimes()), NonFiniteError, "x0"),
    "p_uncond 2": (lambda: network().loss(X, 0, times=UniformTimes(), p_uncond=2.0), RangeError, "p_uncond"),
    "p_uncond nan": (lambda: network().loss(X, 0, times=UniformTimes(), p_uncond=NAN), RangeError, "p_uncond"),
    "p_uncond without a condition": (
        lambda: Denoiser(TinyNetwork(), RF, V).loss(X, times=UniformTimes(), p_uncond=0.1),
        ShapeError,
        "p_uncond",
    ),
    "training past the path": (lambda: network().loss(X, times=UniformTimes(5, 6)), RangeError, "times"),
    "drop with p -1": (lambda: drop_condition(torch.zeros(3), torch.tensor(1.0), -1.0), RangeError, "p_uncond"),
    # guidance
    "w inf": (lambda: linear(INF), RangeError, "w"),
    "w nan": (lambda: extrapolate(REFERENCE, MAIN, NAN), RangeError, "w"),
    "w a word": (lambda: linear("3"), RangeError, "w"),
    "w None": (lambda: linear(None), RangeError, "w"),
    "w with a nan": (lambda: linear(times(1, NAN, 2)), NonFiniteError, "w"),
    "w a matrix": (lambda: linear(torch.ones(3, 1)), ShapeError, "w"),
    "w of another batch": (lambda: extrapolate(REFERENCE, MAIN, times(1, 2))(X, T), ShapeError, "w"),
    "w scheduled nan": (lambda: extrapolate(REFERENCE, MAIN, lambda p, t: t * NAN)(X, T), NonFiniteError, "w"),
    "w scheduled for another batch": (
        lambda: extrapolate(REFERENCE, MAIN, lambda p, t: torch.ones(5))(X[:1], T[:1]),
        ShapeError,
        "w",
    ),
    "branches on two paths": (
        lambda: extrapolate(REFERENCE, plane().denoise(VPLinear()), 2.0)(X, T),
        ShapeError,
        "path",
    ),
    "concepts on two paths": (lambda: compose(REFERENCE, [(plane().denoise(EDM()), 1.0)])(X, T), ShapeError, "path"),
    "concept weight inf": (lambda: compose(REFERENCE, [(MAIN, 1.0), (MAIN, INF)]), RangeError, "concepts[1] weight"),
    "phi 2": (lambda: rescaled(3.0, phi=2.0), RangeError, "phi"),
    "rescaling one number": (
        lambda: guide(
            Gaussian(0.0, 1.0).mixture().denoise(RF), Gaussian(1.0, 1.0).mixture().denoise(RF), rescaled(2.0)
        )(normal(3, 1), T),
        ShapeError,
        "x_t",
    ),
    "radius negative": (lambda: projected(3.0, radius=-1.0), RangeError, "radius"),
    "radius nan": (lambda: projected(3.0, radius=NAN), RangeError, "radius"),
    "radius nan with momentum": (lambda: projected_momentum(REFERENCE, MAIN, 3.0, radius=NAN), RangeError, "radius"),
    "beta 2": (lambda: projected_momentum(REFERENCE, MAIN, 3.0, beta=2.0), RangeError, "beta"),
    "eta nan in APG": (lambda: projected_momentum(REFERENCE, MAIN, 3.0, eta=NAN), RangeError, "eta"),
    "lam 1.5": (lambda: plus_plus(1.5), RangeError, "lam"),
    "every 0": (lambda: cached(REFERENCE, MAIN, 3.0, every=0), RangeError, "every"),
    "interval reversed": (lambda: interval(RF, REFERENCE, MAIN, 2.0, 1.0), RangeError, "low"),
    "interval nan": (lambda: interval(RF, REFERENCE, MAIN, NAN, 1.0), RangeError, "low"),
    "interval on another path": (lambda: interval(EDM(), REFERENCE, MAIN, 0.1, 1.0)(X, T), ShapeError, "path"),
    "scale inf": (lambda: classifier_guidance(REFERENCE, None, INF), RangeError, "scale"),
    "bound 0": (lambda: clipped(REFERENCE, 0.0), RangeError, "bound"),
    "percentile 99.5": (lambda: thresholded(REFERENCE, 99.5), RangeError, "percentile"),
    "fused, class 11": (lambda: fused(network(), None, 11, linear(2.0)), RangeError, "class 11"),
    "fused without classes": (
        lambda: fused(Denoiser(TinyNetwork(), RF, V), None, None, linear(2.0)),
        ShapeError,
        "denoiser",
    ),
    "a student on another path": (
        lambda: guidance_distillation_loss(
            Denoiser(TinyNetwork(), VPLinear(), V), network(), X, torch.zeros(3).long(), T, times=UniformTimes()
        ),
        ShapeError,
        "student",
    ),
    # samplers
    "eta -0.1": (lambda: DDIM(-0.1), RangeError, "eta"),
    "eta 1.5": (lambda: DDIM(1.5), RangeError, "eta"),
    "eta nan": (lambda: DDIM(NAN), RangeError, "eta"),
    # oracles
    "weights zero": (lambda: GaussianMixture([0.0, 1.0], [[0.0], [1.0]], [1.0, 1.0]), RangeError, "weights"),
    "weights inf": (lambda: GaussianMixture([INF, 1.0], [[0.0], [1.0]], [1.0, 1.0]), RangeError, "weights"),
    "weights too many": (lambda: GaussianMixture([1.0, 1.0], [[0.0]], [1.0]), ShapeError, "weights"),
    "means nan": (lambda: GaussianMixture([1.0], [[NAN]], [1.0]), NonFiniteError, "means"),
    "means integer": (lambda: GaussianMixture([1.0], torch.tensor([[1]]), [1.0]), ShapeError, "means"),
    "means without an event": (lambda: GaussianMixture([1.0], torch.tensor([1.0]), [1.0]), ShapeError, "means"),
    "variance 0": (lambda: GaussianMixture([1.0], [[0.0]], [0.0]), RangeError, "covs"),
    "covariance nan": (
        lambda: GaussianMixture([1.0], [[0.0, 0.0]], [[[1.0, NAN], [0.0, 1.0]]]),
        NonFiniteError,
        "covs",
    ),
    "covariance lopsided": (
        lambda: GaussianMixture([1.0], [[0.0, 0.0]], [[[1.0, 0.9], [0.0, 1.0]]]),
        RangeError,
        "covs",
    ),
    "covariance indefinite": (
        lambda: GaussianMixture([1.0], [[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]]),
        RangeError,
        "covs",
    ),
    "labels too few": (lambda: GaussianMixture([1, 1.0], [[0.0], [1]], [1.0, 1], labels=[0]), ShapeError, "labels"),
    "label unknown": (lambda: plane().given(7), UnknownNameError, "label"),
    "label of an unlabelled": (lambda: Gaussian(0.0, 1.0).mixture().given(0), UnknownNameError, "label"),
    "log p of an unknown label": (lambda: plane().log_prob_label(7, X), UnknownNameError, "label"),
    "oracle in another space": (lambda: plane().log_prob(normal(3, 5)), ShapeError, "x"),
    "oracle, path without t": (lambda: plane().log_prob(X, RF), ShapeError, "t"),
    "oracle, t without path": (lambda: plane().score(X, t=T), ShapeError, "path"),
    "oracle, t too short": (lambda: plane().denoise(RF)(X, times(0.5)), ShapeError, "t"),
    "oracle, t past the end": (lambda: plane().denoise(RF)(X, 1000 * T), RangeError, "t"),
    "no samples": (lambda: plane().sample(0), RangeError, "n"),
    "gaussian of variance 0": (lambda: Gaussian(0.0, 0.0), RangeError, "var"),
    "tilted w inf": (lambda: Tilted(Gaussian(0, 1).mixture(), Gaussian(1, 0.25).mixture(), INF), RangeError, "w"),
    "tilted gaussian w nan": (lambda: tilted_gaussian(Gaussian(0, 1), Gaussian(1, 0.25), NAN), RangeError, "w"),
    "less than no noise": (
        lambda: guided_moments(Gaussian(0, 1), Gaussian(1, 0.25), 2.0, stochastic=-1.0),
        RangeError,
        "stochastic",
    ),
    "flow from past the end": (lambda: flow_map(REFERENCE, RF, X, 5 * T, T), RangeError, "t"),
    "flow to past the end": (lambda: flow_map(REFERENCE, RF, X, T, 5 * T), RangeError, "s"),
    "flow of nan": (lambda: flow_map(REFERENCE, RF, with_nan(X), T, T), NonFiniteError, "x"),
    "flow on another path": (lambda: flow_map(REFERENCE, EDM(), X, T, T / 2), ShapeError, "path"),
    "rebased from the wrong path": (lambda: rebase(REFERENCE, Trigonometric(), EDM())(X, T), ShapeError, "path"),
    "likelihood of nan": (lambda: log_likelihood(REFERENCE, RF, with_nan(X), uniform_grid(RF, 2)), NonFiniteError, "x"),
    "likelihood past the end": (lambda: log_likelihood(REFERENCE, RF, X, times(1.5, 0.5)), RangeError, "grid"),
    "likelihood on another path": (
        lambda: log_likelihood(REFERENCE, Trigonometric(), X, uniform_grid(Trigonometric(), 2)),
        ShapeError,
        "path",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_named_error(name):
    call, kind, names = CASES[name]
    with pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value, CourseError)
    assert re.search(rf"(^|\W){re.escape(names)}(\W|$)", str(caught.value)), str(caught.value)


def test_every_message_says_more_than_the_name():
    for call, _, _ in CASES.values():
        with pytest.raises(CourseError) as caught:
            call()
        assert len(str(caught.value)) > 25


# Properties: any shape, any dtype, any number


shapes = st.tuples(st.integers(1, 3), st.sampled_from([(1,), (2,), (5,), (1, 2, 2), (3, 4, 4), (2, 3)]))
numbers = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=40, deadline=None)
@given(
    shape=shapes, dtype=st.sampled_from([torch.float32, torch.float64]), t_dtype=st.sampled_from([torch.float32, F64])
)
def test_any_shape_and_dtype_goes_through_and_comes_back(shape, dtype, t_dtype):
    b, event = shape
    mixture = GaussianMixture([0.5, 0.5], normal(2, *event), [0.5, 1.0], labels=[0, 1])
    x, t = normal(b, *event).to(dtype), torch.full((b,), 0.5, dtype=t_dtype)
    p = extrapolate(mixture.denoise(RF), mixture.given(1).denoise(RF), 2.0)(x, t)
    assert {p.x0.dtype, p.eps.dtype, p.velocity.dtype, p.score.dtype} == {dtype}
    assert {p.x0.shape, p.eps.shape, p.v.shape} == {x.shape}
    for sampler in (DDIM(0.5), Heun(), DPMSolverPP2M()):
        out = last(sample(mixture.denoise(RF), RF, sampler, uniform_grid(RF, 2), x, generator=seeded()))
        assert out.shape == x.shape and out.dtype == dtype


@settings(max_examples=60, deadline=None)
@given(w=numbers)
def test_any_scale_is_refused_or_right(w):
    if not math.isfinite(w):
        with pytest.raises(RangeError, match="w"):
            linear(w)
        return
    p = extrapolate(REFERENCE, MAIN, w)(X, T)
    a, b = REFERENCE(X, T), MAIN(X, T)
    assert (
        torch.allclose(p.x0, a.x0 + w * (b.x0 - a.x0), rtol=1e-9, atol=1e-9 * max(1, abs(w)), equal_nan=False)
        or abs(w) > 1e290
    )


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(-0.5, 1.5, allow_nan=False) | st.just(NAN), min_size=1, max_size=5))
def test_any_list_of_times_is_a_falling_grid_or_refused(values):
    grid = torch.tensor(values, dtype=F64)
    good = len(values) > 1 and all(a > b for a, b in pairwise(values)) and values[-1] >= 0
    if good and not any(map(math.isnan, values)):
        assert torch.equal(check_grid(grid), grid)
    else:
        with pytest.raises(CourseError, match="grid"):
            check_grid(grid)


@settings(max_examples=60, deadline=None)
@given(steps=st.integers(-3, 40) | st.floats(-3, 40) | st.booleans() | st.none())
def test_any_number_of_steps_is_a_grid_or_refused(steps):
    if isinstance(steps, int) and not isinstance(steps, bool) and steps >= 1:
        assert len(uniform_grid(RF, steps)) == steps + 1
    else:
        with pytest.raises(RangeError, match="steps"):
            uniform_grid(RF, steps)


def test_whole_numbers_of_numpy_are_steps():
    assert len(uniform_grid(RF, np.int64(4))) == 5


@settings(max_examples=60, deadline=None)
@given(label=st.integers(-20, 20))
def test_any_label_is_known_or_refused(label):
    if 0 <= label <= 3:
        assert torch.isfinite(network().given(label)(X, T).x0).all()
    else:
        with pytest.raises(RangeError, match=f"class {label}"):
            network().given(label)


@settings(max_examples=40, deadline=None)
@given(eta=numbers)
def test_any_eta_is_a_share_or_refused(eta):
    if 0 <= eta <= 1:
        assert DDIM(eta).eta == eta
    else:
        with pytest.raises(RangeError, match="eta"):
            DDIM(eta)


@settings(max_examples=40, deadline=None)
@given(t=st.floats(-2, 2, allow_nan=False) | st.just(NAN) | st.just(INF))
def test_any_time_is_answered_or_refused(t):
    call = lambda: Denoiser(TinyNetwork().requires_grad_(False), RF, EPS)(X[:1], times(t)).x0  # noqa: E731
    if 0 <= t < 1 - 1e-12:
        assert torch.isfinite(call()).all()
    else:
        with pytest.raises(CourseError):  # past the path, or eps at alpha = 0
            call()
