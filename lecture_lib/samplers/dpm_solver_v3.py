"""DPM-Solver-v3: which linear part to solve exactly is *measured* on the model, per dimension and noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.paths import Coeffs, Path
from lecture_lib.core.prediction import Denoise
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.samplers.base import Sampler, Watched
from lecture_lib.samplers.exponential import endless
from lecture_lib.samplers.weights import jump, remember
from lecture_lib.tensors import check_batch, check_count, check_finite, randn_like

NODES = 17  # Chebyshev nodes per step: the integrals are exact to rounding while l, s, b are smooth


@dataclass(frozen=True, eq=False)
class Statistics:
    """Empirical model statistics l, s and b at half log-SNRs ``lam``, linear in between, constant beyond.

    ``l`` is the share of x that eps follows, ``sigma E[d eps/d x]``; ``s`` and ``b`` predict how what is left over,
    ``f = (sigma eps - l x)/alpha``, changes along a trajectory: ``df/dlam ~ s f + b``.

    Args:
        lam: ``(n,)``, rising.
        l, s, b: ``(n, *event)``.
    """

    lam: Float[Tensor, " n"]
    l: Float[Tensor, " n *event"]
    s: Float[Tensor, " n *event"]
    b: Float[Tensor, " n *event"]

    def __post_init__(self):
        if self.lam.ndim != 1 or not (self.lam.diff() > 0).all():
            raise RangeError(f"lam: got {tuple(self.lam.shape)}, expected rising half log-SNRs (n,)")
        for name in ("l", "s", "b"):
            value = check_finite(name, getattr(self, name))
            if value.shape != (len(self.lam), *self.l.shape[1:]):
                raise ShapeError(f"{name}: got {tuple(value.shape)}, expected ({len(self.lam)}, *event)")

    def __repr__(self) -> str:
        return f"Statistics({len(self.lam)} levels, event {tuple(self.l.shape[1:])})"

    def at(self, lam: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """l, s and b at ``lam`` (m,), each ``(m, *event)``."""
        table = self.lam.double().numpy()
        place = np.interp(lam, table, np.arange(len(table)))
        low = np.minimum(place.astype(int), len(table) - 2)
        share = (place - low).reshape(-1, *(1,) * (self.l.ndim - 1))
        rows = (v.double().numpy() for v in (self.l, self.s, self.b))
        return tuple(v[low] + share * (v[low + 1] - v[low]) for v in rows)


def measure_statistics(
    denoise: Denoise,
    path: Path,
    x0: Float[Tensor, " n *event"],
    lam: Float[Tensor, " m"],
    *,
    generator: torch.Generator,
    delta: float = 0.02,
) -> Statistics:
    """The statistics of a model over data ``x0``, at the levels ``lam`` (Zheng et al. 2023, 2310.13268).

    ``l`` from one random-sign probe of the Jacobian's diagonal per sample; s and b by least squares on ``df/dlam``,
    a central difference of width ``delta`` along the trajectory. Costs four evaluations and one gradient per level.
    """
    check_batch("x0", x0)
    lam = check_finite("lam", lam).double()
    eps = [randn_like(x0, generator) for _ in lam]
    times = path.time_of(lam)
    points = [(path.mix(x0, e, t.expand(len(x0))), path.at(float(t))) for e, t in zip(eps, times, strict=True)]
    watched = Watched(denoise, path)
    l = torch.stack([_follows(watched, x, t, generator) for x, t in points])
    rough = Statistics(lam, l, torch.zeros_like(l), torch.zeros_like(l))
    fits = [_fit(watched, rough, x, t, delta) for x, t in points]
    return Statistics(lam, l, torch.stack([s for s, _ in fits]), torch.stack([b for _, b in fits]))


def _follows(denoise: Watched, x: Tensor, t: Coeffs, generator: torch.Generator) -> Tensor:
    """``sigma E[diag(d eps/dx)]`` by Hutchinson's trick, entry by entry."""
    probe = randn_like(x, generator).sign()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (pulled,) = torch.autograd.grad((denoise(x, t).eps * probe).sum(), x)
    return t.sigma * (pulled * probe).mean(0).double().cpu()


