"""RealNVP and its parts: inverses, determinants against autograd's Jacobian, densities that integrate to 1."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from scipy.stats import logistic, multivariate_normal

from lecture_lib.data import digits
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.families import ActNorm, AffineCoupling, Logit, RealNVP, fit
from lecture_lib.families.bijections import checker_mask, half_mask, stripe_mask
from lecture_lib.nets import LabelMLP
from lecture_lib.tensors import layers_from
from tests.likelihood_laws import assert_no_better_than_entropy

G = torch.Generator().manual_seed(5)


def shaken(module, std=0.2, dtype=torch.float64):
    """Weights far from the identity, and far from each other."""
    for p in module.parameters():
        p.data = p.data + std * torch.randn(p.shape, generator=G)
    return module.to(dtype).eval()


def normal(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=G, dtype=dtype)


def pictures(n=4, dtype=torch.float64):
    return (2 * torch.rand(n, 1, 8, 8, generator=G, dtype=dtype) - 1) * 17 / 16


def parts():
    net = lambda d: LabelMLP(d, 2 * d, width=8, n_classes=3)  # noqa: E731
    return {
        "coupling": (AffineCoupling(half_mask((5,)), net(5)), normal(4, 5)),
        "checkered": (AffineCoupling(checker_mask((2, 4, 4)), net(32)), normal(4, 2, 4, 4)),
        "channels": (AffineCoupling(half_mask((2, 4, 4)), net(32)), normal(4, 2, 4, 4)),
        "actnorm": (ActNorm((1, 3, 3)), normal(4, 1, 3, 3)),
        "logit": (Logit(-17 / 16, 17 / 16), pictures()),
        "plane": (RealNVP.plane(n_classes=3), normal(4, 2)),
        "digits": (RealNVP.digits(rounds=1, width=16, n_classes=3), pictures()),
    }


LABELS = torch.tensor([0, 2, 3, 1])  # 3 is "no class"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("name", list(parts()))
def test_inverse_and_determinant(name, dtype):
    """Back again, and the log-determinant of autograd's full Jacobian, to 1e-10 in double and 1e-5 in single precision
    (of numbers of size 10 to 100, so relative). The Jacobian is that of the same weights in double precision: its own
    rounding, where it is nearly singular, is not what is tested."""
    G.manual_seed(5)
    with layers_from(0):
        part, x = parts()[name]
    part, x = shaken(part, 0.1 if isinstance(part, RealNVP) else 0.2).to(dtype), x.to(dtype)
    forward = part.encode if isinstance(part, RealNVP) else part
    with torch.no_grad():
        z, log_det = forward(x, LABELS)
        back = z
        for layer in reversed(part.layers) if isinstance(part, RealNVP) else [part]:
            back = layer.inverse(back, LABELS)
    tol = 1e-10 if dtype == torch.float64 else 1e-5
    assert (z - x).abs().max() > 0.1  # it does something
    assert (back - x).abs().max() <= tol * (50 if name == "digits" else 10)  # the inverse is as steep as the map
    exact = deepcopy(part).double()
    forward = exact.encode if isinstance(exact, RealNVP) else exact
    for i in range(len(x)):
        one = lambda y, i=i: forward(y[None], LABELS[i : i + 1])[0][0]  # noqa: E731
        jacobian = torch.autograd.functional.jacobian(one, x[i].double()).reshape(x[i].numel(), -1)
        expected = torch.linalg.slogdet(jacobian).logabsdet.item()
        assert log_det[i].item() == pytest.approx(expected, rel=tol, abs=tol)


def test_the_density_of_the_plane_integrates_to_one_and_without_its_constant_to_two_pi():
    """The popular -|z|^2/2 alone is no density: in the plane it integrates to 2 pi, in D dimensions to (2 pi)^(D/2),
    which is 1.3257 bits per dimension of a benchmark, in favour of whoever forgets it."""
    model, batches, _ = RealNVP.small()
    for _ in fit(model, batches, steps=40, generator=torch.Generator().manual_seed(0)):
        pass
    ticks = torch.linspace(-6, 6, 121, dtype=torch.float64)
    points = torch.cartesian_prod(ticks, ticks)
    nats = model.double().log_prob(points).nats
    assert nats.exp().sum().item() * 0.1**2 == pytest.approx(1.0, abs=1e-3)
    with torch.no_grad():
        z, log_det = model.encode(points[::50])
    excess = -0.5 * (z**2).sum(1) + log_det - nats[::50]
    assert (excess.exp() - 2 * math.pi).abs().max() <= 1e-7
    assert excess.mean().item() / (2 * math.log(2)) == pytest.approx(1.3257, abs=1e-4)


def test_layers_that_do_nothing_leave_a_normal_distribution():
    x = normal(50, 2)
    expected = multivariate_normal(mean=[0, 0]).logpdf(x.numpy())
    assert RealNVP.plane().double().log_prob(x).nats.numpy() == pytest.approx(expected, abs=1e-12)


def test_one_stretch_is_the_change_of_variables_of_a_normal():
    """ActNorm alone is N(shift, scale^2), whatever the batch: scipy's density."""
    model = RealNVP([ActNorm((3,))], (3,)).double()
    x = 2.0 + 3.0 * normal(500, 3)
    model.start_from(x)
    mean, std = x.mean(0), x.std(0, correction=0)
    expected = multivariate_normal(mean=mean.numpy(), cov=torch.diag(std**2).numpy()).logpdf(x.numpy())
    assert model.log_prob(x).nats.numpy() == pytest.approx(expected, abs=1e-10)


