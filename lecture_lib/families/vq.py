"""Autoencoders whose latent is whole numbers, and the prior without which they are no generative model.

    k = nearest code of encoder(x) at each place          forward_process, in one jump: tokens (b, n)
    1. tokenizer   L = -log p(x | k) + beta |z_e - sg(e_k)|^2        the codebook e follows as running means (VQ-VAE)
    2. prior       L = -log p(k | c) = -sum_i log p(k_i | k_<i, c)   a causal transformer, the tokenizer at rest
    k ~ p(k | c), x ~ p(x | k)                            reverse_process: token by token, then one jump
    log p(x | c) >= log p(k | c) + log p(x | k)           log_prob: one term of the sum over all k, that of the encoder

What is called the speed of a VQ-VAE is often that of its decoder alone: without a prior nobody knows which codes to
decode. Source: van den Oord et al. 2017 (1711.00937), sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.data import Batches, digits
from lecture_lib.errors import ShapeError
from lecture_lib.families.base import Batch, GenerativeModel, LogProb, Phase
from lecture_lib.families.encoding import check_steps, heard, jumped
from lecture_lib.families.masked import gumbel
from lecture_lib.families.observation import DiscretisedLogistic, Observation
from lecture_lib.nets import (
    FSQ,
    CausalTransformer,
    Decoder,
    Quantised,
    TokenAutoencoder,
    VectorQuantizer,
    WindowEncoder,
)
from lecture_lib.tensors import check_count, check_number


class QuantisedVAE(GenerativeModel):
    """A tokenizer and a prior over its tokens, trained one after the other.

    Args:
        autoencoder: pictures to tokens and back; square pictures.
        transformer: p(tokens | label), with as many tokens and places as the autoencoder makes.
        observation: p(x | x_hat) of the decoder; its event is the model's.
        n_classes: number of classes that the transformer hears; 0 for none. The tokenizer hears none.
        p_uncond: how often training hides a label from the transformer.
        w: guidance scale of ``sample`` where there is a label; 1 is the plain conditional prior, that of ``log_prob``.
        tokenizer_share: the part of all updates that the tokenizer is trained in, the first one.

    Raises:
        ShapeError: autoencoder and transformer disagree about the number of codes or of places.
    """

    def __init__(
        self,
        autoencoder: TokenAutoencoder,
        transformer: CausalTransformer,
        observation: Observation,
        *,
        n_classes: int = 0,
        p_uncond: float = 0.1,
        w: float = 1.0,
        tokenizer_share: float = 0.5,
    ) -> None:
        super().__init__()
        self.autoencoder, self.transformer, self.observation = autoencoder, transformer, observation
        self.event, self.n_classes = tuple(observation.log_scale.shape), check_count("n_classes", n_classes, 0)
        self.p_uncond, self.w = check_number("p_uncond", p_uncond, 0, 1), check_number("w", w)
        self.tokenizer_share = check_number("tokenizer_share", tokenizer_share, 0, 1)
        self.steps = places = self.event[1] * self.event[2] // autoencoder.factor**2
        got, expected = (transformer.size, transformer.length), (autoencoder.size, places)
        if got != expected:
            raise ShapeError(f"transformer: got {got} tokens and places, expected those of the autoencoder, {expected}")

    # Two stages ----------------------------------------------------------------------------------------------------

    def phases(self) -> tuple[Phase, ...]:
        tokenizer = (*self.autoencoder.parameters(), *self.observation.parameters())
        return Phase("tokenizer", tokenizer), Phase("prior", tuple(self.transformer.parameters()))

    def phase_at(self, done: int, total: int) -> Phase:
        """First the tokenizer, then the prior: tokens must not change their meaning while they are learned."""
        return self.phases()[done >= round(self.tokenizer_share * total)]

    def loss(self, batch: Batch, phase: str = "all", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        x, cond = heard(batch, self.n_classes, self.p_uncond, generator)
        if phase == "prior":
            return -self.log_prior(self.autoencoder.tokens(x), cond)
        z_e = self.autoencoder.encoder(x)
        quantised = self.autoencoder.quantiser(z_e)
        x_hat = self.autoencoder.decoder(quantised.quantised)
        return self.price(z_e, quantised, generator) - self.observation.log_prob(x, x_hat)

    def price(self, z_e: Float[Tensor, " b k h w"], quantised: Quantised, generator: torch.Generator) -> float | Tensor:
        """What the encoder pays for being rounded, (b,), in the sum over the map; nothing unless a family says so."""
        return 0.0

    def log_prior(self, tokens: Int[Tensor, " b n"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b"]:
        """``sum_i log p(k_i | k_<i, cond)``, the first token included: exact."""
        logits = self.transformer(tokens, cond)
        return -F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none").double().sum(1)

    # The other verbs -----------------------------------------------------------------------------------------------

    def forward_process(self, x, t, *, generator=None):
        return self.autoencoder.tokens(x) if jumped(t) else x

    def prior(self, n: int, *, generator: torch.Generator) -> Int[Tensor, " n 0"]:
        """No tokens yet: where ``reverse_process`` starts."""
        device = next(self.parameters()).device
        return torch.empty(check_count("n", n), 0, dtype=torch.long, device=device)

    @torch.no_grad()
    def reverse_process(self, z, cond=None, *, steps=None, generator) -> Iterator[Tensor]:
        """The tokens so far, (b, 1), (b, 2), ..., then x_hat, then a draw around it. It takes ``steps`` tokens.

        ``z`` may hold first tokens, (b, m), that are to be kept.
        """
        check_steps(steps, self.steps, "one for each token")
        branches = [cond] if cond is None or self.w == 1 else [None, cond]
        said = [self.transformer.begin(len(z), label) for label in branches]  # (logits, memory) of each
        for token in z.unbind(dim=1):
            said = [self.transformer.next(token, memory) for _, memory in said]
        for place in range(z.shape[1], self.steps):
            logits = torch.lerp(said[0][0], said[-1][0], self.w)  # l_0 + w (l_c - l_0); alone it is l_c
            token = (logits + gumbel(logits, generator)).argmax(dim=-1)
            z = torch.cat([z, token[:, None]], dim=1)
            yield z
            if place + 1 < self.steps:
                said = [self.transformer.next(token, memory) for _, memory in said]
        x_hat = self.autoencoder.decode(z)
        yield x_hat
        yield self.observation.sample(x_hat, generator)

    @torch.no_grad()
    def log_prob(self, x, cond=None, *, generator=None) -> LogProb:
        """``log p(k | cond) + log p(x | k)`` at the encoder's own k: no draws, and no other k counted."""
        tokens = self.autoencoder.tokens(x)
        log_p = self.observation.log_prob(x, self.autoencoder.decode(tokens)).double()
        return LogProb(self.log_prior(tokens, cond) + log_p, "lower bound", self.observation.of)


