"""Critics that judge a sample together with its label, each sample alone: no normalisation over the batch."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.nets.embeddings import LabelEmbedding
from lecture_lib.tensors import check_count


class ProjectionCritic(nn.Module):
    """``D(x, c) = w . phi(x) + e_c . phi(x) + b``: does it look real, and does it look like its label?

    For the best logistic critic the two terms are log p(x)/q(x) and log p(c|x)/q(c|x).

    Args:
        body: phi, samples (b, ...) -> features (b, body.features).
        n_classes: number of classes; 0 for critics without labels, which have the first term only.

    Source: Miyato & Koyama 2018 (1802.05637), eq. 3.
    """

    def __init__(self, body: nn.Module, n_classes: int = 0) -> None:
        super().__init__()
        self.body, self.leave = body, nn.Linear(body.features, 1)
        self.label = LabelEmbedding(n_classes, body.features) if check_count("n_classes", n_classes, 0) else None

    def forward(self, x: Float[Tensor, " b *d"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b 1"]:
        """Logits, large for samples that look real, and like their label if there is one."""
        phi = self.body(x)
        logits = self.leave(phi)
        if self.label is None or cond is None:
            return logits
        return logits + (self.label(cond, len(x)) * phi).sum(1, keepdim=True)


class PointFeatures(nn.Module):
    """A plain MLP from points to features.

    Args:
        points: length of x.
        width, depth: width and number of layers; the width is that of the features.
    """

    def __init__(self, points: int = 2, *, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.features = check_count("width", width)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([points, *[width] * depth]))

    def forward(self, x: Float[Tensor, " b d"]) -> Float[Tensor, " b f"]:
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return x


class ConvFeatures(nn.Module):
    """DCGAN's critic down to its features, without batch normalisation: it would judge batches, not pictures.

    Args:
        channels: channels of the pictures.
        side: their height and width, a multiple of 4.
        width: channels at full size; they double with each of two halvings.
        features: length of the features.

    Source: Radford et al. 2016 (1511.06434), section 3; Gulrajani et al. 2017 (1704.00028), section 4 (no batch norm).
    """

    def __init__(self, channels: int = 1, *, side: int = 8, width: int = 32, features: int = 64) -> None:
        super().__init__()
        self.features = check_count("features", features)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, check_count("width", width), 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(4 * width * (side // 4) ** 2, features),
            nn.LeakyReLU(0.2),
        )

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b f"]:
        return self.layers(x)
