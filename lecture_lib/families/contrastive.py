"""What text encoders are trained for: to match images (CLIP), to write missing words (T5), to say whose a word is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lecture_lib.errors import ShapeError
from lecture_lib.nets import GlossWriter, SpanDenoiser
from lecture_lib.nets.tokenizer import END, MASK, PAD
from lecture_lib.tensors import randn_like


def info_nce(similarity: Float[Tensor, " b b"], same: Bool[Tensor, " b b"] | None = None) -> Float[Tensor, " b"]:
    """Symmetric cross-entropy of CLIP: image i must find text i among all texts of the batch, and text i its image.

        loss_i = 1/2 [CE(row i) + CE(column i)]

    Two equal captions in a batch are both right. With ``same``, the target of a row is spread evenly over them.

    Args:
        similarity: scaled cosines, row = image, column = text (``ContrastivePair.similarity``).
        same: True where text j describes image i, too (``same_texts``); default: on the diagonal only.

    Raises:
        ShapeError: similarity is not square, or same has another shape.

    Source: Radford et al. 2021, figure 3; soft targets are ours.
    """
    b = len(similarity)
    if similarity.shape != (b, b):
        raise ShapeError(f"similarity: got {tuple(similarity.shape)}, expected (b, b)")
    same = torch.eye(b, dtype=torch.bool, device=similarity.device) if same is None else same
    if same.shape != (b, b):
        raise ShapeError(f"same: got {tuple(same.shape)}, expected {(b, b)}")
    rows, columns = (
        F.cross_entropy(logits, matches / matches.sum(1, keepdim=True), reduction="none")
        for logits, matches in ((similarity, same.to(similarity)), (similarity.T, same.T.to(similarity)))
    )
    return (rows + columns) / 2


def same_texts(tokens: Int[Tensor, " b n"]) -> Bool[Tensor, " b b"]:
    """Which texts of a batch are equal, token for token."""
    return (tokens[:, None] == tokens[None]).all(-1)


def remove_span(
    tokens: Int[Tensor, " b n"], generator: torch.Generator, *, longest: int = 5
) -> tuple[Int[Tensor, " b n"], Int[Tensor, " b m"]]:
    """Replace a random span of 1..longest words by one <mask>.

    All lengths that the text allows are equally likely (3 words on average, as in T5), and so are all places. The null
    text has nothing to lose: its span is empty.

    Returns:
        the texts with a gap, and what was in it: <mask>, the words, <end>, then padding (m = longest + 2).

    Source: Raffel et al. 2020, section 3.1.4, with a single span.
    """
    b, n = tokens.shape
    words = (tokens != PAD).sum(1) - 2
    u = torch.rand(2, b, generator=generator, device=generator.device).to(tokens.device)
    size = torch.minimum(1 + (u[0] * words.clamp(max=longest)).long(), words)  # 0 for the null text
    start = 1 + (u[1] * (words - size + 1)).long()
    padded = F.pad(tokens, (0, longest + 2), value=PAD)
    at = torch.arange(n, device=tokens.device).expand(b, n)
    rest = padded.gather(1, torch.where(at < start[:, None], at, at + size[:, None] - 1))
    at_words = torch.arange(longest + 2, device=tokens.device).expand(b, -1)
    span = padded.gather(1, start[:, None] + at_words - 1)
    span = torch.where(at_words <= size[:, None], span, torch.where(at_words == size[:, None] + 1, END, PAD))
    return torch.where(at == start[:, None], MASK, rest), torch.where(at_words == 0, MASK, span)


def span_loss(model: SpanDenoiser, tokens: Int[Tensor, " b n"], generator: torch.Generator) -> Float[Tensor, " b"]:
    """Span corruption of T5: cross-entropy of the removed words and the <end> after them, averaged over each text.

    Raises:
        ShapeError, RangeError: as in ``TextEncoder``.
    """
    gapped, span = remove_span(tokens, generator, longest=model.longest - 1)
    logits, target = model(gapped, span[:, :-1]), span[:, 1:]  # (b, m, k), (b, m)
    each = F.cross_entropy(logits.transpose(1, 2), target, reduction="none", ignore_index=PAD)  # 0 on padding
    return each.sum(1) / (target != PAD).sum(1)


def gloss_loss(
    model: GlossWriter,
    tokens: Int[Tensor, " b n"],
    owner: Int[Tensor, " b n"],
    glosses: Int[Tensor, " b k m"],
    generator: torch.Generator,
    *,
    asked: int = 3,
    noise: float = 0.5,
) -> Float[Tensor, " b"]:
    """Cross-entropy of the glosses of ``asked`` random tokens of each text, averaged over the glosses' tokens.

    The vectors are read through noise. Without it the encoder may whisper: one part of what it says (in our texts, the
    shape) filled 4 % of a vector and was read all the same, but not by the U-Net that came after.

    Args:
        model: encoder and decoder.
        tokens: encoded texts.
        owner: the number of each token's gloss.
        glosses: encoded, one row for each gloss of a text.
        generator: chooses the tokens, <start> and <end> among them, and draws the noise.
        asked: tokens asked per text, with replacement.
        noise: standard deviation of what is added to each number of a vector, before it is read.

    Raises:
        ShapeError, RangeError: as in ``TextEncoder`` and ``GlossWriter``.
    """
    features = model.encoder(tokens)
    u = torch.rand(len(tokens), asked, generator=generator, device=generator.device).to(tokens.device)
    at = (u * features.mask.sum(1, keepdim=True)).long()  # (b, a)
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    feature = features.tokens[rows, at].flatten(0, 1)  # (b a, d)
    feature = feature + noise * randn_like(feature, generator)
    gloss = glosses[rows, owner[rows, at]].flatten(0, 1)  # (b a, m)
    logits, following = model(feature, gloss[:, :-1]), gloss[:, 1:]
    each = F.cross_entropy(logits.transpose(1, 2), following, reduction="none", ignore_index=PAD)  # 0 on padding
    return (each.sum(1) / (following != PAD).sum(1)).unflatten(0, (-1, asked)).mean(1)
