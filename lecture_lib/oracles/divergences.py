"""How far apart two densities on the line are: f-divergences by quadrature, and Wasserstein distances.

    D_f(p | q) = int q f(p/q) dx          f convex, f(1) = 0

An f-divergence compares the two densities point by point. Where they do not overlap it has nothing to compare: it is
infinite or at its ceiling, and does not say which way to go. A Wasserstein distance compares *places*.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.paths import Path
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.oracles.mixture import GaussianMixture
from lecture_lib.oracles.quantiles import quantile
from lecture_lib.tensors import check_count, check_number


@dataclass(frozen=True)
class FDivergence:
    """``int integrand(log p, log q)``, which is ``int q f(p/q)`` written so that nothing overflows.

    Attributes:
        name, formula: what it is called, and its f(u) with u = p/q.
        integrand: ``(log p, log q) -> q f(p/q)``, element by element.
    """

    name: str
    formula: str
    integrand: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, log_p: Float[Tensor, " n"], log_q: Float[Tensor, " n"], width: float = 1.0) -> Float[Tensor, ""]:
        """The divergence of two tables: probabilities (width 1), or densities on a grid of that spacing.

        Raises:
            ShapeError: tables of different shape.
        """
        if log_p.shape != log_q.shape:
            raise ShapeError(f"log_q: got shape {tuple(log_q.shape)}, expected that of log_p, {tuple(log_p.shape)}")
        return self.integrand(log_p, log_q).sum() * width


def _relative_entropy(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``p log(p/q)``, which is 0 where p is, whatever q."""
    p = log_p.exp()
    return p * (log_p - log_q).masked_fill(p == 0, 0.0)


def _jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (_relative_entropy(log_p, log_m) + _relative_entropy(log_q, log_m)) / 2


def _chi_square(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``(p - q)^2/q``, which is 0 where both are."""
    square = (2 * log_p - log_q).masked_fill(log_p == -math.inf, -math.inf).exp()
    return square - 2 * log_p.exp() + log_q.exp()


KL = FDivergence("KL", r"u\log u", _relative_entropy)
REVERSE_KL = FDivergence("reverse KL", r"-\log u", lambda p, q: _relative_entropy(q, p))
JENSEN_SHANNON = FDivergence("Jensen-Shannon", r"\tfrac12\big(u\log u-(u+1)\log\tfrac{u+1}2\big)", _jensen_shannon)
PEARSON = FDivergence("Pearson chi^2", r"(u-1)^2", _chi_square)
NEYMAN = FDivergence("Neyman chi^2", r"(u-1)^2/u", lambda p, q: _chi_square(q, p))
HELLINGER = FDivergence("squared Hellinger", r"(\sqrt u-1)^2", lambda p, q: ((p / 2).exp() - (q / 2).exp()).square())
TOTAL_VARIATION = FDivergence("total variation", r"\tfrac12|u-1|", lambda p, q: (p.exp() - q.exp()).abs() / 2)
F_DIVERGENCES = (KL, REVERSE_KL, JENSEN_SHANNON, PEARSON, NEYMAN, HELLINGER, TOTAL_VARIATION)


def divergence(
    kind: FDivergence,
    p: GaussianMixture,
    q: GaussianMixture,
    path: Path | None = None,
    t: float = 0.0,
    *,
    points: int = 20_001,
) -> Float[Tensor, ""]:
    """``D_f(p_t | q_t)`` of two mixtures on the line, noised to time ``t`` of ``path`` if there is one.

    Quadrature over 12 standard deviations beyond all means. Differentiable in whatever the two were made from.

    Raises:
        ShapeError: a mixture of other than single numbers.
        RangeError: a component is narrower than the points are apart.
    """
    alpha, sigma = (1.0, 0.0) if path is None else ((at := path.at(t)).alpha, at.sigma)
    for name, world in (("p", p), ("q", q)):
        if world.event != (1,):
            raise ShapeError(f"{name}: got events of shape {world.event}, expected (1,), numbers on the line")
    means = alpha * torch.cat([p.means, q.means]).detach()
    stds = (alpha**2 * torch.cat([p.variances, q.variances]).detach() + sigma**2) ** 0.5
    low, high = float((means - 12 * stds).min()), float((means + 12 * stds).max())
    needed = math.ceil((high - low) / float(stds.min())) + 1
    if check_count("points", points, 3) < needed:  # one standard deviation apart, sums are exact to eight digits
        raise RangeError(f"points: got {points}, too few for the narrowest component; expected at least {needed}")
    x = torch.linspace(low, high, points, dtype=torch.float64).to(p.means)
    times = None if path is None else torch.full_like(x, t)
    return kind(p.log_prob(x[:, None], path, times), q.log_prob(x[:, None], path, times), float(x[1] - x[0]))


def wasserstein(p: GaussianMixture, q: GaussianMixture, power: float = 1.0, *, points: int = 20_001) -> float:
    """``W_power(p, q)`` of two mixtures on the line: the gap between their quantile functions.

    To four digits for powers 1 and 2. The tails beyond the outermost of the points are not seen, and a high power is
    made there: W_8 of N(0, 1) and N(0, 4) comes out 0.2 % short.

    Raises:
        ShapeError: a mixture of other than single numbers.
        RangeError: power below 1.
    """
    power = check_number("power", power, 1)
    u = (torch.arange(check_count("points", points), dtype=torch.float64) + 0.5) / points
    return float((quantile(p, u) - quantile(q, u)).abs().pow(power).mean() ** (1 / power))
