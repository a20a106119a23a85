"""The smallest game: data at 0, a generator that makes one point theta, a critic D(x) = psi x that knows one slope.

    theta' = fooled(psi theta) psi                      the generator climbs the critic
    psi'   = -caught(psi theta) theta - penalty'(psi)   the critic turns towards the data, and pays for its slope

Everything that a game can do wrong is here, and can be computed. At (0, 0) the Jacobian of the field is
``[[0, a], [-a, -k]]`` with a = 1/2 on logits and 1 for Wasserstein's, k = penalty''(0), and eigenvalues
``(-k +- sqrt(k^2 - 4 a^2))/2``. Without a penalty they are imaginary: nothing pulls inwards, and steps of both players
at once, which go along tangents, lead outwards.

Source: Mescheder, Geiger & Nowozin 2018 (1801.04406), sections 2 to 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from lecture_lib.errors import CourseError, SingularError
from lecture_lib.tensors import check_count, check_number

Scalar = Float[Tensor, ""]


@dataclass(frozen=True)
class DiracGame:
    """One of the games, as a vector field on the plane of (theta, psi).

    Attributes:
        name: for legends.
        fooled: ``psi theta -> -dL_G/d(psi theta)``, how hard the generator climbs.
        caught: ``psi theta -> dL_D/d(psi theta)``, how hard the critic pushes down what the generator made.
        penalty: derivative of what the critic pays for its slope psi.
    """

    name: str
    fooled: Callable[[Scalar], Scalar]
    caught: Callable[[Scalar], Scalar]
    penalty: Callable[[Scalar], Scalar]

    def push(self, state: Float[Tensor, " 2"]) -> Float[Tensor, " 2"]:
        """(theta', psi'): minus the gradient of each player's own loss."""
        theta, psi = state
        u = psi * theta
        return torch.stack([self.fooled(u) * psi, -self.caught(u) * theta - self.penalty(psi)])

    def flow(self, theta: float, psi: float, *, time: float, steps: int) -> Float[Tensor, " n+1 2"]:
        """Both players at infinitely small rates, at ``steps + 1`` equally spaced times (float64, by scipy's DOP853).

        Raises:
            CourseError: the solver gave up.
        """
        from scipy.integrate import solve_ivp

        def field(_, state: np.ndarray) -> np.ndarray:
            return self.push(torch.from_numpy(state)).numpy()

        times = np.linspace(0, check_number("time", time, 1e-9), check_count("steps", steps) + 1)
        found = solve_ivp(field, times[[0, -1]], [theta, psi], method="DOP853", t_eval=times, rtol=1e-9, atol=1e-12)
        if not found.success:
            raise CourseError(f"flow: the ODE solver gave up: {found.message}")
        return torch.from_numpy(found.y.T.copy())

    def descent(
        self, theta: float, psi: float, *, rate: float, rounds: int, critic_updates: int = 1
    ) -> Float[Tensor, " n+1 2"]:
        """What training does: in each round so many gradient steps of the critic, then one of the generator."""
        check_count("critic_updates", critic_updates)
        critic, generator = torch.tensor([[0.0, rate], [rate, 0.0]], dtype=torch.float64)
        return self._steps(theta, psi, (*(critic,) * critic_updates, generator), rounds)

    def simultaneous_descent(self, theta: float, psi: float, *, rate: float, rounds: int) -> Float[Tensor, " n+1 2"]:
        """Gradient steps of both at once: each answers where the other has been."""
        return self._steps(theta, psi, (torch.tensor([rate, rate], dtype=torch.float64),), rounds)

    def _steps(self, theta: float, psi: float, turns: tuple[Tensor, ...], rounds: int) -> Tensor:
        states = [torch.tensor([theta, psi], dtype=torch.float64)]
        for _ in range(check_count("rounds", rounds)):
            x = states[-1]
            for rates in turns:
                x = x + rates * self.push(x)
            states.append(x)
        return torch.stack(states)

    def eigenvalues(self) -> Complex[Tensor, " 2"]:
        """Of the field's Jacobian at (0, 0), where the generator makes data and the critic is flat.

        Raises:
            SingularError: the field jumps there.
        """
        flat = torch.zeros((), dtype=torch.float64)
        if self.penalty(flat + 1e-9).abs() > 1e-6:
            raise SingularError(
                f"eigenvalues: the penalty of {self.name!r} has a kink at slope 0, expected a smooth one"
            )
        return torch.linalg.eigvals(torch.autograd.functional.jacobian(self.push, torch.zeros(2, dtype=torch.float64)))


def _logistic(name: str, penalty: Callable[[Scalar], Scalar]) -> DiracGame:
    return DiracGame(name, lambda u: torch.sigmoid(-u), torch.sigmoid, penalty)


def _linear(name: str, penalty: Callable[[Scalar], Scalar]) -> DiracGame:
    return DiracGame(name, torch.ones_like, torch.ones_like, penalty)


def _times(k: float, psi: Scalar) -> Scalar:
    return k * psi


NON_SATURATING = _logistic("non-saturating", torch.zeros_like)
"""Spirals in, ever more slowly: ``d(theta^2 + psi^2)/dt = -2 u tanh(u/2)`` with u = psi theta, on average -r^4/8: r
falls like sqrt(8/t). The eigenvalues +-i/2 cannot tell. Steps at once, of rate h, add h r^2/4 and so end on a circle of
radius sqrt(2 h).
"""
WASSERSTEIN = _linear("Wasserstein", torch.zeros_like)
"""Circles: theta^2 + psi^2 is conserved."""


def dirac_r1(gamma: float = 1.0) -> DiracGame:
    """Non-saturating with ``gamma/2 D'(0)^2``: k = gamma. Critically damped at 1: both eigenvalues -1/2."""
    return _logistic(f"R1, gamma = {gamma:g}", partial(_times, check_number("gamma", gamma, 0)))


def dirac_r1_r2(gamma: float = 1.0) -> DiracGame:
    """R3GAN's game, slopes penalised at data and at theta: k = 2 gamma, since a line has one slope everywhere.

    Relativistic pairs change nothing here: D(0) = 0 for all critics of this world, so that D(G) - D(x) = D(G).
    """
    return _logistic(f"R1 + R2, gamma = {gamma:g}", partial(_times, 2 * check_number("gamma", gamma, 0)))


def dirac_gradient_penalty(penalty: float = 10.0) -> DiracGame:
    """WGAN-GP: ``lambda (|D'| - 1)^2`` keeps the critic away from slope 0, where the equilibrium is.

    For lambda < 1 the orbit ends on a cycle. From 1 on the critic cannot turn round at all, since its slope would have
    to pass 0; the generator, sent the wrong way, runs off until theta = +-2 lambda pulls as hard as the penalty holds.
    """
    weight = check_number("penalty", penalty, 0)
    return _linear(f"WGAN-GP, lambda = {weight:g}", lambda psi: 2 * weight * (psi.abs() - 1) * psi.sign())
