"""Networks of the course. They know nothing of diffusion: each is a plain function of (x, t, cond)."""

from lecture_lib.nets.attention import MultiHeadAttention, QKNorm, explicit_attention, fused_attention
from lecture_lib.nets.classifier import FeatureNetwork, NoisyClassifier
from lecture_lib.nets.dit import DiT, DiTBlock, patchify, unpatchify
from lecture_lib.nets.embeddings import (
    LabelAndScale,
    LabelEmbedding,
    TimestepEmbedding,
    positions_2d,
    timestep_features,
)
from lecture_lib.nets.lora import Adapter, add_lora
from lecture_lib.nets.mlp import TimeMLP
from lecture_lib.nets.patchgan import PatchDiscriminator, hinge_discriminator_loss, hinge_generator_loss
from lecture_lib.nets.perceptual import PerceptualDistance, ShapeFeatures
from lecture_lib.nets.quantizers import FSQ, Quantised, VectorQuantizer, perplexity, straight_through
from lecture_lib.nets.tools import parameter_count, with_kernel
from lecture_lib.nets.unet import UNet

__all__ = [
    "FSQ",
    "Adapter",
    "DiT",
    "DiTBlock",
    "FeatureNetwork",
    "LabelAndScale",
    "LabelEmbedding",
    "MultiHeadAttention",
    "NoisyClassifier",
    "PatchDiscriminator",
    "PerceptualDistance",
    "QKNorm",
    "Quantised",
    "ShapeFeatures",
    "TimeMLP",
    "TimestepEmbedding",
    "UNet",
    "VectorQuantizer",
    "add_lora",
    "explicit_attention",
    "fused_attention",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "parameter_count",
    "patchify",
    "perplexity",
    "positions_2d",
    "straight_through",
    "timestep_features",
    "unpatchify",
    "with_kernel",
]
