"""R3GAN's networks in small: grouped residual blocks without normalisation, started so that none is needed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.nets.generators import START, LabelledNoise, doublings, enlarged


class ResNeXtBlock(nn.Module):
    """``x + W3 a(W2 a(W1 x))``: 1x1 to twice the channels, grouped 3x3, 1x1 back, without normalisation.

    Fix-up start: the last layer at 0, so that the block is the identity, the other two scaled by L^(-1/4) in a network
    of L blocks, so that all blocks together move the output as much as one would.

    Args:
        channels: channels of x, a multiple of ``groups``/2.
        groups: of the 3x3 convolution.
        blocks: L.

    Source: Huang et al. 2024 (2501.05441), section 3; Zhang et al. 2019 (1901.09321), section 3 (Fixup).
    """

    def __init__(self, channels: int, *, groups: int = 16, blocks: int = 1) -> None:
        super().__init__()
        inner = 2 * channels
        self.widen = nn.Conv2d(channels, inner, 1)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1, groups=groups)
        self.narrow = nn.Conv2d(inner, channels, 1, bias=False)
        with torch.no_grad():
            for layer in (self.widen, self.mix):
                nn.init.kaiming_normal_(layer.weight, a=0.2)
                layer.weight.mul_(blocks**-0.25)
                nn.init.zeros_(layer.bias)
            nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b c h w"]:
        y = F.leaky_relu(self.widen(x), 0.2)
        return x + self.narrow(F.leaky_relu(self.mix(y), 0.2))


class ResNeXtFeatures(nn.Module):
    """Pictures -> features: blocks at every resolution, halved bilinearly down to 4x4, where one weight per place adds.

    Args:
        channels: channels of the pictures.
        side: their height and width: 4, 8, 16, ...
        width: channels of the maps, and number of features.
        depth: blocks per resolution.
        groups: of the blocks.

    Raises:
        RangeError: side is not 4 times a power of 2.
    """

    def __init__(self, channels: int = 1, *, side: int = 8, width: int = 64, depth: int = 1, groups: int = 16) -> None:
        super().__init__()
        stages, self.features = doublings(side) + 1, width
        self.enter = nn.Conv2d(channels, width, 1)
        self.stages = nn.ModuleList(_stage(width, depth, groups, stages) for _ in range(stages))
        self.basis = nn.Conv2d(width, width, START, groups=width, bias=False)

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b f"]:
        x = self.enter(x)
        for i, stage in enumerate(self.stages):
            x = stage(F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False) if i else x)
        return self.basis(x).flatten(1)


class ResNeXtGenerator(nn.Module):
    """The mirror image: noise scales a learned 4x4 map, blocks and bilinear doublings follow, a 1x1 layer paints.

    Args:
        latent: length of z.
        channels, side, width, depth, groups: as for ``ResNeXtFeatures``.
        n_classes: number of classes, 0 for none.

    Raises:
        RangeError: side is not 4 times a power of 2.
    """

    def __init__(
        self,
        latent: int = 32,
        channels: int = 1,
        *,
        side: int = 8,
        width: int = 64,
        depth: int = 1,
        groups: int = 16,
        n_classes: int = 0,
    ) -> None:
        super().__init__()
        stages = doublings(side) + 1
        self.latent, self.n_classes = latent, n_classes
        self.enter = LabelledNoise(latent, n_classes)
        self.linear = nn.Linear(self.enter.features, width, bias=False)
        self.basis = nn.Parameter(torch.randn(width, START, START))
        self.stages = nn.ModuleList(_stage(width, depth, groups, stages) for _ in range(stages))
        self.leave = nn.Conv2d(width, channels, 1)

    def forward(self, z: Float[Tensor, " b l"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b c h w"]:
        x = self.linear(self.enter(z, cond))[:, :, None, None] * self.basis
        for i, stage in enumerate(self.stages):
            x = stage(enlarged(x) if i else x)
        return self.leave(x)


def _stage(width: int, depth: int, groups: int, stages: int) -> nn.Sequential:
    return nn.Sequential(*(ResNeXtBlock(width, groups=groups, blocks=depth * stages) for _ in range(depth)))
