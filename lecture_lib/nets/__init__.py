"""Networks of the course. They know nothing of diffusion: each is a plain function of (x, t, cond)."""

from lecture_lib.nets.attention import MultiHeadAttention, QKNorm, explicit_attention, fused_attention
from lecture_lib.nets.attention_maps import attention_layers, controlled_attention, recorded_attention, word_map
from lecture_lib.nets.autoencoder import Decoder, Encoder, KLAutoencoder, Posterior, kl_to_standard_normal
from lecture_lib.nets.classifier import FeatureNetwork, NoisyClassifier
from lecture_lib.nets.contrastive import ContrastivePair, ImageEncoder
from lecture_lib.nets.controlnet import ControlledDiT, ControlledUNet, ControlNet, DiTControlNet, HintEncoder
from lecture_lib.nets.dit import DiT, DiTBlock, patchify, unpatchify
from lecture_lib.nets.embeddings import (
    LabelAndScale,
    LabelEmbedding,
    TimestepEmbedding,
    positions_2d,
    timestep_features,
)
from lecture_lib.nets.lora import Adapter, add_lora
from lecture_lib.nets.masked_transformer import MaskedTransformer
from lecture_lib.nets.mlp import TimeMLP
from lecture_lib.nets.patchgan import PatchDiscriminator, hinge_discriminator_loss, hinge_generator_loss
from lecture_lib.nets.perceptual import PerceptualDistance, ShapeFeatures
from lecture_lib.nets.quantizers import FSQ, Quantised, VectorQuantizer, perplexity, straight_through
from lecture_lib.nets.spatial_transformer import GEGLU, CrossAttention, SpatialTransformer, TransformerBlock
from lecture_lib.nets.stable_diffusion import (
    autoencoder_from_diffusers,
    block_table,
    controlnet_from_diffusers,
    sdxl_unet,
    stable_diffusion_autoencoder,
    stable_diffusion_unet,
    unet_from_diffusers,
)
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
from lecture_lib.nets.text_unet import TextUNet, size_features
from lecture_lib.nets.token_autoencoder import TokenAutoencoder
from lecture_lib.nets.tokenizer import Tokenizer
from lecture_lib.nets.tools import parameter_count, with_kernel
from lecture_lib.nets.unet import UNet

__all__ = [
    "FSQ",
    "GEGLU",
    "Adapter",
    "ContrastivePair",
    "ControlNet",
    "ControlledDiT",
    "ControlledUNet",
    "CrossAttention",
    "Decoder",
    "DiT",
    "DiTBlock",
    "DiTControlNet",
    "Encoder",
    "FeatureNetwork",
    "HintEncoder",
    "ImageEncoder",
    "JointText",
    "KLAutoencoder",
    "LabelAndScale",
    "LabelEmbedding",
    "MaskedAttention",
    "MaskedTransformer",
    "MultiHeadAttention",
    "NoisyClassifier",
    "PatchDiscriminator",
    "Penultimate",
    "PerceptualDistance",
    "Posterior",
    "QKNorm",
    "Quantised",
    "ShapeFeatures",
    "SpanDenoiser",
    "SpatialTransformer",
    "TextEncoder",
    "TextFeatures",
    "TextUNet",
    "TimeMLP",
    "TimestepEmbedding",
    "TokenAutoencoder",
    "Tokenizer",
    "TransformerBlock",
    "UNet",
    "VectorQuantizer",
    "add_lora",
    "attention_layers",
    "autoencoder_from_diffusers",
    "block_table",
    "causal_mask",
    "controlled_attention",
    "controlnet_from_diffusers",
    "explicit_attention",
    "full_mask",
    "fused_attention",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "kl_to_standard_normal",
    "parameter_count",
    "patchify",
    "perplexity",
    "positions_2d",
    "recorded_attention",
    "sd3_condition",
    "sdxl_unet",
    "size_features",
    "stable_diffusion_autoencoder",
    "stable_diffusion_unet",
    "straight_through",
    "timestep_features",
    "unet_from_diffusers",
    "unpatchify",
    "with_kernel",
    "word_map",
]
