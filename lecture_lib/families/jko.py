"""The JKO scheme: a Wasserstein gradient flow in implicit steps, each the gradient of a convex network.

    rho_{k+1} = argmin_rho  KL(rho | e^-U) + W_2^2(rho, rho_k)/(2 tau)

By Brenier the nearest rho is ``(grad psi)_# rho_k`` with psi convex, so the minimum over rho is one over psi. The next
density is a *push-forward*: points move. It is no mixture of old and new, which would leave a share of the points where
they were, and it needs its second term: without it one step jumps to the target, and there is no flow.

Source: Jordan, Kinderlehrer & Otto 1998; with convex networks Mokrov et al. 2021 (2106.00736), algorithm 1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core.likelihood import standard_normal_log_prob
from lecture_lib.data import Batches
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.families.base import Batch, GenerativeModel, LogProb, Phase
from lecture_lib.families.encoding import check_unlabelled
from lecture_lib.nets import ICNN
from lecture_lib.oracles import GaussianMixture
from lecture_lib.tensors import check_count, check_number, check_times

Energy = Callable[[Tensor], Tensor]
"""``x (b, d) -> U(x) (b,)``, differentiable; the target's density is ``e^-U`` up to a constant."""


@dataclass(frozen=True)
class JKOFrame:
    """Particles after some steps, and the density in which they lie.

    Attributes:
        x: (n, d), the particles.
        log_density: (n,) float64, the exact log of rho_k at each.
    """

    x: Float[Tensor, " n d"]
    log_density: Float[Tensor, " n"]

    def free_energy(self, energy: Energy) -> float:
        """``E[U + log rho_k]``: the relative entropy to the target, up to the constant that normalises it."""
        return float((energy(self.x).double() + self.log_density).mean())


