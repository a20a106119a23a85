"""Variational autoencoders: an encoder that guesses the latent, a decoder that says what the latent means.

    z ~ q(z | x, c) = N(mu, diag s^2)                     the encoder: forward_process, in one jump
    x ~ p(x | z, c),  z ~ N(0, I)                         the decoder: reverse_process, in one jump
    log p(x) >= E_q log p(x | z) - KL(q | N(0, I))        loss, with the sign turned
    log p(x) >= E log 1/K sum_k p(x | z_k) p(z_k)/q(z_k | x)              log_prob, tighter with every z_k

Both bounds are of one picture each. Adding up a batch before the logarithm of the mean makes the weights those of whole
batches: a bound too, but one that K draws are far too few for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.data import Batches, digits
from lecture_lib.errors import ShapeError
from lecture_lib.families.base import Batch, GenerativeModel, LogProb
from lecture_lib.families.denoising import two_moons
from lecture_lib.families.encoding import check_steps, check_unlabelled, heard, jumped
from lecture_lib.families.observation import DiscretisedLogistic, GaussianObservation, Observation, normal_log_prob
from lecture_lib.nets import EventMLP, Posterior
from lecture_lib.tensors import check_count, check_number, randn_like


class VAE(GenerativeModel):
    """A variational autoencoder, conditional on labels if its networks are.

    For digits the observation is a ``DiscretisedLogistic``: its ``log_prob`` is of grey levels, so nothing has to be
    dequantised, and the many pixels that are black in every picture cost nothing. A Gaussian would spend its scale on
    the noise of dequantisation there. ``GaussianObservation`` is for points of the plane, or for dequantised pictures.

    ``sample`` draws from the model whose likelihood ``log_prob`` bounds, the noise of the observation included; the
    smoother pictures that papers like to show are ``decode(z)``, the first frame of ``reverse_process``.

    Args:
        encoder: (x, cond=labels) -> mean and log-variance (b, 2 latent).
        decoder: (z, cond=labels) -> x_hat (b, *event).
        observation: p(x | x_hat); its event is the model's.
        latent: length of z.
        n_classes: number of classes that the networks hear; 0 for none.
        p_uncond: how often training hides a label, so that ``cond = None`` means something too.

    Attributes:
        beta: weight of the KL; 1 here, the evidence lower bound.
        draws: K of ``log_prob``.
    """

    formula = r"\log p(x)\ge\mathbb E_{q(z|x)}\log p(x|z)-\mathrm{KL}\big(q(z|x)\,\|\,\mathcal N(0,I)\big)"
    source = "Kingma & Welling 2014 (1312.6114); Sohn et al. 2015 with labels; log_prob: Burda et al. 2016 (1509.00519)"
    beta = 1.0
    draws = 64

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        observation: Observation,
        latent: int,
        *,
        n_classes: int = 0,
        p_uncond: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.observation = encoder, decoder, observation
        self.event, self.latent = tuple(observation.log_scale.shape), check_count("latent", latent)
        self.n_classes = check_count("n_classes", n_classes, 0)
        self.p_uncond = check_number("p_uncond", p_uncond, 0, 1)

    # The two networks ----------------------------------------------------------------------------------------------

    def posterior(self, x: Float[Tensor, " b *event"], cond: Int[Tensor, " b"] | None = None) -> Posterior:
        """q(z | x, cond), a Gaussian with independent components."""
        moments = self.encoder(x, cond=cond)
        if moments.shape != (len(x), 2 * self.latent):
            expected = (len(x), 2 * self.latent)
            raise ShapeError(f"encoder: got an output of shape {tuple(moments.shape)}, expected {expected}")
        mean, logvar = moments.chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(-30.0, 20.0))

    def decode(self, z: Float[Tensor, " b k"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b *event"]:
        """x_hat: where p(x | z, cond) has its middle."""
        return self.decoder(z, cond=cond)

    # The five verbs ------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, phase: str = "all", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        x, cond = heard(batch, self.n_classes, self.p_uncond, generator)
        q = self.posterior(x, cond)
        x_hat = self.decode(q.sample(generator), cond)
        return -self.observation.log_prob(x, x_hat) + self.beta * q.kl()

    def forward_process(self, x, t, *, generator=None):
        return self.posterior(x).sample(generator) if jumped(t) else x

    def prior(self, n: int, *, generator: torch.Generator) -> Float[Tensor, " n k"]:
        return randn_like(next(self.parameters()).new_empty(check_count("n", n), self.latent), generator)

    @torch.no_grad()
    def reverse_process(self, z, cond=None, *, steps=None, generator) -> Iterator[Tensor]:
        check_steps(steps, 1, "a decoder jumps from the latent to data")
        self._check_labels(cond)
        x_hat = self.decode(z, cond)
        yield x_hat
        yield self.observation.sample(x_hat, generator)

    @torch.no_grad()
    def log_prob(self, x, cond=None, *, generator=None) -> LogProb:
        """The importance-weighted bound with ``draws`` latents: its expectation rises with K, towards log p(x)."""
        self._check_labels(cond)
        log_w = self.log_weights(x, cond, draws=self.draws, generator=generator)
        return LogProb(log_w.logsumexp(0) - math.log(len(log_w)), "lower bound", self.observation.of)

    def _check_labels(self, cond: Tensor | None) -> None:
        if not self.n_classes:
            check_unlabelled(cond)

    def log_weights(
        self,
        x: Float[Tensor, " b *event"],
        cond: Int[Tensor, " b"] | None = None,
        *,
        draws: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " draws b"]:
        """``log p(x | z_k) + log p(z_k) - log q(z_k | x)`` of K draws of the encoder; float64, one row per draw.

        Their mean over k is an ELBO, the logarithm of the mean of their exponentials an importance-weighted bound.
        """
        q, log_w = self.posterior(x, cond), []
        for _ in range(check_count("draws", draws)):
            z = q.sample(generator)
            log_p = self.observation.log_prob(x, self.decode(z, cond)) + normal_log_prob(z, z * 0, z * 0)
            log_w.append(log_p.double() - normal_log_prob(z, q.mean, q.logvar).double())
        return torch.stack(log_w)

    @classmethod
    def small(cls):
        encoder, decoder = EventMLP((2,), (4,)), EventMLP((2,), (2,))
        return cls(encoder, decoder, GaussianObservation((2,), log_scale=-2.0), 2), two_moons(), 600


class BetaVAE(VAE):
    """The same with the KL weighed by beta: above 1 the latent says less, in the limit nothing.

    ``-loss`` is then a bound on nothing of the model's (above 1 it lies below the ELBO, below 1 it may exceed log p).
    The model is still a decoder with a prior, and ``log_prob`` is its bound as ever, whatever the training weighed.
    That fewer latents stay in use is measured (``active_units``); that they are "disentangled" is not.

    Args:
        beta: weight of the KL.
    """

    formula = r"\min\ -\mathbb E_{q(z|x)}\log p(x|z)+\beta\,\mathrm{KL}\big(q(z|x)\,\|\,\mathcal N(0,I)\big)"
    source = "Higgins et al. 2017 (beta-VAE, ICLR)"

    def __init__(self, *networks: object, beta: float = 4.0, **options: object) -> None:
        super().__init__(*networks, **options)
        self.beta = check_number("beta", beta, 0)

    @classmethod
    def small(cls):
        train = digits()
        encoder = EventMLP((1, 8, 8), (16,), width=128, n_classes=10)
        decoder = EventMLP((8,), (1, 8, 8), width=128, n_classes=10)
        model = cls(encoder, decoder, DiscretisedLogistic((1, 8, 8)), 8, n_classes=10)
        return model, Batches((train.images, train.labels), 128), 600


@torch.no_grad()
def active_units(model: VAE, x: Float[Tensor, " b *event"], cond: Int[Tensor, " b"] | None = None) -> int:
    """How many latents tell pictures apart: their mean E[z | x] varies by more than 0.01 over the data.

    Source: Burda et al. 2016, section 5.1.
    """
    return int((model.posterior(x, cond).mean.var(dim=0) > 0.01).sum())