class VQVAE(QuantisedVAE):
    """Tokens are the nearest of K learned codes. The encoder hears of its pictures through a straight-through gradient.

    ``z = z_e + sg(e - z_e)`` has the value of the code and the gradient of the encoder's output; without the ``sg`` it
    *is* e, and the encoder learns nothing. The codebook follows in ``after_update``, codes that nobody uses are revived
    there, and both only in the tokenizer's phase.
    """

    formula = r"z=z_e+\mathrm{sg}(e_k-z_e),\ k=\arg\min_j\|z_e-e_j\|,\quad \log p(x)\ge\log p(k)+\log p(x|k)"
    source = "van den Oord et al. 2017 (1711.00937); running means: appendix A.1"

    _seen: tuple[Tensor, Tensor, int] | None = None  # what the last update quantised, and a seed, for after_update

    def price(self, z_e, quantised, generator):
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        self._seen = z_e.detach(), quantised.index, seed
        return quantised.loss * z_e[0].numel()  # a sum, as the nats are

    def after_update(self, phase: str) -> None:
        if phase == "tokenizer" and self._seen is not None:
            *seen, seed = self._seen
            self.autoencoder.quantiser.update(*seen, torch.Generator().manual_seed(seed))
        self._seen = None

    @classmethod
    def small(cls):
        return _small(cls, VectorQuantizer(32, 8, gamma=0.9), channels=8)


class FSQVAE(QuantisedVAE):
    """Tokens are rounded coordinates: each channel takes one of a few values, and nothing has to be learned or revived.

    Channels are bounded before they are rounded; rounding alone would give as many levels as the encoder cares for.
    """

    formula = (
        r"\hat z=\mathrm{round}\big(h\tanh(z+\delta)-o\big)/\lfloor L/2\rfloor,\quad \log p(x)\ge\log p(k)+\log p(x|k)"
    )
    source = "Mentzer et al. 2023 (2309.15505), section 3.1"

    @classmethod
    def small(cls):
        return _small(cls, FSQ((4, 4, 2)), channels=3)


def _small(family: type[QuantisedVAE], quantiser: VectorQuantizer | FSQ, channels: int):
    """2x2 pixels a token, 16 tokens of 32: small enough for seconds."""
    encoder = WindowEncoder(channels, in_channels=1, factor=2, window=4, width=32)
    decoder = Decoder(channels, 1, channels=16, multipliers=(1, 2), blocks=1, groups=8)
    autoencoder = TokenAutoencoder(encoder, quantiser, decoder)
    transformer = CausalTransformer(quantiser.size, 16, dim=32, depth=2, n_classes=10)
    train = digits()
    model = family(autoencoder, transformer, DiscretisedLogistic((1, 8, 8)), n_classes=10)
    return model, Batches((train.images, train.labels), 64), 300
