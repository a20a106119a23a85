"""Models that are more than one network: what they consist of, what they are trained for, what one does with them."""

from lecture_lib.families.contrastive import info_nce, remove_span, same_texts, span_loss
from lecture_lib.families.editing import between, image_to_image, inpaint, keep_known
from lecture_lib.families.latent import LatentSpace, psnr
from lecture_lib.families.text_to_image import TextToImage

__all__ = [
    "LatentSpace",
    "TextToImage",
    "between",
    "image_to_image",
    "info_nce",
    "inpaint",
    "keep_known",
    "psnr",
    "remove_span",
    "same_texts",
    "span_loss",
]
