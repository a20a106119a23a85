"""Transfusion: one transformer that predicts the next word and denoises the picture, in one sequence.

    caption first   <start> a small red circle <end> <image> [x_t] </image>
    picture first   <image> [x_t] </image> <start> a small red circle <end>
    loss            mean over words of -log p(next word)  +  lambda mean over pixels of |y_hat(x_t, t) - y|^2
    picture of a caption     noise is put into the sequence and denoised there, step by step
    caption of a picture     the clean picture is put into the sequence, and words are drawn after it

Not an encoder of texts, a diffusion model and cross-attention between them: all weights but the first and the last
layer are shared, and a sequence has one mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.core import VELOCITY, Denoiser, RectifiedFlow, UniformTimes
from lecture_lib.core.conditions import check_cond, expand_cond
from lecture_lib.errors import NotTractable
from lecture_lib.families.base import Batch
from lecture_lib.families.captioned_things import CAPTION, SIDE, CaptionedThings, thing_words
from lecture_lib.families.denoising import DenoisingModel
from lecture_lib.families.masked import gumbel
from lecture_lib.nets import MixedTransformer
from lecture_lib.nets.tokenizer import PAD, START
from lecture_lib.samplers import Euler
from lecture_lib.tensors import check_count, check_number, randn_like


class Painter(nn.Module):
    """The transformer as a denoiser's network: captions are its condition, of all it says only the picture counts."""

    def __init__(self, transformer: MixedTransformer, image: int) -> None:
        super().__init__()
        self.transformer, self.image = transformer, image

    def before(self, captions: Int[Tensor, " b m"]) -> Int[Tensor, " b m+1"]:
        """A caption and the token that opens a picture."""
        return F.pad(captions, (0, 1), value=self.image)

    def forward(self, x: Tensor, t: Tensor, cond: Int[Tensor, " b m"]) -> Tensor:
        return self.transformer(self.before(cond), x, t).image


