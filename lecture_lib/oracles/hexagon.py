"""The hexagon of equivalences: score, noise, velocity, data, energy and flow map are one field seen from six sides.

Each corner is a field of (x, t) that is known exactly here, and nearly always *by a formula of its own*: the noised
mixture's gradient, its two posterior means, the motion of its components, its log-density, and its quantiles (score and
noise alone share theirs, up to a factor). A corner is left by reading
the common prediction (x0, eps) off its field, and entered by writing its field from that prediction; every edge is one
reading and one writing, and its error is what the journey misses the exact corner by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lecture_lib.core.parameterization import EPS, SCORE, VELOCITY, X0, Parameterization
from lecture_lib.core.paths import Path
from lecture_lib.core.prediction import Denoise, Prediction
from lecture_lib.errors import ShapeError
from lecture_lib.oracles.flow import flow_map
from lecture_lib.oracles.mixture import GaussianMixture
from lecture_lib.oracles.quantiles import distribution, quantile
from lecture_lib.tensors import check_count

Field = Callable[..., Tensor]
"""``(x (b, d), t (b,)) -> (b, ...)``; a flow map's takes (x, t, s)."""


@dataclass(frozen=True)
class Corner:
    """One side of the field.

    Attributes:
        name, formula: for tables.
        exact: (world, path) -> the field, from the mixture, not from another corner.
        read: (field, path) -> the prediction it implies.
        write: (prediction, path) -> the field it implies.
        look: (field, x, t) -> what two fields are compared in.
    """

    name: str
    formula: str
    exact: Callable[[GaussianMixture, Path], Field]
    read: Callable[[Field, Path], Denoise]
    write: Callable[[Denoise, Path], Field]
    look: Callable[[Field, Tensor, Tensor], Tensor] = lambda field, x, t: field(x, t)


@dataclass(frozen=True)
class Edge:
    """From one corner to another: ``error`` is the largest difference, in units of the largest exact value."""

    start: Corner
    end: Corner
    error: float


def hexagon(
    world: GaussianMixture, path: Path, times: Sequence[float] = (0.2, 0.5, 0.8), *, points: int = 21
) -> list[Edge]:
    """All 30 edges, measured at quantiles of x_t at the given times (shares of the path's t_max, away from its ends).

    Raises:
        ShapeError: a world of other than single numbers: only there is the flow map known without an ODE.
    """
    if world.event != (1,):
        raise ShapeError(f"world: got events of shape {world.event}, expected (1,), numbers on the line")
    u = torch.linspace(0.01, 0.99, check_count("points", points, 2), dtype=torch.float64).repeat(len(times))
    t = torch.tensor(times, dtype=torch.float64).repeat_interleave(points) * path.t_max
    x = quantile(world, u, path, t)[:, None]
    exact = {corner.name: corner.exact(world, path) for corner in CORNERS}
    edges = []
    for start in CORNERS:
        denoise = start.read(exact[start.name], path)
        for end in CORNERS:
            if end is not start:
                truth = end.look(exact[end.name], x, t)
                error = (end.look(end.write(denoise, path), x, t) - truth).abs().max() / truth.abs().max()
                edges.append(Edge(start, end, float(error)))
    return edges


# Score, noise, velocity, data: rows of one 2 x 2 system ------------------------------------------------------------


def _reader(row: Parameterization) -> Callable[[Field, Path], Denoise]:
    return lambda field, path: lambda x, t: Prediction.decoded(path, t, x, field(x, t), row)


def _writer(name: str) -> Callable[[Denoise, Path], Field]:
    return lambda denoise, path: lambda x, t: getattr(denoise(x, t), name)


