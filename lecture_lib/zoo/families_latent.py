"""Families with a latent on the digits: Gaussian latents, and whole numbers with a prior over them."""

from __future__ import annotations

from functools import partial

from torch import nn

from lecture_lib.families import FSQVAE, VAE, VQVAE, BetaVAE, DiscretisedLogistic, QuantisedVAE
from lecture_lib.nets import (
    FSQ,
    CausalTransformer,
    Decoder,
    EventMLP,
    TokenAutoencoder,
    VectorQuantizer,
    WindowEncoder,
    positions_2d,
)
from lecture_lib.zoo.family_recipe import FamilyRecipe
from lecture_lib.zoo.models import CLASSES

EVENT = (1, 8, 8)
LATENT = 16


def vae(family: type[VAE], width: int) -> VAE:
    """Two residual MLPs that hear the label; grey levels with logistic noise."""
    encoder = EventMLP(EVENT, (2 * LATENT,), width=width, depth=2, n_classes=CLASSES)
    decoder = EventMLP((LATENT,), EVENT, width=width, depth=2, n_classes=CLASSES)
    return family(encoder, decoder, DiscretisedLogistic(EVENT), LATENT, n_classes=CLASSES)


def quantised(family: type[QuantisedVAE], quantiser: type[VectorQuantizer | FSQ], *size: object) -> QuantisedVAE:
    """One token for 4x4 pixels, 4 of them: of five sizes tried, the one whose prior was read as asked most often.

    Samples are guided (w chosen on noise of another seed): plainly conditional ones are read as asked in 89 %.
    """
    rounding = quantiser(*size)
    channels = getattr(rounding, "dim", None) or len(rounding.levels)
    encoder = WindowEncoder(channels, in_channels=1, factor=4, window=6, width=64)
    decoder = Decoder(channels, 1, channels=16, multipliers=(1, 2, 2), blocks=1, groups=8)
    positions = positions_2d(2, 2, 64)
    transformer = CausalTransformer(rounding.size, 4, dim=64, depth=2, n_classes=CLASSES, positions=positions)
    nn.init.normal_(transformer.start.table.weight)  # as loud as the positions
    autoencoder = TokenAutoencoder(encoder, rounding, decoder)
    options = {"n_classes": CLASSES, "tokenizer_share": 0.4, "w": 1.75}
    return family(autoencoder, transformer, DiscretisedLogistic(EVENT), **options)


VAE_DIGITS = FamilyRecipe(
    name="family-vae",
    about="variational autoencoder: an importance-weighted bound",
    network=partial(vae, VAE, width=112),
    steps=2000,
    batch_size=128,
)
BETA_VAE = FamilyRecipe(
    name="family-beta-vae",
    about="beta-VAE, beta = 4: fewer latents in use",
    network=partial(vae, BetaVAE, width=112),
    steps=2000,
    batch_size=128,
)
VQ_VAE = FamilyRecipe(
    name="family-vq-vae",
    about="VQ-VAE: 4 tokens of 32 learned codes, and a transformer over them",
    network=partial(quantised, VQVAE, VectorQuantizer, 32, 8),
    steps=3000,
    batch_size=64,
    lr=3e-3,
)
FSQ_VAE = FamilyRecipe(
    name="family-fsq",
    about="FSQ: 4 tokens of 4 x 4 x 2 rounded values, and a transformer over them",
    network=partial(quantised, FSQVAE, FSQ, (4, 4, 2)),
    steps=3000,
    batch_size=64,
    lr=3e-3,
)
LATENT_FAMILIES = (VAE_DIGITS, BETA_VAE, VQ_VAE, FSQ_VAE)
