"""Recipes of the shapes world's first stages: autoencoders at f = 2, 4 and 8."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import nn

from lecture_lib.data.shapes import FreshScenes
from lecture_lib.nets import KLAutoencoder
from lecture_lib.zoo.recipe import Batch, Recipe


@dataclass(frozen=True, kw_only=True)
class AutoencoderRecipe(Recipe):
    """Absolute plus squared error of a reconstruction from a sampled latent, and a little KL.

    ``beta`` weighs the KL divergence against errors summed over all pixels, as in Rombach et al. 2022, who take 1e-6.
    Here it is larger: it leaves every latent so much noise that the decoder forgives the denoiser small errors, at a
    price of beta/2 per latent in the reconstruction loss.
    """

    beta: float = 3e-3

    kind: ClassVar[str] = "autoencoder"

    def build(self) -> nn.Module:
        return self.network()

    def batches(self) -> FreshScenes:
        return FreshScenes(self.batch_size)

    def loss(self, model: KLAutoencoder, batch: Batch, generator: torch.Generator) -> Float[torch.Tensor, " b"]:
        (images,) = batch
        reconstructed, posterior = model(images, generator)
        error = (reconstructed - images).flatten(1)
        return error.abs().mean(1) + error.square().mean(1) + self.beta * posterior.kl() / error.shape[1]


KL4 = AutoencoderRecipe(
    name="shapes-kl-f4",
    about="32x32x3 images to 8x8x4 latents: the first stage of the text-to-image model",
    network=partial(KLAutoencoder, latent_channels=4, channels=24, multipliers=(1, 2, 3), blocks=1, groups=8),
    steps=4000,
    batch_size=16,
    lr=2e-3,
    warmup=200,
    decay=0.998,
)
KL2 = AutoencoderRecipe(
    name="shapes-kl-f2",
    about="32x32x3 images to 16x16x4 latents",
    network=partial(KLAutoencoder, latent_channels=4, channels=16, multipliers=(1, 2), blocks=1, groups=8),
    steps=3000,
    batch_size=16,
    lr=2e-3,
    warmup=200,
    decay=0.998,
)
KL8 = AutoencoderRecipe(
    name="shapes-kl-f8",
    about="32x32x3 images to 4x4x4 latents: too few numbers for the edges",
    network=partial(KLAutoencoder, latent_channels=4, channels=16, multipliers=(1, 2, 3, 4), blocks=1, groups=8),
    steps=3500,
    batch_size=16,
    lr=2e-3,
    warmup=200,
    decay=0.998,
)
AUTOENCODERS = (KL4, KL2, KL8)
