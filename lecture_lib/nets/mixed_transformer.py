"""One transformer that reads words and patches in one sequence: [words before | patches of a picture | words after].

    words     table[token] + position                           a softmax says which word comes next
    patches   W patch(conv x_t) + position + embedding of t     convolutions say what diffusion asks for, such as v
    mask      causal; and all patches of the picture see each other

Nothing but the two ends knows which of the two a token is. A word before the picture cannot know it; the picture knows
the words before it, and the words after it know both.

Source: Zhou et al. 2024 (Transfusion, 2408.11039), section 3.2 and figure 4. Of their two ways in and out, a linear map
or the blocks of a U-Net, this is the second at its smallest: one convolution down, one residual block up that hears the
time, and a skip between them. Patches that only a linear map has seen come out with seams, and where a plain
convolution stands in for the block outlines are ragged.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.nets.dit import patchify, unpatchify
from lecture_lib.nets.embeddings import TimestepEmbedding
from lecture_lib.nets.positions import positions_2d
from lecture_lib.nets.text import TextBlock, causal_mask
from lecture_lib.nets.unet import GROUPS, ResBlock


def mixed_mask(before: int, image: int, after: int) -> Bool[Tensor, " n n"]:
    """Who sees whom: everyone those before it, and the ``image`` tokens in the middle each other as well."""
    sees = causal_mask(before + image + after)
    sees[before : before + image, before : before + image] = True
    return sees


class Mixed(NamedTuple):
    """What ``MixedTransformer`` says.

    Attributes:
        before, after: logits of the word that follows each word, (b, m, k) and (b, l, k).
        image: one vector per patch, put together as a picture (b, c, h, w).
    """

    before: Tensor
    image: Tensor
    after: Tensor


class MixedTransformer(nn.Module):
    """Words and one noisy picture in; logits and a picture out.

    Args:
        vocabulary: number of words.
        words: the most words before the picture, and the most after it.
        event: (c, h, w) of the picture.
        patch: side of a patch.
        width: channels of the convolutions, a multiple of 8.
        dim, depth, heads: width, number of blocks, heads.

    Raises:
        ShapeError: patch does not divide the picture, or width is no multiple of 8.
    """

    def __init__(
        self,
        vocabulary: int,
        words: int,
        event: tuple[int, int, int],
        *,
        patch: int = 4,
        width: int = 16,
        dim: int = 96,
        depth: int = 3,
        heads: int = 4,
    ) -> None:
        super().__init__()
        channels, rows, columns = event
        if rows % patch or columns % patch:
            raise ShapeError(f"patch: got {patch} for a picture {tuple(event)}, expected a divisor of its sides")
        if width % GROUPS:
            raise ShapeError(f"width: got {width}, expected a multiple of {GROUPS}, the groups of a norm")
        self.vocabulary, self.words, self.patch, self.event = vocabulary, words, patch, tuple(event)
        self.table = nn.Embedding(vocabulary, dim)
        self.places = nn.Parameter(0.02 * torch.randn(2 * words, dim))  # before the picture, then after it
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.embed = nn.Linear(patch**2 * width, dim)
        self.register_buffer("positions", positions_2d(rows // patch, columns // patch, dim), persistent=False)
        self.time = TimestepEmbedding(dim)
        self.blocks = nn.ModuleList(TextBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.logits = nn.Linear(dim, vocabulary)
        self.leave = nn.Linear(dim, patch**2 * width)
        self.join = ResBlock(2 * width, width, dim)
        self.paint = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.paint.weight)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(
        self,
        before: Int[Tensor, " b m"],
        x_t: Float[Tensor, " b c h w"],
        t: Float[Tensor, " b"],
        after: Int[Tensor, " b l"] | None = None,
    ) -> Mixed:
        """One pass over the whole sequence.

        Args:
            before, after: words; no ``after`` stands for none.
            x_t, t: the picture and its network time, 0 for a clean one.

        Raises:
            ShapeError: too many words, a picture of another shape, or batches that differ.
            RangeError: a word outside the vocabulary.
        """
        after = before[:, :0] if after is None else after
        self.check(before, after, x_t)
        m, l = before.shape[1], after.shape[1]
        pixels = F.silu(self.enter(x_t))  # (b, width, h, w)
        clock = self.time(t)
        patches = self.embed(patchify(pixels, self.patch)) + self.positions + clock[:, None]
        n = patches.shape[1]
        h = torch.cat(
            [
                self.table(before) + self.places[:m],
                patches,
                self.table(after) + self.places[self.words : self.words + l],
            ],
            dim=1,
        )
        sees = mixed_mask(m, n, l).to(h.device)[None]
        for block in self.blocks:
            h = block(h, sees)
        first, middle, end = self.norm(h).split([m, n, l], dim=1)
        pixels = torch.cat([pixels, unpatchify(self.leave(middle), self.patch, self.event[1])], dim=1)
        return Mixed(self.logits(first), self.paint(F.silu(self.join(pixels, clock))), self.logits(end))

    def check(self, before: Tensor, after: Tensor, x_t: Tensor) -> None:
        """Raise a named error unless words and picture fit the network."""
        if x_t.shape != (len(before), *self.event):
            raise ShapeError(f"x_t: got shape {tuple(x_t.shape)}, expected {(len(before), *self.event)}")
        for name, words in (("before", before), ("after", after)):
            if words.ndim != 2 or len(words) != len(x_t) or words.is_floating_point() or words.shape[1] > self.words:
                got, expected = f"{words.dtype} {tuple(words.shape)}", f"({len(x_t)}, at most {self.words})"
                raise ShapeError(f"{name}: got {got}, expected whole numbers {expected}")
            if words.numel() and not 0 <= int(words.min()) <= int(words.max()) < self.vocabulary:
                got = f"{int(words.min())}..{int(words.max())}"
                raise RangeError(f"{name}: got {got}, expected 0..{self.vocabulary - 1}")
