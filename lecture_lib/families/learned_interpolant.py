"""A schedule that is learned for straightness: the open question of the lecture.

Fixed data and fixed noise can be joined by any alpha and sigma. Each choice has a marginal velocity v(x, t) and with it
an energy, what the flow costs:

    E(alpha, sigma) = int E|v(x_t, t)|^2 dt = E|x_1 - x_0|^2 + E int |v - (x_1 - x_0)|^2 dt  >=  W_2^2(data, noise)

The flows of all schedules with these ends are one flow, up to a scale and a clock: the pairs (x_0, x_1) are always the
same, so the first term is a constant, and what a schedule can lower is the second, the bend of the trajectories. With
the network at its optimum, E is ``E[2 x_t' v - |v|^2]``, so schedule and network play

    min over (alpha, sigma)  max over v   E[ 2 v (alpha' x0 + sigma' eps) - |v|^2 ]

where the inner maximum is flow matching. (A schedule that lowered the regression loss instead would cheat: the loss is
the variance that the network cannot know, and hiding it makes paths no straighter.) What low energy is worth to a
solver of few steps is another question; ``course bench schedules`` measures it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import VELOCITY, Denoiser, Path, UniformTimes
from lecture_lib.families.base import Batch, Phase
from lecture_lib.families.denoising import DenoisingModel, two_moons
from lecture_lib.nets import TimeMLP
from lecture_lib.samplers import Heun
from lecture_lib.tensors import blend, check_count, randn_like


class LearnedLine(nn.Module, Path):
    """``alpha`` from 1 to 0 and ``sigma`` from 0 to 1, each a monotone Bernstein polynomial with learned steps.

    A tenth of every step is fixed: neither can become flat. All logits 0 give the straight line. Unlike in
    ``LearnedSchedule`` the ends are exact and the two are free of each other. Equal are only those that are the same
    object.

    Args:
        degree: steps per polynomial; ``alpha_logits`` and ``sigma_logits`` are ``(degree,)``.
    """

    formula = r"\alpha=\sum_kc_kB_{k,n}(1-t),\quad\sigma=\sum_kd_kB_{k,n}(t)"
    source = "the course's own; the game is Albergo & Vanden-Eijnden 2023 (2209.15571), section 3"
    fixed = 0.1

    def __init__(self, degree: int = 12) -> None:
        super().__init__()
        self.alpha_logits = nn.Parameter(torch.zeros(check_count("degree", degree), dtype=torch.float64))
        self.sigma_logits = nn.Parameter(torch.zeros(degree, dtype=torch.float64))
        k = torch.arange(degree + 1, dtype=torch.float64)
        binomial = torch.lgamma(k[-1] + 1) - torch.lgamma(k + 1) - torch.lgamma(k[-1] - k + 1)
        self.register_buffer("_k", k, persistent=False)
        self.register_buffer("_binomial", binomial.exp(), persistent=False)

    def _rising(self, logits: Tensor, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        logits, k, binomial = (x.to(t.device, torch.float64) for x in (logits, self._k, self._binomial))
        n, t = len(logits), t.double()[..., None]
        steps = (1 - self.fixed) * logits.softmax(0) + self.fixed / n
        heights = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
        return (binomial * t**k * (1 - t) ** (n - k)) @ heights

    def alpha(self, t):
        return self._rising(self.alpha_logits, 1 - t)

    def sigma(self, t):
        return self._rising(self.sigma_logits, t)

    def extra_repr(self) -> str:
        """What stands between the brackets of the repr."""
        return f"degree={len(self.alpha_logits)}"


def path_energy(
    path: Path, velocity: Tensor, x0: Float[Tensor, " b *d"], eps: Float[Tensor, " b *d"], t: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """``2 v (alpha' x0 + sigma' eps) - |v|^2``, summed over dimensions; at the mean velocity its mean is ``E|v|^2``."""
    dalpha, dsigma = path.slopes(t)
    moving = blend((dalpha, x0), (dsigma, eps))
    return (velocity * (2 * moving - velocity)).flatten(1).sum(1)


class LearnedInterpolant(DenoisingModel):
    """Flow matching on a ``LearnedLine``: the network follows the schedule, the schedule lowers the energy.

    Args:
        denoiser: with velocity, on a ``LearnedLine``.
        event, w, p_uncond: as in ``DenoisingModel``.
        every: one update of the schedule after so many of the network.
    """

    formula = (
        r"\min_{\alpha,\sigma}\max_v\;\mathbb E\,[\,2v\cdot(\dot\alpha x_0+\dot\sigma\epsilon)-\|v\|^2\,]"
        r"\;\ge\;W_2^2"
    )
    source = "Albergo & Vanden-Eijnden 2023 (2209.15571), section 3.3; the parametrisation is the course's"
    games = ("velocity", "schedule")

    def __init__(self, denoiser: Denoiser, event: tuple[int, ...], *, every: int = 4, **options: float) -> None:
        super().__init__(denoiser, event, **options)
        self.every = check_count("every", every)

    def times(self):
        return UniformTimes()

    def sampler(self):
        return Heun()

    def phases(self):
        schedule = tuple(self.denoiser.path.parameters())
        velocity = tuple(self.denoiser.network.parameters())
        return (*[Phase("velocity", velocity)] * self.every, Phase("schedule", schedule, lr=10.0))

    def loss(self, batch: Batch, phase: str = "velocity", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        if phase == "velocity":
            return self._with_frozen(self.denoiser.path, super().loss, batch, generator)
        return self._with_frozen(self.denoiser.network, self._energy, batch, generator)

    def _energy(self, batch: Batch, *, generator: torch.Generator) -> Float[Tensor, " b"]:
        x0, *cond = batch
        eps, t = randn_like(x0, generator), self.times().sample(len(x0), generator=generator, device=x0.device)
        path = self.denoiser.path
        v = self.denoiser.raw(path.mix(x0, eps, t), t, *(cond or [None]), path.coeffs(t))
        return path_energy(path, v, x0, eps, t)

    @staticmethod
    def _with_frozen(part: nn.Module, loss, batch: Batch, generator: torch.Generator) -> Float[Tensor, " b"]:
        """The loss with no gradients for ``part``, whose turn it is not."""
        part.requires_grad_(False)
        try:
            return loss(batch, generator=generator)
        finally:
            part.requires_grad_(True)

    @classmethod
    def small(cls):
        denoiser = Denoiser(TimeMLP(2, width=64, depth=2), LearnedLine(), VELOCITY)
        return cls(denoiser, (2,)), two_moons(), 600
