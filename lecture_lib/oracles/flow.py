"""The exact flow map of any denoiser: the probability-flow ODE solved to nine digits."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lecture_lib.core.flow import integrate
from lecture_lib.core.paths import Path
from lecture_lib.core.prediction import Denoise


def flow_map(
    denoise: Denoise,
    path: Path,
    x: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    s: Float[Tensor, " b"],
    *,
    tolerance: float = 1e-11,
) -> Float[Tensor, " b *d"]:
    """``x_s`` on the ODE trajectory through ``x_t``, by scipy's DOP853; times as in ``core.flow.integrate``.

    solve_ivp bounds the *root mean square* error of the batch; the bound is divided, so that it holds for every entry.
    """
    bound = tolerance / max(x.numel(), 1) ** 0.5
    return integrate(denoise, path, x, t, s, method="DOP853", rtol=max(bound, 3e-14), atol=bound)
