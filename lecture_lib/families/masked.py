"""Masked image modelling (MaskGIT): train by filling gaps, draw by filling an empty picture in a few parallel steps.

    training    r ~ U(0, 1);  ceil(gamma(r) n) places, chosen at random, are hidden
                L = -1/n sum over hidden i of log p(y_i | what is visible, c)
    decoding    all n places hidden;  for k = 1..T:
                y_i ~ p(. | what is visible, c) at every hidden place, all at once
                hide again the floor(gamma(k/T) n) places whose y_i are trusted least

gamma(r) = cos(pi r / 2). Within a step the places are drawn independently: one step knows no correlations at all, n
steps of one place each know all of them. Source: Chang et al. 2022 (MaskGIT), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lecture_lib.core.conditions import Cond, check_cond, drop_condition, expand_cond, map_cond
from lecture_lib.errors import ShapeError
from lecture_lib.nets import MaskedTransformer
from lecture_lib.tensors import check_count, check_number

Predict = Callable[[Tensor], Tensor]
"""Tokens (b, n), hidden ones masked -> logits (b, n, k): a masked model with its condition bound."""

Ratio = Callable[[Tensor], Tensor]
"""gamma: which share of the places is hidden at r in [0, 1]; falls from 1 to 0."""


def cosine(r: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """``cos(pi r / 2)``: first few tokens per step, when little is known, then many."""
    return torch.cos(math.pi / 2 * r)


def gumbel(like: Float[Tensor, "*b"], generator: torch.Generator | None) -> Float[Tensor, "*b"]:
    """Standard Gumbel noise ``-log E``, E ~ Exp(1): argmax(log p + noise) is a draw from p."""
    device = like.device if generator is None else generator.device
    noise = torch.empty(like.shape, dtype=like.dtype, device=device).exponential_(generator=generator)
    return -noise.log().to(like.device)


def hide(
    tokens: Int[Tensor, " b n"], mask: int, *, ratio: Ratio = cosine, generator: torch.Generator | None = None
) -> Int[Tensor, " b n"]:
    """``ceil(gamma(r) n)`` places of each row, at least one, chosen at random, become ``mask``; r ~ U(0, 1) per row."""
    b, n = tokens.shape
    device = tokens.device if generator is None else generator.device
    u = torch.rand(b, n + 1, generator=generator, device=device, dtype=torch.float64).to(tokens.device)
    count = (n * ratio(u[:, :1])).ceil().clamp(1, n)
    return torch.where(u[:, 1:].argsort(dim=1).argsort(dim=1) < count, mask, tokens)


class Order(Protocol):
    """How far the draws are trusted; the places with the lowest scores are hidden again."""

    def __call__(
        self, log_p: Float[Tensor, " b n"], left: float, generator: torch.Generator | None
    ) -> Float[Tensor, " b n"]:
        """Scores, from log p(y_i) of the draws and from the share of steps that are left (0 at the last)."""


@dataclass(frozen=True)
class MostConfident:
    """``log p(y_i) + temperature (1 - k/T) Gumbel``: sure of the likely ones, with noise that is turned down.

    Which places are kept depends on what was drawn there, so the law of the result is not the model's: with one place
    per step, too, likely pictures come more often than they should. More temperature: less of it, more variety.
    Source: Chang et al. 2022, section 3.2; that the noise is Gumbel's is in their code.
    """

    temperature: float = 2.0

    def __call__(self, log_p: Tensor, left: float, generator: torch.Generator | None) -> Tensor:
        return log_p + self.temperature * left * gumbel(log_p, generator)


@dataclass(frozen=True)
class RandomOrder:
    """A fresh random order at every step: with one place per step, an exact autoregressive draw."""

    def __call__(self, log_p: Tensor, left: float, generator: torch.Generator | None) -> Tensor:
        return gumbel(log_p, generator)


@dataclass(frozen=True)
class MaskedFrame:
    """One step of decoding.

    Attributes:
        step: 1..steps.
        tokens: (b, n), a whole picture: what is kept, and this step's draw wherever it is not.
        hidden: (b, n), True where the draw was not trusted and will be drawn again; False everywhere at the end.
        log_p: (b, n), the model's log-probability of each draw; 0 for those that were kept before.
    """

    step: int
    tokens: Int[Tensor, " b n"]
    hidden: Bool[Tensor, " b n"]
    log_p: Float[Tensor, " b n"]


def decode(
    predict: Predict,
    tokens: Int[Tensor, " b n"],
    mask: int,
    *,
    steps: int = 12,
    order: Order | None = None,
    ratio: Ratio = cosine,
    generator: torch.Generator | None = None,
) -> Iterator[MaskedFrame]:
    """Fill what is masked in ``tokens`` in ``steps`` parallel steps, yielding each. Visible tokens are never changed.

    Every step keeps at least one more place of a row that has hidden ones left, so n steps or more keep one each.

    Args:
        predict: logits, given the tokens so far.
        tokens: all ``mask`` for a new picture; partly, to have a picture completed.
        mask: the token that stands for "hidden".
        order: which draws are kept; default ``MostConfident()``.
        ratio: gamma; after step k, floor(gamma(k/steps) m) of a row's m places are hidden.
    """
    check_count("steps", steps)
    order, hidden = order or MostConfident(), tokens == mask
    at_first = hidden.sum(dim=1, keepdim=True)  # (b, 1)
    for k in range(1, steps + 1):
        log_p = F.log_softmax(predict(tokens.masked_fill(hidden, mask)).float(), dim=-1)  # (b, n, k)
        drawn = (log_p + gumbel(log_p, generator)).argmax(dim=-1)
        tokens = torch.where(hidden, drawn, tokens)
        chance = log_p.gather(-1, tokens[..., None])[..., 0].masked_fill(~hidden, 0.0)
        share = ratio(torch.tensor(k / steps, dtype=torch.float64)).item()
        remaining = (at_first * share).floor().minimum(hidden.sum(dim=1, keepdim=True) - 1)
        hidden = least_trusted(order(chance, 1 - k / steps, generator), hidden, remaining)
        yield MaskedFrame(k, tokens, hidden, chance)


def least_trusted(
    scores: Float[Tensor, " b n"], hidden: Bool[Tensor, " b n"], count: Int[Tensor, " b 1"]
) -> Bool[Tensor, " b n"]:
    """The ``count`` places with the lowest scores of each row, among those that are hidden."""
    rank = scores.masked_fill(~hidden, math.inf).argsort(dim=1).argsort(dim=1)
    return rank < count


class MaskedImageModel(nn.Module):
    """A masked transformer with its loss, and with what stands for "no condition".

    Args:
        network: (tokens, cond) -> logits; has ``mask``, ``size`` and ``length``.
        null: one sample's worth of the empty condition, such as ``JointText.null``; None for a network without.
        smoothing: label smoothing of the cross-entropy (0.1 in the paper's appendix).
    """

    def __init__(self, network: MaskedTransformer, *, null: Cond | None = None, smoothing: float = 0.0) -> None:
        super().__init__()
        self.network, self.null = network, null
        self.smoothing = check_number("smoothing", smoothing, 0, 1)

    def forward(self, tokens: Int[Tensor, " b n"], cond: Cond | None = None) -> Float[Tensor, " b n k"]:
        """Logits of the codes; ``cond = None`` is unconditional.

        Raises:
            ShapeError, RangeError: as in the network; a condition of another shape than ``null``.
        """
        return self.network(tokens, expand_cond(check_cond(cond, self.null), len(tokens), tokens.device))

    def loss(
        self,
        tokens: Int[Tensor, " b n"],
        cond: Cond | None = None,
        *,
        p_uncond: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " b"]:
        """``-1/n sum over hidden places of log p(y_i | visible, c)``: each hidden place weighs the same in a batch."""
        cond = expand_cond(check_cond(cond, self.null), len(tokens), tokens.device)
        if p_uncond:
            if cond is None:
                raise ShapeError(f"p_uncond: got {p_uncond}, but this network has no condition to drop")
            cond = drop_condition(cond, self.null, p_uncond, generator)
        masked = hide(tokens, self.network.mask, generator=generator)
        logits = self.network(masked, cond)
        each = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none", label_smoothing=self.smoothing)
        return (each * (masked == self.network.mask)).mean(dim=1)

    def guided(self, cond: Cond | None, w: float, *, negative: Cond | None = None) -> Predict:
        """Classifier-free guidance on logits, ``l = l_0 + w (l_c - l_0)``, in one pass over a double batch.

        w = 1 is the conditional model and takes one pass over a single batch. As log p is the logits less a number,
        this is the density p_0 (p_c/p_0)^w at each place (Chang et al. 2023, Muse).

        Args:
            cond: what is wanted.
            w: guidance scale.
            negative: what is to be avoided; default: the null condition.
        """
        w = check_number("w", w)
        if w == 1:
            return lambda tokens: self(tokens, cond)
        if self.null is None:
            raise ShapeError(f"w: got {w} for a network without condition, expected 1")
        branches = check_cond(negative, self.null), check_cond(cond, self.null)

        def predict(tokens: Tensor) -> Tensor:
            both = map_cond(lambda r, m: torch.cat([r, m]), *(expand_cond(c, len(tokens)) for c in branches))
            reference, main = self.network(tokens.repeat(2, 1), both).chunk(2)
            return torch.lerp(reference, main, w)

        return predict

    def blank(self, n: int) -> Int[Tensor, " n k"]:
        """``n`` pictures with every place hidden: where decoding starts."""
        device = next(self.parameters()).device
        return torch.full((check_count("n", n), self.network.length), self.network.mask, device=device)
