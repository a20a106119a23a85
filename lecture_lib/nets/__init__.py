"""Networks of the course. They know nothing of diffusion: each is a plain function of (x, t, cond)."""

from lecture_lib.nets.attention import MultiHeadAttention, QKNorm, explicit_attention, fused_attention
from lecture_lib.nets.attention_maps import (
    Quadrants,
    attention_layers,
    controlled_attention,
    quadrant_shares,
    quadrants,
    recorded_attention,
    word_map,
    word_shares,
)
from lecture_lib.nets.autoencoder import Decoder, Encoder, KLAutoencoder, Posterior, kl_to_standard_normal
from lecture_lib.nets.causal_transformer import CausalTransformer, CausalTrunk, block_causal_mask
from lecture_lib.nets.classifier import FeatureNetwork, NoisyClassifier
from lecture_lib.nets.concepts import concept_direction, concept_maps, random_direction, steered
from lecture_lib.nets.contrastive import ContrastivePair, ImageEncoder
from lecture_lib.nets.controlnet import ControlledDiT, ControlledUNet, ControlNet, DiTControlNet, HintEncoder
from lecture_lib.nets.critics import (
    PointCritic,
    adaptive_weight,
    held,
    hinge_discriminator_loss,
    hinge_generator_loss,
    logistic_discriminator_loss,
    logistic_generator_loss,
    relativistic_discriminator_loss,
    squared_slope,
    wasserstein_discriminator_loss,
)
from lecture_lib.nets.dit import MODULATIONS, DiT, DiTBlock, modulations, patchify, unpatchify
from lecture_lib.nets.dit_conditioning import AdaLNBlock, CrossAttentionBlock, InContextBlock, TokenDiT
from lecture_lib.nets.dit_family import (
    DIT_REPORTS,
    DIT_SIZES,
    DiTCost,
    DiTReport,
    DiTSize,
    dit_cost,
    dit_network,
)
from lecture_lib.nets.embeddings import (
    LabelAndScale,
    LabelEmbedding,
    NumbersEmbedding,
    TimestepEmbedding,
    TimeTextEmbedding,
    timestep_features,
)
from lecture_lib.nets.energies import PointEnergy
from lecture_lib.nets.event_mlp import EventMLP
from lecture_lib.nets.flux import Flux, SingleStreamBlock, flux_dev, flux_schnell
from lecture_lib.nets.generators import ConvGenerator, LabelledNoise, PointGenerator
from lecture_lib.nets.icnn import ICNN, PositiveLinear
from lecture_lib.nets.joint_attention import JointAttention
from lecture_lib.nets.lora import Adapter, add_lora
from lecture_lib.nets.masked_transformer import MaskedTransformer
from lecture_lib.nets.mixed_transformer import Mixed, MixedTransformer, mixed_mask
from lecture_lib.nets.mlp import LabelMLP, TimeMLP, TokenMLP
from lecture_lib.nets.mmdit import MMDiT, MMDiTBlock, sd3_medium
from lecture_lib.nets.modulated import EqualLinear, MappingNetwork, ModulatedConv, modulated_conv
from lecture_lib.nets.patch_transformer import PatchEncoder, PlacePredictor, patches_3d, positions_3d
from lecture_lib.nets.patchgan import PatchDiscriminator
from lecture_lib.nets.perceptual import PerceptualDistance, ShapeFeatures
from lecture_lib.nets.pixelcnn import GatedPixelCNN, MaskedConv2d, left_mask, raster_mask, rows_mask
from lecture_lib.nets.positions import (
    AxialRotary,
    LearnedPositions,
    cropped_positions,
    grid_positions,
    joint_positions,
    positions_1d,
    positions_2d,
    rotary_angles,
    rotate,
)
from lecture_lib.nets.projection import ConvFeatures, PointFeatures, ProjectionCritic
from lecture_lib.nets.quantizers import FSQ, Quantised, VectorQuantizer, perplexity, straight_through
from lecture_lib.nets.resnext import ResNeXtBlock, ResNeXtFeatures, ResNeXtGenerator
from lecture_lib.nets.scales import ScaleQuantizer, Scales, ScaleTransformer, scale_levels
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
from lecture_lib.nets.style_generator import StyledLayer, StyleGenerator
from lecture_lib.nets.text import (
    GlossWriter,
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
from lecture_lib.nets.text_dit import TextDiT, TextDiTBlock
from lecture_lib.nets.text_unet import TextUNet, size_features
from lecture_lib.nets.tiled_attention import Seen, online_softmax, tiled_attention
from lecture_lib.nets.token_autoencoder import TokenAutoencoder, WindowEncoder
from lecture_lib.nets.tokenizer import Tokenizer
from lecture_lib.nets.tools import multiply_adds, parameter_count, peak_memory, with_kernel
from lecture_lib.nets.transformer_weights import dit_from_diffusers, flux_from_diffusers, mmdit_from_diffusers
from lecture_lib.nets.unet import UNet

__all__ = [
    "DIT_REPORTS",
    "DIT_SIZES",
    "FSQ",
    "GEGLU",
    "ICNN",
    "MODULATIONS",
    "AdaLNBlock",
    "Adapter",
    "AxialRotary",
    "CausalTransformer",
    "CausalTrunk",
    "ContrastivePair",
    "ControlNet",
    "ControlledDiT",
    "ControlledUNet",
    "ConvFeatures",
    "ConvGenerator",
    "CrossAttention",
    "CrossAttentionBlock",
    "Decoder",
    "DiT",
    "DiTBlock",
    "DiTControlNet",
    "DiTCost",
    "DiTReport",
    "DiTSize",
    "Encoder",
    "EqualLinear",
    "EventMLP",
    "FeatureNetwork",
    "Flux",
    "GatedPixelCNN",
    "GlossWriter",
    "HintEncoder",
    "ImageEncoder",
    "InContextBlock",
    "JointAttention",
    "JointText",
    "KLAutoencoder",
    "LabelAndScale",
    "LabelEmbedding",
    "LabelMLP",
    "LabelledNoise",
    "LearnedPositions",
    "MMDiT",
    "MMDiTBlock",
    "MappingNetwork",
    "MaskedAttention",
    "MaskedConv2d",
    "MaskedTransformer",
    "Mixed",
    "MixedTransformer",
    "ModulatedConv",
    "MultiHeadAttention",
    "NoisyClassifier",
    "NumbersEmbedding",
    "PatchDiscriminator",
    "PatchEncoder",
    "Penultimate",
    "PerceptualDistance",
    "PlacePredictor",
    "PointCritic",
    "PointEnergy",
    "PointFeatures",
    "PointGenerator",
    "PositiveLinear",
    "Posterior",
    "ProjectionCritic",
    "QKNorm",
    "Quadrants",
    "Quantised",
    "ResNeXtBlock",
    "ResNeXtFeatures",
    "ResNeXtGenerator",
    "ScaleQuantizer",
    "ScaleTransformer",
    "Scales",
    "Seen",
    "ShapeFeatures",
    "SingleStreamBlock",
    "SpanDenoiser",
    "SpatialTransformer",
    "StyleGenerator",
    "StyledLayer",
    "TextDiT",
    "TextDiTBlock",
    "TextEncoder",
    "TextFeatures",
    "TextUNet",
    "TimeMLP",
    "TimeTextEmbedding",
    "TimestepEmbedding",
    "TokenAutoencoder",
    "TokenDiT",
    "TokenMLP",
    "Tokenizer",
    "TransformerBlock",
    "UNet",
    "VectorQuantizer",
    "WindowEncoder",
    "adaptive_weight",
    "add_lora",
    "attention_layers",
    "autoencoder_from_diffusers",
    "block_causal_mask",
    "block_table",
    "causal_mask",
    "concept_direction",
    "concept_maps",
    "controlled_attention",
    "controlnet_from_diffusers",
    "cropped_positions",
    "dit_cost",
    "dit_from_diffusers",
    "dit_network",
    "explicit_attention",
    "flux_dev",
    "flux_from_diffusers",
    "flux_schnell",
    "full_mask",
    "fused_attention",
    "grid_positions",
    "held",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "joint_positions",
    "kl_to_standard_normal",
    "left_mask",
    "logistic_discriminator_loss",
    "logistic_generator_loss",
    "mixed_mask",
    "mmdit_from_diffusers",
    "modulated_conv",
    "modulations",
    "multiply_adds",
    "online_softmax",
    "parameter_count",
    "patches_3d",
    "patchify",
    "peak_memory",
    "perplexity",
    "positions_1d",
    "positions_2d",
    "positions_3d",
    "quadrant_shares",
    "quadrants",
    "random_direction",
    "raster_mask",
    "recorded_attention",
    "relativistic_discriminator_loss",
    "rotary_angles",
    "rotate",
    "rows_mask",
    "scale_levels",
    "sd3_condition",
    "sd3_medium",
    "sdxl_unet",
    "size_features",
    "squared_slope",
    "stable_diffusion_autoencoder",
    "stable_diffusion_unet",
    "steered",
    "straight_through",
    "tiled_attention",
    "timestep_features",
    "unet_from_diffusers",
    "unpatchify",
    "wasserstein_discriminator_loss",
    "with_kernel",
    "word_map",
    "word_shares",
]
