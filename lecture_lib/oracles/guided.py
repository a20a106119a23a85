"""Guidance where everything is known: the tilted density p_w, and what guided samplers really produce.

For p = N(m0, v0) and p(.|c) = N(mc, vc) the guided score is linear in x, so the guided ODE and SDE keep a Gaussian
Gaussian and their laws follow from two moment equations. They are *not* p_w: that is the heart of Lecture 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import RangeError
from lecture_lib.oracles.mixture import GaussianMixture
from lecture_lib.tensors import check_count, check_finite, check_number


@dataclass(frozen=True)
class Gaussian:
    """One-dimensional ``N(mean, var)``."""

    mean: float
    var: float

    def __post_init__(self):
        check_number("mean", self.mean)
        check_number("var", self.var, 1e-300)  # strong guidance makes needles: 0.25^w

    def density(self, x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """``p(x)``."""
        return torch.exp(-((x - self.mean) ** 2) / (2 * self.var)) / math.sqrt(2 * math.pi * self.var)

    def mixture(self) -> GaussianMixture:
        """The same law as a one-component mixture over ``(b, 1)``."""
        return GaussianMixture([1.0], [[self.mean]], [self.var])


def tilted_gaussian(p: Gaussian, p_c: Gaussian, w: float) -> Gaussian:
    """``p_w = p^(1-w) p_c^w`` normalised: precisions and precision-weighted means add up with weights 1-w and w.

    Raises:
        RangeError: the total precision is not positive: the product cannot be normalised, there is no distribution p_w.
    """
    w = check_number("w", w)
    precision = (1 - w) / p.var + w / p_c.var
    if precision <= 0:
        raise RangeError(
            f"w: p^(1-w) p_c^w has precision {precision:g} at w = {w:g}: not normalisable, no such density"
        )
    return Gaussian(((1 - w) * p.mean / p.var + w * p_c.mean / p_c.var) / precision, 1 / precision)


def guided_ode_variance(p: Gaussian, p_c: Gaussian, w: float) -> float:
    """Variance of the guided probability-flow ODE's samples: ``vc^w v0^(1-w)``, a *geometric* mean.

    Follow x in VE coordinates: d log var / d sigma^2 = w/(vc + sigma^2) + (1-w)/(v0 + sigma^2), from infinity.
    """
    w = check_number("w", w)
    return p_c.var**w * p.var ** (1 - w)


def guided_moments(p: Gaussian, p_c: Gaussian, w: float, *, stochastic: float = 0.0, noise: float = 1e6) -> Gaussian:
    """The Gaussian that guided sampling ends in, from its two moment equations, solved by scipy.

    ``stochastic = 0`` is the probability-flow ODE, ``1`` the reverse SDE, anything between or above mixes. In VE
    coordinates with q = sigma^2 as the clock, the reverse process falls by ``(1 + a)/2 s_w(x, q) dq + sqrt(a) dW`` with
    ``a = stochastic``, starting from ``N(0, noise^2)``: every path shares this law.
    A finite start costs the mean about ``1/noise``: 1.4975 from a VP path's sigma/alpha = 152, where the limit is 1.5.
    """
    from scipy.integrate import solve_ivp

    w, a = check_number("w", w), check_number("stochastic", stochastic, 0)

    def slopes(log_q: float, moments: np.ndarray) -> list[float]:
        mean, var = moments
        q = math.exp(log_q)
        pull = w / (p_c.var + q) + (1 - w) / (p.var + q)
        target = w * p_c.mean / (p_c.var + q) + (1 - w) * p.mean / (p.var + q)
        # d/dq, times q for the clock log q; falling q means adding noise a dq and contracting by (1+a)/2 pull dq.
        return [q * (1 + a) / 2 * (pull * mean - target), q * ((1 + a) * pull * var - a)]

    span = (2 * math.log(noise), math.log(1e-12))
    out = solve_ivp(slopes, span, [0.0, noise**2], method="DOP853", rtol=1e-12, atol=1e-14)
    return Gaussian(float(out.y[0, -1]), float(out.y[1, -1]))


@dataclass(frozen=True)
class Tilted:
    """``p_w(x) = p(x)^(1-w) p(x|c)^w / Z`` for mixtures over one dimension, normalised and sampled on a grid.

    Args:
        p, p_c: the law and its conditional, both over events of shape ``(1,)``.
        w: guidance scale.
        low, high, n: the grid; it must hold all the mass, and the constructor checks that it does.
    """

    p: GaussianMixture
    p_c: GaussianMixture
    w: float
    low: float = -12.0
    high: float = 12.0
    n: int = 4001

    def __post_init__(self):
        check_number("w", self.w)
        check_count("n", self.n, 101)
        log_density = self.log_unnormalised(self.grid)
        edge = float(torch.maximum(log_density[0], log_density[-1]) - log_density.max())
        if edge > -12:  # e^-12: the tails carry less than a millionth
            raise RangeError(
                f"w: at w = {self.w:g} the product p^(1-w) p_c^w does not decay inside [{self.low:g}, {self.high:g}]: "
                "not normalisable there, or widen the grid"
            )
        mass = (log_density - log_density.max()).exp()
        if not torch.isclose(2 * mass[::2].sum(), mass.sum(), rtol=1e-3):  # every second point must tell the same
            raise RangeError(
                f"n: at w = {self.w:g} the peak is narrower than {self.n} points show; use more or a closer range"
            )

    @property
    def grid(self) -> Float[Tensor, " n"]:
        """The points on which the density is tabulated."""
        return torch.linspace(self.low, self.high, self.n, dtype=torch.float64)

    def log_unnormalised(self, x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """``(1-w) log p(x) + w log p(x|c)``."""
        x = x[:, None]
        return (1 - self.w) * self.p.log_prob(x) + self.w * self.p_c.log_prob(x)

    def density(self, x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """``p_w(x)``, normalised by the trapezoid rule."""
        on_grid = self.log_unnormalised(self.grid)
        log_z = torch.trapezoid((on_grid - on_grid.max()).exp(), self.grid).log() + on_grid.max()
        return (self.log_unnormalised(x) - log_z).exp()

    def moment(self, f: Callable[[Tensor], Tensor]) -> float:
        """``E[f(x)]`` under p_w."""
        return float(torch.trapezoid(f(self.grid) * self.density(self.grid), self.grid))

    def mean(self) -> float:
        """``E[x]``."""
        return self.moment(lambda x: x)

    def var(self) -> float:
        """``Var[x]``."""
        mean = self.mean()
        return self.moment(lambda x: (x - mean) ** 2)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, " n 1"]:
        """``n`` draws by inverting the tabulated distribution function."""
        x, density = self.grid, self.density(self.grid)
        cdf = torch.cat([density.new_zeros(1), torch.cumulative_trapezoid(density, x)])
        u = torch.rand(check_count("n", n), generator=generator, dtype=torch.float64) * cdf[-1]
        i = torch.searchsorted(check_finite("cdf", cdf), u).clamp(1, len(x) - 1)
        return (x[i - 1] + (x[i] - x[i - 1]) * (u - cdf[i - 1]) / (cdf[i] - cdf[i - 1]).clamp(min=1e-300))[:, None]
