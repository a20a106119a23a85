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
from lecture_lib.families.decoders import GaussianDecoder, LevelDecoder
from lecture_lib.families.denoising import DenoisingModel, FlowMatching, OTFlowMatching
from lecture_lib.families.diffusion import DDPM, VESDE, VPSDE, ScoreSDE, SubVPSDE, variational_bound
from lecture_lib.families.editing import between, image_to_image, inpaint, keep_known
from lecture_lib.families.energy import EnergyBased, grid_log_normaliser, score_matching_loss, slope
from lecture_lib.families.energy_matching import EnergyMatching
from lecture_lib.families.fit import Update, fit, phase_loss, phase_optimizer
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
from lecture_lib.families.text_to_image import TextToImage
from lecture_lib.nets import adaptive_weight

__all__ = [
    "CATALOGUE",
    "DDPM",
    "VESDE",
    "VPSDE",
    "Demo",
    "DenoisingModel",
    "EnergyBased",
    "EnergyMatching",
    "FlowMatching",
    "GaussianDecoder",
    "GenerativeModel",
    "LatentSpace",
    "LevelDecoder",
    "LogProb",
    "MaskedFrame",
    "MaskedImageModel",
    "MaskedTextToImage",
    "MostConfident",
    "OTFlowMatching",
    "Phase",
    "RandomOrder",
    "Reconstruction",
    "ScoreSDE",
    "SubVPSDE",
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
    "fit",
    "gloss_loss",
    "grid_log_normaliser",
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
    "score_matching_loss",
    "slope",
    "span_loss",
    "train_adversarially",
    "variational_bound",
]
