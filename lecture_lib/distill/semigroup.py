"""The one loss of flow-map learning: a long jump must end where a short step and a shorter jump end.

    L = w  d( F_theta(x_t, t),  sg F_target(x_u, u) )          u < t, both points on one trajectory

What the methods of the field choose:

    method   the leg from t to u                         F_theta, F_target                    d, w
    CT       ``shared_noise``: x_u from the same x0, eps  f, f of a moving average            square, 1
    CD       ``solved``: one step of the teacher          f, f of a moving average            square or LPIPS, 1
    iCT      ``shared_noise``                             f, f itself                         pseudo-Huber, 1/(t - u)
    ECT      ``shared_noise``, u/t -> 1 in stages         f, f itself; f starts as teacher    pseudo-Huber, 1/(t - u)
    LCM      ``solved``: guided DDIM, k timesteps         f told w, f of a moving average     Huber, 1
    CTM      ``solved``: several steps of the teacher     G(., s), both carried on to 0       LPIPS, 1
    PD       ``solved``: two steps of the teacher         G(., u), the identity               square, max(SNR, 1)

Source: the abstraction is of Boffi et al. 2024 (flow map matching); each method's own is in its module.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import Denoise, Path
from lecture_lib.distill.distances import Distance, squared
from lecture_lib.distill.maps import Jump
from lecture_lib.errors import RangeError
from lecture_lib.samplers import Sampler, one_step
from lecture_lib.tensors import check_count, check_times, per_sample


class Leg(NamedTuple):
    """Two points of one trajectory.

    Attributes:
        x_t, t: the noisier one, (b, ...) and (b,).
        x_u, u: the cleaner one, alike; u <= t.
    """

    x_t: Tensor
    t: Tensor
    x_u: Tensor
    u: Tensor


def shared_noise(
    path: Path, x0: Float[Tensor, " b *d"], eps: Float[Tensor, " b *d"], t: Float[Tensor, " b"], u: Float[Tensor, " b"]
) -> Leg:
    """x_t and x_u from the same data and the *same* noise: no teacher, and right on average as u -> t.

    The pair does not lie on a trajectory; given x_t, x_u is off by noise of order t - u whose mean is the Euler step of
    the true score. With fresh noise for x_u it would know nothing of x_t's, and f would learn the mean of the data.
    """
    return Leg(path.mix(x0, eps, t), t, path.mix(x0, eps, u), u)


@torch.no_grad()
def solved(
    teacher: Denoise,
    path: Path,
    sampler: Sampler,
    x_t: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    u: Float[Tensor, " b"],
    *,
    steps: int = 1,
) -> Leg:
    """x_u by ``steps`` equal steps of the teacher's ODE, one time per sample.

    Args:
        teacher: a denoiser with its condition bound; guided or not.
        sampler: one that is ``per_sample``: Euler, Heun, DDIM.

    Raises:
        ShapeError: a sampler that steps a batch together.
        RangeError: some u lies above its t.
    """
    if (check_times("u", u, len(x_t), path.t_max) > check_times("t", t, len(x_t), path.t_max)).any():
        raise RangeError("u: some lie above their t, expected u <= t: legs lead from noise to data")
    # The last time is u itself: t + (u - t) k/k may lie a rounding error beside it, on the other side of 0 even.
    x, times = x_t, [*(t + (u - t) * k / steps for k in range(check_count("steps", steps))), u]
    for high, low in pairwise(times):
        x, _ = one_step(sampler, teacher, path, x, high, low)
    return Leg(x_t, t, x, u)


def semigroup_loss(
    ahead: Jump,
    behind: Jump,
    leg: Leg,
    *,
    distance: Distance = squared,
    weight: Float[Tensor, " b"] | float = 1.0,
) -> Float[Tensor, " b"]:
    """``w d(ahead(x_t, t), sg behind(x_u, u))`` per sample.

    The gradient stops at the second term: with it the two ends would meet halfway, and what f is worth at the data,
    the only thing that is known, would not travel up in time.

    Args:
        ahead: what is trained: from x_t all the way.
        behind: the target: from x_u the rest of the way; the same network, a slower copy of it, or ``stay``.
        leg: the two points.
        distance: between the two ends.
        weight: per sample, or one number.
    """
    with torch.no_grad():
        target = behind(leg.x_u, leg.u)
    apart = distance(ahead(leg.x_t, leg.t), target)
    return per_sample(weight, apart) * apart
