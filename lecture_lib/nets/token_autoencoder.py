"""An image as whole numbers: an autoencoder whose latent is rounded, so that each place of it is one token.

x -> encoder -> quantiser -> index (b, h/f, w/f), read row by row as tokens (b, n); tokens -> codes -> decoder -> x_hat.
Source: van den Oord et al. 2017 (VQ-VAE); Esser et al. 2021, section 3.1, and Chang et al. 2022, section 3.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.autoencoder import KLAutoencoder
from lecture_lib.nets.quantizers import FSQ, Quantised, VectorQuantizer


class TokenAutoencoder(nn.Module):
    """The networks of a ``KLAutoencoder`` with rounding where its noise was: the posterior's mean is quantised.

    Both noise and rounding bound what a latent can say; the variance that the encoder also puts out is not used.

    Args:
        autoencoder: encoder and decoder, of f = ``autoencoder.factor``.
        quantiser: ``FSQ(levels)`` or ``VectorQuantizer``, for as many channels as the latent has.
    """

    def __init__(self, autoencoder: KLAutoencoder, quantiser: FSQ | VectorQuantizer) -> None:
        super().__init__()
        self.autoencoder, self.quantiser = autoencoder, quantiser

    @property
    def size(self) -> int:
        """Number of codes: tokens lie in 0..size - 1."""
        return self.quantiser.size

    @property
    def factor(self) -> int:
        """f, the ratio of the sides of an image and of its map of tokens."""
        return self.autoencoder.factor

    def forward(self, x: Float[Tensor, " b c h w"]) -> tuple[Float[Tensor, " b c h w"], Quantised]:
        """A reconstruction and the quantised latent that it was made from: what a loss needs."""
        quantised = self.quantiser(self.autoencoder.encode(x).mode())
        return self.autoencoder.decode(quantised.quantised), quantised

    @torch.no_grad()
    def tokens(self, x: Float[Tensor, " b c h w"]) -> Int[Tensor, " b n"]:
        """The n = (h/f)(w/f) tokens of each image, row by row."""
        return self.quantiser(self.autoencoder.encode(x).mode()).index.flatten(1)

    def decode(self, tokens: Int[Tensor, " b n"]) -> Float[Tensor, " b c h w"]:
        """The square images of these tokens.

        Raises:
            ShapeError: tokens are not (b, n) with n a square number.
            RangeError: a token that is no code, such as a mask that was never filled.
        """
        side = round(tokens.shape[-1] ** 0.5)
        if tokens.ndim != 2 or side**2 != tokens.shape[1]:
            raise ShapeError(f"tokens: got shape {tuple(tokens.shape)}, expected (b, n), n a square number")
        return self.autoencoder.decode(self.quantiser.look_up(tokens.unflatten(1, (side, side))))
