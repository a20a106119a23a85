"""The last rung of the ladder: an autoencoder and a critic, trained in turns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.data import Draws
from lecture_lib.errors import NonFiniteError
from lecture_lib.families.autoencoding import Reconstruction
from lecture_lib.nets import adaptive_weight, hinge_discriminator_loss, hinge_generator_loss
from lecture_lib.tensors import check_count, check_number


@dataclass(frozen=True)
class Turn:
    """What one update of both did; all numbers are means over the batch, before the update.

    Attributes:
        number: updates made so far, this one included.
        nll: the reconstruction term.
        penalty: what the latent costs (beta KL, or a quantiser's commitment).
        fooling: the generator's hinge term, -D(x_hat); 0 while the critic is off.
        weight: what it was multiplied with.
        critic: the critic's own loss: 1 when it cannot tell, 0 when it is never wrong; 0 while it is off.
    """

    number: int
    nll: float
    penalty: float
    fooling: float
    weight: float
    critic: float


def adversarial_optimizers(
    model: nn.Module, reconstruction: Reconstruction, discriminator: nn.Module, lr: float
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Adam for the autoencoder (with the learned log-scale) and for the critic, with the betas (.5, .9) of GANs."""
    learned = [p for module in (model, reconstruction) for p in module.parameters() if p.requires_grad]
    return tuple(torch.optim.Adam(weights, lr, betas=(0.5, 0.9)) for weights in (learned, discriminator.parameters()))


def train_adversarially(
    model: nn.Module,
    reconstruction: Reconstruction,
    discriminator: nn.Module,
    batches: Draws,
    *,
    last_layer: Tensor,
    steps: int,
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    generator: torch.Generator,
    gan_weight: float = 0.5,
    gan_start: int = 50_001,
    start: int = 0,
) -> Iterator[Turn]:
    """Train both, yielding after every update: the autoencoder against the critic, then the critic against it.

    As in ``training.train``, nothing is under way between two yields (set rates, average, save or stop there), and the
    three modules, the two optimizers, the generator and the number of updates are the whole state.

    Args:
        model: ``(x, generator) -> (x_hat, penalty (b,))``, such as ``Variational(autoencoder)``.
        reconstruction: ``(x, x_hat) -> (b,)``.
        discriminator: ``x -> logits (b, ...)``.
        batches: where batches come from; the pictures come first in each.
        last_layer: weight of the decoder's last layer, at which the two gradients are balanced.
        steps: number of the last update.
        optimizers: the autoencoder's and the critic's.
        gan_weight: weight of the critic's term on top of the adaptive one.
        gan_start: updates made before the critic is switched on; until then it is neither asked nor trained.
        start: updates already made.

    Raises:
        NonFiniteError: a loss is NaN or infinite; no weight of that half of the update is changed.

    Source: Esser et al. 2021, eq. 5 to 7; the constants are those of Rombach et al. 2022's code.
    """
    check_count("steps", steps, 0), check_count("gan_start", gan_start, 0), check_count("start", start, 0)
    check_number("gan_weight", gan_weight, low=0)
    improve_autoencoder, improve_critic = optimizers
    for done in range(start, steps):
        model.train(), discriminator.train()
        x = batches.draw(generator)[0]
        x_hat, penalty = model(x, generator)
        nll, penalty = reconstruction(x, x_hat).mean(), penalty.mean()
        fooling = weight = critic = nll.new_zeros(())
        if done >= gan_start:
            fooling = hinge_generator_loss(discriminator(x_hat)).mean()
            weight = gan_weight * adaptive_weight(nll, fooling, last_layer)
        _descend(improve_autoencoder, nll + penalty + weight * fooling, done)
        if done >= gan_start:
            critic = hinge_discriminator_loss(discriminator(x), discriminator(x_hat.detach())).mean()
            _descend(improve_critic, critic, done)
        yield Turn(done + 1, *(y.item() for y in (nll, penalty, fooling, weight, critic)))


def _descend(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""], done: int) -> None:
    if not torch.isfinite(loss):
        raise NonFiniteError(f"loss: got {loss.item()} in update {done + 1}, expected a finite number")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
