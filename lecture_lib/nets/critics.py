"""Critics: what each side of the game pays, the weight that balances it with another loss, and a critic of points."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lecture_lib.errors import ShapeError
from lecture_lib.tensors import check_count


def hinge_discriminator_loss(real: Float[Tensor, " b *d"], fake: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """``(max(0, 1 - D(x)) + max(0, 1 + D(x_hat)))/2``, mean over the logits of each sample (Lim & Ye 2017).

    Raises:
        ShapeError: real and fake differ in shape.
    """
    _check_alike(real, fake)
    return (F.relu(1 - real) + F.relu(1 + fake)).reshape(len(real), -1).mean(1) / 2


def hinge_generator_loss(fake: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """``-D(x_hat)``, mean over the logits of each sample: no hinge on this side."""
    return -fake.reshape(len(fake), -1).mean(1)


def logistic_discriminator_loss(real: Float[Tensor, " b *d"], fake: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """``-log D(x) - log(1 - D(x_hat))`` on logits, D their sigmoid; mean over the logits of each sample.

    Its smallest value over all critics is ``2 log 2 - 2 JS(p, q)``, where the logit is ``log p - log q``.

    Raises:
        ShapeError: real and fake differ in shape.

    Source: Goodfellow et al. 2014, eq. 1 and theorem 1.
    """
    _check_alike(real, fake)
    return (F.softplus(-real) + F.softplus(fake)).reshape(len(real), -1).mean(1)


def logistic_generator_loss(fake: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """``-log D(x_hat)``, non-saturating; mean over the logits of each sample.

    Its gradient at the best critic is ``-E[(1 - D) dx_hat (score of data - score of x_hat)]``: where the critic is
    fooled, it falls silent.

    Source: Goodfellow et al. 2014, section 3.
    """
    return F.softplus(-fake).reshape(len(fake), -1).mean(1)


def wasserstein_discriminator_loss(real: Float[Tensor, " b *d"], fake: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """``D(x_hat) - D(x)``, mean over the logits of each sample; the generator pays ``hinge_generator_loss``, -D(x_hat).

    If |D(x) - D(y)| <= |x - y|, the mean of its negative is at most W1(p, q), and the best such critic reaches it.

    Raises:
        ShapeError: real and fake differ in shape.

    Source: Arjovsky et al. 2017, eq. 2 and 3.
    """
    _check_alike(real, fake)
    return (fake - real).reshape(len(real), -1).mean(1)


def relativistic_discriminator_loss(real: Float[Tensor, " b *d"], fake: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    """``-log sigmoid(D(x) - D(x_hat))``: each sample of data against a fake of its own; mean over the logits of a pair.

    Only the difference counts, so that the critic must place every fake against data somewhere near it. The generator
    pays the same with the roles exchanged: ``relativistic_discriminator_loss(real=fakes, fake=data)``.

    Raises:
        ShapeError: real and fake differ in shape.

    Source: Jolicoeur-Martineau 2018 (1807.00734); Huang et al. 2024 (2501.05441, R3GAN), section 2.
    """
    _check_alike(real, fake)
    return F.softplus(fake - real).reshape(len(real), -1).mean(1)


def squared_slope(logits: Float[Tensor, " b *d"], x: Float[Tensor, " b *e"]) -> Float[Tensor, " b"]:
    """``|dD/dx|^2``, sum over the dimensions of each sample; a critic can be trained on it.

    Args:
        logits: ``critic(x)``, each sample judged alone (no batch normalisation); several logits of one are added up.
        x: what they were said about; it required a gradient when they were.

    Source: Mescheder et al. 2018 (1801.04406), section 4.1: R1 at data, R2 at fakes.
    """
    (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return slope.flatten(1).square().sum(1)


def _check_alike(real: Tensor, fake: Tensor) -> None:
    if real.shape != fake.shape:
        raise ShapeError(f"fake: got shape {tuple(fake.shape)}, expected that of real, {tuple(real.shape)}")


def adaptive_weight(
    nll: Float[Tensor, ""], g: Float[Tensor, ""], last_layer_weight: Float[Tensor, "*d"]
) -> Float[Tensor, ""]:
    """``|grad nll| / (|grad g| + 1e-4)`` at a generator's last layer, in 0..1e4: both terms pull equally hard there.

    Args:
        nll: the term that the critic is added to (reconstruction, consistency), averaged over the batch.
        g: the critic's term, averaged over the batch.
        last_layer_weight: the weight that both gradients are taken at; nll and g must depend on it.

    Returns:
        A number that no gradient flows through. The graphs of nll and g are kept for the backward pass to come.

    Source: Esser et al. 2021, eq. 7.
    """
    pull, push = (torch.autograd.grad(y, last_layer_weight, retain_graph=True)[0].norm() for y in (nll, g))
    return (pull / (push + 1e-4)).clamp(0, 1e4).detach()


@contextmanager
def held(*networks: nn.Module) -> Iterator[None]:
    """What these networks say inside has gradients with respect to their inputs but not to their weights.

    For the generator's turn of a game, in which the critic passes the gradient on and must not learn.
    """
    weights = [p for network in networks for p in network.parameters() if p.requires_grad]
    for p in weights:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in weights:
            p.requires_grad_(True)


class PointCritic(nn.Module):
    """One logit per vector: a plain MLP whose layers are divided by their largest singular value.

    Args:
        features: length of x.
        width, depth: width and number of hidden layers.

    Source: Miyato et al. 2018 (spectral normalisation).
    """

    def __init__(self, features: int = 2, *, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        widths = [check_count("features", features), *[check_count("width", width)] * check_count("depth", depth), 1]
        self.layers = nn.ModuleList(spectral_norm(nn.Linear(a, b)) for a, b in pairwise(widths))

    def forward(self, x: Float[Tensor, " b f"]) -> Float[Tensor, " b 1"]:
        """Logits, large for points that look real."""
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        return self.layers[-1](x)
