"""What a distilled model is: a map along the trajectories of the probability-flow ODE, learned instead of solved.

    flow map                Phi(x_t, t, s) = x_s       Phi(x, t, t) = x       Phi(Phi(x, t, u), u, s) = Phi(x, t, s)
    consistency function    f(x_t, t) = Phi(x_t, t, end)                      its special case: always down to the data

Both are read off a denoiser's network. What it says about x0 is taken to be the *end of the trajectory*, not the mean
of all data behind x_t; the step of DDIM with that x0 is then the whole jump, however far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import Denoise, Denoiser, Path, Prediction
from lecture_lib.core.conditions import Cond, tell
from lecture_lib.errors import ShapeError
from lecture_lib.tensors import blend, check_batch, check_number, check_times, per_sample

FlowMap = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(x_t (b, ...), t (b,), s (b,)) -> x_s``: any jump along a trajectory, s = t included."""

Jump = Callable[[Tensor, Tensor], Tensor]
"""``(x_t (b, ...), t (b,)) -> x_s`` with s already chosen: a consistency function, or a flow map towards one s."""


def towards(flow_map: FlowMap, s: Float[Tensor, " b"]) -> Jump:
    """The jumps of a flow map that end at ``s``."""
    return lambda x_t, t: flow_map(x_t, t, s)


def stay(x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"]) -> Float[Tensor, " b *d"]:
    """The jump from t to t."""
    return x_t


@dataclass(frozen=True)
class ConsistencyFunction:
    """A denoiser read as a consistency function: ``f(x_t, t)`` is its x0; callable as ``(x_t, t) -> x_end``.

    The boundary f(x, end) = x holds by construction: for the parameterizations of ``distill.boundary`` at their own
    ``end``, and at 0 for every parameterization in which clean data determines x0 whatever the network says (eps, v,
    velocity, EDM's F: all but x0 itself).

    Attributes:
        denoiser: whose network is asked.
        cond: its condition; None is unconditional.
        end: the time that it maps to; there it is the identity and the network's word does not count.
    """

    denoiser: Denoiser
    cond: Cond | None = None
    end: float = 0.0

    def __post_init__(self):
        check_number("end", self.end, 0.0, self.denoiser.path.t_max)

    def __call__(self, x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"]) -> Float[Tensor, " b *d"]:
        t_max = self.denoiser.path.t_max
        inside = t.clamp(min=max(self.end, 1e-6 * t_max))  # a network that hears log t must not hear log 0
        # A float32 0.002 lies a hair above the float64 one: it is the end as well.
        f = self.denoiser(x_t, inside, self.cond).x0
        at_end = (t <= self.end * (1 + 1e-6)).reshape(-1, *(1,) * (x_t.ndim - 1))
        return torch.where(at_end, x_t, f)


class FlowMapModel(nn.Module):
    """A network that is told where it is and where to go: ``x_s = (sigma_s/sigma_t) x_t + (...) g(x_t, t, s)``.

    This is the step of DDIM from t to s with g in the place of x0: CTM's parameterization on any path (Kim et al.
    2023, eq. 9), and on a rectified flow with a velocity network ``x_s = x_t - (t - s) u(x_t, t, s)``, the average
    velocity of shortcut models and MeanFlow. At s = t it is the identity, whatever the network says.

    Args:
        denoiser: its condition is a dict that has ``"s"``, a number per sample: the network time of the target.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        if not isinstance(denoiser.null, dict) or "s" not in denoiser.null:
            got = sorted(denoiser.null) if isinstance(denoiser.null, dict) else denoiser.null
            raise ShapeError(f"denoiser: its null condition is {got}, expected a dict with 's', where to jump")
        self.denoiser = denoiser

    @property
    def path(self) -> Path:
        """The path that it jumps along."""
        return self.denoiser.path

    def predict(
        self, x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"], s: Float[Tensor, " b"], cond: Cond | None = None
    ) -> Prediction:
        """What the network says when asked to jump from t to s: x0 is g, ``velocity`` the average one on a line.

        Args:
            cond: as its teacher takes it, without ``"s"``.
        """
        s = check_times("s", s, check_batch("x_t", x_t).shape[0], self.path.t_max)
        target = self.denoiser.network_time(self.path, s.double()).to(x_t.dtype)
        rest = {key: value for key, value in self.denoiser.null.items() if key != "s"}
        return self.denoiser(x_t, t, tell(rest if cond is None else cond, s=target))

    def forward(
        self, x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"], s: Float[Tensor, " b"], cond: Cond | None = None
    ) -> Float[Tensor, " b *d"]:
        """``x_s``; a FlowMap once its condition is bound with ``given``."""
        return carried(self.predict(x_t, t, s, cond), s)

    def given(self, cond: Cond | None) -> FlowMap:
        """The map with its condition bound."""
        return lambda x_t, t, s: self(x_t, t, s, cond)


def carried(p: Prediction, s: Float[Tensor, " b"]) -> Float[Tensor, " b *d"]:
    """``alpha_s x0 + sigma_s eps``: where a prediction says that its x_t comes to be at time s (one DDIM step)."""
    c = p.path.coeffs(s)
    x_s = blend(*p.parts(x0=c.alpha, eps=c.sigma))
    same = per_sample((s == p.t).double(), x_s).bool()
    return torch.where(same, p.x_t, x_s)  # a jump of length zero moves nothing, not even by rounding


def exact_consistency(denoise: Denoise, path: Path, end: float = 0.0, *, tolerance: float = 1e-11) -> Jump:
    """The consistency function of any denoiser, such as an oracle's: its ODE solved down to ``end``."""
    from lecture_lib.oracles import flow_map

    def f(x_t: Tensor, t: Tensor) -> Tensor:
        return flow_map(denoise, path, x_t, t, torch.full_like(t, end), tolerance=tolerance)

    return f
