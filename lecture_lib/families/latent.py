"""The second stage: a denoiser that works on the latents of an autoencoder which is trained no more."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.errors import FrozenError
from lecture_lib.nets import KLAutoencoder
from lecture_lib.tensors import check_number


class LatentSpace(nn.Module):
    """A frozen autoencoder with the affine map that gives its latents mean 0 and variance 1.

    ``z = scale (E(x) - shift)`` and back ``x = D(z / scale + shift)``. Stable Diffusion has the scale 0.18215 and no
    shift (Rombach et al. 2022, code), SD3 and FLUX have both. Dividing where one should multiply hands the denoiser
    latents of the wrong size, for which no schedule was made.

    The encoder must not move while a denoiser learns its latents: they would change under its feet, and could shrink
    to a point, where denoising is easy. So its weights are frozen here, ``train()`` does not reach it, it works without
    a graph, and weights that were thawed since are an error.

    Args:
        autoencoder: trained; it is frozen in place.
        shift, scale: of the latents; see ``fitted``.

    Raises (from encode and decode):
        FrozenError: a weight of the autoencoder asks for gradients.
    """

    def __init__(self, autoencoder: KLAutoencoder, *, shift: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.shift, self.scale = check_number("shift", shift), check_number("scale", scale, low=1e-9)

    @classmethod
    def fitted(cls, autoencoder: KLAutoencoder, images: Float[Tensor, " n c h w"]) -> LatentSpace:
        """The latent space in which these images have mean 0 and variance 1, all components taken together."""
        z = cls(autoencoder).encode(images)
        return cls(autoencoder, shift=z.mean().item(), scale=1 / z.std().item())

    def train(self, mode: bool = True) -> LatentSpace:
        """Stays in evaluation mode, whatever the module around it does."""
        return super().train(False)

    @torch.no_grad()
    def encode(
        self, x: Float[Tensor, " b c h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, " b k h/f w/f"]:
        """Latents of images: of the posterior's mean, or of a sample if a generator is given."""
        self._check_frozen()
        posterior = self.autoencoder.encode(x)
        return self.scale * ((posterior.mode() if generator is None else posterior.sample(generator)) - self.shift)

    def decode(self, z: Float[Tensor, " b k h w"]) -> Float[Tensor, " b c f*h f*w"]:
        """Images of latents. Gradients flow through to z (for guidance by something that looks at pixels)."""
        self._check_frozen()
        return self.autoencoder.decode(z / self.scale + self.shift)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(k, h/f, w/f) for images of that size."""
        f, k = self.autoencoder.factor, self.autoencoder.decoder.in_channels
        return k, height // f, width // f

    def _check_frozen(self) -> None:
        thawed = [name for name, p in self.autoencoder.named_parameters() if p.requires_grad]
        if thawed:
            raise FrozenError(
                f"autoencoder: {len(thawed)} of its weights ask for gradients ({thawed[0]}, ...), expected none: the "
                "denoiser learns its latents, which must not move meanwhile; call autoencoder.requires_grad_(False)"
            )


def psnr(x: Float[Tensor, " b *d"], y: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio in dB per image: 10 log10(2^2 / mean square error), images in [-1, 1]."""
    return 10 * (4 / (x - y).square().flatten(1).mean(1)).log10()
