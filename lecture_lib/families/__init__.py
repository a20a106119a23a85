"""Generative families behind five verbs and one trainer; and models that are assembled from several networks."""

from lecture_lib.families.adversarial import Turn, adversarial_optimizers, train_adversarially
from lecture_lib.families.autoencoding import (
    Reconstruction,
    Variational,
    absolute_error,
    laplace_nll,
)
from lecture_lib.families.base import Demo, GenerativeModel, LogProb, Phase
from lecture_lib.families.catalogue import CATALOGUE
from lecture_lib.families.contrastive import gloss_loss, info_nce, remove_span, same_texts, span_loss
from lecture_lib.families.control import control_loss, controlled
from lecture_lib.families.denoising import DenoisingModel, FlowMatching, OTFlowMatching
from lecture_lib.families.diffflow import DiffFlow, diffflow_velocity, smoothed
from lecture_lib.families.editing import between, image_to_image, inpaint, keep_known
from lecture_lib.families.fit import Update, fit, phase_loss, phase_optimizer
from lecture_lib.families.jko import JKOFlow, JKOFrame, displaced, jko_objective
from lecture_lib.families.latent import LatentSpace, psnr
from lecture_lib.families.laws import laws
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
from lecture_lib.families.particles import (
    MMDFlow,
    blob_score,
    kl_velocity,
    mmd_velocity,
    particle_flow,
    witness,
)
from lecture_lib.families.text_to_image import TextToImage
from lecture_lib.families.unbalanced import IDENTITY, RELATIVE_ENTROPY, SOFTPLUS, Conjugate, UnbalancedTransport
from lecture_lib.nets import adaptive_weight

__all__ = [
    "CATALOGUE",
    "IDENTITY",
    "RELATIVE_ENTROPY",
    "SOFTPLUS",
    "Conjugate",
    "Demo",
    "DenoisingModel",
    "DiffFlow",
    "FlowMatching",
    "GenerativeModel",
    "JKOFlow",
    "JKOFrame",
    "LatentSpace",
    "LogProb",
    "MMDFlow",
    "MaskedFrame",
    "MaskedImageModel",
    "MaskedTextToImage",
    "MostConfident",
    "OTFlowMatching",
    "Phase",
    "RandomOrder",
    "Reconstruction",
    "TextToImage",
    "Turn",
    "UnbalancedTransport",
    "Update",
    "Variational",
    "absolute_error",
    "adaptive_weight",
    "adversarial_optimizers",
    "between",
    "blob_score",
    "control_loss",
    "controlled",
    "cosine",
    "decode",
    "diffflow_velocity",
    "displaced",
    "fit",
    "gloss_loss",
    "hide",
    "image_to_image",
    "info_nce",
    "inpaint",
    "jko_objective",
    "keep_known",
    "kl_velocity",
    "laplace_nll",
    "laws",
    "mmd_velocity",
    "particle_flow",
    "phase_loss",
    "phase_optimizer",
    "psnr",
    "remove_span",
    "same_texts",
    "smoothed",
    "span_loss",
    "train_adversarially",
    "witness",
]
