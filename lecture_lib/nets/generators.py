"""Generators: from a vector of noise, and a label if there are classes, to a point or a picture in one pass."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.errors import RangeError
from lecture_lib.nets.embeddings import LabelEmbedding
from lecture_lib.tensors import check_count

START = 4  # side of the maps that pictures grow from, or shrink to


def doublings(side: int) -> int:
    """How often 4 is doubled to give ``side``.

    Raises:
        RangeError: no number of times does.
    """
    n = (check_count("side", side) // START).bit_length() - 1
    if n < 0 or START * 2**n != side:
        raise RangeError(f"side: got {side}, expected {START} times a power of 2")
    return n


def enlarged(x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b c 2*h 2*w"]:
    """Twice as high and wide, bilinear: no checkerboard can arise."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class LabelledNoise(nn.Module):
    """``z`` with the vector of its label appended: what a generator starts from.

    Args:
        latent: length of z.
        n_classes: number of classes; 0 for generators without labels, which get z as it is.
        dim: length of a label's vector.
    """

    def __init__(self, latent: int, n_classes: int, dim: int = 16) -> None:
        super().__init__()
        self.label = LabelEmbedding(n_classes, dim) if check_count("n_classes", n_classes, 0) else None
        self.features = check_count("latent", latent) + (dim if n_classes else 0)
        if self.label is not None:
            nn.init.normal_(self.label.table.weight)  # as large as z, which it stands beside

    def forward(self, z: Float[Tensor, " b l"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b f"]:
        return z if self.label is None else torch.cat([z, self.label(cond, len(z))], dim=1)


class PointGenerator(nn.Module):
    """A plain MLP from noise to points.

    Args:
        latent: length of z.
        features: length of x.
        width, depth: width and number of hidden layers.
        n_classes: number of classes, 0 for none.
    """

    def __init__(
        self, latent: int = 2, features: int = 2, *, width: int = 64, depth: int = 3, n_classes: int = 0
    ) -> None:
        super().__init__()
        self.latent, self.n_classes = latent, n_classes
        self.enter = LabelledNoise(latent, n_classes)
        widths = [self.enter.features, *[check_count("width", width)] * check_count("depth", depth), features]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, z: Float[Tensor, " b l"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b f"]:
        x = self.enter(z, cond)
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        return self.layers[-1](x)


class ConvGenerator(nn.Module):
    """DCGAN's generator for small pictures: a linear layer to ``side``/2, one transposed convolution, one that paints.

    Batch normalisation and ReLU after every layer but the last, which ends in tanh; weights start at N(0, 0.02^2).

    Args:
        latent: length of z.
        channels: channels of the pictures, which lie in (-1, 1).
        side: height and width of the pictures, even.
        width: channels at full size, twice as many at half size.
        n_classes: number of classes, 0 for none.

    Source: Radford et al. 2016 (1511.06434), section 3.
    """

    def __init__(
        self, latent: int = 32, channels: int = 1, *, side: int = 8, width: int = 32, n_classes: int = 0
    ) -> None:
        super().__init__()
        self.latent, self.n_classes = latent, n_classes
        self.enter = LabelledNoise(latent, n_classes)
        half = check_count("side", side, 2) // 2
        self.layers = nn.Sequential(
            nn.Linear(self.enter.features, 2 * width * half**2, bias=False),
            nn.Unflatten(1, (2 * width, half, half)),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Tanh(),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=0.02)

    def forward(self, z: Float[Tensor, " b l"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b c h w"]:
        return self.layers(self.enter(z, cond))
