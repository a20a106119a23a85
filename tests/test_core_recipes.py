"""Training recipes of the core: noise with an offset, weights, and EDM's preconditioning put together by hand."""

from __future__ import annotations

import pytest
import torch
from worlds import F64, ROW_NAMES, ROWS, gap, normal, seeded, times

from lecture_lib.core import (
    EDM,
    EPS,
    X0,
    Denoiser,
    V,
    VPLinear,
    edm,
    independent,
    min_snr,
    offset_noise,
    quarter_log_noise,
    truncated_snr,
    unit_input,
)
from lecture_lib.errors import RangeError, ShapeError

# Offset noise


def test_offset_noise_moves_the_mean_of_a_channel():
    # MISTAKES A39: 64 x 64 pixels, s = .1: variance of a channel's mean 2.44e-4 -> 1.024e-2.
    x0 = torch.zeros(1500, 2, 64, 64)
    white, offset = independent(x0, seeded(1)).mean((2, 3)), offset_noise(0.1)(x0, seeded(1)).mean((2, 3))
    assert white.var() == pytest.approx(2.44e-4, rel=0.1)  # 3000 draws: 2.6 % standard error
    assert offset.var() == pytest.approx(1.024e-2, rel=0.1)
    assert offset.mean() == pytest.approx(0, abs=4 * (1.024e-2 / 3000) ** 0.5)  # no constant bias


def test_offset_is_one_number_per_image_and_channel():
    x0 = normal(5, 3, 4, 6)
    offset = offset_noise(0.7)(x0, seeded(2)) - independent(x0, seeded(2))
    assert gap(offset, offset[:, :, :1, :1].expand_as(offset)) <= 1e-14
    assert len({round(float(value), 12) for value in offset[:, :, 0, 0].flatten()}) == 15  # all of them different
    assert torch.equal(offset_noise(0.0)(x0, seeded(2)), independent(x0, seeded(2)))
    assert offset_noise(0.7)(x0[:, :, 0], seeded()).shape == (5, 3, 6)  # sequences too


def test_offset_noise_is_the_target_of_the_loss():
    # A network that answers 0 has the loss |eps|^2, and that eps is the sum.
    zero = Denoiser(Zero(), VPLinear(), EPS)
    x0 = normal(4, 2, 3, 3)
    got = zero.loss(x0, times=Fixed(), coupling=offset_noise(0.5), generator=seeded(7))
    assert gap(got, offset_noise(0.5)(x0, seeded(7)).square().flatten(1).mean(1)) <= 1e-14


def test_offset_noise_refuses():
    with pytest.raises(RangeError, match="scale: got -1"):
        offset_noise(-1)
    with pytest.raises(ShapeError, match=r"x0: got shape \(5, 2\)"):
        offset_noise(0.1)(normal(5, 2), seeded())


class Zero(torch.nn.Module):
    def forward(self, x, t, cond=None):
        return torch.zeros_like(x)


class Fixed:
    """Times that draw nothing."""

    def sample(self, b, *, generator=None, device=None):
        return torch.linspace(0.1, 0.9, b, dtype=F64)


# Weights


def weighted_losses(weight):
    """weight times the plain loss of one and the same wrong x0, in every parameterization."""
    path, t = VPLinear(), torch.linspace(0.05, 0.95, 9, dtype=F64)
    c = path.coeffs(t)
    x0, eps, wrong = normal(9, 4, seed=1), normal(9, 4, seed=2), normal(9, 4, seed=3)
    wrong_eps = (path.mix(x0, eps, t) - c.alpha[:, None] * wrong) / c.sigma[:, None]
    error = [row.encode(wrong, wrong_eps, c) - row.encode(x0, eps, c) for row in ROWS]
    return (
        c,
        (wrong - x0).square().mean(1),
        [weight(r, c) * e.square().mean(1) for r, e in zip(ROWS, error, strict=True)],
    )


@pytest.mark.parametrize("which", ["min", "max"])
def test_a_weight_on_x0_is_the_same_loss_for_every_network(which):
    # Every parameterization, the velocity and EDM's F among them.
    c, x0_loss, losses = weighted_losses(min_snr(5.0) if which == "min" else truncated_snr)
    snr = (c.alpha / c.sigma) ** 2
    expected = (snr.clamp(max=5.0) if which == "min" else snr.clamp(min=1.0)) * x0_loss
    for name, loss in zip(ROW_NAMES, losses, strict=True):
        assert gap(loss / expected, torch.ones(9, dtype=F64)) <= 1e-12, name


def test_truncated_snr_by_hand():
    c = VPLinear().coeffs(times(0.2, 0.9))
    snr = (c.alpha / c.sigma) ** 2
    assert snr[0] > 1 > snr[1]
    assert gap(truncated_snr(EPS, c), torch.stack([snr[0] / snr[0], 1 / snr[1]])) <= 1e-10 * float(1 / snr[1])
    assert gap(truncated_snr(V, c), torch.stack([snr[0] / (snr[0] + 1), 1 / (snr[1] + 1)])) <= 1e-12
    assert gap(truncated_snr(X0, c), torch.stack([snr[0], torch.ones((), dtype=F64)])) <= 1e-12


# EDM's preconditioning (FORMULAS 5.3; Karras et al. 2022, Eq. 7 and Table 1)


class Wavy(torch.nn.Module):
    """Some F(x, c_noise) that depends on both."""

    def forward(self, x, t, cond=None):
        return torch.sin(3 * x + t[:, None]) - 0.2 * x


@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_edm_denoiser_is_the_papers_formula(sigma_data):
    x, sigma = 3 * normal(5, 2), times(0.002, 0.1, 1.0, 7.0, 80.0)
    denoiser = Denoiser(
        Wavy(), EDM(), edm(sigma_data), network_time=quarter_log_noise, input_scale=unit_input(sigma_data)
    )
    total = sigma**2 + sigma_data**2
    c_skip, c_out, c_in = sigma_data**2 / total, sigma * sigma_data / total.sqrt(), 1 / total.sqrt()
    F = Wavy()(c_in[:, None] * x, sigma.log() / 4)
    assert gap(denoiser(x, sigma).x0, c_skip[:, None] * x + c_out[:, None] * F) <= 1e-12


def test_edm_loss_is_karras_loss():
    # lambda(sigma) |D - x0|^2 with lambda = (sigma^2 + sd^2)/(sigma sd)^2 is the plain loss of F.
    class Levels:
        def sample(self, b, *, generator=None, device=None):
            return times(0.05, 0.5, 4.0)

    x0, sigma = 0.5 * normal(3, 2, seed=4), times(0.05, 0.5, 4.0)
    denoiser = Denoiser(Wavy(), EDM(), edm(0.5), network_time=quarter_log_noise, input_scale=unit_input(0.5))
    got = denoiser.loss(x0, times=Levels(), generator=seeded(5))
    x = x0 + sigma[:, None] * independent(x0, seeded(5))
    expected = (sigma**2 + 0.25) / (0.5 * sigma) ** 2 * (denoiser(x, sigma).x0 - x0).square().mean(1)
    assert gap(got / expected, torch.ones(3, dtype=F64)) <= 1e-10  # at sigma = .05 F comes from a small difference
