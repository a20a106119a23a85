"""Networks of the course. They know nothing of diffusion: each is a plain function of (x, t, cond)."""

from lecture_lib.nets.attention import MultiHeadAttention, QKNorm, explicit_attention, fused_attention
from lecture_lib.nets.classifier import FeatureNetwork, NoisyClassifier
from lecture_lib.nets.contrastive import ContrastivePair, ImageEncoder
from lecture_lib.nets.dit import DiT, DiTBlock, patchify, unpatchify
from lecture_lib.nets.embeddings import (
    LabelAndScale,
    LabelEmbedding,
    TimestepEmbedding,
    positions_2d,
    timestep_features,
)
from lecture_lib.nets.mlp import TimeMLP
from lecture_lib.nets.text import (
    JointText,
    MaskedAttention,
    Penultimate,
    SpanDenoiser,
    TextEncoder,
    TextFeatures,
    causal_mask,
    full_mask,
    sd3_condition,
)
from lecture_lib.nets.tokenizer import Tokenizer
from lecture_lib.nets.tools import parameter_count, with_kernel
from lecture_lib.nets.unet import UNet

__all__ = [
    "ContrastivePair",
    "DiT",
    "DiTBlock",
    "FeatureNetwork",
    "ImageEncoder",
    "JointText",
    "LabelAndScale",
    "LabelEmbedding",
    "MaskedAttention",
    "MultiHeadAttention",
    "NoisyClassifier",
    "Penultimate",
    "QKNorm",
    "SpanDenoiser",
    "TextEncoder",
    "TextFeatures",
    "TimeMLP",
    "TimestepEmbedding",
    "Tokenizer",
    "UNet",
    "causal_mask",
    "explicit_attention",
    "full_mask",
    "fused_attention",
    "parameter_count",
    "patchify",
    "positions_2d",
    "sd3_condition",
    "timestep_features",
    "unpatchify",
    "with_kernel",
]
