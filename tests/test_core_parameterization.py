"""One 2x2 system: conversions, singular points, the weights that a plain loss amounts to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from worlds import F64, PATH_NAMES, PATHS, ROW_NAMES, ROWS, gap, inner_times, normal, times

from lecture_lib.core import (
    EDM,
    EPS,
    SCORE,
    VELOCITY,
    X0,
    Discrete,
    RectifiedFlow,
    Trigonometric,
    V,
    VPCosine,
    VPLinear,
    edm,
    min_snr,
    plain,
    stable_diffusion,
    zero_terminal_snr,
)
from lecture_lib.core.prediction import Prediction
from lecture_lib.errors import SingularError

every_path = pytest.mark.parametrize("path", PATHS, ids=PATH_NAMES)
every_row = pytest.mark.parametrize("row", ROWS, ids=ROW_NAMES)


@every_path
@every_row
@pytest.mark.parametrize("shape", [(9, 2), (9, 1, 8, 8)], ids=["points", "pictures"])
def test_decode_inverts_encode(path, row, shape):
    x0, eps, t = normal(*shape, seed=1), normal(*shape, seed=2), inner_times(path)
    c = path.coeffs(t)
    back = row.decode(row.encode(x0, eps, c), path.mix(x0, eps, t), c)
    assert gap(back[0], x0) <= 1e-12 * max(1, path.t_max)  # on EDM x0 hides under noise of size 80
    assert gap(back[1], eps) <= 1e-12


@every_path
@every_row
def test_any_row_becomes_any_other(path, row):
    # From one prediction y to all others and back: what the network was trained on makes no difference afterwards.
    x_t, t = normal(9, 3, seed=5), inner_times(path)
    c = path.coeffs(t)
    for other in ROWS:
        y = normal(9, 3, seed=6)
        via = other.encode(*row.decode(y, x_t, c), c)
        again = row.encode(*other.decode(via, x_t, c), c)
        scale = float(max(via.abs().max(), 1)) * max(1, path.t_max)
        assert gap(again, y) <= 1e-12 * scale


# Hand-written formulas of the papers, path by path.


def test_rows_are_the_papers_formulas():
    x0, eps = normal(9, 2, seed=1), normal(9, 2, seed=2)
    path = Trigonometric()
    t = inner_times(path)
    cos, sin = torch.cos(t)[:, None], torch.sin(t)[:, None]
    c = path.coeffs(t)
    assert gap(V.encode(x0, eps, c), cos * eps - sin * x0) <= 1e-15
    assert gap(VELOCITY.encode(x0, eps, c), cos * eps - sin * x0) <= 1e-15  # on this path, and only here, v = velocity
    assert gap(SCORE.encode(x0, eps, c), -eps / sin) <= 1e-13
    c = RectifiedFlow().coeffs(times(*[0.3] * 9))
    assert gap(VELOCITY.encode(x0, eps, c), eps - x0) <= 1e-15  # from data to noise, since t = 1 is noise
    assert gap(V.encode(x0, eps, c), 0.7 * eps - 0.3 * x0) <= 1e-15


def test_decoding_formulas_of_the_papers():
    y, x, t = normal(9, 2, seed=1), normal(9, 2, seed=2), inner_times(VPLinear())
    c = VPLinear().coeffs(t)
    a, s = c.alpha[:, None], c.sigma[:, None]
    x0, eps = V.decode(y, x, c)
    assert gap(x0, a * x - s * y) <= 1e-14 and gap(eps, s * x + a * y) <= 1e-14
    x0, eps = EPS.decode(y, x, c)
    assert gap(x0, (x - s * y) / a) <= 1e-11 and gap(eps, y) <= 1e-15
    c = RectifiedFlow().coeffs(inner_times(RectifiedFlow()))
    t = c.sigma[:, None]
    x0, eps = VELOCITY.decode(y, x, c)
    assert gap(x0, x - t * y) <= 1e-14 and gap(eps, x + (1 - t) * y) <= 1e-14


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 2.0])
def test_edm_row_is_karras_preconditioning(sigma_data):
    # Karras et al. 2022, Table 1: D = c_skip x + c_out F
    sigma = torch.tensor([0.002, 0.1, 0.5, 1, 5, 80], dtype=F64)
    y, x = normal(6, 2, seed=1), normal(6, 2, seed=2)
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    c_out = sigma * sigma_data / (sigma**2 + sigma_data**2).sqrt()
    x0, eps = edm(sigma_data).decode(y, x, EDM().coeffs(sigma))
    expected = c_skip[:, None] * x + c_out[:, None] * y
    assert gap(x0, expected) <= 1e-14
    assert gap(eps, (x - expected) / sigma[:, None]) <= 1e-12
    # the same network on VP: D depends on sigma/alpha and x/alpha only
    t = VPLinear().time_of(-sigma[1:].log())
    alpha = VPLinear().alpha(t)[:, None]
    assert gap(edm(sigma_data).decode(y[1:], alpha * x[1:], VPLinear().coeffs(t))[0], expected[1:]) <= 1e-11
    if sigma_data == 1:  # on a variance-preserving path F is minus v
        c = VPLinear().coeffs(t)
        assert gap(edm(1.0).encode(x[1:], y[1:], c), -V.encode(x[1:], y[1:], c)) <= 1e-15


@every_path
@every_row
def test_both_rows_stay_accurate_near_data_in_float32(path, row):
    # x_t - alpha x0 at t = 1e-4 keeps three digits in float32; computing eps from y directly keeps six. Where the row
    # itself carries little of eps (x0-prediction near data), no algebra can help, and only x0 is asked for.
    x0, eps = normal(64, 2, seed=1), normal(64, 2, seed=2)
    t = torch.full((64,), 1e-4, dtype=F64) * path.t_max
    c = path.coeffs(t)
    y, x_t = row.encode(x0, eps, c).float(), path.mix(x0, eps, t).float()
    got_x0, got_eps = row.decode(y, x_t, c)
    assert got_x0.dtype == torch.float32
    assert gap(got_x0.double(), x0) <= 3e-6
    if row.name in ("eps", "v", "velocity", "score"):
        assert gap(got_eps.double(), eps) <= 3e-6


# Singular points: det = 0 is exactly where the 2x2 system has no answer.


@pytest.mark.parametrize("path", [RectifiedFlow(), Trigonometric(), VPCosine(), PATHS[-1]], ids=repr)
def test_eps_prediction_fails_at_zero_snr_and_v_does_not(path):
    c, y, x = path.coeffs(times(path.t_max)), normal(1, 2, seed=1), normal(1, 2, seed=2)
    for row in (EPS, SCORE):
        with pytest.raises(SingularError, match=row.name):
            row.decode(y, x, c)
    for row in (V, VELOCITY, X0, edm(0.5)):
        x0, eps = row.decode(y, x, c)
        assert torch.isfinite(x0).all() and gap(eps, x) <= 1e-12  # pure noise is its own eps


def test_one_bad_time_in_a_batch_is_enough():
    with pytest.raises(SingularError, match="eps-prediction"):
        EPS.decode(normal(3, 2), normal(3, 2), RectifiedFlow().coeffs(times(0.5, 1.0, 0.2)))


def test_clean_end():
    c, y, x = RectifiedFlow().coeffs(times(0.0)), normal(1, 2, seed=1), normal(1, 2, seed=2)
    for row in (EPS, V, VELOCITY):
        assert gap(row.decode(y, x, c)[0], x) <= 1e-15
    for row in (X0, SCORE):
        with pytest.raises(SingularError):
            row.decode(y, x, c)


@pytest.mark.parametrize("path", [VPLinear(), VPCosine()], ids=repr)
def test_infinite_velocity_of_vp_at_data_is_named(path):
    x = normal(1, 2)
    p = Prediction(path, times(0.0), x, x, x)
    with pytest.raises(SingularError, match="velocity"):
        _ = p.velocity
    with pytest.raises(SingularError, match="velocity"):
        VELOCITY.decode(x, x, path.coeffs(times(0.0)))


def test_det_of_every_row():
    c = VPLinear().coeffs(inner_times(VPLinear()))
    assert gap(X0.det(c), -c.sigma) <= 1e-15
    assert gap(EPS.det(c), c.alpha) <= 1e-15
    assert gap(V.det(c), torch.ones_like(c.alpha)) <= 1e-14
    assert gap(SCORE.det(c), -c.alpha / c.sigma) <= 1e-12
    assert gap(VELOCITY.det(RectifiedFlow().coeffs(inner_times(RectifiedFlow()))), torch.ones(9, dtype=F64)) <= 1e-15
    gvp = Trigonometric().coeffs(inner_times(Trigonometric()))
    assert gap(VELOCITY.det(gvp), torch.ones(9, dtype=F64)) <= 1e-15


# Loss weights, measured with an actual error in x0 at a fixed x_t.


def losses(path, t):
    x_t, x0, wrong = normal(9, 4, seed=1), normal(9, 4, seed=2), normal(9, 4, seed=3)
    c = path.coeffs(t)
    a, s = c.alpha[:, None], c.sigma[:, None]
    right = (x0, (x_t - a * x0) / s)
    guess = (x0 + wrong, (x_t - a * (x0 + wrong)) / s)
    return c, {r.name: (r.encode(*guess, c) - r.encode(*right, c)).square().mean(1) for r in ROWS}


@pytest.mark.parametrize("path", [p for p in PATHS if p != EDM()], ids=repr)
def test_implied_x0_weight(path):
    c, loss = losses(path, inner_times(path))
    for row in ROWS:
        assert gap(loss[row.name] / (row.x0_weight(c) * loss["x0"]), torch.ones(9, dtype=F64)) <= 1e-9


def test_eps_and_x0_losses_against_v():
    # MISTAKES A41: L_eps = alpha^2 L_v and L_x0 = sigma^2 L_v; (1 - alpha_bar)/alpha_bar is a popular error.
    table = torch.tensor([0.9, 0.5, 0.0047], dtype=F64)
    path = Discrete(table)
    _, loss = losses(path, times(1 / 3, 2 / 3, 1.0, 1 / 3, 2 / 3, 1.0, 1 / 3, 2 / 3, 1.0))
    assert gap(loss["eps"] / loss["v"], table.repeat(3)) <= 1e-12
    assert gap(loss["x0"] / loss["v"], 1 - table.repeat(3)) <= 1e-12
    assert gap(loss["eps"] / loss["x0"], (table / (1 - table)).repeat(3)) <= 1e-9


def test_velocity_loss_weights_of_the_formulas():
    c, loss = losses(VPLinear(), inner_times(VPLinear()))
    delta = c.alpha * c.dsigma - c.dalpha * c.sigma
    assert gap(loss["velocity"] / ((delta / c.alpha) ** 2 * loss["eps"]), torch.ones(9, dtype=F64)) <= 1e-9
    assert gap(loss["velocity"] / ((delta / c.sigma) ** 2 * loss["x0"]), torch.ones(9, dtype=F64)) <= 1e-9


def test_edm_weight_is_karras_lambda():
    # F-loss weight 1 is lambda(sigma) = (sigma^2 + sd^2)/(sigma sd)^2 on |D - x0|^2
    sigma = torch.tensor([0.01, 0.5, 3.0, 80.0], dtype=F64)
    got = edm(0.5).x0_weight(EDM().coeffs(sigma))
    assert gap(got / ((sigma**2 + 0.25) / (sigma * 0.5) ** 2), torch.ones(4, dtype=F64)) <= 1e-13


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
def test_min_snr_is_one_weight_in_three_dresses(gamma):
    path = Discrete(stable_diffusion())
    c, loss = losses(path, inner_times(path))
    weight = min_snr(gamma)
    snr = (c.alpha / c.sigma) ** 2
    capped = snr.clamp(max=gamma)
    closed = {"x0": capped, "eps": capped / snr, "v": capped / (snr + 1)}  # Hang et al. 2023, Sec. 3.4
    for row in (X0, EPS, V):
        assert gap(weight(row, c) / closed[row.name], torch.ones(9, dtype=F64)) <= 1e-12
    total = capped * loss["x0"]
    for row in ROWS:
        assert gap(weight(row, c) * loss[row.name] / total, torch.ones(9, dtype=F64)) <= 1e-9


def test_weights_at_hand():
    c = SimpleNamespace(alpha=times(0.6), sigma=times(0.8))
    assert min_snr(5.0)(EPS, c) == pytest.approx(1.0)
    c = SimpleNamespace(alpha=times(0.8), sigma=times(0.6))  # SNR 16/9, capped at 1
    assert float(min_snr(1.0)(EPS, c)) == pytest.approx(9 / 16)
    assert float(min_snr(1.0)(V, c)) == pytest.approx(9 / 25)
    assert plain(V, c) == 1


# Prediction


@every_path
def test_prediction_reads_the_same_in_every_row(path):
    x_t, t, y = normal(9, 2, seed=1), inner_times(path), normal(9, 2, seed=2)
    c = path.coeffs(t)
    p = Prediction(path, t, x_t, *V.decode(y, x_t, c))
    assert gap(p.v, y) <= 1e-11
    assert gap(p.velocity, c.dalpha[:, None] * p.x0 + c.dsigma[:, None] * p.eps) <= 1e-13 * path.t_max
    assert gap(p.score, -p.eps / c.sigma[:, None]) <= 1e-12
    assert gap(p.score, (c.alpha[:, None] * p.x0 - x_t) / c.sigma[:, None] ** 2) <= 1e-10
    f, g2 = path.drift_diffusion(t)
    ode = f[:, None] * x_t - 0.5 * g2[:, None] * p.score  # MISTAKES A63: the factor one half
    assert gap(ode, p.velocity) <= 1e-9


@every_path
def test_with_x0_keeps_x_t_and_leaves_an_unchanged_prediction_alone(path):
    x_t, t, y = normal(9, 2, seed=1), inner_times(path), normal(9, 2, seed=2)
    p = Prediction(path, t, x_t, *V.decode(y, x_t, path.coeffs(t)), nfe=3)
    q = p.with_x0(p.x0.clamp(-0.5, 0.5))
    assert gap(path.mix(q.x0, q.eps, t), x_t) <= 1e-12 * max(1, path.t_max)
    assert q.nfe == 3 and gap(q.x0, p.x0.clamp(-0.5, 0.5)) == 0
    same = p.with_x0(p.x0)
    assert gap(same.eps, p.eps) == 0


@every_path
def test_score_shift_moves_the_score_and_stays_on_x_t(path):
    x_t, t, g = normal(9, 2, seed=1), inner_times(path), normal(9, 2, seed=3)
    p = Prediction(path, t, x_t, *V.decode(normal(9, 2, seed=2), x_t, path.coeffs(t)))
    q = p.with_score_shift(g)
    assert gap(q.score, p.score + g) <= 1e-9
    assert gap(path.mix(q.x0, q.eps, t), x_t) <= 1e-9 * max(1, path.t_max)


def test_singular_readings_are_named():
    x = normal(2, 2)
    clean = Prediction(RectifiedFlow(), times(0.5, 0.0), x, x, x)
    for read in (lambda: clean.score, lambda: clean.with_x0(x)):
        with pytest.raises(SingularError, match="sigma = 0"):
            read()
    noise = Prediction(RectifiedFlow(), times(0.5, 1.0), x, x, x)
    with pytest.raises(SingularError, match="alpha = 0"):
        noise.with_score_shift(x)


def test_terminal_snr_zero_table_works_with_v():
    path = Discrete(zero_terminal_snr(stable_diffusion()))
    c, x0, eps = path.coeffs(times(1.0)), normal(1, 3, seed=1), normal(1, 3, seed=2)
    got = V.decode(V.encode(x0, eps, c), path.mix(x0, eps, times(1.0)), c)
    assert gap(got[0], x0) <= 1e-15 and gap(got[1], eps) <= 1e-15
