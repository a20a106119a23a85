"""Networks of the course. They know nothing of diffusion: each is a plain function of (x, t, cond)."""

from lecture_lib.nets.attention import MultiHeadAttention, QKNorm, explicit_attention, fused_attention
from lecture_lib.nets.attention_maps import controlled_attention, recorded_attention, word_map
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
from lecture_lib.nets.spatial_transformer import GEGLU, CrossAttention, SpatialTransformer, TransformerBlock
from lecture_lib.nets.stable_diffusion import (
    autoencoder_from_diffusers,
    block_table,
    sdxl_unet,
    stable_diffusion_autoencoder,
    stable_diffusion_unet,
    unet_from_diffusers,
)
from lecture_lib.nets.text_unet import TextUNet, size_features
from lecture_lib.nets.tools import parameter_count, with_kernel
from lecture_lib.nets.unet import UNet

__all__ = [
    "GEGLU",
    "CrossAttention",
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
    "SpatialTransformer",
    "TextUNet",
    "TimeMLP",
    "TimestepEmbedding",
    "TransformerBlock",
    "UNet",
    "autoencoder_from_diffusers",
    "block_table",
    "controlled_attention",
    "explicit_attention",
    "fused_attention",
    "parameter_count",
    "patchify",
    "positions_2d",
    "recorded_attention",
    "sdxl_unet",
    "size_features",
    "stable_diffusion_autoencoder",
    "stable_diffusion_unet",
    "timestep_features",
    "unet_from_diffusers",
    "unpatchify",
    "with_kernel",
    "word_map",
]
