"""Convex potentials: Jensen, Hessians against autograd, and the inverse of a gradient against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets import ICNN, EventMLP


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def psi():
    """Random weights throughout, large enough that a wrong sign would show."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = ICNN(2, width=16, depth=3).double()
        for weight in network.parameters():
            weight.data.add_(0.7 * torch.randn_like(weight))
    return network


def test_psi_is_convex_on_every_chord(psi):
    """Jensen on random chords, for any weights: psi(mixed) <= mixed psi, by a margin of 1e-12. The quadratic part,
    which would hide a wrong sign elsewhere, is all but switched off; its raw number is negative then."""
    psi.raw_curvature.data.fill_(-12.0)
    x, y = (4 * torch.randn(2000, 2, generator=seeded(k), dtype=torch.float64) for k in (1, 2))
    u = torch.rand(2000, generator=seeded(3), dtype=torch.float64)
    mixed = u * psi(x) + (1 - u) * psi(y) - psi(u[:, None] * x + (1 - u)[:, None] * y)
    assert mixed.min() > -1e-12 and mixed.max() > 0.1


def test_push_is_the_gradient_and_the_hessian(psi):
    x = torch.randn(5, 2, generator=seeded(), dtype=torch.float64)
    gradient, hessian = psi.push(x)
    for i in range(5):
        single = lambda v: psi(v[None])[0]  # noqa: E731
        assert torch.allclose(gradient[i], torch.autograd.functional.jacobian(single, x[i]), atol=1e-12)
        assert torch.allclose(hessian[i], torch.autograd.functional.hessian(single, x[i]), atol=1e-12)
    assert (torch.linalg.eigvalsh(hessian) > 0).all()


def test_pull_inverts_the_gradient_as_scipy_does(psi):
    y = 3 * torch.randn(8, 2, generator=seeded(4), dtype=torch.float64)
    x = psi.pull(y)
    assert torch.allclose(psi.push(x)[0], y, atol=1e-9)
    for i in range(3):
        objective = lambda v, i=i: float((psi(torch.from_numpy(v)[None])[0] - torch.from_numpy(v) @ y[i]).detach())  # noqa: E731
        found = minimize(objective, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
        assert np.allclose(found.x, x[i].numpy(), atol=1e-5)


def test_pull_says_when_it_is_not_there(psi):
    with pytest.raises(RangeError, match="after 1 steps"):
        psi.pull(torch.full((1, 2), 30.0, dtype=torch.float64), most=1)


def test_push_leaves_a_graph_only_where_one_is_wanted(psi):
    x = torch.randn(3, 2, generator=seeded(), dtype=torch.float64)
    with torch.no_grad():
        assert not any(part.requires_grad for part in psi.push(x))
    assert all(part.requires_grad for part in psi.push(x))


def test_event_mlp_hears_label_and_time_and_starts_at_zero():
    network = EventMLP((1, 2, 2), (3,), n_classes=2, timed=True)
    x, t, labels = torch.randn(2, 1, 2, 2, generator=seeded()), torch.tensor([1.0, 500.0]), torch.tensor([0, 1])
    assert torch.equal(network(x, t, labels), torch.zeros(2, 3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for weight in network.parameters():
            weight.data.add_(0.3 * torch.randn_like(weight))
    out = network(x, t, labels)
    assert (network(x, t, labels.flip(0)) - out).abs().max() > 0.1
    assert (network(x, t.flip(0), labels) - out).abs().max() > 0.1
    assert torch.allclose(network(x.flip(0), t.flip(0), labels.flip(0)), out.flip(0), atol=1e-6)  # rows do not mix
    assert EventMLP((2,), ())(torch.zeros(3, 2)).shape == (3,)


def test_event_mlp_refuses_what_it_was_not_made_for():
    with pytest.raises(ShapeError, match="x: got shape"):
        EventMLP((2,))(torch.zeros(3, 3))
    with pytest.raises(ShapeError, match="t: got NoneType"):
        EventMLP((2,), timed=True)(torch.zeros(3, 2))
    with pytest.raises(ShapeError, match="expected None"):
        EventMLP((2,))(torch.zeros(3, 2), torch.zeros(3))


def test_potentials_push_and_pull_in_inference_mode(psi):
    x = torch.randn(4, 2, generator=seeded(2), dtype=torch.float64)
    there, hessian = psi.push(x)
    with torch.inference_mode():
        again, same = psi.push(x.clone())
        back = psi.pull(again)
    assert torch.equal(again, there) and torch.equal(same, hessian)
    assert (back - x).abs().max() < 1e-7
