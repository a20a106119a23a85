"""Networks that are told a label and no time: what a coupling layer, an encoder or a critic is made of.

Both begin with an output of zero, whatever they see: a map built around them begins as the identity.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.embeddings import LabelEmbedding
from lecture_lib.nets.mlp import ResidualLayer
from lecture_lib.nets.unet import GROUPS, ResBlock


class LabelMLP(nn.Module):
    """A residual MLP from vectors to vectors, told the label by scale and shift in every layer.

    Args:
        features, out_features: lengths of x and of the output.
        width, depth: width and number of residual layers.
        n_classes: number of classes; 0 for none. Label ``n_classes`` is "no class".
    """

    def __init__(
        self, features: int, out_features: int, *, width: int = 64, depth: int = 1, n_classes: int = 0
    ) -> None:
        super().__init__()
        self.label = LabelEmbedding(n_classes, width)
        self.enter = nn.Linear(features, width)
        self.layers = nn.ModuleList(ResidualLayer(width) for _ in range(depth))
        self.leave = nn.Linear(width, out_features)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Float[Tensor, " b f"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b k"]:
        """The output for the labels ``cond``; None stands for no class."""
        c, x = F.silu(self.label(cond, len(x))), self.enter(x)
        for layer in self.layers:
            x = layer(x, c)
        return self.leave(F.silu(x))


class LabelConv(nn.Module):
    """Residual convolutions at one resolution, told the label by scale and shift in every block.

    Args:
        channels, out_channels: of the images and of the output.
        width, depth: channels in between, a multiple of 8, and number of residual blocks; ``depth`` blocks see
            2 depth + 2 pixels in every direction.
        n_classes: number of classes; 0 for none. Label ``n_classes`` is "no class".

    Raises:
        ShapeError: width is not a multiple of 8.
    """

    def __init__(
        self, channels: int, out_channels: int, *, width: int = 32, depth: int = 2, n_classes: int = 0
    ) -> None:
        super().__init__()
        if width % GROUPS:
            raise ShapeError(f"width: got {width}, expected a multiple of {GROUPS}")
        self.label = LabelEmbedding(n_classes, width)
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(ResBlock(width, width, width) for _ in range(depth))
        self.norm = nn.GroupNorm(GROUPS, width)
        self.leave = nn.Conv2d(width, out_channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Float[Tensor, " b c h w"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b k h w"]:
        """The output for the labels ``cond``; None stands for no class."""
        c, x = self.label(cond, len(x)), self.enter(x)
        for block in self.blocks:
            x = block(x, c)
        return self.leave(F.silu(self.norm(x)))
