"""Parameterizations whose x0 is the identity where the trajectories end: f(x, end) = x, by construction.

    f(x_t, t) = c_skip(t) x_t/alpha + c_out(t) y        c_skip(end) = 1,  c_out(end) = 0

In every parameterization x0 is such a sum, so a boundary is one more row of the same 2x2 system, given by its inverse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lecture_lib.core import Coeffs, Parameterization
from lecture_lib.tensors import Number, check_number

Scalings = Callable[[Coeffs], tuple[Number, Number]]
"""``coeffs -> (c_skip, c_out)``."""


@dataclass(frozen=True)
class Boundary(Parameterization):
    """``x0 = c_skip x_t/alpha + c_out y``; eps is what remains of x_t. Finite at the end, where y itself is not."""

    scalings: Scalings

    def inverse(self, c: Coeffs) -> tuple[tuple[Number, Number], tuple[Number, Number]]:
        skip, out = self.scalings(c)
        return (skip / c.alpha, out), ((1 - skip) / c.sigma, -c.alpha * out / c.sigma)


def boundary(name: str, formula: str, scalings: Scalings) -> Boundary:
    """The parameterization with these scalings: ``y = (x0 - c_skip x_t/alpha) / c_out``."""

    def row(c: Coeffs) -> tuple[Number, Number]:
        skip, out = scalings(c)
        return (1 - skip) / out, -skip * c.level / out

    return Boundary(name, formula, row, scalings)


def consistency_scalings(sigma_data: float = 0.5, end: float = 0.002) -> Boundary:
    """Song et al. 2023's: EDM's scalings with ``t - end`` where that makes f(x, end) = x.

        c_skip = s^2 / ((t - end)^2 + s^2),      c_out = s (t - end) / sqrt(t^2 + s^2),      s = sigma_data

    with t the noise level sigma/alpha, on any path. EDM's own, without ``- end``, miss the boundary: at t = 0.002 and
    s = 0.5 they give (0.999984, 0.0020).

    Source: Song et al. 2023, appendix C.
    """
    s, end = check_number("sigma_data", sigma_data, 1e-6), check_number("end", end, 0)

    def scalings(c: Coeffs) -> tuple[Number, Number]:
        beyond, t = c.level - end, c.level
        return s**2 / (beyond**2 + s**2), s * beyond / (t**2 + s**2) ** 0.5

    return boundary("consistency", r"y=\big(x_{end}-c_{skip}x_t/\alpha\big)/c_{out}", scalings)


def latent_scalings(base: Parameterization, sigma_data: float = 0.5, scaling: float = 10.0) -> Parameterization:
    """LCM's: ``f = c_skip x_t + c_out x0_hat`` around the x0 of a network that goes on predicting ``base``.

        c_skip = s^2 / ((scaling k)^2 + s^2),    c_out = scaling k / sqrt((scaling k)^2 + s^2),    k = 1000 t/t_max

    There is no factor s in c_out, which goes to 1: from timestep 20 of 1000 on f *is* x0_hat, to five digits.

    Source: Luo et al. 2023 (2310.04378), eq. 9, and their training script.
    """
    s = check_number("sigma_data", sigma_data, 1e-6)
    scaling = check_number("scaling", scaling, 1e-6)

    def scalings(c: Coeffs) -> tuple[Number, Number]:
        k = scaling * 1000 * c.time / c.path.t_max
        root = (k**2 + s**2) ** 0.5
        return (s / root) ** 2, k / root

    return Wrapped(f"latent consistency on {base.name}", base.formula, base.row, base, scalings)


@dataclass(frozen=True)
class Wrapped(Parameterization):
    """``x0 = c_skip x_t + c_out x0_hat``, with x0_hat as ``base`` decodes it; eps is what remains of x_t."""

    base: Parameterization
    scalings: Scalings

    def inverse(self, c: Coeffs) -> tuple[tuple[Number, Number], tuple[Number, Number]]:
        skip, out = self.scalings(c)
        (on_x, on_y), _ = self.base.inverse(c)
        on_x, on_y = skip + out * on_x, out * on_y
        return (on_x, on_y), ((1 - c.alpha * on_x) / c.sigma, -c.alpha * on_y / c.sigma)
