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
from lecture_lib.families.editing import between, image_to_image, inpaint, keep_known
from lecture_lib.families.fit import Update, fit, phase_loss, phase_optimizer
from lecture_lib.families.gan import GAN
from lecture_lib.families.implicit import ImplicitModel, drift
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
from lecture_lib.families.r3gan import R3GAN
from lecture_lib.families.stylegan import StyleGAN
from lecture_lib.families.text_to_image import TextToImage
from lecture_lib.families.wgan import WGANGP
from lecture_lib.nets import adaptive_weight

__all__ = [
    "CATALOGUE",
    "GAN",
    "R3GAN",
    "WGANGP",
    "Demo",
    "DenoisingModel",
    "FlowMatching",
    "GenerativeModel",
    "ImplicitModel",
    "LatentSpace",
    "LogProb",
    "MaskedFrame",
    "MaskedImageModel",
    "MaskedTextToImage",
    "MostConfident",
    "OTFlowMatching",
    "Phase",
    "RandomOrder",
    "Reconstruction",
    "StyleGAN",
    "TextToImage",
    "Turn",
    "Update",
    "Variational",
    "absolute_error",
    "adaptive_weight",
    "adversarial_optimizers",
    "between",
    "control_loss",
    "controlled",
    "cosine",
    "decode",
    "drift",
    "fit",
    "gloss_loss",
    "hide",
    "image_to_image",
    "info_nce",
    "inpaint",
    "keep_known",
    "laplace_nll",
    "laws",
    "phase_loss",
    "phase_optimizer",
    "psnr",
    "remove_span",
    "same_texts",
    "span_loss",
    "train_adversarially",
]
