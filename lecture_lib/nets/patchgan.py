"""A discriminator that judges patches; what it is trained with is in ``critics``."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lecture_lib.errors import ShapeError
from lecture_lib.tensors import check_count


class PatchDiscriminator(nn.Module):
    """One logit per patch: each sees ``receptive_field`` x ``receptive_field`` pixels, and nothing else.

    ``layers`` convolutions halve the map, one more reads the logits off it. The weights are divided by their largest
    singular value and there is no other normalisation, so logits know nothing of other patches or other images.
    With the defaults, 32x32 pictures give an 8x8 map of logits on patches of 18x18.

    Args:
        channels: channels of the images (b, channels, h, w); h and w must be multiples of 2^layers.
        width: channels after the first layer; they double from layer to layer.
        layers: halvings, at least 1.

    Source: Isola et al. 2017, section 3.2.2 (PatchGAN); Miyato et al. 2018 (spectral normalisation).
    """

    def __init__(self, channels: int = 3, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        check_count("channels", channels), check_count("width", width), check_count("layers", layers)
        self.layers = layers
        widths = [channels, *(width * 2**i for i in range(layers))]
        halvings = [nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths)]
        self.halvings = nn.ModuleList(spectral_norm(layer) for layer in halvings)
        self.leave = spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    @property
    def receptive_field(self) -> int:
        """Side of the square of pixels that one logit depends on: 8 for one layer, then 18, 38."""
        return 5 * 2**self.layers - 2

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b 1 k l"]:
        """Logits, large for patches that look real.

        Raises:
            ShapeError: x is not (b, c, h, w) with h and w multiples of 2^layers.
        """
        if x.ndim != 4 or x.shape[-1] % 2**self.layers or x.shape[-2] % 2**self.layers:
            raise ShapeError(f"x: got {tuple(x.shape)}, expected (b, c, h, w), h and w multiples of {2**self.layers}")
        for layer in self.halvings:
            x = F.leaky_relu(layer(x), 0.2)
        return self.leave(x)
