"""StyleGAN2's generator in small: a constant, styles at every layer, noise at every pixel, pictures added up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.generators import START, doublings, enlarged
from lecture_lib.nets.modulated import MappingNetwork, ModulatedConv, lifted


class StyledLayer(nn.Module):
    """Modulated convolution, noise times a learned strength that starts at 0, bias, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, dim)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(
        self, x: Float[Tensor, " b i h w"], w: Float[Tensor, " b d"], noise: Float[Tensor, " b 1 h w"]
    ) -> Float[Tensor, " b o h w"]:
        return lifted(self.conv(x, w) + self.strength * noise + self.bias)


class StyleGenerator(nn.Module):
    """``z -> w -> picture``: each resolution has its layers and paints a picture that is added to the last, enlarged.

    Args:
        latent: length of z.
        channels: channels of the pictures.
        side: their height and width: 4, 8, 16, ...
        width: channels of the maps.
        dim: length of w.
        depth: layers of the mapping network.
        n_classes: number of classes, 0 for none.
        rate: of the mapping network, relative to the rest.

    Attributes:
        noise_sides: side of the noise of each layer, from the constant on.

    Raises:
        RangeError: side is not 4 times a power of 2.

    Source: Karras et al. 2020 (1912.04958), figures 2c and 7b.
    """

    def __init__(
        self,
        latent: int = 32,
        channels: int = 1,
        *,
        side: int = 8,
        width: int = 32,
        dim: int = 32,
        depth: int = 8,
        n_classes: int = 0,
        rate: float = 0.01,
    ) -> None:
        super().__init__()
        sides = [START * 2**i for i in range(doublings(side) + 1)]
        self.latent, self.n_classes = latent, n_classes
        self.mapping = MappingNetwork(latent, dim, depth=depth, n_classes=n_classes, rate=rate)
        self.constant = nn.Parameter(torch.randn(width, START, START))
        self.noise_sides = [START, *(s for s in sides[1:] for _ in range(2))]
        self.layers = nn.ModuleList(StyledLayer(width, width, dim) for _ in self.noise_sides)
        self.paint = nn.ModuleList(ModulatedConv(width, channels, 1, dim, demodulate=False) for _ in sides)
        self.colour = nn.Parameter(torch.zeros(channels, 1, 1))

    def synthesise(
        self, w: Float[Tensor, " b d"], noise: Sequence[Float[Tensor, " b 1 h w"]]
    ) -> Float[Tensor, " b c h w"]:
        """The picture of a style; ``noise`` has one map per layer, of ``noise_sides``.

        Raises:
            ShapeError: not one noise per layer.
        """
        if len(noise) != len(self.layers):
            raise ShapeError(f"noise: got {len(noise)} maps, expected {len(self.layers)}, one per layer")
        x = self.layers[0](self.constant.expand(len(w), -1, -1, -1), w, noise[0])
        picture = self.paint[0](x, w) + self.colour
        for i, paint in enumerate(self.paint[1:]):
            x, picture = enlarged(x), enlarged(picture)
            for j in (2 * i + 1, 2 * i + 2):
                x = self.layers[j](x, w, noise[j])
            picture = picture + paint(x, w)
        return picture

    def forward(
        self,
        z: Float[Tensor, " b l"],
        cond: Int[Tensor, " b"] | None = None,
        noise: Sequence[Float[Tensor, " b 1 h w"]] | None = None,
    ) -> Float[Tensor, " b c h w"]:
        """The picture of z; without ``noise`` the one in the middle of all that differ in noise only."""
        quiet = [z.new_zeros(len(z), 1, side, side) for side in self.noise_sides]
        return self.synthesise(self.mapping(z, cond), quiet if noise is None else noise)
