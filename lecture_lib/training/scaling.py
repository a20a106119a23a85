"""Scaling laws: power laws with an offset, fitted to measured losses, and what they say about the best size of a model.

    L(C)    = E + A C^-α                    one variable: compute, parameters or samples
    L(N, D) = E + A N^-α + B D^-β           parameters and samples (Hoffmann et al. 2022, eq. 2)

Both are sums of powers, so the log of each is a logsumexp of terms that are linear in (log A, α, log B, β, log E).
They are fitted as in Hoffmann et al. 2022, appendix D.3: least Huber distance between log losses, by L-BFGS from
several starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float

from lecture_lib.errors import NonFiniteError, RangeError, ShapeError

Numbers = Sequence[float] | Float[np.ndarray, " n"]
DELTA = 1e-3  # residuals of log L up to this count by their square, larger ones by their size (appendix D.3)


@dataclass(frozen=True)
class PowerLaw:
    """L(x) = floor + scale x^-exponent.

    Attributes:
        floor: E, the loss that no amount of x removes; 0 for a straight line in log-log axes.
        scale, exponent: A and α.
    """

    floor: float
    scale: float
    exponent: float

    def __call__(self, x: Numbers | float) -> Float[np.ndarray, " n"]:
        return self.floor + self.scale * np.asarray(x, dtype=np.float64) ** -self.exponent


@dataclass(frozen=True)
class ParametricLaw:
    """L(N, D) = floor + size_scale N^-size_exponent + data_scale D^-data_exponent: E, A, α, B, β of Hoffmann et al."""

    floor: float
    size_scale: float
    size_exponent: float
    data_scale: float
    data_exponent: float

    def __call__(self, n: Numbers | float, d: Numbers | float) -> Float[np.ndarray, " n"]:
        n, d = np.asarray(n, dtype=np.float64), np.asarray(d, dtype=np.float64)
        return self.floor + self.size_scale * n**-self.size_exponent + self.data_scale * d**-self.data_exponent

    @property
    def growth(self) -> float:
        """a in N* ∝ C^a: β / (α + β)."""
        return self.data_exponent / (self.size_exponent + self.data_exponent)

    def best(self, compute: float, cost: float = 6.0) -> tuple[float, float]:
        """(N, D) of least loss among all with ``cost N D = compute``.

        N* = (αA / βB)^(1 / (α + β)) (C / cost)^(β / (α + β)), and D* = C / (cost N*).

        Args:
            cost: operations per parameter and sample; 6 per parameter and token of a transformer.

        Source: Hoffmann et al. 2022, eq. 4.
        """
        ratio = self.size_exponent * self.size_scale / (self.data_exponent * self.data_scale)
        size = ratio ** (1 / (self.size_exponent + self.data_exponent)) * (compute / cost) ** self.growth
        return size, compute / (cost * size)


def fit_power_law(x: Numbers, losses: Numbers) -> PowerLaw:
    """E + A x^-α through measured losses.

    Args:
        x: (n,), positive, with at least three different values: the law has three numbers.
        losses: (n,), positive.

    Raises:
        ShapeError: lengths differ, or too few different x.
        RangeError: a number that is not positive. NonFiniteError: NaN or infinity.
    """
    x, losses = _columns(3, x=x, losses=losses)
    middle = np.log(x).mean()  # x is measured in its geometric mean: otherwise log A and α could hardly be told apart
    log_x = np.log(x) - middle
    design = np.zeros((2, len(x), 3))  # terms (log A - α log x, log E), points, (log A, α, log E)
    design[0, :, 0], design[0, :, 1], design[1, :, 2] = 1.0, -log_x, 1.0
    starts = [
        (np.log((1 - floor) * losses.min()), exponent, np.log(floor * losses.min()))
        for floor, exponent in product((0.1, 0.9), (0.2, 0.8))
    ]
    log_a, alpha, log_e = _fit(design, np.log(losses), starts)
    return PowerLaw(float(np.exp(log_e)), float(np.exp(log_a + alpha * middle)), float(alpha))


def fit_straight_line(x: Numbers, losses: Numbers) -> PowerLaw:
    """A x^-α, a straight line in log-log axes: the fit to distrust. Where the truth has a floor, it finds an exponent
    that is too small and promises losses below the floor. Arguments and errors as in ``fit_power_law``."""
    x, losses = _columns(2, x=x, losses=losses)
    middle = np.log(x).mean()
    design = np.stack([np.ones_like(x), middle - np.log(x)], axis=-1)[None]
    log_a, alpha = _fit(design, np.log(losses), [(np.log(losses).mean(), exponent) for exponent in (0.0, 0.5)])
    return PowerLaw(0.0, float(np.exp(log_a + alpha * middle)), float(alpha))


def fit_parametric(n: Numbers, d: Numbers, losses: Numbers) -> ParametricLaw:
    """E + A N^-α + B D^-β through measured losses (Hoffmann et al. 2022, approach 3).

    Args:
        n, d: (n,) parameters and samples of each run, at least three different values of each.
        losses: (n,) final losses.

    Raises:
        ShapeError, RangeError, NonFiniteError: as in ``fit_power_law``.
    """
    n, d, losses = _columns(3, n=n, d=d, losses=losses)
    middles = np.log(n).mean(), np.log(d).mean()
    design = np.zeros((3, len(n), 5))  # (log A, α, log B, β, log E)
    for term, (values, middle) in enumerate(zip((n, d), middles, strict=True)):
        design[term, :, 2 * term], design[term, :, 2 * term + 1] = 1.0, middle - np.log(values)
    design[2, :, 4] = 1.0
    starts = [
        (np.log(share * (1 - floor) * losses.min()), alpha, np.log((1 - share) * (1 - floor) * losses.min()), beta,
         np.log(floor * losses.min()))
        for floor, share, alpha, beta in product((0.3, 0.8), (0.5,), (0.2, 0.6), (0.2, 0.6))
    ]  # fmt: skip
    log_a, alpha, log_b, beta, log_e = _fit(design, np.log(losses), starts)
    scales = np.exp(log_a + alpha * middles[0]), np.exp(log_b + beta * middles[1])
    return ParametricLaw(float(np.exp(log_e)), float(scales[0]), float(alpha), float(scales[1]), float(beta))


def _columns(least: int, **columns: Numbers) -> list[np.ndarray]:
    """The columns as float64 arrays of one length, positive and finite; all but the losses with enough values."""
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise ShapeError(f"{', '.join(arrays)}: got shapes {sorted(shapes)}, expected (n,) for each")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise NonFiniteError(f"{name}: contains NaN or infinity, expected finite numbers")
        if not (array > 0).all():
            raise RangeError(f"{name}: got {array.min():g}, expected positive numbers")
        if name != "losses" and len(np.unique(array)) < least:
            raise ShapeError(f"{name}: got {len(np.unique(array))} different values, expected at least {least}")
    return list(arrays.values())


def _fit(design: Float[np.ndarray, "k n p"], log_losses: Float[np.ndarray, " n"], starts: Iterable) -> np.ndarray:
    """θ of least sum_i Huber(log L_i - logsumexp_k(design[k, i] · θ)), the best of all starts."""
    from scipy.optimize import minimize  # half a second of imports, paid by who fits

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        terms = design @ theta  # (k, n)
        predicted = np.logaddexp.reduce(terms)  # (n,)
        residual = predicted - log_losses
        slope = np.clip(residual, -DELTA, DELTA)  # derivative of the Huber distance
        huber = slope * (residual - slope / 2)
        share = np.exp(terms - predicted)  # of each term in the predicted loss
        # In units of DELTA, or L-BFGS takes the small numbers for convergence: that is how Hoffmann et al. got
        # estimates that their own data do not support (Besiroglu et al. 2024).
        return huber.sum() / DELTA, np.einsum("n,kn,knp->p", slope, share, design) / DELTA

    options = {"maxiter": 2000, "ftol": 1e-13, "gtol": 1e-9}
    found = [minimize(objective, start, jac=True, method="L-BFGS-B", options=options) for start in starts]
    return min(found, key=lambda result: result.fun).x


@dataclass(frozen=True)
class Valley:
    """One isoFLOP curve as a parabola in log size: L(N) = loss + curvature (log N - log size)^2.

    Attributes:
        compute: operations of each of its runs.
        size, loss: its lowest point.
        inside: whether that lies among the sizes that were measured; otherwise it is an extrapolation.
    """

    compute: float
    size: float
    loss: float
    curvature: float
    inside: bool

    def __call__(self, size: Numbers | float) -> Float[np.ndarray, " n"]:
        return self.loss + self.curvature * np.log(np.asarray(size, dtype=np.float64) / self.size) ** 2


def isoflop_valleys(compute: Numbers, size: Numbers, losses: Numbers) -> list[Valley]:
    """For every budget, the vertex of a parabola through loss against log size, in rising order of budget.

    A parabola is symmetric in log N, the curve it stands for is not unless α = β: the further the sizes reach beyond
    a factor of three from the best, the further the vertex is pulled to one side.

    Args:
        compute, size, losses: (n,), one entry per run; runs of one budget have exactly the same compute.

    Raises:
        ShapeError: lengths differ, or fewer than three sizes at a budget.
        RangeError: a parabola that opens downwards: there is no best size at that budget.
        NonFiniteError: NaN or infinity.

    Source: Hoffmann et al. 2022, section 3.2 (approach 2).
    """
    compute, size, losses = _columns(1, compute=compute, size=size, losses=losses)
    return [_valley(budget, size[compute == budget], losses[compute == budget]) for budget in np.unique(compute)]


def _valley(compute: float, size: np.ndarray, losses: np.ndarray) -> Valley:
    if len(np.unique(size)) < 3:
        raise ShapeError(f"size: got {len(np.unique(size))} different sizes at compute {compute:g}, expected 3 or more")
    middle = np.log(size).mean()
    curvature, slope, level = (float(c) for c in np.polyfit(np.log(size) - middle, losses, 2))
    if not curvature > 0:
        raise RangeError(f"losses: at compute {compute:g} they have no minimum over size (curvature {curvature:.3g})")
    best = float(np.exp(middle - slope / (2 * curvature)))
    inside = bool(size.min() <= best <= size.max())
    return Valley(float(compute), best, level - slope**2 / (4 * curvature), curvature, inside)


def frontier(valleys: Sequence[Valley]) -> PowerLaw:
    """E + A C^-α through the lowest points of three or more isoFLOP curves. Errors as in ``fit_power_law``."""
    return fit_power_law([valley.compute for valley in valleys], [valley.loss for valley in valleys])


def growth_exponent(valleys: Sequence[Valley]) -> float:
    """a in N* ∝ C^a through the best sizes of two or more budgets, by least squares in logarithms.

    Raises:
        ShapeError: fewer than two budgets.
    """
    compute, size = _columns(2, compute=[v.compute for v in valleys], size=[v.size for v in valleys])
    return float(np.polyfit(np.log(compute), np.log(size), 1)[0])
