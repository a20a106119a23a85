"""Two networks on an interpolant between two ends: the learned counterpart of the exact bridge."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core.conditions import Cond, check_cond, drop_condition, expand_cond
from lecture_lib.core.denoiser import thousand
from lecture_lib.core.interpolants import Interpolant, TwoSided
from lecture_lib.core.times import Times
from lecture_lib.errors import ShapeError
from lecture_lib.tensors import blend, check_batch, check_times, randn_like


class TwoSidedDenoiser(nn.Module):
    """What ``Denoiser`` is on a path, on an ``Interpolant``: callable as ``(x_t, t, cond) -> TwoSided``.

    Two regressions whose targets stay finite at both ends, where that of the velocity itself does not:

        transport   E[alpha' x0 + beta' x1 | x_t]
        noise       E[z | x_t]
        velocity  = transport + gamma' noise            score = -noise/gamma

    Args:
        transport, noise: networks ``(x (b, ...), network time (b,), cond) -> like x``.
        path: between the two ends; both ends must be mixed at the times that are asked.
        null: what stands for "no condition", as in ``Denoiser``.

    Source: Albergo et al. 2023 (2303.08797), section 2.2 (their b is our velocity) and equation 2.13 on.
    """

    def __init__(self, transport: nn.Module, noise: nn.Module, path: Interpolant, *, null: Cond | None = None) -> None:
        super().__init__()
        if not isinstance(path, Interpolant):
            raise ShapeError(f"path: got {type(path).__name__}, expected an Interpolant; a Path goes with a Denoiser")
        self.transport, self.noise, self.path, self.null = transport, noise, path, null

    def raw(
        self, x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"], cond: Cond | None
    ) -> tuple[Float[Tensor, " b *d"], Float[Tensor, " b *d"]]:
        """What the two networks say: transport and noise."""
        clock = thousand(self.path, t).to(x_t.dtype)
        said = self.transport(x_t, clock, cond), self.noise(x_t, clock, cond)
        for y in said:
            if y.shape != x_t.shape:
                raise ShapeError(f"network: returned {tuple(y.shape)} for {tuple(x_t.shape)}, expected the same shape")
        return tuple(y.to(x_t.dtype) for y in said)  # autocast answers in bfloat16

    def forward(self, x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"], cond: Cond | None = None) -> TwoSided:
        """The means given ``x_t``; two evaluations count as one, since either network has half the weights.

        Raises:
            ShapeError, RangeError, NonFiniteError: as in ``Denoiser``.
            SingularError: where x0 and x1 do not follow from the two networks.
        """
        b = check_batch("x_t", x_t).shape[0]
        t = check_times("t", t, b, self.path.t_max).double()
        cond = expand_cond(check_cond(None, self.null) if cond is None else cond, b, x_t.device)
        return TwoSided.decoded(self.path, t, x_t, *self.raw(x_t, t, cond))

    def given(self, cond: Cond | int | None) -> TwoSidedGiven:
        """The denoiser with its condition bound."""
        return TwoSidedGiven(self, check_cond(cond, self.null))

    def loss(
        self,
        x0: Float[Tensor, " b *d"],
        x1: Float[Tensor, " b *d"],
        cond: Cond | None = None,
        *,
        times: Times,
        p_uncond: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " b"]:
        """``|transport - (alpha' x0 + beta' x1)|^2 + |noise - z|^2`` per sample, each a mean over dimensions."""
        b = check_batch("x0", x0).shape[0]
        t = check_times("times", times.sample(b, generator=generator, device=x0.device), b, self.path.t_max)
        z = randn_like(x0, generator)
        cond = expand_cond(check_cond(cond, self.null), b, x0.device)
        if p_uncond and cond is not None:
            cond = drop_condition(cond, self.null, p_uncond, generator)
        dalpha, dbeta, _ = self.path.derivatives(t)
        transport, noise = self.raw(self.path.interpolate(x0, x1, z, t), t, cond)
        errors = transport - blend((dalpha, x0), (dbeta, x1)), noise - z
        return sum(error.square().flatten(1).mean(1) for error in errors)


@dataclass(frozen=True)
class TwoSidedGiven:
    """A two-sided denoiser with its condition bound; callable as ``(x_t, t) -> TwoSided``."""

    denoiser: TwoSidedDenoiser
    cond: Cond | None

    def __call__(self, x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"]) -> TwoSided:
        return self.denoiser(x_t, t, self.cond)