def _component_velocity(world: GaussianMixture, path: Path) -> Field:
    """Each component N(m, S) moves as a whole, ``m' + S' S^-1 (x - m)/2``; at x their velocities are averaged."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        c = path.coeffs(t)
        alpha, sigma, dalpha, dsigma = (v[:, None, None] for v in (c.alpha, c.sigma, c.dalpha, c.dsigma))
        spread = alpha**2 * world.variances + sigma**2  # (b, k, d), along the axes
        growth = 2 * (alpha * dalpha * world.variances + sigma * dsigma)
        local = torch.einsum("kde,bkd->bke", world.axes, x[:, None] - alpha * world.means)
        stretch = torch.einsum("kde,bke->bkd", world.axes, growth / spread * local / 2)
        joint = world.log_weights + torch.distributions.Normal(0.0, spread.sqrt()).log_prob(local).sum(2)
        return torch.einsum("bk,bkd->bd", joint.softmax(1), dalpha * world.means + stretch)

    return velocity


# Energy: a derivative there, a line integral back ------------------------------------------------------------------


def _read_energy(energy: Field, path: Path) -> Denoise:
    """``score = -grad E``."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return -torch.autograd.grad(energy(x, t).sum(), x)[0]

    return _reader(SCORE)(score, path)


def _write_energy(denoise: Denoise, path: Path, nodes: int = 64) -> Field:
    """``E(x) - E(0) = -int_0^1 score(u x).x du``, by Gauss and Legendre."""
    at, weights = np.polynomial.legendre.leggauss(nodes)

    def energy(x: Tensor, t: Tensor) -> Tensor:
        steps = ((0.5 * w, 0.5 * (a + 1)) for a, w in zip(at, weights, strict=True))
        return -sum(w * (denoise(u * x, t).score * x).sum(1) for w, u in steps)

    return energy


def _above_origin(energy: Field, x: Tensor, t: Tensor) -> Tensor:
    """An energy means something up to a constant."""
    return energy(x, t) - energy(torch.zeros_like(x), t)


# Flow map: a time derivative there, an ODE back --------------------------------------------------------------------


def _quantile_map(world: GaussianMixture, path: Path) -> Field:
    """On the line the flow keeps the order of points, so it takes quantiles to quantiles: no ODE is solved."""

    def jump(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return quantile(world, distribution(world, x[:, 0], path, t), path, s)[:, None]

    return jump


def _read_flow_map(jump: Field, path: Path, h: float = 1e-3) -> Denoise:
    """``velocity = d/ds x_s`` at s = t, by a difference of fourth order."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        step = h * path.t_max
        near, far = (jump(x, t, t + k * step) - jump(x, t, t - k * step) for k in (1, 2))
        return (8 * near - far) / (12 * step)

    return _reader(VELOCITY)(velocity, path)


def _write_flow_map(denoise: Denoise, path: Path) -> Field:
    return lambda x, t, s: flow_map(denoise, path, x, t, s)


CORNERS = (
    Corner(
        "score",
        r"\nabla\log p_t",
        exact=lambda world, path: lambda x, t: world.score(x, path, t),
        read=_reader(SCORE),
        write=_writer("score"),
    ),
    Corner(
        "noise",
        r"\mathbb E[\epsilon\mid x_t]",
        exact=lambda world, path: lambda x, t: world.denoise(path)(x, t).eps,
        read=_reader(EPS),
        write=_writer("eps"),
    ),
    Corner(
        "velocity",
        r"\mathbb E[\dot x_t\mid x_t]",
        exact=_component_velocity,
        read=_reader(VELOCITY),
        write=_writer("velocity"),
    ),
    Corner(
        "data",
        r"\mathbb E[x_0\mid x_t]",
        exact=lambda world, path: lambda x, t: world.denoise(path)(x, t).x0,
        read=_reader(X0),
        write=_writer("x0"),
    ),
    Corner(
        "energy",
        r"-\log p_t",
        exact=lambda world, path: lambda x, t: -world.log_prob(x, path, t),
        read=_read_energy,
        write=_write_energy,
        look=_above_origin,
    ),
    Corner(
        "flow map",
        r"\Phi_{t\to s}",
        exact=_quantile_map,
        read=_read_flow_map,
        write=_write_flow_map,
        look=lambda jump, x, t: jump(x, t, t / 2),
    ),
)
