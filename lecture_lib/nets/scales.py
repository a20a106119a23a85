"""A map of vectors as tokens of several scales, coarse to fine, and the transformer that predicts the next scale.

    r = f,  f_hat = 0;  for k = 1..K:                                      f: one feature map of one encoder
        z_k    = number of the nearest code of area(r, h_k x h_k)          one codebook for all scales
        u_k    = phi_k(bicubic(code(z_k), h_K x h_K))
        r     -= u_k,   f_hat += u_k

These are not the tokens of K resized pictures: each scale says what those before it left unsaid, and all of them
together are decoded at once.

Source: Tian et al. 2024 (VAR, 2404.02905), section 3.2 and algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets.causal_transformer import CausalTrunk, Memory, block_causal_mask
from lecture_lib.nets.embeddings import LabelEmbedding
from lecture_lib.nets.quantizers import channels_first, channels_last
from lecture_lib.tensors import check_count, check_number


class Scales(NamedTuple):
    """What ``ScaleQuantizer`` makes of a map.

    Attributes:
        quantised: f_hat (b, c, h, w), with the gradient of f.
        tokens: of all scales one after another, each row by row, (b, n).
        loss: (b,), of the codebook, of phi and of the encoder.
    """

    quantised: Tensor
    tokens: Tensor
    loss: Tensor


def scale_levels(scales: Sequence[int]) -> Int[Tensor, " n"]:
    """The number 0..K - 1 of the scale to which each of the ``sum h_k^2`` tokens belongs."""
    return torch.repeat_interleave(torch.arange(len(scales)), torch.tensor([h * h for h in scales]))


class ScaleQuantizer(nn.Module):
    """Residual quantisation over scales, with one codebook.

    Args:
        size: number of codes.
        dim: channels of the map.
        scales: sides h_1 < ... < h_K of the square maps of tokens; the last is that of the feature map.
        beta: weight of the commitment.

    Raises:
        RangeError: scales do not rise.
    """

    def __init__(self, size: int, dim: int, scales: Sequence[int], *, beta: float = 0.25) -> None:
        super().__init__()
        if any(check_count("scales", b) <= a for a, b in zip([0, *scales], scales, strict=False)):
            raise RangeError(f"scales: got {tuple(scales)}, expected rising whole numbers")
        self.size, self.dim, self.scales = check_count("size", size, 2), check_count("dim", dim), tuple(scales)
        self.beta = check_number("beta", beta, 0)
        self.codebook = nn.Parameter(torch.randn(size, dim) / dim**0.5)
        self.phi = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in scales)

    @property
    def side(self) -> int:
        """Of the feature map."""
        return self.scales[-1]

    @property
    def length(self) -> int:
        """Number of tokens of all scales."""
        return sum(h * h for h in self.scales)

    def spread(self, tokens: Int[Tensor, " b h h"], k: int) -> Float[Tensor, " b c H H"]:
        """u_k: the codes of scale k on the grid of the last, half as they are and half through phi_k."""
        codes = channels_first(self.codebook[tokens])
        if codes.shape[-1] != self.side:
            codes = F.interpolate(codes, size=(self.side, self.side), mode="bicubic")
        return (codes + self.phi[k](codes)) / 2

    def nearest(self, r: Float[Tensor, " b c h h"]) -> Int[Tensor, " b h h"]:
        """Number of the nearest code at each place."""
        places = channels_last(r.detach())
        return torch.cdist(places.flatten(0, 2), self.codebook.detach()).argmin(dim=1).reshape(places.shape[:-1])

    def forward(self, f: Float[Tensor, " b c H H"]) -> Scales:
        """Algorithm 1 of the paper.

        Raises:
            ShapeError: f is not (b, dim, h_K, h_K).
        """
        if f.shape[1:] != (self.dim, self.side, self.side):
            raise ShapeError(f"f: got shape {tuple(f.shape)}, expected (b, {self.dim}, {self.side}, {self.side})")
        f_hat, tokens, loss = torch.zeros_like(f), [], f.new_zeros(len(f))
        for k, h in enumerate(self.scales):
            tokens.append(self.nearest(F.interpolate(f.detach() - f_hat.detach(), size=(h, h), mode="area")))
            f_hat = f_hat + self.spread(tokens[-1], k)
            codes, encoder = (f_hat - f.detach()).square(), (f_hat.detach() - f).square()
            loss = loss + (codes + self.beta * encoder).flatten(1).mean(dim=1) / len(self.scales)
        return Scales(f + (f_hat - f).detach(), torch.cat([z.flatten(1) for z in tokens], dim=1), loss)

    def partial(self, tokens: Int[Tensor, " b n"]) -> Iterator[Float[Tensor, " b c H H"]]:
        """f_hat after each scale of which there are tokens: all scales, or the first few.

        Raises:
            ShapeError: tokens do not end with a scale.
            RangeError: a token that is no code.
        """
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.size:
            got = f"{int(tokens.min())}..{int(tokens.max())}"
            raise RangeError(f"tokens: got {got}, expected 0..{self.size - 1}")
        f_hat, done = self.codebook.new_zeros(len(tokens), self.dim, self.side, self.side), 0
        for k, h in enumerate(self.scales):
            if done == tokens.shape[1]:
                return
            if done + h * h > tokens.shape[1]:
                raise ShapeError(f"tokens: got {tokens.shape[1]} of them, expected whole scales of {self.scales}")
            f_hat = f_hat + self.spread(tokens[:, done : done + h * h].unflatten(1, (h, h)), k)
            done += h * h
            yield f_hat

    def inputs(self, tokens: Int[Tensor, " b n"]) -> Float[Tensor, " b m c"]:
        """What the transformer is given at scales 2, 3, ...: f_hat of those before, averaged over each new place.

        Args:
            tokens: of the first j scales; the last scale of all is not needed and may be there.
        """
        found = [
            F.interpolate(f_hat, size=(h, h), mode="area").flatten(2).transpose(1, 2)
            for f_hat, h in zip(self.partial(tokens), self.scales[1:], strict=False)
        ]
        return torch.cat(found, dim=1) if found else self.codebook.new_zeros(len(tokens), 0, self.dim)


class ScaleTransformer(nn.Module):
    """Logits of the tokens of each scale, given all scales before it.

    All tokens of a scale see each other: none is an input yet. What stands at the places of scale k is made from the
    scales before it, so nobody sees a token that it predicts.

    Args:
        size, dim, scales: of the quantiser.
        n_classes: number of classes; the class is the start token, and the null class stands for none.
        width, depth, heads: of the transformer.
    """

    def __init__(
        self,
        size: int,
        dim: int,
        scales: Sequence[int],
        *,
        n_classes: int = 0,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        levels = scale_levels(scales)
        self.start = LabelEmbedding(n_classes, width)
        self.enter = nn.Linear(dim, width)
        self.positions = nn.Parameter(0.02 * torch.randn(len(levels), width))
        self.level = nn.Embedding(len(scales), width)
        self.trunk = CausalTrunk(block_causal_mask([h * h for h in scales]), width, depth=depth, heads=heads)
        self.logits = nn.Linear(width, size)
        self.register_buffer("levels", levels, persistent=False)

    def forward(
        self, inputs: Float[Tensor, " b m c"], label: Int[Tensor, " b"] | None, past: Memory = ()
    ) -> tuple[Float[Tensor, " b n k"], Memory]:
        """A row of logits for every token read now, and the memory of all that were read.

        Args:
            inputs: from ``ScaleQuantizer.inputs``. Without a past: of all scales but the first, or of the next few; the
                first scale has no input, the class stands there. With a past: of the scales that follow it.
            label: the class; None, and the number after the last class, is the null class.
            past: memory of the scales that were read before.
        """
        h = self.enter(inputs)
        if not past:
            first = int((self.levels == 0).sum())
            h = torch.cat([self.start(label, len(h))[:, None].expand(-1, first, -1), h], dim=1)
        done = past[0][0].shape[2] if past else 0
        here = slice(done, done + h.shape[1])
        h, past = self.trunk(h + self.positions[here] + self.level(self.levels[here]), past)
        return self.logits(h), past
