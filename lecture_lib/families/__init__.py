"""Families of generative models beyond plain diffusion, and the parts that they are trained with."""

from lecture_lib.families.adversarial import Turn, adversarial_optimizers, train_adversarially
from lecture_lib.families.autoencoding import (
    Reconstruction,
    Variational,
    absolute_error,
    adaptive_weight,
    kl_to_standard_normal,
    laplace_nll,
)

__all__ = [
    "Reconstruction",
    "Turn",
    "Variational",
    "absolute_error",
    "adaptive_weight",
    "adversarial_optimizers",
    "kl_to_standard_normal",
    "laplace_nll",
    "train_adversarially",
]
