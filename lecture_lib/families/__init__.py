"""Generative families behind five verbs and one trainer; and models that are assembled from several networks."""

from lecture_lib.families.adversarial import Turn, adversarial_optimizers, train_adversarially
from lecture_lib.families.autoencoding import (
    Reconstruction,
    Variational,
    absolute_error,
    laplace_nll,
)
from lecture_lib.families.autoregressive import AutoregressiveModel, AutoregressiveTransformer, sharpened
from lecture_lib.families.base import Demo, GenerativeModel, LogProb, Phase
from lecture_lib.families.bijections import ActNorm, AffineCoupling, Bijection, Logit
from lecture_lib.families.bridges import SchrodingerBridge
from lecture_lib.families.captioned_things import CaptionedThings, enlarged, thing_words
from lecture_lib.families.catalogue import CATALOGUE
from lecture_lib.families.cnf import CNF
from lecture_lib.families.contrastive import gloss_loss, info_nce, remove_span, same_texts, span_loss
from lecture_lib.families.control import control_loss, controlled
from lecture_lib.families.decoders import GaussianDecoder, LevelDecoder
from lecture_lib.families.denoising import DenoisingModel, FlowMatching, OTFlowMatching
from lecture_lib.families.diffflow import DiffFlow, diffflow_velocity, smoothed
from lecture_lib.families.diffusion import DDPM, VESDE, VPSDE, ScoreSDE, SubVPSDE, variational_bound
from lecture_lib.families.editing import between, image_to_image, inpaint, keep_known
from lecture_lib.families.energy import EnergyBased, grid_log_normaliser, score_matching_loss, slope
from lecture_lib.families.energy_matching import EnergyMatching
from lecture_lib.families.fit import Update, fit, phase_loss, phase_optimizer
from lecture_lib.families.gan import GAN
from lecture_lib.families.implicit import ImplicitModel, generator_drift
from lecture_lib.families.interpolants import (
    Cloud,
    End,
    OneSidedInterpolant,
    StochasticInterpolant,
    TwoSidedModel,
    White,
    antithetic_loss,
    velocity_loss,
)
from lecture_lib.families.iterated_bridges import BridgeMatching, DiffusionSchrodingerBridge
from lecture_lib.families.jepa import JEPA, VJEPA, JointEmbedding, Masks, hide_blocks
from lecture_lib.families.jko import JKOFlow, JKOFrame, displaced, jko_objective
from lecture_lib.families.latent import LatentSpace, psnr
from lecture_lib.families.laws import laws
from lecture_lib.families.learned_interpolant import LearnedInterpolant, LearnedLine, path_energy
from lecture_lib.families.levels import Levels
from lecture_lib.families.mar import MAR, hidden_shares, still_hidden
from lecture_lib.families.masked import (
    MaskedFrame,
    MaskedImageModel,
    MostConfident,
    RandomOrder,
    cosine,
    decode,
    hide,
)
from lecture_lib.families.masked_text_to_image import MaskedTextToImage
from lecture_lib.families.observation import DiscretisedLogistic, GaussianObservation, Observation, normal_log_prob
from lecture_lib.families.particles import (
    MMDFlow,
    blob_score,
    kl_velocity,
    mmd_velocity,
    particle_flow,
    witness,
)
from lecture_lib.families.pixelcnn import PixelCNN
from lecture_lib.families.r3gan import R3GAN
from lecture_lib.families.realnvp import RealNVP
from lecture_lib.families.rectified import Reflow
from lecture_lib.families.special_cases import SpecialCase, one_sided_cases, special_cases, two_sided_cases
from lecture_lib.families.stylegan import StyleGAN
from lecture_lib.families.text_to_image import TextToImage
from lecture_lib.families.transfusion import Transfusion
from lecture_lib.families.unbalanced import IDENTITY, RELATIVE_ENTROPY, SOFTPLUS, Conjugate, UnbalancedTransport
from lecture_lib.families.vae import VAE, BetaVAE, active_units
from lecture_lib.families.var import VAR, ScaleTokenizer
from lecture_lib.families.vq import FSQVAE, VQVAE, QuantisedVAE
from lecture_lib.families.wgan import WGANGP
from lecture_lib.nets import adaptive_weight

__all__ = [
    "CATALOGUE",
    "CNF",
    "DDPM",
    "FSQVAE",
    "GAN",
    "IDENTITY",
    "JEPA",
    "MAR",
    "R3GAN",
    "RELATIVE_ENTROPY",
    "SOFTPLUS",
    "VAE",
    "VAR",
    "VESDE",
    "VJEPA",
    "VPSDE",
    "VQVAE",
    "WGANGP",
    "ActNorm",
    "AffineCoupling",
    "AutoregressiveModel",
    "AutoregressiveTransformer",
    "BetaVAE",
    "Bijection",
    "BridgeMatching",
    "CaptionedThings",
    "Cloud",
    "Conjugate",
    "Demo",
    "DenoisingModel",
    "DiffFlow",
    "DiffusionSchrodingerBridge",
    "DiscretisedLogistic",
    "End",
    "EnergyBased",
    "EnergyMatching",
    "FlowMatching",
    "GaussianDecoder",
    "GaussianObservation",
    "GenerativeModel",
    "ImplicitModel",
    "JKOFlow",
    "JKOFrame",
    "JointEmbedding",
    "LatentSpace",
    "LearnedInterpolant",
    "LearnedLine",
    "LevelDecoder",
    "Levels",
    "LogProb",
    "Logit",
    "MMDFlow",
    "MaskedFrame",
    "MaskedImageModel",
    "MaskedTextToImage",
    "Masks",
    "MostConfident",
    "OTFlowMatching",
    "Observation",
    "OneSidedInterpolant",
    "Phase",
    "PixelCNN",
    "QuantisedVAE",
    "RandomOrder",
    "RealNVP",
    "Reconstruction",
    "Reflow",
    "ScaleTokenizer",
    "SchrodingerBridge",
    "ScoreSDE",
    "SpecialCase",
    "StochasticInterpolant",
    "StyleGAN",
    "SubVPSDE",
    "TextToImage",
    "Transfusion",
    "Turn",
    "TwoSidedModel",
    "UnbalancedTransport",
    "Update",
    "Variational",
    "White",
    "absolute_error",
    "active_units",
    "adaptive_weight",
    "adversarial_optimizers",
    "antithetic_loss",
    "between",
    "blob_score",
    "control_loss",
    "controlled",
    "cosine",
    "decode",
    "diffflow_velocity",
    "displaced",
    "enlarged",
    "fit",
    "generator_drift",
    "gloss_loss",
    "grid_log_normaliser",
    "hidden_shares",
    "hide",
    "hide_blocks",
    "image_to_image",
    "info_nce",
    "inpaint",
    "jko_objective",
    "keep_known",
    "kl_velocity",
    "laplace_nll",
    "laws",
    "mmd_velocity",
    "normal_log_prob",
    "one_sided_cases",
    "particle_flow",
    "path_energy",
    "phase_loss",
    "phase_optimizer",
    "psnr",
    "remove_span",
    "same_texts",
    "score_matching_loss",
    "sharpened",
    "slope",
    "smoothed",
    "span_loss",
    "special_cases",
    "still_hidden",
    "thing_words",
    "train_adversarially",
    "two_sided_cases",
    "variational_bound",
    "velocity_loss",
    "witness",
]
