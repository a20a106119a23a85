"""DiffFlow: score models and discriminator flows as one family of particle flows.

    dX = [beta grad log q - (beta - g^2/2) grad log p_t] dt + g dW,        q the smoothed data, p_t the particles' law

The law p_t does not depend on g: its equation is ``dp/dt = -div(p beta grad log q) + beta laplace p`` for all of them.
With ``share = g^2/(2 beta)`` and a discriminator whose logit is ``log q/p_t`` the drift is a weighted mean,

    drift / beta = (1 - share) grad logit + share grad log q,          noise  sqrt(2 beta share) dW

share = 1 is Langevin dynamics with a learned score, share = 0 moves particles by the discriminator alone.

Source: Zhang, Shi, Yu, Xie & Li 2023 (2307.02159), in a form without their extra drift f and scalings. The logit's sign
matters: particles *climb* log D/(1 - D); down -log D they would run away from the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import EDM, Denoiser, LogNormalNoise, edm, quarter_log_noise, unit_input
from lecture_lib.families.base import Batch, GenerativeModel, Phase
from lecture_lib.families.denoising import two_moons
from lecture_lib.families.particles import Velocity
from lecture_lib.nets import EventMLP, held, logistic_discriminator_loss
from lecture_lib.tensors import check_count, check_number, check_times, randn_like

Score = Callable[[Tensor, float], Tensor]
"""``(x (n, ...), time) -> grad log density (n, ...)``."""


def diffflow_velocity(score_q: Score, score_p: Score, *, beta: float, g: float) -> Velocity:
    """``beta score_q - (beta - g^2/2) score_p``, for ``particle_flow(..., noise=g)`` with the same g.

    Where both scores are known exactly: Gaussians, or any law with its own particles (``blob_score``).
    """
    keep = check_number("beta", beta, 0) - check_number("g", g, 0) ** 2 / 2
    return lambda x, time: beta * score_q(x, time) - keep * score_p(x, time)


class DiffFlow(GenerativeModel):
    """Particles led from noise to ever less smoothed data by a learned score, a learned discriminator, or both.

    At level k the target q is the data plus noise of ``sigmas[k]``, and a particle moves by one step of
    ``beta h = rate sigmas[k]^2``, as in annealed Langevin dynamics. The score of q is learned by denoising, without
    particles; the discriminator by telling smoothed data from the particles that its own earlier levels have moved.

    Args:
        denoiser: on an ``EDM`` path; with a ``null`` it is told labels.
        critic: ``(x (b, *event), time (b,), labels) -> logits (b,)``.
        event: shape of one sample.
        share: ``g^2/(2 beta)`` in [0, 1]; it may be set anew after training, since the law does not depend on it.
        levels: how many steps.
        sigmas: largest and smallest smoothing.
        rate: length of a step, in squares of the smoothing.
        inner: updates of the score for one of the critic, which costs a whole flow.
    """

    formula = (
        r"dX=\big[\beta\nabla\log q-(\beta-\tfrac12g^2)\nabla\log p_t\big]dt+g\,dW,\quad"
        r"\mathrm{logit}\,D=\log\tfrac q{p_t}"
    )
    source = "Zhang, Shi, Yu, Xie & Li 2023 (2307.02159)"
    games = ("critic",)

    def __init__(
        self,
        denoiser: Denoiser,
        critic: EventMLP,
        event: tuple[int, ...],
        *,
        share: float = 0.5,
        levels: int = 20,
        sigmas: tuple[float, float] = (1.0, 0.05),
        rate: float = 0.3,
        inner: int = 4,
    ) -> None:
        super().__init__()
        self.denoiser, self.critic, self.event = denoiser, critic, tuple(event)
        self.share, self.rate = check_number("share", share, 0, 1), check_number("rate", rate, 1e-6, 2)
        self.steps, self.inner = check_count("levels", levels, 2), check_count("inner", inner)
        ends = (math.log(check_number("sigmas", sigma, 1e-6)) for sigma in sigmas)
        self.register_buffer("sigmas", torch.linspace(*ends, levels, dtype=torch.float64).exp(), persistent=False)

    # Two networks, each with a loss of its own ---------------------------------------------------------------------

    def phases(self) -> tuple[Phase, ...]:
        score = Phase("score", tuple(self.denoiser.parameters()))
        return *(score,) * self.inner, Phase("critic", tuple(self.critic.parameters()))

    def loss(self, batch: Batch, phase: str = "score", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        data, cond = batch[0], batch[1] if len(batch) > 1 else None
        if phase == "score":
            middle = float(self.sigmas.log().mean())
            return self.denoiser.loss(data, cond, times=LogNormalNoise(self.denoiser.path, middle), generator=generator)
        z = self.prior(len(data), generator=generator)
        losses = []
        for k, x in enumerate(list(self._flow(z, cond, self.steps, generator))[:-1]):
            real = data + self.sigmas[k].to(data) * randn_like(data, generator)
            losses.append(logistic_discriminator_loss(self.logit(real, k, cond), self.logit(x, k, cond)))
        return torch.stack(losses, 1).mean(1)

    def logit(self, x: Float[Tensor, " b *event"], k: int, cond: Tensor | None = None) -> Float[Tensor, " b"]:
        """``log q/p`` at level k, as far as the critic knows."""
        scaled = x / (1 + self.sigmas[k].to(x) ** 2).sqrt()
        return self.critic(scaled, x.new_full((len(x),), 1000 * k / self.steps), cond)

    # The flow ------------------------------------------------------------------------------------------------------

    def prior(self, n, *, generator):
        """The widest smoothing of data of unit variance."""
        return (1 + self.sigmas[0].float() ** 2).sqrt() * super().prior(n, generator=generator)

    def forward_process(self, x, t, *, generator=None):
        """Data smoothed with noise of ``t`` times the largest sigma."""
        path = EDM(float(self.sigmas[0]))
        return path.mix(x, randn_like(x, generator), check_times("t", t, len(x), 1.0) * path.t_max)

    def reverse_process(self, z, cond=None, *, steps=None, generator) -> Iterator[Tensor]:
        """The particles level by level; ``steps`` stops early."""
        return self._flow(z, cond, self.steps if steps is None else check_count("steps", steps), generator)

    @torch.no_grad()
    def _flow(self, x: Tensor, cond: Tensor | None, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
        yield x
        for k in range(min(steps, self.steps)):
            length = self.rate * float(self.sigmas[k]) ** 2  # beta h
            x = x + length * self.drift(x, k, cond)
            if self.share:
                x = x + math.sqrt(2 * length * self.share) * randn_like(x, generator)
            yield x

    def drift(self, x: Float[Tensor, " b *event"], k: int, cond: Tensor | None = None) -> Float[Tensor, " b *event"]:
        """``(1 - share) grad logit + share score``: each network is asked only if it has a say."""
        drift = torch.zeros_like(x)
        if self.share < 1:
            with torch.enable_grad(), held(self.critic):
                at = x.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(self.logit(at, k, cond).sum(), at)
            drift = drift + (1 - self.share) * gradient
        if self.share > 0:
            drift = drift + self.share * self.denoiser.given(cond)(x, self.sigmas[k].expand(len(x))).score
        return drift

    @classmethod
    def small(cls):
        denoiser = smoothed(EventMLP((2,), width=64, depth=2, timed=True), sigma_data=0.8)
        critic = EventMLP((2,), (), width=64, depth=2, timed=True)
        return cls(denoiser, critic, (2,), levels=12, rate=0.4), two_moons(batch_size=128), 300


def smoothed(network: EventMLP, *, sigma_data: float = 1.0, null: Tensor | None = None) -> Denoiser:
    """A denoiser of data plus noise, scaled as in Karras et al. 2022, for the score of ``DiffFlow``."""
    return Denoiser(
        network, EDM(), edm(sigma_data), null=null, network_time=quarter_log_noise, input_scale=unit_input(sigma_data)
    )
