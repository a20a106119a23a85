"""Losses of flow maps: jumps between any two times of a trajectory, in one network.

    method     what it asks of Phi(x_t, t, s), t >= u >= s
    CTM        Phi(x_t, t, s)  =  Phi(solver's x_u, u, s)              compared at the data, after one more jump
    shortcut   Phi(x_t, t, s)  =  Phi(Phi(x_t, t, m), m, s)            m halfway; the student is its own teacher
    MeanFlow   d/dt Phi(x_t, t, s) = 0 along the trajectory            the limit u -> t of both

At s = t a jump has no length and the network's word is a denoiser's: ``diagonal_loss`` teaches it that, from data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lecture_lib.core import Cond, Denoise, RectifiedFlow
from lecture_lib.distill.continuous import tangent
from lecture_lib.distill.distances import Distance, normalised, squared
from lecture_lib.distill.maps import FlowMapModel, towards
from lecture_lib.distill.semigroup import Leg, semigroup_loss, solved
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.samplers import Heun, Sampler
from lecture_lib.tensors import blend, check_count, per_sample


def diagonal_loss(
    model: FlowMapModel,
    x0: Float[Tensor, " b *d"],
    eps: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    cond: Cond | None = None,
) -> Float[Tensor, " b"]:
    """The plain denoising loss ``|y_hat(x_t, t, s = t) - y|^2``, mean over dimensions.

    CTM's DSM term, the flow matching of shortcut models at d = 0, the r = t part of MeanFlow's batches.
    """
    kind, c = model.denoiser.parameterization, model.path.coeffs(t)
    p = model.predict(model.path.mix(x0, eps, t), t, t, cond)
    a, b = kind.finite_row(c)
    return squared(blend(*p.parts(x0=a, eps=b)), kind.encode(x0, eps, c))


def stopped(model: nn.Module) -> Callable[..., Tensor]:
    """The module as a function of its inputs alone: gradients pass through it, none reaches its weights."""
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    return lambda *inputs: functional_call(model, weights, inputs)


def ctm_loss(
    model: FlowMapModel,
    teacher: Denoise,
    x_t: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    u: Float[Tensor, " b"],
    s: Float[Tensor, " b"],
    cond: Cond | None = None,
    *,
    sampler: Sampler | None = None,
    steps: int = 1,
    distance: Distance = squared,
) -> Float[Tensor, " b"]:
    """Soft consistency: the teacher solves from t to u only, the student's own jump does the rest, u to s.

        d( G_sg(G_theta(x_t, t, s), s, 0),  G_sg(G_sg(solver(x_t, t -> u), u, s), s, 0) )

    u = s is distillation of whole solutions, u just below t is consistency; u anywhere between is CTM. Both ends are
    carried on to the data by the student as it is, so that a distance between pictures can compare them.

    Args:
        t, u, s: times with t >= u >= s, one per sample.
        cond: the student's; the teacher's is bound.
        sampler, steps: how the teacher gets from t to u; default: one step of Heun.

    Raises:
        RangeError: times out of order.

    Source: Kim et al. 2023 (2310.02279), eq. 10; the paper adds ``diagonal_loss`` and a discriminator.
    """
    _check_order("s", s, "u", u)
    leg = solved(teacher, model.path, sampler or Heun(), x_t, t, u, steps=steps)
    still, jump, data = stopped(model), towards(model.given(cond), s), torch.zeros_like(s)

    def home(x: Tensor, time: Tensor) -> Tensor:
        return still(jump(x, time), s, data, cond)

    return semigroup_loss(home, home, leg, distance=distance)


def shortcut_loss(
    model: FlowMapModel,
    x_t: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    s: Float[Tensor, " b"],
    cond: Cond | None = None,
) -> Float[Tensor, " b"]:
    """Self-consistency: one jump from t to s is two of half the length, in units of the network's output.

    On a rectified flow ``|u(x_t, t, s) - sg[u(x_t, t, m) + u(x_m, m, s)]/2|^2``, with x_m where the first half ends.
    What the shortest jumps are has to come from elsewhere: ``diagonal_loss``.

    Raises:
        RangeError: times out of order, or s = t: a jump without length has no half.

    Source: Frans et al. 2024 (2410.12557), eq. 5; they tell the network the length d = t - s, here it hears s.
    """
    if (s >= t).any():
        raise RangeError("s: some are not below their t, expected s < t: a jump without length has no half")
    flow_map, middle = model.given(cond), (t + s) / 2
    with torch.no_grad():
        halfway = Leg(x_t, t, flow_map(x_t, t, middle), middle)
    jump = towards(flow_map, s)
    return semigroup_loss(jump, jump, halfway, weight=model.reach(t, s) ** -2)


def dyadic_jumps(
    n: int, levels: int, *, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """(t, s) of shortcut models: ``t - s = 2^-k`` with k uniform in 0..levels - 1, t uniform among its multiples.

    Half a jump of level k is one of level k + 1; what lies below the last level is left to the diagonal.
    """
    pieces = 2.0 ** torch.randint(check_count("levels", levels), (n,), generator=generator).double()
    i = (torch.rand(n, generator=generator, dtype=torch.float64) * pieces).floor()
    return (i + 1) / pieces, i / pieces


def mean_flow_loss(
    model: FlowMapModel,
    x_t: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    s: Float[Tensor, " b"],
    velocity: Float[Tensor, " b *d"],
    cond: Cond | None = None,
    *,
    distance: Distance | None = None,
) -> Float[Tensor, " b"]:
    """``d( u(x_t, t, s),  sg[v - (t - s) du/dt] )``: the average velocity, from the velocity at its noisy end alone.

    From ``(t - s) u = integral of v`` over [s, t], differentiated in t along the trajectory. At s = t it is flow
    matching: no second loss is needed, only pairs with s = t among the others (the paper: most of them).

    Args:
        model: on a rectified flow.
        velocity: v: ``eps - x0`` (``noise_velocity``) for training from data, a teacher's for distillation.
        distance: default ``normalised()``, the paper's.

    Raises:
        ShapeError: a model on another path. RangeError: times out of order.
        NotDifferentiableError: as in ``tangent``.

    Source: Geng et al. 2025 (2505.13447), eq. 6, 9 and 10.
    """
    if not isinstance(model.path, RectifiedFlow):
        raise ShapeError(f"model: on {model.path!r}, expected RectifiedFlow(), where x_s = x_t - (t - s) u")
    _check_order("s", s, "t", t)

    def u(x: Tensor, time: Tensor) -> Tensor:
        return model.predict(x, time, s, cond).velocity

    _, slope = tangent(u, x_t, t, velocity)
    return (distance or normalised())(u(x_t, t), velocity - per_sample(t - s, slope) * slope)


def _check_order(low: str, s: Tensor, high: str, t: Tensor) -> None:
    if (s > t).any():
        raise RangeError(f"{low}: some lie above their {high}, expected {low} <= {high}: jumps lead from noise to data")