class JKOFlow(GenerativeModel):
    """``steps`` JKO steps of length ``tau`` from N(0, I) towards ``e^-U``.

    The *energy* is the data here: a batch only says how many particles to draw (with samples and no energy, the
    divergence needs a critic, and that is ``UnbalancedTransport``). All densities are exact, by determinants of d x d
    Hessians and by inverting convex gradients, which is why d stays small.

    Args:
        energy: U.
        features: d, at most 3.
        steps, tau: how many steps, and how long.
        width: of each convex network.

    Raises:
        RangeError: more than 3 dimensions.
    """

    formula = (
        r"\rho_{k+1}=(\nabla\psi_k)_\#\rho_k,\ \psi_k=\arg\min\mathbb E_{\rho_k}\big[U(\nabla\psi)"
        r"-\log\det\nabla^2\psi+\tfrac1{2\tau}\|\nabla\psi-x\|^2\big]"
    )
    source = "Jordan, Kinderlehrer & Otto 1998; Mokrov et al. 2021 (2106.00736)"

    def __init__(
        self, energy: Energy, features: int = 2, *, steps: int = 5, tau: float = 0.15, width: int = 32
    ) -> None:
        super().__init__()
        if check_count("features", features) > 3:
            raise RangeError(f"features: got {features}, expected at most 3: the determinants are computed exactly")
        self.energy, self.event, self.tau = energy, (features,), check_number("tau", tau, 1e-6)
        self.potentials = nn.ModuleList(ICNN(features, width=width) for _ in range(check_count("steps", steps)))
        self.steps = steps

    # Training: one potential after the other -----------------------------------------------------------------------

    def phases(self) -> tuple[Phase, ...]:
        # A convex network's weights are logarithms, more or less, and need a higher rate than those of others.
        return tuple(Phase(f"step {k + 1}", tuple(psi.parameters()), lr=20.0) for k, psi in enumerate(self.potentials))

    def phase_at(self, done: int, total: int) -> Phase:
        return self.phases()[min(done * self.steps // max(total, 1), self.steps - 1)]

    def loss(self, batch: Batch, phase: str = "step 1", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        """What the step is worth: the objective at grad psi minus that of staying, at most 0 at the minimum."""
        k = [p.name for p in self.phases()].index(phase)
        x = self.prior(len(batch[0]), generator=generator)
        for psi in self.potentials[:k]:
            x = psi.push(x)[0].detach()
        return jko_objective(self.potentials[k], x, self.energy, self.tau)

    # Between the prior and the target ------------------------------------------------------------------------------

    def reverse_process(self, z, cond=None, *, steps=None, generator) -> Iterator[Tensor]:
        """The particles after 0, 1, ... steps; ``steps`` cuts the flow short."""
        check_unlabelled(cond)
        return (frame.x for frame in self.flow(z, steps))

    @torch.no_grad()
    def flow(self, z: Float[Tensor, " n d"], steps: int | None = None) -> Iterator[JKOFrame]:
        """Particles and their exact log-densities after 0, 1, ..., ``steps`` steps; z are draws of the prior.

        Raises:
            RangeError: more steps than there are potentials.
        """
        steps = self.steps if steps is None else check_count("steps", steps, 0)
        if steps > self.steps:
            raise RangeError(f"steps: got {steps}, expected at most {self.steps}, one per potential")
        x, log_density = z, standard_normal_log_prob(z)
        yield JKOFrame(x, log_density)
        for psi in self.potentials[:steps]:
            x, hessian = psi.push(x)
            log_density = log_density - torch.linalg.slogdet(hessian.double())[1]
            yield JKOFrame(x, log_density)

    def origins(self, x: Float[Tensor, " b d"], steps: int | None = None) -> list[Float[Tensor, " b d"]]:
        """Where points of rho_k came from: ``[x_k = x, x_{k-1}, ..., x_0]`` in float64, k = ``steps``.

        Each is found by minimising ``psi(x) - x.y``: the inverse of a convex gradient.
        """
        if tuple(x.shape[1:]) != self.event:
            raise ShapeError(f"x: got shape {tuple(x.shape)}, expected (b, {self.event[0]})")
        path = [x.detach().double()]
        for psi in reversed(self._exact()[: self.steps if steps is None else steps]):
            path.append(psi.pull(path[-1]))
        return path

    def forward_process(self, x, t, *, generator=None):
        """Back along each particle's track, a straight line per step: t = 0 the data, t = 1 the draw of the prior."""
        check_times("t", t, len(x), 1.0)
        path = torch.stack(self.origins(x), 1)  # (b, steps + 1, d)
        at = (t * self.steps).clamp(max=self.steps)
        low = at.floor().long().clamp(max=self.steps - 1)
        rest, rows = (at - low).to(path)[:, None], torch.arange(len(x))
        return ((1 - rest) * path[rows, low] + rest * path[rows, low + 1]).to(x.dtype)

    def log_prob(self, x, cond=None, *, generator=None):
        """Exact: ``log N(x_0) - sum_k log det hessian psi_k(x_k)`` along the way back."""
        check_unlabelled(cond)
        return LogProb(self.log_density(x, self.steps), "exact")

    def log_density(self, x: Float[Tensor, " b d"], steps: int) -> Float[Tensor, " b"]:
        """``log rho_k`` with k = ``steps``, float64: for pictures of the flow's densities on a grid."""
        *_, start = self.origins(x, steps)
        *_, end = JKOFlow.flow(self._double(), start, steps)
        return end.log_density

    def _double(self) -> JKOFlow:
        return copy.deepcopy(self).double()

    def _exact(self) -> list[ICNN]:
        return list(self._double().potentials)

    @classmethod
    def small(cls):
        world = three_hills()
        points = world.sample(4096, generator=torch.Generator().manual_seed(0)).float()
        return cls(lambda x: -world.log_prob(x).to(x), steps=5, tau=0.15), Batches((points,), 256), 500


def jko_objective(
    psi: ICNN, x: Float[Tensor, " b d"], energy: Energy, tau: float, proximal: float = 1.0
) -> Float[Tensor, " b"]:
    """``U(T x) - U(x) - log det dT + proximal |T x - x|^2/(2 tau)`` with ``T = grad psi``, per particle x of rho_k.

    Its mean is ``F(T_# rho_k) - F(rho_k) + |T - id|^2/(2 tau)``: zero for the identity, so a negative value is a step
    down. ``proximal = 0`` is the mistake of minimising F alone: the step then goes all the way.
    """
    there, hessian = psi.push(x)
    fall = energy(there) - energy(x) - torch.linalg.slogdet(hessian)[1]
    return fall + proximal * (there - x).square().sum(1) / (2 * tau)


def displaced(x: Float[Tensor, " b d"], there: Float[Tensor, " b d"], share: float) -> Float[Tensor, " b d"]:
    """McCann's interpolation ``((1 - share) id + share T)_# rho``: every point goes part of its way.

    The mixture ``(1 - share) rho + share T_# rho`` sends a part of the points all the way instead: between N(0, s^2)
    and the same shifted by 3, its variance is 9/4 + s^2 half-way, where the displaced cloud keeps s^2.
    """
    return (1 - share) * x + share * there


def three_hills() -> GaussianMixture:
    """Three broad Gaussians around the origin, the energy of ``JKOFlow.small``."""
    return GaussianMixture([1.0, 1.0, 1.0], [[0.0, 1.6], [1.4, -0.8], [-1.4, -0.8]], [0.2, 0.2, 0.2])
