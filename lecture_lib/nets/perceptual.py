"""Distance between pictures as a network sees them, and a small network of the course's own to see with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets.unet import GROUPS
from lecture_lib.tensors import check_count

STAGES = (24, 48, 96, 104)


def unit_channels(features: Float[Tensor, " b c h w"], eps: float = 1e-8) -> Float[Tensor, " b c h w"]:
    """Each place's feature vector divided by its length; eps under the root keeps the gradient at zero finite."""
    return features * torch.rsqrt(features.square().sum(dim=1, keepdim=True) + eps)


class PerceptualDistance(nn.Module):
    """The form of LPIPS, on any network that shows its layers.

        d(x, y) = sum_l 1/(H_l W_l) sum_hw sum_c w_lc (phi_l(x) - phi_l(y))^2_chw      phi_l: unit length at each place

    It is a pseudo-metric squared: zero for equal pictures, symmetric, but pictures that the network cannot tell apart
    are at distance zero too. The network is frozen and stays in evaluation mode; gradients flow to the pictures.

    Args:
        network: a module with ``layers(x) -> [maps (b, c_l, h_l, w_l), ...]``.
        weights: for each layer the weights w_l (c_l,), never negative (the squares of the w of the paper's eq. 1);
            1 everywhere if left out.

    Source: Zhang et al. 2018, eq. 1.
    """

    def __init__(self, network: nn.Module, weights: Sequence[Float[Tensor, " c"]] | None = None) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.n_weights = None if weights is None else len(weights)
        for l, w in enumerate(weights or ()):
            if w.ndim != 1 or not (w >= 0).all():
                raise RangeError(f"weights[{l}]: got {tuple(w.shape)} from {w.min():g}, expected (c,) from 0 up")
            self.register_buffer(f"weight_{l}", w.detach().clone())

    def train(self, mode: bool = True) -> PerceptualDistance:
        """Stay in evaluation mode whatever the model around it does."""
        return super().train(False)

    def forward(self, x: Float[Tensor, " b c h w"], y: Float[Tensor, " b c h w"]) -> Float[Tensor, " b"]:
        """The distance of each pair, at least 0.

        Raises:
            ShapeError: x and y differ in shape, or the weights do not fit the network's layers.
        """
        if x.shape != y.shape:
            raise ShapeError(f"y: got shape {tuple(y.shape)}, expected that of x, {tuple(x.shape)}")
        layers = list(zip(self.network.layers(x), self.network.layers(y), strict=True))
        if self.n_weights not in (None, len(layers)):
            raise ShapeError(f"weights: got {self.n_weights} layers, expected {len(layers)}, one per layer of network")
        return sum(self._of_layer(l, a, b) for l, (a, b) in enumerate(layers))

    def _of_layer(self, l: int, a: Float[Tensor, " b c h w"], b: Float[Tensor, " b c h w"]) -> Float[Tensor, " b"]:
        squares = (unit_channels(a) - unit_channels(b)).square().mean(dim=(2, 3))  # (b, c)
        if self.n_weights is None:
            return squares.sum(1)
        w = getattr(self, f"weight_{l}")
        if w.shape != squares.shape[1:]:
            raise ShapeError(f"weights[{l}]: got shape {tuple(w.shape)}, expected ({squares.shape[1]},)")
        return squares @ w.to(squares.dtype)


class ShapeFeatures(nn.Module):
    """A small classifier of 32x32 RGB pictures by several attributes at once, whose four stages serve as features.

    Each stage is convolution, group norm, ReLU; the last three halve the map: 32, 16, 8, 4 pixels.

    Args:
        heads: for each attribute its number of values, for example ``{"shape": 6, "colour": 8}``.
        channels: channels of the pictures.
    """

    def __init__(self, heads: Mapping[str, int], *, channels: int = 3) -> None:
        super().__init__()
        if not heads:
            raise RangeError("heads: got none, expected at least one attribute with its number of values")
        widths = (channels, *STAGES)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(widths[i], widths[i + 1], 3, stride=1 if i == 0 else 2, padding=1),
                nn.GroupNorm(GROUPS, widths[i + 1]),
                nn.ReLU(),
            )
            for i in range(len(STAGES))
        )
        self.heads = nn.ModuleDict({k: nn.Linear(STAGES[-1], check_count(f"heads[{k}]", n)) for k, n in heads.items()})

    def layers(self, x: Float[Tensor, " b c h w"]) -> list[Float[Tensor, " b k _ _"]]:
        """The maps after each stage: 24 x 32 x 32, 48 x 16 x 16, 96 x 8 x 8, 104 x 4 x 4 for a 32x32 picture."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def features(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b 104"]:
        """The mean of the last stage over its places, never negative."""
        return self.layers(x)[-1].mean(dim=(2, 3))

    def forward(self, x: Float[Tensor, " b c h w"]) -> dict[str, Float[Tensor, " b _"]]:
        """Logits of each attribute, (b, values)."""
        features = self.features(x)
        return {name: head(features) for name, head in self.heads.items()}

    def loss(self, x: Float[Tensor, " b c h w"], labels: Mapping[str, Tensor]) -> Float[Tensor, " b"]:
        """Cross-entropy, summed over the attributes; ``labels[name]`` is (b,), int64.

        Raises:
            ShapeError: labels do not name exactly the heads.
        """
        if labels.keys() != set(self.heads):
            raise ShapeError(f"labels: got {sorted(labels)}, expected {sorted(self.heads)}")
        return sum(F.cross_entropy(y, labels[name], reduction="none") for name, y in self(x).items())
