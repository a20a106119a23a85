"""Classifiers: one that is told the noise level, and one for clean images that lends its features."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.nets.embeddings import TimestepEmbedding
from lecture_lib.nets.unet import GROUPS, ResBlock, SpatialAttention


class NoisyClassifier(nn.Module):
    """Logits of p(c | x_t) for every noise level at once: the descending half of the U-Net, then a mean.

    Args:
        channels: channels of the images.
        n_classes: number of classes.
        width: channels at full resolution, a multiple of 8.

    Source: Dhariwal & Nichol 2021, section 4 (a classifier trained on noisy images for guidance).
    """

    def __init__(self, channels: int = 1, *, n_classes: int = 10, width: int = 24) -> None:
        super().__init__()
        high, low, cond_dim = width, 2 * width, 4 * width
        self.time = TimestepEmbedding(cond_dim)
        self.enter = nn.Conv2d(channels, high, 3, padding=1)
        self.high = ResBlock(high, high, cond_dim)
        self.shrink = nn.Conv2d(high, high, 3, stride=2, padding=1)
        self.low = ResBlock(high, low, cond_dim)
        self.attention = SpatialAttention(low, heads=4)
        self.norm = nn.GroupNorm(GROUPS, low)
        self.leave = nn.Linear(low, n_classes)

    def forward(self, x: Float[Tensor, " b c h w"], t: Float[Tensor, " b"]) -> Float[Tensor, " b k"]:
        c = self.time(t)
        x = self.high(self.enter(x), c)
        x = self.attention(self.low(self.shrink(x), c))
        return self.leave(F.silu(self.norm(x)).mean(dim=(2, 3)))


class FeatureNetwork(nn.Module):
    """A small convolutional classifier of clean 8x8 images whose 64-d penultimate layer serves as features.

    ``forward`` gives logits (b, n_classes), ``features`` the vectors (b, 64) in which distances are measured.
    """

    def __init__(self, channels: int = 1, *, n_classes: int = 10, width: int = 32, dim: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.penultimate = nn.Linear(8 * width, dim)
        self.leave = nn.Linear(dim, n_classes)

    def features(self, x: Float[Tensor, " b c 8 8"]) -> Float[Tensor, " b d"]:
        """The penultimate layer, after its ReLU: (b, 64), never negative."""
        return F.relu(self.penultimate(self.body(x)))

    def forward(self, x: Float[Tensor, " b c 8 8"]) -> Float[Tensor, " b k"]:
        return self.leave(self.features(x))