class Transfusion(DenoisingModel):
    """Next-word prediction and diffusion, one transformer, one sequence, one loss.

    A batch is (pictures, captions (b, m)), captions from <start> to <end> and all of one length. With a condition
    ``sample`` paints captions; without one it first writes captions and then paints them.

    Args:
        vocabulary: number of words; the transformer has two more, which open and close a picture.
        length: m.
        event: (c, h, w).
        patch, dim, depth, heads: of the transformer.
        weight: lambda; 5 in the paper.
        picture_first: share of a batch in which the picture comes first.
        latest: the largest time of those pictures, since a caption of pure noise cannot be learned; the paper: 1/2.
        w: guidance scale of ``sample``.
        p_uncond: how often a caption is blotted out in training.
    """

    formula = r"L=\mathrm{CE}(\text{next word})+\lambda\,\|\hat v(x_t,t)-(\epsilon-x_0)\|^2"
    source = "Zhou et al. 2024 (2408.11039), Transfusion, section 3"
    steps = 24

    def __init__(
        self,
        vocabulary: int,
        length: int,
        event: tuple[int, int, int] = (3, SIDE, SIDE),
        *,
        patch: int = 4,
        dim: int = 96,
        depth: int = 3,
        heads: int = 4,
        weight: float = 5.0,
        picture_first: float = 0.25,
        latest: float = 0.5,
        w: float = 1.0,
        p_uncond: float = 0.1,
    ) -> None:
        self.open, self.close = vocabulary, vocabulary + 1
        transformer = MixedTransformer(
            vocabulary + 2, check_count("length", length, 2) + 1, event, patch=patch, dim=dim, depth=depth, heads=heads
        )
        null = torch.full((length,), PAD)
        super().__init__(
            Denoiser(Painter(transformer, vocabulary), RectifiedFlow(), VELOCITY, null=null), event, w=w,
            p_uncond=p_uncond,
        )  # fmt: skip
        self.weight, self.latest = check_number("weight", weight, 0), check_number("latest", latest, 1e-3, 1)
        self.picture_first = check_number("picture_first", picture_first, 0, 1)

    @property
    def transformer(self) -> MixedTransformer:
        """The one network."""
        return self.denoiser.network.transformer

    def times(self):
        return UniformTimes()

    def sampler(self):
        return Euler()

    # Training ------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, phase: str = "all", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        parts = self.parts(batch, generator=generator)
        return parts["words"] + self.weight * parts["image"]

    def parts(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Float[Tensor, " b"]]:
        """The two losses, ``words`` and ``image``, each a mean over what it is about. Batches have no order: the first
        rows are read caption first, the others picture first."""
        x, captions = batch
        first = len(x) - int(self.picture_first * len(x))
        drop = torch.rand(len(x), generator=generator, device=generator.device).to(x.device) < self.p_uncond
        t = self.times().sample(len(x), generator=generator, device=x.device)
        t = torch.cat([t[:first], self.latest * t[first:]])
        eps, path = randn_like(x, generator), self.denoiser.path
        x_t, target = path.mix(x, eps, t), self.denoiser.parameterization.encode(x, eps, path.coeffs(t))
        clock = self.denoiser.network_time(path, t).to(x.dtype)

        read = [self.read_caption_first(captions[:first], drop[:first], x_t[:first], clock[:first])]
        if first < len(x):
            read.append(self.read_picture_first(captions[first:], x_t[first:], clock[first:]))
        words, image = (torch.cat(part) for part in zip(*read, strict=True))
        return {"words": words, "image": (image - target).square().flatten(1).mean(dim=1)}

    def read_caption_first(self, captions, drop, x_t, clock) -> tuple[Float[Tensor, " b"], Float[Tensor, " b c h w"]]:
        """Cross-entropy of the words and what is said of the picture; captions that are blotted out teach no words."""
        before = self.denoiser.network.before(torch.where(drop[:, None], PAD, captions))
        said = self.transformer(before, x_t, clock)
        return self.mistaken(said.before, before) * ~drop, said.image

    def read_picture_first(self, captions, x_t, clock) -> tuple[Float[Tensor, " b"], Float[Tensor, " b c h w"]]:
        """The same of a picture that knows no caption, and of the caption that follows it."""
        opening = captions.new_full((len(captions), 1), self.open)
        after = F.pad(captions, (1, 0), value=self.close)
        said = self.transformer(opening, x_t, clock, after)
        return self.mistaken(said.after, after), said.image

    @staticmethod
    def mistaken(logits: Float[Tensor, " b m k"], words: Int[Tensor, " b m"]) -> Float[Tensor, " b"]:
        """Mean cross-entropy of each word but the first, given those before it."""
        each = F.cross_entropy(logits[:, :-1].transpose(1, 2), words[:, 1:], reduction="none")
        return each.mean(dim=1)

    # Words ---------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def caption(
        self, x: Float[Tensor, " b c h w"], *, generator: torch.Generator, temperature: float = 1.0
    ) -> Int[Tensor, " b m"]:
        """A caption of each picture, drawn word by word; temperature 0 takes the likeliest word each time."""
        opening, t = torch.full((len(x), 1), self.open, device=x.device), x.new_zeros(len(x))
        words = torch.tensor([self.close, START], device=x.device).expand(len(x), 2)
        while words.shape[1] <= self.length:
            logits = self.transformer(opening, x, t, words).after[:, -1]
            words = self.longer(words, logits, temperature, generator)
        return words[:, 1:]

    @torch.no_grad()
    def write(self, n: int, *, generator: torch.Generator, temperature: float = 1.0) -> Int[Tensor, " n m"]:
        """Captions out of nothing: the language model that is in here, too."""
        device = self.denoiser.null.device
        words = torch.full((check_count("n", n), 1), START, device=device)
        blank, t = torch.zeros(n, *self.event, device=device), torch.zeros(n, device=device)
        while words.shape[1] < self.length:  # words do not see the picture that comes after them
            logits = self.transformer(words, blank, t).before[:, -1]
            words = self.longer(words, logits, temperature, generator)
        return words

    def longer(self, words, logits, temperature: float, generator) -> Int[Tensor, " b m+1"]:
        """One more word; those that open and close pictures are left out."""
        log_p = F.log_softmax(logits[:, : self.open], dim=-1)
        drawn = (log_p + temperature * gumbel(log_p, generator)).argmax(dim=-1)
        return torch.cat([words, drawn[:, None]], dim=1)

    @property
    def length(self) -> int:
        """m, words of a caption."""
        return len(self.denoiser.null)

    # Pictures ------------------------------------------------------------------------------------------------------

    def reverse_process(self, z, cond=None, *, steps=None, generator):
        """As any denoiser's; without captions they are written first."""
        cond = self.write(len(z), generator=generator) if cond is None else cond
        return super().reverse_process(z, cond, steps=steps, generator=generator)

    def log_prob(self, x, cond=None, *, generator=None):
        """``log p(picture | caption)`` by the probability-flow ODE, an estimate.

        Raises:
            NotTractable: without a caption, where a sum over all captions would be needed.
        """
        if cond is None:
            raise NotTractable("log_prob: got no captions, expected them: p(x) is a sum over all that could be written")
        return super().log_prob(x, cond, generator=generator)

    @torch.no_grad()
    def log_prob_words(self, captions: Int[Tensor, " b m"], x: Float[Tensor, " b c h w"] | None = None) -> Tensor:
        """``log p(caption)``, or ``log p(caption | picture)``: exact, (b,), float64."""
        cond = expand_cond(check_cond(captions, self.denoiser.null), len(captions), captions.device)
        if x is None:
            words, blank = cond, torch.zeros(len(cond), *self.event, device=cond.device)
            logits = self.transformer(words, blank, blank.new_zeros(len(cond))).before
        else:
            opening, words = cond.new_full((len(x), 1), self.open), F.pad(cond, (1, 0), value=self.close)
            logits = self.transformer(opening, x, x.new_zeros(len(x)), words).after[:, 1:]
        log_p = F.log_softmax(logits[:, :-1, : self.open].double(), dim=-1)  # as in ``longer``
        return log_p.gather(-1, cond[:, 1:, None])[..., 0].sum(dim=1)

    @classmethod
    def small(cls):
        return cls(len(thing_words()), CAPTION, dim=48, depth=2), CaptionedThings(32), 150
