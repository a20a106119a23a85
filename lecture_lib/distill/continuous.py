"""Consistency in continuous time: along a trajectory f does not change, so its derivative there is zero.

    df/dt = d_t f + J_x f dx/dt = 0        f(x, end) = x

The total derivative is one Jacobian-vector product by forward-mode differentiation: what it costs does not grow with
the size of x. It is the limit of the semigroup loss as u -> t, without a grid whose step would have to be chosen.

``d_t f`` passes through the network's embedding of time. On the usual scale of 0..1000 its fastest features turn 1000
radians along the path, and so loud a derivative drowns the rest: networks for this want a slower network time.
"""

from __future__ import annotations

import re

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from lecture_lib.core import VELOCITY, Path
from lecture_lib.distill.distances import Distance, squared
from lecture_lib.distill.maps import Jump
from lecture_lib.errors import NotDifferentiableError
from lecture_lib.tensors import per_sample


def tangent(
    f: Jump, x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"], velocity: Float[Tensor, " b *d"]
) -> tuple[Float[Tensor, " b *d"], Float[Tensor, " b *d"]]:
    """``f(x_t, t)`` and its total derivative ``d_t f + J_x f velocity``; nothing of either reaches the weights of f.

    Args:
        f: any function of a batch and its times, such as a consistency function or a network's raw output.
        velocity: ``dx_t/dt``.

    Raises:
        NotDifferentiableError: f contains an operation without a forward-mode derivative, such as fused attention.
    """
    with torch.no_grad():
        return _pushed(f, x_t, t, velocity)


def _pushed(f: Jump, x_t: Tensor, t: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
    """By dual numbers: the same as ``torch.func.jvp(f, (x_t, t), (velocity, 1))`` at 0.6 of its price."""
    x_t, t, velocity = x_t.contiguous(), t.contiguous(), velocity.to(x_t).contiguous()  # no dual of an expanded view
    try:
        with forward_ad.dual_level():
            dual = f(forward_ad.make_dual(x_t, velocity), forward_ad.make_dual(t, torch.ones_like(t)))
            value, slope = forward_ad.unpack_dual(dual)
    except RuntimeError as error:
        if (reason := _refusal(str(error))) is None:
            raise
        raise NotDifferentiableError(f"f: {reason}") from error
    return value, torch.zeros_like(value) if slope is None else slope


def _refusal(message: str) -> str | None:
    """Why forward-mode differentiation gave up, and what to do; None if something else went wrong."""
    if "Nested forward mode" in message:
        return (
            "reads a velocity on a path whose slopes are found by forward mode themselves; expected RectifiedFlow, "
            "Trigonometric or EDM, or an f made of x0 and eps alone"
        )
    refused = re.search(r"forward AD with (\w+)", message)
    if refused is None:
        return None
    return (
        f"forward-mode differentiation stops at {refused[1]}; for a transformer, build it with "
        "kernel=explicit_attention, which computes the same"
    )


def noise_velocity(
    path: Path, x0: Float[Tensor, " b *d"], eps: Float[Tensor, " b *d"], t: Float[Tensor, " b"]
) -> Float[Tensor, " b *d"]:
    """``alpha' x0 + sigma' eps``: the velocity of one pair of data and noise; on average over all, the flow's own.

    Raises:
        SingularError: where it is infinite, such as at t = 0 of the VP paths.
    """
    return VELOCITY.encode(x0, eps, path.coeffs(t))


def continuous_loss(
    f: Jump,
    x_t: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    velocity: Float[Tensor, " b *d"],
    *,
    distance: Distance = squared,
    weight: Float[Tensor, " b"] | float = 1.0,
) -> Float[Tensor, " b"]:
    """Continuous-time consistency: ``w d( f(x_t, t),  sg(f - df/dt) )`` per sample.

    With the square, a mean over d numbers, its gradient is 1/d of that of the paper's pseudo-loss
    ``2 w f^T sg(df/dt)``, and its value ``w |df/dt|^2/d`` says how far f is from the goal. With the teacher's velocity
    it is distillation (CD); with ``noise_velocity``, training without a teacher (CT): df/dt is linear in the velocity,
    so that the *gradient* is right on average.

    Args:
        f: the consistency function that is trained.
        velocity: ``teacher(x_t, t).velocity``, or ``noise_velocity(path, x0, eps, t)``.

    Raises:
        NotDifferentiableError: as in ``tangent``.

    Source: Song et al. 2023, theorems 5 and 6 (appendix B).
    """
    value, slope = tangent(f, x_t, t, velocity)
    apart = distance(f(x_t, t), value - slope)
    return per_sample(weight, apart) * apart


def residual_loss(
    f: Jump, x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"], velocity: Float[Tensor, " b *d"]
) -> Float[Tensor, " b"]:
    """``|df/dt|^2`` with the gradient of both its ends: right with a teacher's velocity, *wrong* with a pair's.

    A pair's velocity is off by a random part whose mean is zero, but a square does not average to zero: the loss also
    charges ``E |J_x f (velocity - mean)|^2``, and is least for an f that is too flat. On Gaussian data of standard
    deviation s it ends at ``f(x, T) = x / (1 + (T/s) atan(T/s))``, 0.64 of the truth for s = 0.5 and T = 80.

    Source: Song et al. 2023, theorem 3, which is about distillation; here as the mistake it is for training.
    """
    _, slope = _pushed(f, x_t, t, velocity)
    return squared(slope, torch.zeros_like(slope))
