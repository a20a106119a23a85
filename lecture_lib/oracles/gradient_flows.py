"""Wasserstein gradient flow of the relative entropy to N(0, 1), for Gaussians: exact, and in JKO's implicit steps.

For U(x) = x^2/2 the flow of F = KL(. | e^-U) is the Ornstein-Uhlenbeck process dX = -X dt + sqrt(2) dW.
"""

from __future__ import annotations

import math

from lecture_lib.oracles.guided import Gaussian
from lecture_lib.tensors import check_count, check_number


def ornstein_uhlenbeck(start: Gaussian, time: float) -> Gaussian:
    """The exact flow: the mean decays by ``e^-t``, the variance's distance to 1 by ``e^-2t``."""
    decay = math.exp(-check_number("time", time, 0))
    return Gaussian(decay * start.mean, 1 + (start.var - 1) * decay**2)


def jko_step(start: Gaussian, tau: float) -> Gaussian:
    """``argmin KL(rho | N(0,1)) + W_2^2(rho, start)/(2 tau)``, which is Gaussian again.

    With ``W_2^2 = (m - m_k)^2 + (s - s_k)^2`` the derivatives in m and s vanish at
    ``m = m_k/(1 + tau)`` and ``(1 + tau) s^2 - s_k s - tau = 0``.

    Source: Jordan, Kinderlehrer & Otto 1998, eq. 11, for this functional.
    """
    tau, std = check_number("tau", tau, 0), math.sqrt(start.var)
    root = (std + math.sqrt(std**2 + 4 * tau * (1 + tau))) / (2 * (1 + tau))
    return Gaussian(start.mean / (1 + tau), root**2)


def jko_path(start: Gaussian, tau: float, steps: int) -> list[Gaussian]:
    """``start`` and what follows in ``steps`` steps of length tau."""
    path = [start]
    for _ in range(check_count("steps", steps)):
        path.append(jko_step(path[-1], tau))
    return path
