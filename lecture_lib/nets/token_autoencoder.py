"""An image as whole numbers: an autoencoder whose latent is rounded, so that each place of it is one token.

x -> encoder -> quantiser -> index (b, h/f, w/f), read row by row as tokens (b, n); tokens -> codes -> decoder -> x_hat.

Whoever is to *predict* these tokens wants them to speak of their own place alone. An encoder that sees the whole image
hides in the empty places what did not fit into the busy ones, which helps the decoder and is a riddle to everyone else.
Source: van den Oord et al. 2017 (VQ-VAE); Esser et al. 2021, section 3.1, and Chang et al. 2022, section 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.autoencoder import Decoder, Encoder
from lecture_lib.nets.quantizers import FSQ, Quantised, VectorQuantizer


class WindowEncoder(nn.Module):
    """Images to maps, each place of which has seen one square window around it and nothing else.

    A convolution cuts the windows out, one every ``factor`` pixels; the rest acts on each of them alone.

    Args:
        out_channels: of the map.
        in_channels: of the images.
        factor: f, the ratio of the sides.
        window: side of a window, f plus an even number; beyond the border the last pixel goes on.
        width: of the two hidden layers.

    Raises:
        ShapeError: window and factor do not fit.
    """

    def __init__(
        self, out_channels: int, *, in_channels: int = 3, factor: int = 4, window: int = 8, width: int = 96
    ) -> None:
        super().__init__()
        if window < factor or (window - factor) % 2:
            raise ShapeError(f"window: got {window} for factor {factor}, expected {factor} plus an even number")
        self.in_channels, self.factor = in_channels, factor
        padding = (window - factor) // 2
        self.look = nn.Conv2d(in_channels, width, window, stride=factor, padding=padding, padding_mode="replicate")
        self.hidden = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2))
        self.leave = nn.Conv2d(width, out_channels, 1)

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b k h/f w/f"]:
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.shape[2] % self.factor or x.shape[3] % self.factor:
            expected = f"(b, {self.in_channels}, h, w) with h and w multiples of {self.factor}"
            raise ShapeError(f"x: got shape {tuple(x.shape)}, expected {expected}")
        x = self.look(x)
        for layer in self.hidden:
            x = layer(F.silu(x))
        return self.leave(F.silu(x))


class TokenAutoencoder(nn.Module):
    """An encoder and a decoder with rounding between them.

    Args:
        encoder: images (b, c, h, w) to maps (b, k, h/f, w/f), with an attribute ``factor``: ``WindowEncoder``, or
            ``Encoder`` for one that sees everything.
        quantiser: ``FSQ(levels)`` or ``VectorQuantizer``, for k channels.
        decoder: maps back to images, with the same f.
    """

    def __init__(self, encoder: WindowEncoder | Encoder, quantiser: FSQ | VectorQuantizer, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.quantiser, self.decoder = encoder, quantiser, decoder

    @property
    def size(self) -> int:
        """Number of codes: tokens lie in 0..size - 1."""
        return self.quantiser.size

    @property
    def factor(self) -> int:
        """f, the ratio of the sides of an image and of its map of tokens."""
        return self.encoder.factor

    def forward(self, x: Float[Tensor, " b c h w"]) -> tuple[Float[Tensor, " b c h w"], Quantised]:
        """A reconstruction and the quantised latent that it was made from: what a loss needs."""
        quantised = self.quantiser(self.encoder(x))
        return self.decoder(quantised.quantised), quantised

    @torch.no_grad()
    def tokens(self, x: Float[Tensor, " b c h w"]) -> Int[Tensor, " b n"]:
        """The n = (h/f)(w/f) tokens of each image, row by row."""
        return self.quantiser(self.encoder(x)).index.flatten(1)

    def decode(self, tokens: Int[Tensor, " b n"]) -> Float[Tensor, " b c h w"]:
        """The square images of these tokens.

        Raises:
            ShapeError: tokens are not (b, n) with n a square number.
            RangeError: a token that is no code, such as a mask that was never filled.
        """
        side = round(tokens.shape[-1] ** 0.5)
        if tokens.ndim != 2 or side**2 != tokens.shape[1]:
            raise ShapeError(f"tokens: got shape {tuple(tokens.shape)}, expected (b, n), n a square number")
        return self.decoder(self.quantiser.look_up(tokens.unflatten(1, (side, side))))
