"""What the recipes build beside denoisers: networks of the digits' size, and a classifier that lives on a path."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.core import Path, thousand
from lecture_lib.nets import DiT, LabelAndScale, LabelEmbedding
from lecture_lib.tensors import check_times

CLASSES = 10


def digit_dit(*, dim: int, depth: int, heads: int, ratio: float) -> DiT:
    """DiT on 8x8 digits in 16 patches, conditioned on the label (10 is the null class)."""
    return DiT(8, 1, patch=2, dim=dim, depth=depth, heads=heads, ratio=ratio, condition=LabelEmbedding(CLASSES, dim))


def guided_digit_dit(*, dim: int, depth: int, heads: int, ratio: float) -> DiT:
    """The same, conditioned on the label and the guidance scale: ``{"label": (b,), "w": (b,)}``."""
    return DiT(8, 1, patch=2, dim=dim, depth=depth, heads=heads, ratio=ratio, condition=LabelAndScale(CLASSES, dim))


class NoiseAwareClassifier(nn.Module):
    """p(c | x_t) on a path, at every noise level: a network that is told the time, as a denoiser is.

    ``classifier_guidance(denoise, classifier.given(3), scale)`` guides towards class 3.

    Args:
        network: (x (b, ...), network time (b,)) -> logits (b, classes).
        path: the path on which x_t lies.
    """

    def __init__(self, network: nn.Module, path: Path) -> None:
        super().__init__()
        self.network, self.path = network, path

    def forward(self, x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"]) -> Float[Tensor, " b k"]:
        """Logits of the classes at path time ``t`` (b,)."""
        t = check_times("t", t, len(x_t)).double()
        return self.network(x_t, thousand(self.path, t).to(x_t.dtype))

    def given(self, label: int | Int[Tensor, " b"]) -> GivenLabel:
        """(x_t, t) -> log p(label | x_t), (b,): what classifier guidance differentiates."""
        return GivenLabel(self, torch.as_tensor(label))


@dataclass(frozen=True)
class GivenLabel:
    """A noise-aware classifier with its label bound; callable as ``(x_t, t) -> log p (b,)``."""

    classifier: NoiseAwareClassifier
    label: Int[Tensor, " *b"]

    def __call__(self, x_t: Float[Tensor, " b *d"], t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        log_p = F.log_softmax(self.classifier(x_t, t), dim=-1)
        label = self.label.to(x_t.device).expand(len(x_t))
        return log_p.gather(1, label[:, None])[:, 0]
