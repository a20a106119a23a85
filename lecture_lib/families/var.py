"""Visual autoregression: the next token is a whole scale.

    tokenizer      f = encoder(x);  z_1, ..., z_K by residual quantisation, coarse to fine;  x_hat = decoder(f_hat)
    transformer    log p(z) = sum_k sum_i log p(z_k,i | z_1, ..., z_k-1, class)
    sampling       K passes; within a scale all tokens at once, since given the scales before it they are independent

The order is from the whole to the detail, not from left to right, and it is short: 680 tokens of ten scales are ten
passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.core.likelihood import standard_normal_log_prob
from lecture_lib.data import Batches, digits
from lecture_lib.errors import NotDefined, ShapeError
from lecture_lib.families.base import Batch, GenerativeModel, LogProb, Phase
from lecture_lib.families.encoding import check_steps, heard
from lecture_lib.families.masked import gumbel
from lecture_lib.nets import ScaleQuantizer, ScaleTransformer
from lecture_lib.tensors import check_count, check_number


class ScaleTokenizer(nn.Module):
    """Pictures to tokens of several scales and back; also a density of the picture, given its tokens.

    Args:
        channels, side: of the pictures.
        size, dim, scales: of the quantiser; the feature map is ``scales[-1]`` wide, and divides the picture's side.
        width: of the hidden layers.
    """

    def __init__(self, channels: int, side: int, *, size: int, dim: int, scales: Sequence[int], width: int) -> None:
        super().__init__()
        f = side // scales[-1]
        if f * scales[-1] != side:
            raise ShapeError(f"scales: got {tuple(scales)} for pictures of side {side}, expected the last to divide it")
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, f, stride=f),
            nn.SiLU(),
            nn.Conv2d(width, dim, 3, padding=1),
        )
        self.quantiser = ScaleQuantizer(size, dim, scales)
        self.decoder = nn.Sequential(
            nn.Conv2d(dim, width, 3, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(width, width, f, stride=f),
            nn.SiLU(),
            nn.Conv2d(width, channels, 3, padding=1),
        )
        self.log_std = nn.Parameter(torch.zeros(()))

    def log_density(self, x: Float[Tensor, " b c h w"], mean: Float[Tensor, " b c h w"]) -> Float[Tensor, " b"]:
        """``log N(x; mean, std^2 I)``, with the one standard deviation that is learned; float64."""
        std = self.log_std.double().exp()
        return standard_normal_log_prob((x.double() - mean.double()) / std) - x[0].numel() * std.log()

    def loss(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b"]:
        """Squared error, what the quantiser asks for, and the deviation's own likelihood, which moves nothing else."""
        scales = self.quantiser(self.encoder(x))
        mean = self.decoder(scales.quantised)
        deviation = -self.log_density(x, mean.detach()) / x[0].numel()
        return (x - mean).square().flatten(1).mean(dim=1) + scales.loss + deviation.to(x)


