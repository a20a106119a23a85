"""Networks of the course. They know nothing of diffusion: each is a plain function of (x, t, cond)."""

from lecture_lib.nets.attention import MultiHeadAttention, QKNorm, explicit_attention, fused_attention
from lecture_lib.nets.autoencoder import Decoder, Encoder, KLAutoencoder, Posterior
from lecture_lib.nets.classifier import FeatureNetwork, NoisyClassifier
from lecture_lib.nets.dit import DiT, DiTBlock, patchify, unpatchify
from lecture_lib.nets.embeddings import (
    LabelAndScale,
    LabelEmbedding,
    TimestepEmbedding,
    positions_2d,
    timestep_features,
)
from lecture_lib.nets.mlp import TimeMLP
from lecture_lib.nets.tools import parameter_count, with_kernel
from lecture_lib.nets.unet import UNet

__all__ = [
    "Decoder",
    "DiT",
    "DiTBlock",
    "Encoder",
    "FeatureNetwork",
    "KLAutoencoder",
    "LabelAndScale",
    "LabelEmbedding",
    "MultiHeadAttention",
    "NoisyClassifier",
    "Posterior",
    "QKNorm",
    "TimeMLP",
    "TimestepEmbedding",
    "UNet",
    "explicit_attention",
    "fused_attention",
    "parameter_count",
    "patchify",
    "positions_2d",
    "timestep_features",
    "unpatchify",
    "with_kernel",
]