@torch.no_grad()
def _fit(denoise: Watched, statistics: Statistics, x: Tensor, t: Coeffs, delta: float) -> tuple[Tensor, Tensor]:
    """s and b with ``df/dlam ~ s f + b`` in the least squares sense, for every dimension by itself."""
    p = denoise(x, t)
    ahead, behind = (t.path.at_lam(t.lam + d) for d in (delta, -delta))
    f_ahead, f_behind = (_rest(statistics, denoise(jump(p, c), c).eps, jump(p, c), c) for c in (ahead, behind))
    f, slope = (f_ahead + f_behind) / 2, (f_ahead - f_behind) / (ahead.lam - behind.lam)
    f_mean, slope_mean = f.mean(0), slope.mean(0)
    s = ((f - f_mean) * (slope - slope_mean)).mean(0) / ((f - f_mean) ** 2).mean(0).clamp(min=1e-20)
    return s.double().cpu(), (slope_mean - s * f_mean).double().cpu()


def _rest(statistics: Statistics, eps: Tensor, x: Tensor, t: Coeffs) -> Tensor:
    """``f = (sigma eps - l x)/alpha``: what of eps the linear part leaves over."""
    l = torch.as_tensor(statistics.at(np.array([t.lam]))[0][0]).to(x)
    return (t.sigma * eps - l * x) / t.alpha


@lru_cache
def integration(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev points u on [0, 1] and the matrix A with ``(A f)_j = int_0^{u_j} f``, exact for degree < n."""
    z = -np.cos(np.pi * np.arange(n) / (n - 1))
    primitives = np.polynomial.chebyshev.chebint(np.eye(n), lbnd=-1)  # column k: int of T_k from -1
    integrals = np.polynomial.chebyshev.chebvander(z, n) @ primitives
    return (z + 1) / 2, integrals @ np.linalg.inv(np.polynomial.chebyshev.chebvander(z, n - 1)) / 2


@dataclass(frozen=True, repr=False)
class DPMSolverV3(Sampler):
    """Multistep in the coordinates that the statistics choose.

    (l, s, b) = (1, 0, 0) is exponential Adams in the DATA form, DPM-Solver++; (0, -1, 0) in the NOISE form, DPM-Solver.

    All integrals start at the current time t, so that a step needs nothing but its own stretch of the statistics; past
    values are carried along: ``g -> e^S (g + B)``.
    """

    statistics: Statistics
    order: int = 3
    evaluations: ClassVar[str] = "1 NFE per step"
    formula: ClassVar[str] = (
        r"x_s=\tfrac{\alpha_s}{\alpha_t}e^{-L}x_t-\alpha_se^{-L}\big[I\,g+C+\textstyle\sum_kE_k\,g^{(k)}\big],"
        r"\;g=\tfrac{\sigma_t\hat\epsilon-l\,x_t}{\alpha_t}"
    )
    source: ClassVar[str] = "Zheng et al. 2023 (2310.13268), the predictor without the optional corrector"

    def __post_init__(self):
        check_count("order", self.order)

    def step(self, denoise, x, t, s, state, noise):
        p = denoise(x, t)
        if endless(t, s):
            return jump(p, s), state
        h, (u, A) = s.lam - t.lam, integration(NODES)
        l, slope, offset = self.statistics.at(t.lam + u * h)
        L, S = (h * np.tensordot(A, v, 1) for v in (l, slope))
        B = h * np.tensordot(A, np.exp(-S) * offset, 1)
        weight = np.exp(L + S)

        def integral(f: np.ndarray) -> Tensor:
            return torch.as_tensor(h * np.tensordot(A[-1], f, 1)).to(x)

        distance = (h * u).reshape(-1, *(1,) * (l.ndim - 1))
        history = remember(state, t.lam, (t.sigma * p.eps - torch.as_tensor(l[0]).to(x) * x) / t.alpha, self.order)
        inner = integral(weight) * history[0][1] + integral(weight * B)
        for k, derivative in enumerate(derivatives(history), start=1):
            inner = inner + integral(weight * distance**k / math.factorial(k)) * derivative
        decay, growth, shift = (torch.as_tensor(v).to(x) for v in (np.exp(-L[-1]), np.exp(S[-1]), B[-1]))
        carried = [(lam, growth * (g + shift)) for lam, g in history]
        return s.alpha * decay * (x / t.alpha - inner), carried


def derivatives(history: list[tuple[float, Tensor]]) -> list[Tensor]:
    """The derivatives in lam, first to last, of the polynomial through all values, at the newest."""
    (here, g), *past = history
    if not past:
        return []
    powers = [[(lam - here) ** k / math.factorial(k) for k in range(1, len(past) + 1)] for lam, _ in past]
    rows = np.linalg.inv(powers)
    return [sum(float(c) * (value - g) for c, (_, value) in zip(row, past, strict=True)) for row in rows]
