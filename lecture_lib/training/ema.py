"""Exponential moving average of the weights, kept as a second module."""

from __future__ import annotations

import copy

import torch
from torch import nn

from lecture_lib.tensors import check_number


class Ema:
    """The averaged copy of a model: ``average <- decay average + (1 - decay) weights``.

    Early on the decay is smaller, (1 + n) / (10 + n) after n updates, so that the random start is forgotten.
    Buffers (running statistics, tables) are copied, not averaged.

    Args:
        model: the model to follow; it is copied.
        decay: in [0, 1); 0.999 remembers about a thousand updates.

    Attributes:
        average: the averaged module, in evaluation mode and without gradients.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.decay = check_number("decay", decay, 0.0, 1.0 - 1e-9)
        self.updates = 0
        self.average = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.average.parameters()), list(model.parameters()), 1.0 - decay)
        for mine, theirs in zip(self.average.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
        self.updates += 1

    def state_dict(self) -> dict[str, object]:
        """What a checkpoint needs to go on averaging."""
        return {"updates": self.updates, "average": self.average.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take up the average that ``state_dict`` described."""
        self.updates = state["updates"]
        self.average.load_state_dict(state["average"])
