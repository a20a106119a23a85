"""Schedules: the tables of `diffusers`, the sigmoid, a learned one, and paths of one's own."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from worlds import F64, gap, inner_times, normal, plane, seeded, times

from lecture_lib.core import (
    EPS,
    VE,
    Denoiser,
    Discrete,
    FunctionPath,
    LearnedSchedule,
    Sigmoid,
    SubVP,
    TableTimes,
    UniformTimes,
    VPCosine,
    VPLinear,
    cosine_table,
    ddpm_linear,
    stable_diffusion,
    uniform_grid,
    zero_terminal_snr,
)
from lecture_lib.errors import NonFiniteError, RangeError, ShapeError, SingularError
from lecture_lib.samplers import DDIM, Euler, last, sample

VP = VPLinear()


def sub_vp():
    """Song et al. 2021, Eq. 29: as VP, with a smaller sigma. Neither VP nor VE."""
    return FunctionPath(VP.alpha, lambda t: -torch.expm1(2 * VP._log_alpha(t)), formula=r"\sigma=1-\alpha^2")


def bent(schedule, size=2.0, seed=0):
    """A learned schedule that has learned something."""
    schedule.logits.data = size * normal(len(schedule.logits), seed=seed)
    return schedule


CLEAN_START = {
    "sigmoid": Sigmoid(),
    "sigmoid of RIN": Sigmoid(0.0, 3.0, 0.3),
    "steep sigmoid": Sigmoid(tau=0.1),
    "sub-VP": SubVP(),
    "sub-VP of functions": sub_vp(),
    "VE": VE(),
    "cosine table": Discrete(cosine_table()),
    "cosine table, zero SNR": Discrete(zero_terminal_snr(cosine_table())),
    "function of another clock": FunctionPath(lambda t: 1 - t / 5, lambda t: 2 * t / 5, t_max=5.0),
}
ALL = CLEAN_START | {"learned": LearnedSchedule(), "learned and bent": bent(LearnedSchedule())}
every_path = pytest.mark.parametrize("path", ALL.values(), ids=ALL)


# Laws of all paths


@every_path
def test_signal_to_noise_falls_strictly(path):
    t = torch.linspace(0, path.t_max, 1001, dtype=F64)
    assert (path.lam(t)[1:-1].diff() < 0).all() and (path.alpha(t) >= 0).all()


@pytest.mark.parametrize("path", CLEAN_START.values(), ids=CLEAN_START)
def test_data_at_zero(path):
    assert path.alpha(times(0.0)) == 1 and path.sigma(times(0.0)) == 0
    assert gap(path.time_of(times(math.inf, -math.inf)), times(0, path.t_max)) <= 1e-12 * path.t_max


@every_path
def test_time_of_inverts_lam(path):
    t = inner_times(path, 101)
    assert gap(path.time_of(path.lam(t)), t) <= 1e-9 * path.t_max
    generic = super(Discrete if isinstance(path, Discrete) else type(path), path).time_of(path.lam(t))
    assert gap(generic, t) <= 1e-9 * path.t_max


@every_path
@torch.no_grad()
def test_slopes_are_those_of_finite_differences(path):
    t = (inner_times(path) / path.t_max * 1000).floor() / 1000 * path.t_max + 3e-4 * path.t_max
    h, c = 1e-6 * path.t_max, path.coeffs(t)
    assert gap(c.dalpha, (path.alpha(t + h) - path.alpha(t - h)) / (2 * h)) <= 1e-7
    assert gap(c.dsigma, (path.sigma(t + h) - path.sigma(t - h)) / (2 * h)) <= 1e-7


@every_path
def test_inference_mode_and_views_change_nothing(path):
    t = inner_times(path, 1)
    expected = path.slopes(t.expand(4).contiguous())
    with torch.inference_mode():
        got = path.slopes((t * 1.0).expand(4))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@every_path
def test_samplers_run_on_it(path):
    top = 0.9 * path.t_max
    x_T = path.mix(plane().sample(512, generator=seeded()), normal(512, 2, seed=1), torch.full((512,), top, dtype=F64))
    x = last(sample(plane().denoise(path), path, DDIM(), uniform_grid(path, 100, start=top), x_T))
    assert gap(x.mean(0), plane().sample(512, generator=seeded()).mean(0)) <= 0.2
    assert path._repr_markdown_().startswith(f"**{type(path).__name__}**")


@pytest.mark.parametrize("table", [ddpm_linear(), zero_terminal_snr(stable_diffusion())], ids=["ddpm", "ztsnr"])
def test_a_tables_slopes_by_hand_are_those_of_autodiff(table):
    path, t = Discrete(table), torch.linspace(0, 1, 777, dtype=F64)
    for got, expected in zip(path.slopes(t), super(Discrete, path).slopes(t), strict=True):
        assert gap(got, expected) <= 1e-12
    h, end = 1e-6, times(1.0)  # at the end, the slope of the last cell
    for got, f in zip(path.slopes(end), (path.alpha, path.sigma), strict=True):
        assert gap(got, (f(end) - f(end - h)) / h) <= 1e-5


def test_a_table_can_be_differentiated_and_stays_inside():
    path, t = Discrete(ddpm_linear()), inner_times(VP).requires_grad_()
    slope = torch.autograd.grad(path.sigma(t).sum(), t)[0]
    assert gap(slope, path.slopes(t.detach())[1]) <= 1e-12
    assert torch.equal(path.alpha(times(1.5, 1.0)), path.alpha(times(1.0, 1.0)))


# Tables


def test_constants_of_the_cosine_table():
    table = cosine_table()
    assert float(table[-1]) == pytest.approx(2.4288e-9, rel=1e-4)  # FORMULAS, part 5
    beta = 1 - table[1:] / table[:-1]
    assert float(beta.max()) == pytest.approx(0.999) and int((beta > 0.9989).sum()) == 1
    assert gap(table[:-1].sqrt(), VPCosine().alpha(torch.arange(1, 1000, dtype=F64) / 1000)) <= 1e-12


@pytest.mark.parametrize(
    ("table", "options"),
    [
        (ddpm_linear(), {"beta_schedule": "linear"}),
        (stable_diffusion(), {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
        (cosine_table(), {"beta_schedule": "squaredcos_cap_v2"}),
    ],
    ids=["linear", "scaled_linear", "squaredcos_cap_v2"],
)
@pytest.mark.parametrize("zero", [False, True])
def test_tables_are_those_of_diffusers(table, options, zero):
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(**options, rescale_betas_zero_snr=zero).alphas_cumprod.double()
    ours = zero_terminal_snr(table) if zero else table
    assert gap(ours, theirs) <= 2e-6
    # Relative, too: all but the last entries, where float32 betas near 1 have lost their digits.
    assert gap((ours / theirs)[:990], torch.ones(990, dtype=F64)) <= 3e-4
    if zero:
        assert ours[-1] == 0 and theirs[-1] == 0


def test_cosine_table_refuses_what_it_cannot_do():
    for name, options in {"T": {"T": 1}, "s": {"s": -0.1}, "max_beta": {"max_beta": 1.0}}.items():
        with pytest.raises(RangeError, match=name):
            cosine_table(**options)


# Sigmoid


@pytest.mark.parametrize("args", [(-3.0, 3.0, 1.0), (0.0, 3.0, 0.3), (-3.0, 3.0, 0.1), (-1.0, 2.0, 5.0)])
def test_sigmoid_is_the_papers(args):
    start, end, tau = args
    path, t = Sigmoid(*args), torch.linspace(0, 1, 101, dtype=F64)
    v_start, v_end = torch.sigmoid(times(start / tau)), torch.sigmoid(times(end / tau))
    gamma = (v_end - torch.sigmoid((start + t * (end - start)) / tau)) / (v_end - v_start)  # Chen 2023
    assert gap(path.alpha(t) ** 2, gamma) <= 1e-14
    assert gap(path.alpha(t) ** 2 + path.sigma(t) ** 2, torch.ones_like(t)) <= 1e-14


def test_sigmoid_loses_no_digits_at_its_ends():
    path, t = Sigmoid(), times(1e-13)
    assert path.alpha(times(1.0)) == 0 and path.lam(times(1.0)) == -math.inf
    slope = 6 * math.exp(3) / (1 + math.exp(3)) ** 2 / math.tanh(1.5)  # of sigma^2 at 0
    assert float(path.sigma(t) / (slope * t).sqrt()) == pytest.approx(1, rel=1e-12)
    assert float(path.alpha(1 - t) / path.sigma(1 - (1 - t))) == pytest.approx(1, rel=1e-12)  # symmetric


def test_sigmoid_from_end_to_end():
    # Its velocity is infinite at pure noise, as that of every VP path is at clean data: what steps in lam may start
    # there, what steps along the velocity is told to start a little earlier.
    path, x = Sigmoid(), normal(5, 2)
    assert torch.isfinite(last(sample(plane().denoise(path), path, DDIM(), uniform_grid(path, 3), x))).all()
    with pytest.raises(SingularError, match="alpha = 0"):
        last(sample(plane().denoise(path), path, Euler(), uniform_grid(path, 3), x))
    assert torch.isfinite(
        last(sample(plane().denoise(path), path, Euler(), uniform_grid(path, 3, start=0.99), x))
    ).all()


def test_sigmoid_refuses_what_makes_no_schedule():
    bad = {"end": (3.0, -3.0, 1.0), "tau": (-3.0, 3.0, 0.01), "start": (math.nan, 3.0, 1.0)}
    for name, args in (*bad.items(), ("tau", (-3.0, 3.0, -1.0)), ("tau", (5000.0, 5001.0, 1.0))):
        with pytest.raises(RangeError, match=name):
            Sigmoid(*args)


# Learned


@torch.no_grad()
def test_a_new_schedule_is_a_straight_line_between_its_ends():
    schedule, t = LearnedSchedule(5.0, -4.0), torch.linspace(0, 1, 101, dtype=F64)
    assert gap(schedule.lam(t), 5 - 9 * t) <= 1e-13
    assert gap(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(t)) <= 1e-14
    assert gap((schedule.alpha(t) / schedule.sigma(t)).log(), schedule.lam(t)) <= 1e-12


@torch.no_grad()
@pytest.mark.parametrize("size", [1.0, 100.0, 1e6, 1e300])
@pytest.mark.parametrize("degree", [1, 2, 32, 200])
def test_no_parameters_make_it_rise(size, degree):
    t = torch.linspace(0, 1, 2001, dtype=F64)
    for seed in range(5):
        schedule = bent(LearnedSchedule(degree=degree), size, seed)
        lam = schedule.lam(t)
        assert gap(lam[[0, -1]], times(6.65, -2.5)) <= 1e-12
        assert (lam.diff() <= 0.5 * 0.01 * lam.diff().mean()).all()  # at least the hundredth that is fixed
        assert all(torch.isfinite(slope).all() for slope in schedule.slopes(t))


def test_it_learns_the_cosine_schedule():
    cosine, t = VPCosine(), torch.linspace(0, 1, 201, dtype=F64)
    target = cosine.lam(0.02 + 0.96 * t)
    schedule = LearnedSchedule(float(target[0]), float(target[-1]))
    with torch.no_grad():
        before = gap(schedule.lam(t), target)
    optimizer = torch.optim.Adam(schedule.parameters(), lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        (schedule.lam(t) - target).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        after = gap(schedule.lam(t), target)
    assert before > 1 and after <= 0.05
    assert (schedule.lam(t).diff() < 0).all()


def test_gradients_reach_the_parameters_through_values_and_slopes():
    schedule, t = bent(LearnedSchedule(degree=6)), torch.linspace(0, 1, 7, dtype=F64)
    for read in (lambda: schedule.alpha(t), lambda: schedule.slopes(t)[1]):
        got = torch.autograd.grad(read().sum(), schedule.logits)[0]
        for k in range(6):
            h, moved = 1e-6, []
            for sign in (1, -1):
                schedule.logits.data[k] += sign * h
                moved.append(read().sum().detach())
                schedule.logits.data[k] -= sign * h
            assert float(got[k]) == pytest.approx(float(moved[0] - moved[1]) / (2 * h), abs=1e-7)


def test_a_denoiser_trains_its_schedule():
    schedule = LearnedSchedule()
    denoiser = Denoiser(torch.nn.Identity(), schedule, EPS, network_time=lambda path, t: t)
    denoiser.network.forward = lambda x, t, cond=None: x
    denoiser.loss(normal(8, 2), times=UniformTimes(), generator=seeded()).mean().backward()
    assert [p is schedule.logits for p in denoiser.parameters()] == [True]
    assert schedule.logits.grad.abs().sum() > 0
    assert list(denoiser.state_dict()) == ["path.logits"]


def test_a_learned_schedule_is_itself():
    schedule = LearnedSchedule()
    twin = copy.deepcopy(bent(schedule))
    assert schedule == schedule and schedule != twin  # its twin may learn something else
    assert torch.equal(twin.lam(times(0.3)), schedule.lam(times(0.3)))
    assert schedule.float().lam(times(0.3)).dtype == F64
    assert repr(schedule) == "LearnedSchedule(lam_max=6.65, lam_min=-2.5, degree=32)"
    for name, args in {"lam_min": (1.0, 2.0), "lam_max": (math.inf, 0.0), "degree": (1.0, 0.0, 0)}.items():
        with pytest.raises(RangeError, match=name):
            LearnedSchedule(*args)
    with pytest.raises(RangeError, match="degree"):
        LearnedSchedule(degree=1001)


# A path of one's own


def falling(t):
    return 1 - t


def rising(t):
    return t * 1.0


def test_equal_functions_make_equal_paths():
    path = FunctionPath(falling, rising)
    assert path == FunctionPath(falling, rising, formula="other words") and path != FunctionPath(falling, torch.sin)
    assert copy.deepcopy(path) == path and pickle.loads(pickle.dumps(path)) == path
    assert repr(path) == "FunctionPath(falling, rising, t_max=1)"


@pytest.mark.parametrize("path", [SubVP(), sub_vp()], ids=repr)
def test_sub_vp_has_songs_forward_sde(path):
    t = inner_times(VP)
    f, g2 = path.drift_diffusion(t)
    beta, integral = 0.1 + t * 19.9, 0.1 * t + 19.9 * t**2 / 2
    assert gap(f, -beta / 2) <= 1e-11
    assert gap(g2, beta * -torch.expm1(-2 * integral)) <= 1e-10


def test_sub_vp_is_below_vp_and_equal_at_the_ends():
    t = inner_times(VP, 99)
    assert (SubVP().sigma(t) < VP.sigma(t)).all() and torch.equal(SubVP().alpha(t), VP.alpha(t))
    assert gap(SubVP().sigma(times(1.0)), times(1.0)) <= 1e-4


def test_ve_has_songs_forward_sde():
    """MISTAKES B115: g^2 is the *slope* of s^2, 17.03 s^2 for 0.01 -> 50; s^2 alone is too little noise."""
    t = inner_times(VE())
    s = 0.01 * 5000**t
    f, g2 = VE().drift_diffusion(t)
    assert gap(f, torch.zeros_like(t)) == 0
    assert gap(g2 / s**2, torch.full_like(t, 2 * math.log(5000))) <= 1e-9 and 2 * math.log(5000) == pytest.approx(
        17.03, abs=0.005
    )
    assert gap(VE().sigma(t) ** 2, s**2 - 1e-4) <= 1e-9  # what has been added since t = 0


def test_a_table_is_trained_at_its_entries_all_alike():
    path = Discrete(ddpm_linear(5))
    t = TableTimes(path).sample(50_000, generator=seeded())
    values, counts = t.unique(return_counts=True)
    assert gap(values, times(0.2, 0.4, 0.6, 0.8, 1.0)) <= 1e-15
    assert gap(path.alpha(values) ** 2, ddpm_linear(5)) <= 1e-15
    assert (counts / 50_000 - 0.2).abs().max() <= 4 * (0.2 * 0.8 / 50_000) ** 0.5


NOT_PATHS = {
    "no alpha": ((None, rising), ShapeError, "alpha: got None"),
    "a number": ((falling, 1.0), ShapeError, "sigma: got 1.0"),
    "float32": ((lambda t: (1 - t).float(), rising), ShapeError, "alpha: returned torch.float32"),
    "one number for all": ((falling, lambda t: t.mean()), ShapeError, "sigma: returned"),
    "a float": ((falling, lambda t: 0.5), ShapeError, "sigma: returned float"),
    "infinite": ((lambda t: 1 / t, rising), NonFiniteError, "alpha"),
    "detached": ((falling, lambda t: t.detach() * 1.0), ShapeError, "sigma: changes, but autodiff"),
    "reversed": ((rising, falling), RangeError, "alpha: got 0, expected 1"),
    "noisy data": ((falling, lambda t: 0.1 + t), RangeError, "sigma: got 0.1, expected 0"),
    "rising alpha": ((lambda t: 1 + t, lambda t: 3 * t), RangeError, "alpha: rises"),
    "negative alpha": ((lambda t: 1 - 2 * t, rising), RangeError, "alpha: got a negative number.* at t = 0.5"),
    "negative sigma": ((falling, lambda t: -t), RangeError, "sigma: got 0 or less"),
    "snr rises": ((falling, lambda t: t * (1 - t) ** 2 + 0 * t), RangeError, "sigma: got 0 or less.* at t = 1"),
    "snr rises inside": ((lambda t: 1 - t / 2, lambda t: torch.sin(3 * t)), RangeError, "alpha/sigma"),
    "t_max 0": ((falling, rising, 0.0), RangeError, "t_max"),
}


@pytest.mark.parametrize("name", NOT_PATHS)
def test_what_is_no_path_is_refused_by_name(name):
    args, error, message = NOT_PATHS[name]
    with pytest.raises(error, match=message):
        FunctionPath(*args)
