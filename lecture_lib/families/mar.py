"""Masked autoregression without quantisation: tokens are vectors, and a small diffusion model says which.

    training   r ~ a normal law, cut to [low, 1]; ceil(r n) patches, chosen at random, are hidden
               z = decoder(encoder(visible patches, class), mask tokens)
               L = mean over hidden i of the diffusion loss of patch i, given z_i
    sampling   a random order; after step k, floor(n cos(pi k / 2T)) patches are still hidden
               z as above, then the new patches by the reverse process of the head, given their z_i

This is no MaskGIT: there is no codebook, no cross-entropy, and no draw is ever judged by its confidence. Patches of one
step are drawn independently of each other; with one patch per step the model is autoregressive, in a random order.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lecture_lib.core import VELOCITY, Denoiser, RectifiedFlow, UniformTimes, uniform_grid
from lecture_lib.core.likelihood import exact_divergence, hutchinson, log_likelihood
from lecture_lib.data import Batches, digits
from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.families.base import Batch, GenerativeModel, LogProb
from lecture_lib.families.denoising import FEW
from lecture_lib.families.encoding import heard
from lecture_lib.families.masked import cosine
from lecture_lib.guidance import extrapolate
from lecture_lib.nets import LabelEmbedding, PatchEncoder, PlacePredictor, TokenMLP, patchify, positions_2d, unpatchify
from lecture_lib.samplers import Heun, last, sample
from lecture_lib.tensors import check_count, check_number, check_times, randn_like


def hidden_shares(b: int, *, low: float = 0.7, std: float = 0.25, generator: torch.Generator) -> Float[Tensor, " b"]:
    """Shares of patches to hide: normal around 1 with deviation ``std``, cut to [low, 1]; float64.

    Source: Li et al. 2024, section 5 ("masking ratio sampled from [0.7, 1.0]"); the law is in their code.
    """
    start = torch.special.ndtr(torch.tensor((check_number("low", low, 0, 1) - 1) / std, dtype=torch.float64))
    u = torch.rand(b, generator=generator, device=generator.device, dtype=torch.float64)
    return 1 + std * torch.special.ndtri(start + u * (0.5 - start))


def still_hidden(n: int, steps: int) -> list[int]:
    """How many of n patches are hidden after 0, 1, ..., ``steps`` steps: ``floor(n cos(pi k / 2T))``, falling to 0.

    Where the cosine stands still, one patch is drawn all the same; so more than n steps cannot be made.

    Raises:
        RangeError: steps outside 1..n.

    Source: Li et al. 2024, section 4.3, after Chang et al. 2022.
    """
    if check_count("steps", steps) > n:
        raise RangeError(f"steps: got {steps}, expected at most {n}, one patch per step")
    left = [n]
    for k in range(1, steps + 1):
        wanted = math.floor(n * cosine(torch.tensor(k / steps, dtype=torch.float64)).item())
        left.append(max(steps - k, min(left[-1] - 1, wanted)))
    return left


class MAR(GenerativeModel):
    """Random order, continuous tokens, a diffusion loss for each of them.

    Args:
        event: (c, h, w), or (d,) for points.
        patch: side of a patch; of points: how many coordinates are one token.
        dim, depth, heads: of the encoder; the decoder is as wide and as deep.
        head_width, head_depth: of the diffusion model of one token.
        n_classes: 0 for a model without labels.
        buffers: tokens in front of the encoder that carry the class, and with it a first step that sees no patch.
        draws: how many times and noises one z is trained with; the head is cheap.
        low, std: of the law of the hidden share. The paper's 0.7 and 0.25 leave many of 256 patches visible, at most 4
            of our 16: with so few the last steps of ``sample`` would meet what was never trained.
        w: guidance scale at the end of ``sample``; it grows from 1 as patches become visible.
        p_uncond: how often a label is dropped in training.

    The paper's head predicts noise on a cosine path; ours predicts velocity on the straight one, where the likelihood
    of a token has no singular time.
    """

    formula = r"p(x)=\prod_k p(x_{S_k}\mid x_{S_{<k}}),\quad \min\,\|v(x_i^t,t,z_i)-(\epsilon-x_i)\|^2"
    source = "Li, Tian, Li, Deng & He 2024 (2406.11838), MAR"
    steps = 8
    head_steps = 12
    likelihood_steps = 12

    def __init__(
        self,
        event: tuple[int, ...] = (1, 8, 8),
        *,
        patch: int = 2,
        dim: int = 64,
        depth: int = 2,
        heads: int = 4,
        head_width: int = 96,
        head_depth: int = 2,
        n_classes: int = 0,
        buffers: int = 4,
        draws: int = 4,
        low: float = 0.0,
        std: float = 0.4,
        w: float = 1.0,
        p_uncond: float = 0.1,
    ) -> None:
        super().__init__()
        if any(side % patch for side in event[-2:]):
            raise ShapeError(f"patch: got {patch} for an event {tuple(event)}, expected a divisor of its sides")
        self.event, self.patch, self.draws, self.w = tuple(event), patch, check_count("draws", draws), w
        self.low, self.std = low, std
        grid = (event[1] // patch, event[2] // patch) if len(event) == 3 else (1, event[0] // patch)
        features = math.prod(event) // math.prod(grid)
        self.p_uncond = p_uncond if n_classes else 0.0
        self.label = LabelEmbedding(n_classes, dim)
        self.front = nn.Parameter(0.02 * torch.randn(check_count("buffers", buffers), dim))
        self.encoder = PatchEncoder(features, positions_2d(*grid, dim), depth=depth, heads=heads)
        self.decoder = PlacePredictor(dim, positions_2d(*grid, dim), depth=depth, heads=heads)
        network = TokenMLP(features, dim, width=head_width, depth=head_depth)
        self.head = Denoiser(network, RectifiedFlow(), VELOCITY, null=torch.zeros(dim))

    # Pictures and tokens -------------------------------------------------------------------------------------------

    def cut(self, x: Float[Tensor, " b *event"]) -> Float[Tensor, " b n k"]:
        """Data as tokens."""
        return patchify(x, self.patch) if x.ndim == 4 else x.unflatten(1, (-1, self.patch))

    def glue(self, tokens: Float[Tensor, " b n k"]) -> Float[Tensor, " b *event"]:
        """The inverse of ``cut``."""
        return unpatchify(tokens, self.patch, self.event[1]) if len(self.event) == 3 else tokens.flatten(1)

    def told(
        self, tokens: Float[Tensor, " b n k"], hidden: Bool[Tensor, " b n"], label: Int[Tensor, " b"] | None
    ) -> Float[Tensor, " b n d"]:
        """z: what the visible tokens and the class say about each hidden place."""
        extra = self.front + self.label(label, len(tokens))[:, None]  # (b, m, d)
        return self.decoder(self.encoder(tokens, ~hidden, extra), ~hidden, hidden)

    # The verbs -----------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, phase: str = "all", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        x, label = heard(batch, self.label.null, self.p_uncond, generator)
        tokens = self.cut(x)
        b, n, _ = tokens.shape
        count = (n * hidden_shares(b, low=self.low, std=self.std, generator=generator)).ceil().to(tokens.device)
        hidden = ranks(b, n, generator).to(tokens.device) < count[:, None]
        z = self.told(tokens, hidden, label)[hidden]  # (m, d), m places in the whole batch
        many = tokens[hidden].repeat(self.draws, 1), z.repeat(self.draws, 1)
        each = self.head.loss(*many, times=UniformTimes(), generator=generator)
        each = each.unflatten(0, (self.draws, -1)).mean(dim=0)
        return tokens.new_zeros(b, n).masked_scatter(hidden, each).sum(dim=1) / count.to(each)

    def forward_process(self, x, t, *, generator=None):
        """A share t of the tokens, rounded up and in random order, becomes noise."""
        check_times("t", t, len(x), 1.0)
        tokens = self.cut(x)
        b, n, _ = tokens.shape
        gone = ranks(b, n, generator).to(x.device) < (n * t).ceil()[:, None]
        return self.glue(torch.where(gone[..., None], randn_like(tokens, generator), tokens))

    @torch.no_grad()
    def reverse_process(self, z, cond=None, *, steps=None, generator):
        """Each token starts from its own part of ``z``; until its turn comes, a frame shows that noise."""
        tokens = self.cut(z)
        b, n, _ = tokens.shape
        rank = ranks(b, n, generator).to(z.device)
        left = still_hidden(n, min(self.steps, n) if steps is None else steps)
        yield z
        for before, after in pairwise(left):
            hidden, new = rank < before, (rank >= after) & (rank < before)
            tokens = tokens.clone()  # frames that were given away stay as they were
            tokens[new] = self.draw(tokens, hidden, new, cond, 1 + (self.w - 1) * (n - after) / n)
            yield self.glue(tokens)

    def draw(self, tokens, hidden, new, label, w: float) -> Float[Tensor, " m k"]:
        """The head's reverse process at the ``new`` places, from the noise that stands there."""
        denoise = self.head.given(self.told(tokens, hidden, label)[new])
        if label is not None and w != 1:
            denoise = extrapolate(self.head.given(self.told(tokens, hidden, None)[new]), denoise, w)
        grid = uniform_grid(self.head.path, self.head_steps)
        return last(sample(denoise, self.head.path, Heun(), grid, tokens[new]))

    def log_prob(self, x, cond=None, *, generator=None):
        """One token at a time, in one random order per sample: ``log E_order p >= E_order log p``, so a lower bound.

        It is the bound of the model with n steps; fewer steps draw tokens together that depend on one another. In
        tokens of more than 16 numbers the divergence is estimated, and so is the bound.
        """
        tokens = self.cut(x)
        b, n, k = tokens.shape
        rank = ranks(b, n, generator).to(x.device)
        with torch.no_grad():
            z = self.told(tokens, rank >= 0, cond)
            for turn in range(1, n):
                z = torch.where((rank == turn)[..., None], self.told(tokens, rank >= turn, cond), z)
        few = k <= FEW
        flat = tokens.flatten(0, 1)
        divergence = exact_divergence if few else hutchinson(randn_like(flat, generator).sign())
        grid = uniform_grid(self.head.path, self.likelihood_steps)
        nats = log_likelihood(self.head.given(z.flatten(0, 1)), self.head.path, flat, grid, divergence=divergence)
        return LogProb(nats.unflatten(0, (b, n)).sum(dim=1).detach(), "lower bound" if few else "estimate")

    @classmethod
    def small(cls):
        batches = Batches((digits().images, digits().labels), 64)
        return cls(dim=32, depth=1, head_width=48, n_classes=10), batches, 150


def ranks(b: int, n: int, generator: torch.Generator | None) -> Int[Tensor, " b n"]:
    """A random order for each sample: the turn of each place, 0..n - 1."""
    device = "cpu" if generator is None else generator.device
    return torch.rand(b, n, generator=generator, device=device).argsort(dim=1).argsort(dim=1)
