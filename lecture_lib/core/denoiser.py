"""A network, put on a path: everything between "tensor in, tensor out" and "a prediction about clean data"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core.conditions import Cond, check_cond, drop_condition, expand_cond
from lecture_lib.core.couplings import Coupling, independent
from lecture_lib.core.losses import Weight, plain
from lecture_lib.core.parameterization import Parameterization
from lecture_lib.core.paths import Coeffs, Path
from lecture_lib.core.prediction import Denoise, Prediction
from lecture_lib.core.times import Times
from lecture_lib.errors import ShapeError
from lecture_lib.tensors import check_batch, check_times, per_sample


def thousand(path: Path, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Network time ``1000 t / t_max``. Sinusoidal embeddings expect 0..1000: fed with [0, 1] they barely move."""
    return 1000 * t / path.t_max


def quarter_log_noise(path: Path, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Network time ``(1/4) log(sigma/alpha)`` (Karras et al. 2022, Table 1, c_noise)."""
    return -path.lam(t) / 4


def unit_input(sigma_data: float) -> Callable[[Coeffs], Tensor]:
    """Input scale ``1/sqrt(alpha^2 sigma_data^2 + sigma^2)``: the network always sees unit variance (EDM's c_in)."""
    return lambda c: torch.rsqrt((c.alpha * sigma_data) ** 2 + c.sigma**2)


class Denoiser(nn.Module):
    """``network`` on ``path``, trained to predict ``parameterization``.

    Args:
        network: ``(x (b, ...), network time (b,), cond) -> like x``; knows nothing of diffusion.
        null: what stands for "no condition", *one sample's worth* (a scalar label such as ``torch.tensor(10)``,
            or a dict of tensors); None for a network without conditions.
        network_time: ``(path, t) -> (b,)``; the denoiser owns the conversion, callers always pass path time.
        input_scale: ``coeffs -> (b,)``, multiplies the network's input; None leaves it alone.
    """

    def __init__(
        self,
        network: nn.Module,
        path: Path,
        parameterization: Parameterization,
        *,
        null: Cond | None = None,
        network_time: Callable[[Path, Tensor], Tensor] = thousand,
        input_scale: Callable[[Coeffs], Tensor] | None = None,
    ):
        super().__init__()
        self.network, self.path, self.parameterization = network, path, parameterization
        self.null, self.network_time, self.input_scale = null, network_time, input_scale

    def raw(
        self, x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"], cond: Cond | None, c: Coeffs
    ) -> Float[Tensor, " b *d"]:
        """The network's own output y for a condition of batch size b."""
        x_in = x_t if self.input_scale is None else per_sample(self.input_scale(c), x_t) * x_t
        y = self.network(x_in, self.network_time(self.path, t).to(x_t.dtype), cond)
        if y.shape != x_t.shape:  # broadcasting would make a wrong picture of it, silently
            raise ShapeError(
                f"network: returned {tuple(y.shape)} for an input {tuple(x_t.shape)}, expected the same shape"
            )
        return y.to(x_t.dtype)  # autocast answers in bfloat16; the sampler's sums keep the precision of x_t

    def forward(self, x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"], cond: Cond | None = None) -> Prediction:
        """What the network says about ``x_t`` at path time ``t``; ``cond=None`` is unconditional.

        Raises:
            ShapeError: x_t is not a floating batch, t is not ``(b,)``, or the network changes the shape.
            RangeError: a time outside ``[0, path.t_max]``.
            NonFiniteError: NaN or infinity in x_t.
            SingularError: when x0 or eps is read, at a time where the parameterization does not determine them.
        """
        b = check_batch("x_t", x_t).shape[0]
        t = check_times("t", t, b, self.path.t_max).double()
        c = self.path.coeffs(t)
        y = self.raw(x_t, t, expand_cond(check_cond(None, self.null) if cond is None else cond, b, x_t.device), c)
        return Prediction.decoded(self.path, t, x_t, y, self.parameterization).at(c)

    def given(self, cond: Cond | int | None) -> Denoise:
        """The denoiser with its condition bound: a class number, a ``(b,)`` tensor, a dict; None is unconditional.

        Raises:
            RangeError: a label outside the classes that the network knows.
        """
        return Given(self, check_cond(cond, self.null))

    def loss(
        self,
        x0: Float[Tensor, " b *d"],
        cond: Cond | None = None,
        *,
        times: Times,
        weight: Weight = plain,
        coupling: Coupling = independent,
        p_uncond: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " b"]:
        """``w(t) |y_hat(x_t, t) - y|^2`` per sample (mean over its dimensions).

        Draw t and eps, mix, predict, compare: flow matching, DDPM, v-prediction and EDM are this loss on another path
        with another parameterization. With probability ``p_uncond`` a sample's condition is replaced by ``null``.
        """
        check_batch("x0", x0)
        b, device = x0.shape[0], x0.device
        t = check_times("times", times.sample(b, generator=generator, device=device), b, self.path.t_max)
        c = self.path.coeffs(t)
        eps = coupling(x0, generator)
        cond = expand_cond(check_cond(cond, self.null), b, device)
        if p_uncond:
            if cond is None:
                raise ShapeError(f"p_uncond: got {p_uncond}, but this network has no condition to drop")
            cond = drop_condition(cond, self.null, p_uncond, generator)
        y = self.raw(self.path.mix(x0, eps, t), t, cond, c)
        target = self.parameterization.encode(x0, eps, c)
        return weight(self.parameterization, c).to(x0.dtype) * (y - target).square().flatten(1).mean(1)


@dataclass(frozen=True)
class Given:
    """A denoiser with its condition bound; callable as ``(x_t, t) -> Prediction``."""

    denoiser: Denoiser
    cond: Cond | None

    def __call__(self, x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"]) -> Prediction:
        return self.denoiser(x_t, t, self.cond)
