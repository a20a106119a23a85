"""The five verbs of every generative family, and how a family that lacks one says so.

    forward_process   data -> the state at time t: noised, encoded, transported
    reverse_process   the prior's side -> data, frame by frame
    loss              what one update lowers, for each phase of training
    sample            draw from the prior, reverse
    log_prob          nats, and whether they are exact, a lower bound or an estimate

A family writes the verbs that it has; the others raise ``NotDefined`` (there is no such thing) or ``NotTractable``
(there is, but nobody can compute it), with the reason. The rest of the course, ``fit`` first of all, knows only this
class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.data import Draws
from lecture_lib.errors import NotDefined, NotTractable, ShapeError
from lecture_lib.families.fit import fit
from lecture_lib.tensors import check_count, layers_from, randn_like

Kind = Literal["exact", "lower bound", "estimate"]
Batch = tuple[Tensor, ...]
"""(data (b, *event), condition (b, ...)), or the data alone."""


@dataclass(frozen=True)
class LogProb:
    """``log p(x)`` of a batch, and what the number is worth.

    Attributes:
        nats: (b,), float64, with every normaliser: densities integrate to 1, probabilities add up to 1.
        kind: "exact" (up to rounding or the steps of a solver), "lower bound" (its expectation is at most log p) or
            "estimate" (near log p, on neither side for certain).
        of: "density", or "probability" where x has grey levels and the model speaks of levels.
    """

    nats: Float[Tensor, " b"]
    kind: Kind
    of: Literal["density", "probability"] = "density"

    def __post_init__(self):
        if self.nats.ndim != 1 or self.nats.dtype != torch.float64:
            raise ShapeError(f"nats: got {self.nats.dtype} of shape {tuple(self.nats.shape)}, expected float64 (b,)")


@dataclass(frozen=True)
class Phase:
    """One kind of update: whose weights move, and how fast.

    Attributes:
        name: what ``loss`` is told.
        parameters: the weights that move; those of all phases together are the model's. Two phases have the same
            weights (and then the same rate and betas) or none in common.
        lr: times the rate that ``fit`` is given: 1 unless a part must be slower or faster than the others.
        betas: of Adam; (0, 0.9) or (0.5, 0.99) where the opponent moves too.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    lr: float = 1.0
    betas: tuple[float, float] = (0.9, 0.99)


@dataclass(frozen=True)
class Demo:
    """What ``GenerativeModel.demo`` made.

    Attributes:
        model: trained a little.
        losses: per phase, one number per update.
        samples: (n, *event); None from a family that draws none.
    """

    model: GenerativeModel
    losses: dict[str, list[float]]
    samples: Float[Tensor, " n *event"] | None


class GenerativeModel(nn.Module, ABC):
    """A family of generative models behind five verbs.

    Attributes:
        event: shape of one sample, such as (2,) or (1, 8, 8).
        steps: how many steps ``sample`` makes unless told; 1 for families that jump.
        games: phases whose loss need not fall, because another phase works against it.
        formula, source: for tables; the formula is LaTeX without dollars.
    """

    event: tuple[int, ...]
    steps: int = 1
    games: ClassVar[tuple[str, ...]] = ()
    formula: ClassVar[str]
    source: ClassVar[str]

    # What is trained, and when -------------------------------------------------------------------------------------

    def phases(self) -> tuple[Phase, ...]:
        """The kinds of updates, in the order of one round; a phase may come several times in it."""
        return (Phase("all", tuple(self.parameters())),)

    def phase_at(self, done: int, total: int) -> Phase:
        """The phase of the update after ``done`` of ``total``: round and round, unless a family trains in stages."""
        phases = self.phases()
        return phases[done % len(phases)]

    def after_update(self, phase: str) -> None:
        """What follows an update without gradients: averages of weights, running codebooks."""

    @abstractmethod
    def loss(self, batch: Batch, phase: str = "all", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        """One number per sample, of the phase's own loss; only its parameters receive gradients."""

    def start_from(self, x: Float[Tensor, " b *event"], cond: Tensor | None = None) -> Self:
        """Take normalisations from a first batch, drawing nothing, and return the model; most families have none."""
        return self

    # Between data and the prior ------------------------------------------------------------------------------------

    def prior(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Where ``reverse_process`` starts: N(0, I) of the event's shape unless a family says otherwise."""
        return randn_like(next(self.parameters()).new_empty(check_count("n", n), *self.event), generator)

    def forward_process(
        self, x: Float[Tensor, " b *event"], t: Float[Tensor, " b"], *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The state of data ``x`` at times ``t`` in [0, 1]: x itself at 0, the prior's side at 1.

        Raises:
            NotDefined: nothing leads from data to the prior.
        """
        raise NotDefined(f"forward_process: {type(self).__name__} has none; expected a family that noises or encodes")

    def reverse_process(
        self, z: Tensor, cond: Tensor | None = None, *, steps: int | None = None, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Frames from the prior's side to data, each ``(b, ...)``; the last one is a sample. No gradients.

        Raises:
            NotDefined: nothing leads from a prior to data.
        """
        raise NotDefined(f"reverse_process: {type(self).__name__} has none; expected a family that samples")

    def sample(
        self, n: int, cond: Tensor | None = None, *, steps: int | None = None, generator: torch.Generator
    ) -> Float[Tensor, " n *event"]:
        """``n`` samples; as many conditions as samples, or none. The model is in evaluation mode meanwhile."""
        if cond is not None and len(cond) != n:
            raise ShapeError(f"cond: got {len(cond)} conditions, expected n = {n}")
        training = self.training
        self.eval()
        try:
            z = self.prior(n, generator=generator)
            for x in self.reverse_process(z, cond, steps=steps, generator=generator):  # noqa: B007 - the last one counts
                pass
        finally:
            self.train(training)
        return x

    def log_prob(
        self, x: Float[Tensor, " b *event"], cond: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> LogProb:
        """``log p(x)``, or ``log p(x | cond)``, with what kind of number it is.

        Raises:
            NotTractable: the density exists and nobody can compute it, not even a bound.
            NotDefined: there is no density.
        """
        raise NotTractable(f"log_prob: {type(self).__name__} does not say how; expected a family with a likelihood")

    # A model that runs in seconds ----------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def small(cls) -> tuple[Self, Draws, int]:
        """A small instance, batches that it can learn, and after how many updates it has learned something."""

    @classmethod
    def demo(cls, seed: int = 0, *, n: int = 256, lr: float = 2e-3) -> Demo:
        """Train ``small()`` for a few seconds and draw from it; the global generator is left as it was."""
        generator = torch.Generator().manual_seed(seed)
        with layers_from(seed):
            model, batches, steps = cls.small()
        losses: dict[str, list[float]] = {phase.name: [] for phase in model.phases()}
        for step in fit(model, batches, steps=steps, lr=lr, generator=generator):
            losses[step.phase].append(step.loss)
        try:
            samples = model.sample(n, generator=generator)
        except NotDefined:
            samples = None
        return Demo(model, losses, samples)

    def _repr_markdown_(self) -> str:
        size = sum(weight.numel() for weight in self.parameters())
        return f"**{type(self).__name__}**, {size:,} weights: ${self.formula}$. *{self.source}*"