class VAR(GenerativeModel):
    """Next-scale prediction, in two stages: first the tokenizer, then the transformer on its tokens.

    Args:
        event: (c, h, h).
        scales: sides of the maps of tokens.
        size, code_dim, code_width: codes, their length, width of encoder and decoder.
        n_classes: 0 for a model without labels.
        dim, depth, heads: of the transformer.
        w: guidance scale of the last scale in ``sample``; it grows from 1 at the first.
        p_uncond: how often a label is dropped in training.
        first: share of the updates that train the tokenizer.
    """

    formula = r"p(z)=\prod_{k=1}^K\prod_i p(z_{k,i}\mid z_{<k}),\quad \hat f=\sum_k\phi_k(\uparrow e_{z_k})"
    source = "Tian et al. 2024 (2404.02905), VAR"

    def __init__(
        self,
        event: tuple[int, int, int] = (1, 8, 8),
        *,
        scales: Sequence[int] = (1, 2, 4),
        size: int = 64,
        code_dim: int = 8,
        code_width: int = 32,
        n_classes: int = 0,
        dim: int = 64,
        depth: int = 2,
        heads: int = 4,
        w: float = 1.0,
        p_uncond: float = 0.1,
        first: float = 0.5,
    ) -> None:
        super().__init__()
        self.event, self.w, self.first = tuple(event), w, check_number("first", first, 0, 1)
        self.p_uncond = p_uncond if n_classes else 0.0
        self.tokenizer = ScaleTokenizer(event[0], event[1], size=size, dim=code_dim, scales=scales, width=code_width)
        self.transformer = ScaleTransformer(
            size, code_dim, scales, n_classes=n_classes, width=dim, depth=depth, heads=heads
        )

    @property
    def steps(self) -> int:
        """One pass per scale."""
        return len(self.tokenizer.quantiser.scales)

    def phases(self):
        parts = (("tokenizer", self.tokenizer), ("transformer", self.transformer))
        return tuple(Phase(name, tuple(part.parameters())) for name, part in parts)

    def phase_at(self, done, total):
        return self.phases()[int(done >= self.first * total)]

    def loss(self, batch: Batch, phase: str = "transformer", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        if phase == "tokenizer":
            return self.tokenizer.loss(batch[0])
        x, label = heard(batch, self.transformer.start.null, self.p_uncond, generator)
        return -self.log_prob_tokens(self.tokens(x), label).mean(dim=1)

    @torch.no_grad()
    def tokens(self, x: Float[Tensor, " b c h w"]) -> Int[Tensor, " b n"]:
        """The tokens of all scales, coarse to fine."""
        return self.tokenizer.quantiser(self.tokenizer.encoder(x)).tokens

    def log_prob_tokens(self, tokens: Int[Tensor, " b n"], label: Int[Tensor, " b"] | None) -> Float[Tensor, " b n"]:
        """``log p(z_k,i | z_<k, class)`` of each token; their sum is the exact log-probability of the pyramid."""
        with torch.no_grad():
            inputs = self.tokenizer.quantiser.inputs(tokens)
        log_p = F.log_softmax(self.transformer(inputs, label)[0], dim=-1)
        return log_p.gather(-1, tokens[..., None])[..., 0]

    @torch.no_grad()
    def log_prob(self, x, cond=None, *, generator=None):
        """``log p(x) = log sum_z p(z) p(x | z) >= log p(z(x)) + log p(x | z(x))``, z(x) the tokens of x.

        p(z) is exact, p(x | z) is a Gaussian around the decoder's picture. ``sample`` shows the Gaussian's mean.
        """
        tokens = self.tokens(x)
        *_, f_hat = self.tokenizer.quantiser.partial(tokens)
        of_tokens = self.log_prob_tokens(tokens, cond).double().sum(dim=1)
        return LogProb(of_tokens + self.tokenizer.log_density(x, self.tokenizer.decoder(f_hat)), "lower bound")

    def forward_process(self, x, t, *, generator=None):
        raise NotDefined("forward_process: VAR rounds to codes, so no state is the data itself; expected ``tokens``")

    def prior(self, n, *, generator):
        """Nothing is known yet: a pyramid without tokens."""
        return torch.zeros(check_count("n", n), 0, dtype=torch.long, device=self.tokenizer.log_std.device)

    @torch.no_grad()
    def reverse_process(self, z, cond=None, *, steps=None, generator) -> Iterator[Tensor]:
        """A frame per scale: what the decoder makes of the tokens so far; ``steps`` can only be their number."""
        check_steps(steps, self.steps, "one for each scale")
        quantiser, tokens = self.tokenizer.quantiser, z
        inputs, branches = quantiser.inputs(tokens), [cond] if cond is None or self.w == 1 else [None, cond]
        pasts = [()] * len(branches)
        for k in range(self.steps):
            read = [self.transformer(inputs, label, past) for label, past in zip(branches, pasts, strict=True)]
            pasts = [past for _, past in read]
            w = 1 + (self.w - 1) * k / max(self.steps - 1, 1)
            logits = torch.lerp(read[0][0], read[-1][0], w)  # l_0 + w (l_c - l_0); without guidance both are l_c
            drawn = (F.log_softmax(logits, dim=-1) + gumbel(logits, generator)).argmax(dim=-1)  # the whole scale
            tokens = torch.cat([tokens, drawn], dim=1)
            *_, f_hat = quantiser.partial(tokens)
            yield self.tokenizer.decoder(f_hat)
            inputs = quantiser.inputs(tokens)[:, -(quantiser.scales[min(k + 1, self.steps - 1)] ** 2) :]

    @classmethod
    def small(cls):
        batches = Batches((digits().images, digits().labels), 64)
        return cls(n_classes=10, dim=32, code_width=16), batches, 400
