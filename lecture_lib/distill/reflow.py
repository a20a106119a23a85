"""Reflow: pair each noise with where the flow takes it, and learn the straight line between the two.

    pairs     (eps, x0_hat = ODE(eps))
    reflow    |v(x_t, t) - (eps - x0_hat)|^2      x_t = (1 - t) x0_hat + t eps, all t: the next flow is straighter
    distil    d(f(x_T, T), x0_hat)                noise alone: one step (InstaFlow, once the flow is straight)

Trajectories of an ODE do not cross, so the lines of its pairs cross less than those of random pairs, and their mean
velocity bends less. With x0_hat paired with *fresh* noise it is plain flow matching again, and straightens nothing.

Source: Liu et al. 2022 (2209.03003), section 2; Liu et al. 2023 (2309.06380, InstaFlow), section 3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import Denoise, Denoiser, Path, Times, given_noise
from lecture_lib.core.conditions import Cond
from lecture_lib.distill.distances import Distance, squared
from lecture_lib.distill.maps import Jump
from lecture_lib.samplers import Sampler, last, sample
from lecture_lib.tensors import check_number


class Coupled(NamedTuple):
    """Data points and the noise that belongs to each.

    Attributes:
        x0: (b, ...).
        eps: (b, ...).
    """

    x0: Tensor
    eps: Tensor


@torch.no_grad()
def solved_pairs(
    teacher: Denoise, path: Path, sampler: Sampler, grid: Float[Tensor, " n+1"], eps: Float[Tensor, " b *d"]
) -> Coupled:
    """``(ODE(eps), eps)``: where the teacher takes each noise along the grid, which starts at ``path.t_max``.

    Args:
        teacher: a denoiser with its condition bound; guided, if that is what is to be distilled.
        sampler: a deterministic one.
        grid: falling times.
        eps: standard normal.
    """
    start = grid[:1].expand(len(eps)).to(eps.device)
    return Coupled(last(sample(teacher, path, sampler, grid, path.mix(torch.zeros_like(eps), eps, start))), eps)


def reflow_loss(
    student: Denoiser,
    pairs: Coupled,
    cond: Cond | None = None,
    *,
    times: Times,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " b"]:
    """The denoiser's own loss with the noise that belongs to each point, in place of fresh noise.

    Args:
        student: on a ``RectifiedFlow`` with velocity this is rectified flow; usually starts as the flow that made the
            pairs.
        pairs: from ``solved_pairs``.
        cond: what they were made with.
        times: where on the line.
    """
    return student.loss(pairs.x0, cond, times=times, coupling=given_noise(pairs.eps), generator=generator)


def endpoint_loss(jump: Jump, path: Path, pairs: Coupled, *, distance: Distance = squared) -> Float[Tensor, " b"]:
    """``d(f(x_T, T), x0_hat)`` on pure noise: the regression of InstaFlow, and the one that DMD (not DMD2) adds.

    Each noise has one answer, so the best f is the flow map itself and not a mean; what blurs between modes is a
    network that cannot turn as sharply as the map does. LPIPS for pictures.

    Args:
        jump: the one-step student, ``ConsistencyFunction(denoiser)``.
        path: where x_T, the noisiest point, is ``sigma(t_max) eps``.
        pairs: from ``solved_pairs``.
        distance: between the two ends.
    """
    start = torch.full((len(pairs.eps),), path.t_max, dtype=torch.float64, device=pairs.eps.device)
    return distance(jump(path.mix(torch.zeros_like(pairs.eps), pairs.eps, start), start), pairs.x0)


def transport_cost(pairs: Coupled, power: float = 2.0) -> Float[Tensor, " b"]:
    """``|x0 - eps|^power`` of each pair; the mean falls or stays with every reflow, for all convex costs (power >= 1).

    Source: Liu et al. 2022, theorem 3.5.
    """
    return (pairs.x0 - pairs.eps).flatten(1).norm(dim=1) ** check_number("power", power, 1)
