"""Schroedinger bridges: of all ways between two ends, the one most like a Brownian motion.

Its ends are coupled by entropic optimal transport, and between them runs a Brownian bridge:

    (x0, x1) ~ pi,  minimising E |x0 - x1|^2/2 - sigma^2 H(pi)
    x_t = (1 - t) x0 + t x1 + sigma sqrt(t (1 - t)) z

so it is a stochastic interpolant with this coupling and epsilon = sigma^2/2; sigma -> 0 is optimal transport. What
finds the coupling is the question: mini-batches (here), or iterations (``iterated_bridges``).
"""

from __future__ import annotations

import torch
from torch import nn

from lecture_lib.core import BrownianNoise, TwoSidedDenoiser, linear_interpolant
from lecture_lib.core.conditions import Cond
from lecture_lib.core.couplings import EntropicPairing
from lecture_lib.data import ring
from lecture_lib.families.denoising import two_moons
from lecture_lib.families.interpolants import Cloud, End, TwoSidedModel, two_mlps
from lecture_lib.samplers import ConstantDiffusion, EulerMaruyama
from lecture_lib.tensors import check_number


class SchrodingerBridge(TwoSidedModel):
    """[SF]^2M: each batch coupled by Sinkhorn, then simulation-free regression of flow and score.

    Args:
        transport, noise: the two networks.
        event: shape of one sample.
        sigma: of the Brownian motion; in digits and planes of size 1, 0.3 to 1.
        other, p_uncond, margin: as in ``TwoSidedModel``.
        null: what stands for "no condition".
    """

    formula = (
        r"(x_0,x_1)\sim\pi^\star_{\sigma^2},\quad x_t=(1-t)x_0+t\,x_1+\sigma\sqrt{t(1-t)}\,z,"
        r"\quad dx=(b-\tfrac{\sigma^2}2s)\,dt+\sigma\,dW"
    )
    source = "Tong et al. 2024 (2307.03672), [SF]^2M, section 3"

    def __init__(
        self,
        transport: nn.Module,
        noise: nn.Module,
        event: tuple[int, ...],
        *,
        sigma: float = 1.0,
        other: End | None = None,
        null: Cond | None = None,
        **options: float,
    ) -> None:
        path = linear_interpolant(BrownianNoise(check_number("sigma", sigma, 1e-6) ** 2))
        super().__init__(TwoSidedDenoiser(transport, noise, path, null=null), event, other=other, **options)
        self.sigma = float(sigma)

    def pairing(self):
        return EntropicPairing(self.sigma)

    def sampler(self):
        return EulerMaruyama(ConstantDiffusion(self.sigma**2))

    @classmethod
    def small(cls):
        return cls(*two_mlps(), (2,), sigma=0.5, other=eight_gaussians()), two_moons(batch_size=128), 500


def eight_gaussians(n: int = 4096) -> Cloud:
    """Eight Gaussians on a circle as the other end of ``small`` bridges: always the same points."""
    return Cloud(ring(n, generator=torch.Generator().manual_seed(1))[0])