def test_the_logit_makes_logistic_noise_of_uniform_noise():
    """If z is logistic, x is uniform: then log p(x) = log logistic(z) + log |det| is minus the log of the width."""
    x = 1.0 + 4.0 * torch.rand(1000, 1, generator=G, dtype=torch.float64)
    z, log_det = Logit(1.0, 5.0, margin=1e-6)(x)
    assert logistic.logpdf(z[:, 0].numpy()) + log_det.numpy() == pytest.approx(-math.log(4.0), abs=1e-5)


def test_start_from_sets_mean_and_variance_and_draws_nothing():
    """At every ActNorm of a network with open couplings; twice the same; nobody else's random numbers move."""
    model = shaken(RealNVP.plane())
    x, before = 3 + 2 * normal(400, 2), torch.random.get_rng_state()
    model.start_from(x)
    weights = [p.clone() for p in model.parameters()]
    model.start_from(x)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert torch.equal(before, torch.random.get_rng_state())
    for layer in model.layers:
        x, _ = layer(x)
        if isinstance(layer, ActNorm):
            assert x.mean(0).abs().max() <= 1e-12 and (x.var(0, correction=0) - 1).abs().max() <= 1e-12


def test_a_coupling_keeps_what_it_shows_and_stretches_no_more_than_its_bound():
    mask = checker_mask((1, 4, 4))
    layer = shaken(AffineCoupling(mask, LabelMLP(16, 32, width=8), bound=0.5), std=1.0)
    layer.bound.data.fill_(0.5)
    x = 5 * normal(20, 1, 4, 4)
    z, log_det = layer(x)
    assert torch.equal(z[:, mask], x[:, mask]) and not (z[:, ~mask] == x[:, ~mask]).any()
    assert log_det.abs().max() <= 8 * 0.5 + 1e-12
    other = x.clone()
    other[:, ~mask] += 1  # what is changed may not say how: else the Jacobian is not triangular
    assert torch.allclose(layer(other)[1], log_det, atol=1e-12)


def test_masks():
    assert checker_mask((1, 2, 3)).tolist() == [[[True, False, True], [False, True, False]]]
    assert stripe_mask((1, 3, 2)).tolist() == [[[True, True], [False, False], [True, True]]]
    assert half_mask((4,)).tolist() == [True, True, False, False]
    assert half_mask((2, 1, 2)).tolist() == [[[True, True]], [[False, False]]]
    assert half_mask((1, 2, 1)).tolist() == [[[True], [False]]]


def test_the_forward_process_passes_through_the_layers():
    model, x = shaken(RealNVP.plane(couplings=2)), normal(3, 2)
    got = model.forward_process(x, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    half = x[1:2]
    for layer in model.layers[:2]:
        half, _ = layer(half)
    assert torch.equal(got[0], x[0])
    assert torch.allclose(got[1], half[0], atol=1e-12) and torch.allclose(got[2], model.encode(x)[0][2], atol=1e-12)
    *_, back = model.reverse_process(model.encode(x)[0], generator=G)
    assert (back - x).abs().max() <= 1e-9


def test_labels_are_heard_and_dropped():
    model, x = shaken(RealNVP.plane(n_classes=2)), normal(6, 2)
    ones, none = torch.ones(6, dtype=torch.long), torch.full((6,), 2)
    assert (model.log_prob(x, ones).nats - model.log_prob(x, none).nats).abs().min() > 1e-4
    assert torch.equal(model.log_prob(x).nats, model.log_prob(x, none).nats)
    for p, label in ((0.0, ones), (1.0, none)):
        model.p_uncond = p
        expected = -model.log_prob(x, label).nats / 2
        assert torch.allclose(model.loss((x, ones), generator=G), expected)


def test_no_better_than_entropy_on_noise():
    assert_no_better_than_entropy(RealNVP.digits(rounds=1, width=16, n_classes=0), steps=100)


def test_dequantised_digits_are_inside_the_logit_and_others_are_named():
    x = digits("test").images
    edges = torch.cat([x - 1 / 16, x + 1 / 16])
    z, _ = Logit(-17 / 16, 17 / 16)(edges)
    assert torch.isfinite(z).all() and z.abs().max() == pytest.approx(math.log(0.95 / 0.05), abs=1e-4)
    with pytest.raises(RangeError, match=r"x: got -2\.\.2, expected numbers between -1\.1806 and 1\.1806|-1\.181"):
        Logit(-17 / 16, 17 / 16)(torch.tensor([[-2.0, 2.0]]))


def test_what_it_refuses():
    model = RealNVP.plane()
    with pytest.raises(ShapeError, match="layers: got none"):
        RealNVP([], (2,))
    with pytest.raises(RangeError, match="steps: got 50, expected 12"):
        model.sample(4, steps=50, generator=G)
    with pytest.raises(ShapeError, match=r"x: got \(4, 3\), expected \(b, 2\)"):
        model.log_prob(torch.zeros(4, 3))
    with pytest.raises(ShapeError, match="mask"):
        AffineCoupling(torch.ones(2, dtype=torch.bool), LabelMLP(2, 4))
    with pytest.raises(RangeError, match="high"):
        Logit(1.0, 1.0)
