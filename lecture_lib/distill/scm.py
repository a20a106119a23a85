"""sCM: consistency in continuous time that trains stably (Lu & Song 2024, 2410.11081).

On the quarter circle, with v as the network's output F, the consistency function is a rotation by the whole angle:

    f(x_t, t) = cos t x_t - sin t F(x_t, t)                          f(x, 0) = x

Where f should go is turned into where F should go, ``F + g``, and the three parts of the recipe act on g:

    g = -cos^2 t (F - dx/dt) - r cos t sin t (x_t + dF/dt)           r rises from 0 to 1: warm-up
    g <- g / (|g| + c)                                               tangent normalisation
    loss = e^w |F - sg(F + g)|^2 - w                                 w(t) learned: adaptive weight

At r = 0 this is flow matching; at r = 1 ``g = cos t df/dt``. Here data have standard deviation 1: what the paper writes
with sigma_d is this for x0/sigma_d, with its x_t and dx_t/dt divided by sigma_d as well.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import Cond, Denoiser, Trigonometric
from lecture_lib.distill.continuous import tangent
from lecture_lib.distill.distances import squared
from lecture_lib.errors import ShapeError
from lecture_lib.nets import TimestepEmbedding
from lecture_lib.tensors import check_number, per_sample


class LogWeight(nn.Module):
    """``w(t)``, zero at first: ``e^w loss - w`` is least at ``w = -log loss``, where every time weighs alike.

    Source: Karras et al. 2024 (EDM2), eq. 14; Lu & Song 2024, section 4.2.
    """

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.time, self.leave = TimestepEmbedding(dim, features=dim, scale=10.0), nn.Linear(dim, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The logarithm of the weight at path times t."""
        return self.leave(self.time(t))[:, 0]


def scm_tangent(
    denoiser: Denoiser,
    x_t: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    velocity: Float[Tensor, " b *d"],
    cond: Cond | None = None,
    *,
    warm: float = 1.0,
) -> tuple[Float[Tensor, " b *d"], Float[Tensor, " b *d"]]:
    """``F`` and ``g``, before normalisation; nothing of either reaches the weights.

    Args:
        denoiser: on the quarter circle; F is its velocity, which there is v.
        velocity: ``dx_t/dt``: the teacher's at x_t (sCD), or ``cos t eps - sin t x0`` (sCT).
        warm: r in [0, 1].

    Raises:
        ShapeError: a denoiser on another path.
        NotDifferentiableError: as in ``tangent``.

    Source: Lu & Song 2024, eq. 6 and algorithm 1.
    """
    if not isinstance(denoiser.path, Trigonometric):
        raise ShapeError(f"denoiser: on {denoiser.path!r}, expected Trigonometric(); core.rebase changes a teacher's")
    check_number("warm", warm, 0, 1)
    F, slope = tangent(lambda x, time: denoiser(x, time, cond).velocity, x_t, t, velocity)
    cos, sin = (per_sample(c, x_t) for c in (denoiser.path.alpha(t.double()), denoiser.path.sigma(t.double())))
    return F, -(cos**2) * (F - velocity) - warm * cos * sin * (x_t + slope)


def scm_loss(
    denoiser: Denoiser,
    x_t: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    velocity: Float[Tensor, " b *d"],
    cond: Cond | None = None,
    *,
    warm: float = 1.0,
    c: float = 0.1,
    log_weight: nn.Module | None = None,
) -> Float[Tensor, " b"]:
    """``e^w |F_theta - sg(F + g/(|g| + c))|^2 - w`` per sample, mean over dimensions.

    Args:
        denoiser, velocity, warm: as in ``scm_tangent``.
        c: tangents much longer than this get length 1, much shorter ones are divided by it.
        log_weight: ``t -> w`` such as ``LogWeight()``, trained along; None for w = 0.

    Raises: as ``scm_tangent``.

    Source: Lu & Song 2024, eq. 8 and algorithm 1.
    """
    F, g = scm_tangent(denoiser, x_t, t, velocity, cond, warm=warm)
    length = g.flatten(1).norm(dim=1)
    apart = squared(denoiser(x_t, t, cond).velocity, F + g / per_sample(length + c, g))
    if log_weight is None:
        return apart
    w = log_weight(t.to(x_t.dtype))
    return w.exp() * apart - w
