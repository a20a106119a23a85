"""Small inputs whose answers are worked out by hand, shared by the questions."""

from __future__ import annotations

import torch

A = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])
B = torch.tensor([[1.0, 0.5, -1.5], [-0.5, 2.0, 0.3]])
C = torch.tensor([[0.2, -0.7, 1.1], [0.9, -1.3, 0.4]])
MEAN = torch.tensor([1.5, -0.5, 0.25])
WEIGHT = torch.tensor([[0.4, -1.2, 0.7], [0.9, 0.3, -0.6], [-0.2, 1.1, 0.5]])


def rows(numbers):
    """(b,) as a column beside (b, d)."""
    return numbers[:, None]
