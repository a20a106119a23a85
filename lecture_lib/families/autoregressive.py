"""Families that draw one number after the other: the chain rule, and nothing else.

    log p(x) = sum_{i=1}^{n} log p(x_i | x_1 ... x_{i-1})         the first term included

forward_process    none: nothing is noised
reverse_process    x_i = F_i^{-1}(u_i), F_i the distribution function of place i given what was drawn before
loss               cross-entropy of all places at once
log_prob           the sum, exact, of probabilities of grey levels
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.data import Batches, digits
from lecture_lib.errors import NotDefined, ShapeError
from lecture_lib.families.base import Batch, GenerativeModel, LogProb
from lecture_lib.families.encoding import check_steps, check_unlabelled, heard
from lecture_lib.families.levels import Levels
from lecture_lib.nets import CausalTransformer, positions_2d
from lecture_lib.tensors import check_batch, check_count, check_number


def sharpened(
    logits: Float[Tensor, " b k"], temperature: float = 1.0, top_k: int | None = None
) -> Float[Tensor, " b k"]:
    """Logits of a narrower choice: divided by the temperature, and the ``top_k`` largest alone.

    Whoever draws from these draws from another model than ``log_prob`` speaks of.

    Raises:
        RangeError: temperature is not above 0, or top_k is below 1.
    """
    logits = logits / check_number("temperature", temperature, 1e-6)
    if top_k is None or check_count("top_k", top_k) >= logits.shape[-1]:
        return logits
    others = torch.ones_like(logits, dtype=torch.bool).scatter(-1, logits.topk(top_k, dim=-1).indices, False)
    return logits.masked_fill(others, -math.inf)  # of equal ones, too, no more than top_k are left


def drawn(logits: Float[Tensor, " b k"], u: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """The level whose step of the distribution function holds u in [0, 1): a draw, if u is uniform."""
    steps = logits.double().softmax(-1).cumsum(-1)
    steps = steps / steps[:, -1:]  # the last is 1 and not 1 - 1e-16: no u lies above it
    return (steps <= u[:, None]).sum(-1)


class AutoregressiveModel(GenerativeModel):
    """Grey levels in reading order, each given those before it.

    Args:
        network: trained; what it is told and how is each family's own business.
        event: shape of one sample; its numbers are read in the order of memory, row by row.
        levels: number of grey levels, from -1 to 1.
        null: the label that stands for "no class"; None for a network without classes.
        p_uncond: how often a label is dropped in training, so that the model can also be asked for no class.
    """

    def __init__(
        self,
        network: nn.Module,
        event: tuple[int, ...],
        *,
        levels: int = 17,
        null: int | None = None,
        p_uncond: float = 0.1,
    ) -> None:
        super().__init__()
        self.network, self.event, self.levels = network, tuple(event), Levels(levels)
        self.null, self.p_uncond = null, check_number("p_uncond", p_uncond, 0, 1)
        self.steps = math.prod(self.event)

    @abstractmethod
    def logits(
        self, x: Float[Tensor, " b *event"], numbers: Int[Tensor, " b n"], cond: Tensor | None
    ) -> Float[Tensor, " b n k"]:
        """Of all places at once; ``numbers`` are the levels of x in reading order."""

    def log_probs(self, x: Float[Tensor, " b *event"], cond: Tensor | None = None) -> Float[Tensor, " b n"]:
        """``log p(x_i | x_<i)`` of every place, the first included, with gradients.

        Raises:
            ShapeError: x is not (b, *event), or there is no condition to be had.
            RangeError: x is not on the levels.
        """
        if check_batch("x", x).shape[1:] != self.event:
            raise ShapeError(f"x: got {tuple(x.shape)}, expected (b, {', '.join(map(str, self.event))})")
        if self.null is None:
            check_unlabelled(cond)
        numbers = self.levels.numbers(x).flatten(1)
        return -F.cross_entropy(self.logits(x, numbers, cond).transpose(1, 2), numbers, reduction="none")

    def loss(self, batch: Batch, phase: str = "all", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Nats per place."""
        x, cond = heard(batch, self.null, self.p_uncond, generator)
        return -self.log_probs(x, cond).mean(1)

    @torch.no_grad()
    def log_prob(self, x, cond=None, *, generator=None):
        return LogProb(self.log_probs(x, cond).double().sum(1), "exact", of="probability")

    def forward_process(self, x, t, *, generator=None):
        raise NotDefined(f"forward_process: {type(self).__name__} reads pixels and never noises them; expected x alone")

    def prior(self, n: int, *, generator: torch.Generator) -> Float[Tensor, " n d"]:
        """One uniform number for each place: what a draw from a distribution function starts from."""
        u = torch.rand(check_count("n", n), self.steps, generator=generator, device=generator.device)
        return u.to(next(self.parameters()).device)

    @torch.no_grad()
    def reverse_process(
        self,
        z: Float[Tensor, " b d"],
        cond: Tensor | None = None,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> Iterator[Float[Tensor, " b *event"]]:
        """One frame per place; what is not drawn yet is 0. ``z`` is all the randomness there is.

        Args:
            temperature, top_k: as in ``sharpened``.

        Raises:
            RangeError: another number of steps than places: none can be skipped.
        """
        check_steps(steps, self.steps, "one for each number of a sample")
        x = z.new_zeros(len(z), self.steps)
        reading = self.read(x.reshape(len(z), *self.event), cond)
        for place, logits in enumerate(reading):  # ``read`` sees what is written into x
            x[:, place] = self.levels.values(drawn(sharpened(logits, temperature, top_k), z[:, place]))
            yield x.reshape(len(z), *self.event).clone()

    @abstractmethod
    def read(self, x: Float[Tensor, " b *event"], cond: Tensor | None) -> Iterator[Float[Tensor, " b k"]]:
        """Logits of place after place; each is asked for only when all places before it have been written into x."""


class AutoregressiveTransformer(AutoregressiveModel):
    """Pixels as tokens, and a transformer that sees those before: language modelling, word for word."""

    formula = r"\log p(x)=\sum_{i=1}^{n}\log p(x_i\mid x_{<i})"
    source = "Chen et al. 2020 (image GPT); Radford et al. 2019 (GPT-2)"

    network: CausalTransformer

    def logits(self, x, numbers, cond):
        return self.network(numbers, cond)

    def read(self, x, cond):
        logits, memory = self.network.begin(len(x), cond)
        yield logits
        for place in range(self.steps - 1):
            number = self.levels.numbers(x.flatten(1)[:, place])
            logits, memory = self.network.next(number, memory)
            yield logits

    @classmethod
    def digits(
        cls, *, dim: int = 64, depth: int = 3, heads: int = 4, n_classes: int = 10, p_uncond: float = 0.1
    ) -> AutoregressiveTransformer:
        """For pictures (1, 8, 8) of 17 levels; positions start from the places' rows and columns."""
        network = CausalTransformer(
            17, 64, dim=dim, depth=depth, heads=heads, n_classes=n_classes, positions=positions_2d(8, 8, dim)
        )
        nn.init.normal_(network.start.table.weight)  # heard once, at the start: it must not be quieter than a place
        return cls(network, (1, 8, 8), null=n_classes or None, p_uncond=p_uncond)

    @classmethod
    def small(cls):
        return cls.digits(dim=32, depth=2, n_classes=0), small_digits(), 150


def small_digits(batch_size: int = 32) -> Batches:
    """Batches of digits without labels, for ``small`` models of pictures."""
    return Batches((digits().images,), batch_size)
