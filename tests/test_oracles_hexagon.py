"""Six sides of one field: all thirty edges, on four paths; and the quantiles that one side rests on, by scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import brentq

from lecture_lib.core import EDM, SCORE, RectifiedFlow, Trigonometric, VPLinear
from lecture_lib.errors import ShapeError
from lecture_lib.oracles import CORNERS, GaussianMixture, distribution, hexagon, quantile

WORLD = GaussianMixture([0.3, 0.5, 0.2], [[-2.0], [0.5], [2.0]], [0.1, 0.3, 0.05])


@pytest.mark.parametrize("path", [RectifiedFlow(), Trigonometric(), VPLinear(), EDM(3.0)], ids=repr)
def test_every_edge_of_the_hexagon(path):
    """Algebra and autograd to 1e-13, quadrature to 1e-11 (64 nodes), the ODE to ten times its tolerance of 1e-11, the
    fourth-order difference of quantiles to 2e-8: h^4 = 1e-12 times a fifth derivative, which a VP path makes large."""
    edges = hexagon(WORLD, path, points=7)
    assert len(edges) == 30
    for edge in edges:
        bound = 1e-13
        if edge.end.name == "energy":
            bound = 1e-11
        if edge.end.name == "flow map":
            bound = 1e-10
        if edge.start.name == "flow map":
            bound = 2e-8
        assert edge.error < bound, f"{edge.start.name} -> {edge.end.name}: {edge.error:.1e}"


def test_the_hexagon_sees_a_wrong_corner():
    """The popular slips, as corners: score without its 1/sigma, energy without its minus, velocity with x0 - eps."""
    path, t, x = RectifiedFlow(), torch.full((3,), 0.4, dtype=torch.float64), torch.tensor([[-1.0], [0.2], [1.5]])
    x = x.double()
    corner = {c.name: c for c in CORNERS}
    truth = corner["velocity"].exact(WORLD, path)(x, t)
    for start, wrong in (
        ("score", lambda x, t: -WORLD.denoise(path)(x, t).eps),
        ("energy", lambda x, t: WORLD.log_prob(x, path, t)),
        ("velocity", lambda x, t: -corner["velocity"].exact(WORLD, path)(x, t)),
    ):
        implied = corner[start].read(wrong, path)(x, t).velocity
        assert (implied - truth).abs().max() > 0.5


def test_component_velocity_is_the_mean_velocity():
    """E[dx_t/dt | x_t] by Monte Carlo: 4e6 draws, those that fall within 0.02 of the point; its error is about 0.01."""
    g, path = torch.Generator().manual_seed(0), RectifiedFlow()
    x0 = WORLD.sample(4_000_000, generator=g)[:, 0]
    eps = torch.randn(len(x0), generator=g, dtype=torch.float64)
    near = (0.6 * x0 + 0.4 * eps - 0.3).abs() < 0.02
    exact = {c.name: c for c in CORNERS}["velocity"].exact(WORLD, path)
    at = exact(torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64))
    assert float((eps - x0)[near].mean()) == pytest.approx(float(at), abs=0.02)


def test_quantiles_against_scipy():
    u, t = torch.tensor([0.01, 0.4, 0.97], dtype=torch.float64), torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    x = quantile(WORLD, u, RectifiedFlow(), t)
    for i in range(3):
        a, s = 1 - float(t[i]), float(t[i])
        below = lambda v, a=a, s=s: sum(  # noqa: E731
            w * stats.norm.cdf(v, a * m, np.sqrt(a * a * c + s * s))
            for w, m, c in zip((0.3, 0.5, 0.2), (-2.0, 0.5, 2.0), (0.1, 0.3, 0.05), strict=True)
        )
        assert float(x[i]) == pytest.approx(brentq(lambda v, i=i, f=below: f(v) - float(u[i]), -20, 20), abs=1e-10)
    assert torch.allclose(distribution(WORLD, x, RectifiedFlow(), t), u, atol=1e-14)


def test_the_hexagon_stays_on_the_line():
    with pytest.raises(ShapeError, match="numbers on the line"):
        hexagon(GaussianMixture([1.0], [[0.0, 0.0]], [1.0]), RectifiedFlow())


def test_rows_read_back_what_they_wrote():
    """``read`` and ``write`` of the linear corners are inverse to one another, on any field."""
    path, t, x = VPLinear(), torch.full((4,), 0.5, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)
    field = lambda x, t: x.sin()  # noqa: E731
    for corner in CORNERS[:4]:
        assert torch.allclose(corner.write(corner.read(field, path), path)(x, t), field(x, t), atol=1e-12)
    assert CORNERS[0].name == SCORE.name
