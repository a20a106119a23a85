"""Divergences against closed forms, scipy and discrete tables; what they say about distributions that lie apart."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import wasserstein_distance

from lecture_lib.core import EDM
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.oracles import (
    F_DIVERGENCES,
    HELLINGER,
    JENSEN_SHANNON,
    KL,
    NEYMAN,
    PEARSON,
    REVERSE_KL,
    TOTAL_VARIATION,
    GaussianMixture,
    divergence,
    ring_of_modes,
    wasserstein,
)

F64 = torch.float64


def gaussian(mean, std=1.0):
    mean = torch.as_tensor(mean, dtype=F64)
    return GaussianMixture([1.0], mean.reshape(1, 1), torch.tensor([std**2], dtype=F64))


def test_discrete_tables():
    """MISTAKES.md A134: (u - 1)^2/u is Neyman's, .2533; Pearson's is .175."""
    p, q = torch.tensor([0.2, 0.5, 0.3], dtype=F64), torch.tensor([0.4, 0.4, 0.2], dtype=F64)
    u = p / q
    f = {
        KL: u * u.log(),
        REVERSE_KL: -u.log(),
        JENSEN_SHANNON: (u * u.log() - (u + 1) * ((u + 1) / 2).log()) / 2,
        PEARSON: (u - 1) ** 2,
        NEYMAN: (u - 1) ** 2 / u,
        HELLINGER: (u.sqrt() - 1) ** 2,
        TOTAL_VARIATION: (u - 1).abs() / 2,
    }
    assert set(f) == set(F_DIVERGENCES)
    for kind, value in f.items():
        assert kind(p.log(), q.log()).item() == pytest.approx((q * value).sum().item(), rel=1e-12)
    assert PEARSON(p.log(), q.log()).item() == pytest.approx(0.175)
    assert NEYMAN(p.log(), q.log()).item() == pytest.approx(0.2533, abs=1e-4)
    with pytest.raises(ShapeError, match="log_q"):
        KL(p.log(), q[:2].log())


def test_tables_with_zeros():
    """0 log 0 = 0, also where both are zero: apart, the divergences are infinite or at their ceiling, never NaN."""
    left, right = torch.tensor([1.0, 0, 0], dtype=F64).log(), torch.tensor([0, 1.0, 0], dtype=F64).log()
    expected = {KL: math.inf, REVERSE_KL: math.inf, JENSEN_SHANNON: math.log(2), PEARSON: math.inf, NEYMAN: math.inf}
    for kind, value in {**expected, HELLINGER: 2.0, TOTAL_VARIATION: 1.0}.items():
        assert kind(left, right).item() == pytest.approx(value), kind.name
        assert kind(left, left).item() == 0
    part, whole = torch.tensor([0.5, 0.5, 0], dtype=F64).log(), torch.tensor([0.25, 0.5, 0.25], dtype=F64).log()
    assert KL(part, whole).item() == REVERSE_KL(whole, part).item() == pytest.approx(math.log(2) / 2)
    assert PEARSON(part, whole).item() == NEYMAN(whole, part).item() == pytest.approx(0.5)
    m = (part.exp() + whole.exp()) / 2
    js = (KL(part, m.log()) + KL(whole, m.log())) / 2
    assert JENSEN_SHANNON(part, whole).item() == pytest.approx(js.item())
    logits = torch.tensor([0.3, -0.2, 0.1], dtype=F64, requires_grad=True)
    for kind in F_DIVERGENCES:
        (slope,) = torch.autograd.grad(kind(part, logits.log_softmax(0)), logits)
        assert torch.isfinite(slope).all() or kind in (REVERSE_KL, NEYMAN), kind.name


def test_gaussians_in_closed_form():
    (m, s), (n, r) = (0.3, 0.8), (-0.5, 1.1)
    p, q = gaussian(m, s), gaussian(n, r)
    kl = math.log(r / s) + (s**2 + (m - n) ** 2) / (2 * r**2) - 0.5
    assert divergence(KL, p, q).item() == pytest.approx(kl, rel=1e-10)
    assert divergence(REVERSE_KL, q, p).item() == pytest.approx(kl, rel=1e-10)
    overlap = math.sqrt(2 * s * r / (s**2 + r**2)) * math.exp(-((m - n) ** 2) / (4 * (s**2 + r**2)))
    assert divergence(HELLINGER, p, q).item() == pytest.approx(2 - 2 * overlap, rel=1e-10)
    assert divergence(PEARSON, gaussian(0.7), gaussian(0)).item() == pytest.approx(math.expm1(0.49), rel=1e-10)
    assert divergence(NEYMAN, gaussian(0), gaussian(0.7)).item() == pytest.approx(math.expm1(0.49), rel=1e-10)
    tv = math.erf(0.7 / (2 * math.sqrt(2)))
    assert divergence(TOTAL_VARIATION, gaussian(0), gaussian(0.7)).item() == pytest.approx(tv, rel=1e-6)
    assert all(abs(divergence(kind, p, p).item()) < 1e-12 for kind in F_DIVERGENCES)


def test_a_needle_between_the_points_is_refused():
    """The sum over points that miss it was 44.3 instead of 8.76."""
    needle = gaussian(0.3, 1e-4)
    with pytest.raises(RangeError, match=r"points: got 20001, .* at least 240001"):
        divergence(KL, needle, gaussian(0.0))
    expected = math.log(1e4) + (1e-8 + 0.09) / 2 - 0.5
    assert divergence(KL, needle, gaussian(0.0), points=240_001).item() == pytest.approx(expected, rel=1e-6)
    assert torch.isfinite(divergence(KL, needle, gaussian(0.0), EDM(), 0.1))  # with noise it is none


def test_wasserstein_in_closed_form_and_against_scipy():
    assert wasserstein(gaussian(0), gaussian(1.7)) == pytest.approx(1.7, rel=1e-12)
    for power, rel in ((1, 2e-5), (2, 5e-5), (8, 2.5e-3)):  # |z| has moments 2^(p/2) Gamma((p + 1)/2)/sqrt(pi)
        moment = 2 ** (power / 2) * math.gamma((power + 1) / 2) / math.sqrt(math.pi)
        assert wasserstein(gaussian(0), gaussian(0, 2), power) == pytest.approx(moment ** (1 / power), rel=rel)
    w2 = math.hypot(0.3 + 0.5, 0.8 - 1.1)
    assert wasserstein(gaussian(0.3, 0.8), gaussian(-0.5, 1.1), 2) == pytest.approx(w2, rel=1e-4)
    two, three = (
        GaussianMixture([0.3, 0.7], [[-2.0], [1.0]], [0.1, 0.2]),
        GaussianMixture([1.0, 1.0, 1.0], [[-1.0], [0.0], [2.0]], [0.05, 0.3, 0.1]),
    )
    clouds = (w.sample(400_000, generator=torch.Generator().manual_seed(1))[:, 0] for w in (two, three))
    assert wasserstein(two, three) == pytest.approx(wasserstein_distance(*clouds), abs=0.005)
    with pytest.raises(RangeError, match="power"):
        wasserstein(two, three, 0.5)
    for refused in (lambda: wasserstein(two, ring_of_modes()), lambda: divergence(KL, ring_of_modes(), two)):
        with pytest.raises(ShapeError, match=r"expected \(1,\)"):
            refused()


def test_apart_the_f_divergences_are_silent_or_enormous_and_wasserstein_points_the_way():
    """Two needles (std .05) at distance d: JS sits at log 2 with no slope, KL grows like d^2, W1 is d."""
    for d in (1.0, 2.0, 4.0):
        place = torch.tensor(d, dtype=F64, requires_grad=True)
        js = divergence(JENSEN_SHANNON, gaussian(0.0, 0.05), gaussian(place, 0.05))
        (slope,) = torch.autograd.grad(js, place)
        assert js.item() == pytest.approx(math.log(2), abs=1e-9) and abs(slope.item()) < 1e-9
        assert divergence(KL, gaussian(0.0, 0.05), gaussian(d, 0.05)).item() == pytest.approx(200 * d**2, rel=1e-6)
        assert wasserstein(gaussian(0.0, 0.05), gaussian(d, 0.05)) == pytest.approx(d, rel=1e-9)
    near = torch.tensor(0.05, dtype=F64, requires_grad=True)
    js = divergence(JENSEN_SHANNON, gaussian(0.0, 0.05), gaussian(near, 0.05))
    assert torch.autograd.grad(js, near)[0] > 1  # where they overlap it does point


def test_noised_every_divergence_has_a_slope():
    """MISTAKES.md A135: DMD compares noised distributions. N(0, s) and N(d, s), s -> 0, noised: KL = d^2/2 sigma^2."""
    path, d = EDM(), torch.tensor(3.0, dtype=F64, requires_grad=True)
    p, q = gaussian(0.0, 1e-3), gaussian(d, 1e-3)
    kl = divergence(KL, p, q, path, 2.0)
    assert kl.item() == pytest.approx(9 / (2 * (4 + 1e-6)), rel=1e-9)
    js = divergence(JENSEN_SHANNON, p, q, path, 2.0)
    assert js.item() < 0.5 * math.log(2) and torch.autograd.grad(js, d)[0] > 0.05


def test_who_drops_a_mode():
    """One Gaussian for two modes: forward KL takes their mean and variance, reverse KL settles on one of them."""
    two = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [0.04, 0.04])
    fitted = {}
    for kind in (KL, REVERSE_KL):
        mean, log_std = (torch.tensor(v, dtype=F64, requires_grad=True) for v in (0.6, -0.7))
        optimizer = torch.optim.Adam([mean, log_std], lr=0.02)
        for _ in range(500):
            q = GaussianMixture([1.0], mean.reshape(1, 1), (2 * log_std).exp().reshape(1))
            optimizer.zero_grad()
            divergence(kind, two, q, points=601).backward()
            optimizer.step()
        fitted[kind] = mean.item(), log_std.exp().item()
    assert fitted[KL] == pytest.approx((0.0, math.sqrt(1.04)), abs=5e-3)  # moments matched, mass between the modes
    assert fitted[REVERSE_KL] == pytest.approx((1.0, 0.2), abs=5e-3)  # the other mode is gone
    one = divergence(REVERSE_KL, two, gaussian(1.0, 0.2)).item()
    both = divergence(REVERSE_KL, two, gaussian(0.0, 0.8445)).item()  # the best that spans both modes costs more
    assert one == pytest.approx(math.log(2), abs=1e-4) and both > one + 0.1
