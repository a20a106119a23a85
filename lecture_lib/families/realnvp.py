"""RealNVP: a density by a change of variables, through layers whose inverse and determinant cost nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core.likelihood import standard_normal_log_prob
from lecture_lib.errors import ShapeError
from lecture_lib.families.base import Batch, GenerativeModel, LogProb
from lecture_lib.families.bijections import (
    ActNorm,
    AffineCoupling,
    Bijection,
    Labels,
    Logit,
    checker_mask,
    half_mask,
    stripe_mask,
)
from lecture_lib.families.denoising import two_moons
from lecture_lib.families.encoding import check_steps, heard
from lecture_lib.nets import LabelMLP
from lecture_lib.tensors import check_batch, check_number, check_times


class RealNVP(GenerativeModel):
    """Invertible layers, one after the other: ``log p(x) = log N(z; 0, I) + sum of log |det|``, exactly.

    forward_process    the first of t L layers (rounded): data at 0, noise at 1; nothing is drawn
    reverse_process    the inverses, from the last layer to the first

    Args:
        layers: bijections, from data to noise; ``RealNVP.plane`` and ``RealNVP.digits`` build them.
        event: shape of one sample.
        null: the label that stands for "no class"; None for layers that hear no labels.
        p_uncond: how often a label is dropped in training, so that the model can also be asked for no class.
    """

    formula = r"z=f(x),\quad\log p(x)=\log\mathcal N(z;0,I)+\sum_\ell\log|\det J_\ell|"
    source = "Dinh et al. 2017 (1605.08803), eq. 3 to 8"

    def __init__(
        self, layers: Sequence[Bijection], event: tuple[int, ...], *, null: int | None = None, p_uncond: float = 0.1
    ) -> None:
        super().__init__()
        if not layers:
            raise ShapeError("layers: got none, expected at least one bijection")
        self.layers, self.event = nn.ModuleList(layers), tuple(event)
        self.null, self.p_uncond = null, check_number("p_uncond", p_uncond, 0, 1)
        self.steps = len(self.layers)

    def encode(
        self, x: Float[Tensor, " b *event"], cond: Labels = None
    ) -> tuple[Float[Tensor, " b *event"], Float[Tensor, " b"]]:
        """z and ``log |det dz/dx|`` of each sample, with gradients."""
        if check_batch("x", x).shape[1:] != self.event:
            raise ShapeError(f"x: got {tuple(x.shape)}, expected (b, {', '.join(map(str, self.event))})")
        total = x.new_zeros(len(x))
        for layer in self.layers:
            x, log_det = layer(x, cond)
            total = total + log_det
        return x, total

    def density(self, x: Float[Tensor, " b *event"], cond: Labels = None) -> Float[Tensor, " b"]:
        """``log p(x | cond)`` in nats, float64, with gradients; ``-D/2 log 2 pi`` is part of it."""
        z, log_det = self.encode(x, cond)
        return standard_normal_log_prob(z) + log_det

    def loss(self, batch: Batch, phase: str = "all", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Nats per dimension: pictures and points of the plane then learn at the same rate."""
        x, cond = heard(batch, self.null, self.p_uncond, generator)
        return (-self.density(x, cond) / x[0].numel()).to(x.dtype)

    @torch.no_grad()
    def log_prob(self, x, cond=None, *, generator=None):
        return LogProb(self.density(x, cond), "exact")

    @torch.no_grad()
    def forward_process(self, x, t, *, generator=None):
        passed = (check_times("t", t, len(x), 1.0) * len(self.layers)).round()
        for number, layer in enumerate(self.layers):
            through = (number < passed).reshape(-1, *(1,) * len(self.event))
            x = torch.where(through, layer(x)[0], x)
        return x

    @torch.no_grad()
    def reverse_process(self, z, cond=None, *, steps=None, generator) -> Iterator[Tensor]:
        """One frame per layer; the number of steps is the number of layers.

        Raises:
            RangeError: another number of steps is asked for.
        """
        check_steps(steps, len(self.layers), "one for each layer")
        for layer in reversed(self.layers):
            z = layer.inverse(z, cond)
            yield z

    @torch.no_grad()
    def start_from(self, x: Float[Tensor, " b *event"], cond: Labels = None) -> RealNVP:
        """Set every ``ActNorm`` from one batch, as it arrives there; a function of that batch alone."""
        for layer in self.layers:
            if isinstance(layer, ActNorm):
                layer.start_from(x)
            x, _ = layer(x, cond)
        return self

    @classmethod
    def plane(cls, *, couplings: int = 6, width: int = 64, n_classes: int = 0) -> RealNVP:
        """For points (2,): the coordinates take turns, with an ActNorm before each coupling."""
        mask, layers = half_mask((2,)), []
        for number in range(couplings):
            network = LabelMLP(2, 4, width=width, n_classes=n_classes)
            layers += [ActNorm((2,)), AffineCoupling(mask if number % 2 else ~mask, network)]
        return cls(layers, (2,), null=n_classes or None)

    @classmethod
    def digits(cls, *, rounds: int = 2, width: int = 64, depth: int = 1, n_classes: int = 10) -> RealNVP:
        """For dequantised digits (1, 8, 8): logits, then rounds of two checkerboards and two stripes."""
        event = (1, 8, 8)
        layers: list[Bijection] = [Logit(-17 / 16, 17 / 16), ActNorm(event)]
        for mask in (checker_mask(event), ~checker_mask(event), stripe_mask(event), ~stripe_mask(event)) * rounds:
            network = LabelMLP(64, 128, width=width, depth=depth, n_classes=n_classes)
            layers += [AffineCoupling(mask, network), ActNorm(event)]
        return cls(layers, event, null=n_classes or None)

    @classmethod
    def small(cls):
        batches = two_moons()
        return cls.plane().start_from(*batches.tensors), batches, 350
