"""What an autoencoder is trained with, rung by rung: absolute error, likelihood, KL, perceptual distance, a critic.

    L = sum over pixels of (|x - x_hat| + LPIPS)/e^l + l                  Reconstruction, with a learned l
        + beta KL(q(z|x) || N(0, I))                                      Variational
        + w lambda (-D(x_hat))                                            adversarial.train_adversarially

The first line is a Laplace likelihood up to a constant; the perceptual distance in it is no likelihood but an addition.
Source: Rombach et al. 2022, section 3.1 and appendix G, and the loss of their code.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets import PerceptualDistance
from lecture_lib.tensors import check_number


def _check_pair(x: Tensor, x_hat: Tensor) -> None:
    if x.shape != x_hat.shape:
        raise ShapeError(f"x_hat: got shape {tuple(x_hat.shape)}, expected that of x, {tuple(x.shape)}")


def absolute_error(x: Float[Tensor, " b *d"], x_hat: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """``mean |x - x_hat|`` of each sample: the first rung, L1.

    Raises:
        ShapeError: x and x_hat differ in shape.
    """
    _check_pair(x, x_hat)
    return (x - x_hat).abs().flatten(1).mean(1)


def laplace_nll(error: Float[Tensor, " b"], log_scale: float | Float[Tensor, ""], pixels: int) -> Float[Tensor, " b"]:
    """``pixels (error/e^l + l)``: minus the log-likelihood of Laplace noise with scale e^l, less ``pixels log 2``.

    Smallest where e^l is the mean absolute error itself, so a learned l finds the weight of this term against all
    others (the KL above all).

    Args:
        error: mean absolute error of each sample, ``absolute_error``; a perceptual distance may be added to it.
        log_scale: l, a number or a parameter.
        pixels: how many numbers a sample has, c h w.
    """
    log_scale = torch.as_tensor(log_scale, dtype=error.dtype, device=error.device)
    return pixels * (error * torch.exp(-log_scale) + log_scale)


class Reconstruction(nn.Module):
    """``laplace_nll`` with a learned log-scale, and with a perceptual distance beside the absolute error.

    Args:
        perceptual: a ``PerceptualDistance`` (frozen); None for the likelihood alone.
        perceptual_weight: its weight against the mean absolute error.
        log_scale: where l starts; 0 weighs one unit of error by 1 per pixel.
    """

    def __init__(
        self,
        perceptual: PerceptualDistance | None = None,
        *,
        perceptual_weight: float = 1.0,
        log_scale: float = 0.0,
    ) -> None:
        super().__init__()
        self.perceptual = perceptual
        self.perceptual_weight = check_number("perceptual_weight", perceptual_weight, low=0)
        self.log_scale = nn.Parameter(torch.tensor(check_number("log_scale", log_scale)))

    def forward(self, x: Float[Tensor, " b c h w"], x_hat: Float[Tensor, " b c h w"]) -> Float[Tensor, " b"]:
        """The loss of each sample, summed over its pixels; it falls below 0 once the scale is below 1.

        Raises:
            ShapeError: x and x_hat differ in shape.
        """
        error = absolute_error(x, x_hat)
        if self.perceptual is not None:
            error = error + self.perceptual_weight * self.perceptual(x, x_hat)
        return laplace_nll(error, self.log_scale, x[0].numel())


class Variational(nn.Module):
    """An autoencoder with its posterior, as a module ``(x, generator) -> (x_hat, beta KL (b,))``.

    This is the form that ``train_adversarially`` trains; anything else that pays for its latent fits it too, such as a
    vector quantiser with its commitment.

    Args:
        autoencoder: has ``encode(x)``, giving a posterior with ``sample(generator)`` and ``kl()``, and ``decode(z)``.
        beta: weight of the KL, 1e-6 for a latent that is to be diffused, 1 for the evidence lower bound.
    """

    def __init__(self, autoencoder: nn.Module, beta: float = 1e-6) -> None:
        super().__init__()
        self.autoencoder, self.beta = autoencoder, check_number("beta", beta, low=0)

    def forward(
        self, x: Float[Tensor, " b c h w"], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, " b c h w"], Float[Tensor, " b"]]:
        posterior = self.autoencoder.encode(x)
        x_hat = self.autoencoder.decode(posterior.sample(generator))
        return x_hat, self.beta * posterior.kl()
