"""Convolutions that see what has been read already: above, and to the left in the same row.

A kernel x kernel window with the unread half masked out (``raster_mask``) does not do: stacked, such windows never
reach what is above and to the right, however many there are, because each step up may go right and no step right may
be taken in one's own row; with k = 3 a pixel one row up and two to the right stays unseen by all layers. Two stacks
see everything:

    vertical     all rows above, each by a full-width window            first layer: own row masked (A), then not (B)
    horizontal   the pixels to the left in the own row, and of the vertical stack what is at its own place
                                                                        first layer: own pixel masked (A), then not (B)

Mask A is for the picture alone: a feature map at a place holds nothing of the place itself, so seeing it is no leak.
Source: van den Oord et al. 2016 (1606.05328), section 2 and figure 2; masks A and B: 1601.06759, section 3.4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.embeddings import LabelEmbedding
from lecture_lib.tensors import check_count


def _odd(kernel: int) -> int:
    if check_count("kernel", kernel) % 2 == 0:
        raise ShapeError(f"kernel: got {kernel}, expected an odd number")
    return kernel


def raster_mask(kernel: int, *, own: bool) -> Bool[Tensor, " k k"]:
    """True before the middle of the window in reading order, and in it if ``own``: masks A and B of a single stack."""
    place = torch.arange(_odd(kernel) ** 2).reshape(kernel, kernel)
    return place <= kernel**2 // 2 - (not own)


def rows_mask(kernel: int, *, own: bool) -> Bool[Tensor, " k k"]:
    """True in the rows of the window above the middle, and in the middle row if ``own``."""
    return (torch.arange(_odd(kernel)) <= kernel // 2 - (not own))[:, None].expand(kernel, kernel)


def left_mask(kernel: int, *, own: bool) -> Bool[Tensor, " 1 k"]:
    """True to the left of the middle of a row, and in the middle if ``own``."""
    return (torch.arange(_odd(kernel)) <= kernel // 2 - (not own))[None]


class MaskedConv2d(nn.Conv2d):
    """A convolution whose window has holes; the picture keeps its size.

    Args:
        channels, out_channels: of input and output.
        mask: (height, width) of the window, both odd, True where it sees.
    """

    def __init__(self, channels: int, out_channels: int, mask: Bool[Tensor, " i j"]) -> None:
        height, width = mask.shape
        super().__init__(channels, out_channels, (height, width), padding=(height // 2, width // 2))
        self.register_buffer("mask", mask.clone(), persistent=False)

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b k h w"]:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


def gate(x: Float[Tensor, " b c2 h w"]) -> Float[Tensor, " b c h w"]:
    """``tanh(first half) sigmoid(second half)`` of the channels."""
    content, opening = x.chunk(2, dim=1)
    return torch.tanh(content) * torch.sigmoid(opening)


class GatedLayer(nn.Module):
    """One layer of both stacks.

    Args:
        channels: of both inputs.
        width: of both outputs.
        kernel: side of the vertical window and length of the horizontal one.
        own: False in the first layer (mask A), True in all others (mask B).
        label_dim: length of the vector that stands for the class.

    Source: van den Oord et al. 2016, eq. 2 and 4, figure 2.
    """

    def __init__(self, channels: int, width: int, kernel: int, *, own: bool, label_dim: int) -> None:
        super().__init__()
        self.vertical = MaskedConv2d(channels, 2 * width, rows_mask(kernel, own=own))
        self.horizontal = MaskedConv2d(channels, 2 * width, left_mask(kernel, own=own))
        self.across = nn.Conv2d(2 * width, 2 * width, 1)  # from the vertical to the horizontal stack
        self.out = nn.Conv2d(width, width, 1)
        self.label = nn.Linear(label_dim, 4 * width)
        self.residual = own and channels == width

    def above(self, x: Float[Tensor, " b c h w"], c: Float[Tensor, " b d 1 1"]) -> tuple[Tensor, Tensor]:
        """The vertical stack: its next features, and what it tells the horizontal one (b, 2 width, h, w)."""
        seen = self.vertical(x)
        return gate(seen + c[:, : seen.shape[1]]), self.across(seen)

    def left(self, x: Float[Tensor, " b c h w"], told: Tensor, c: Tensor) -> Float[Tensor, " b k h w"]:
        """The horizontal stack, on any rows of its features with what was told of the same rows."""
        seen = self.horizontal(x) + told
        out = self.out(gate(seen + c[:, seen.shape[1] :]))
        return x + out if self.residual else out


class GatedPixelCNN(nn.Module):
    """Logits of each pixel's level, given the class and the pixels before it in reading order; nothing is unseen.

    Args:
        levels: number of grey levels.
        size: (height, width) of the pictures, which have one channel.
        width, depth, kernel: channels, number of layers, window; the rows above are seen if
            ``depth (kernel // 2) >= height - 1``, the pixels to the left if the same holds of the width.
        n_classes: number of classes; 0 for none. Label ``n_classes`` is "no class".

    Raises:
        ShapeError: the kernel is even.

    Source: van den Oord et al. 2016 (1606.05328).
    """

    def __init__(
        self,
        levels: int,
        size: tuple[int, int],
        *,
        width: int = 32,
        depth: int = 5,
        kernel: int = 5,
        n_classes: int = 0,
    ) -> None:
        super().__init__()
        self.levels, self.size = check_count("levels", levels), tuple(size)
        self.label = LabelEmbedding(n_classes, width)
        nn.init.normal_(self.label.table.weight)  # alone here, it must not be as quiet as beside a time
        # Where one is: the same windows mean something else in the middle of a picture and at its edge.
        self.places = nn.Parameter(0.1 * torch.randn(4, *self.size))
        self.layers = nn.ModuleList(
            GatedLayer(width if number else 5, width, kernel, own=number > 0, label_dim=width)
            for number in range(check_count("depth", depth))
        )
        self.readout = nn.Sequential(nn.ReLU(), nn.Conv2d(width, 2 * width, 1), nn.ReLU())
        self.head = nn.Conv2d(2 * width, levels, 1)
        nn.init.zeros_(self.head.weight)  # all levels alike at first
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Float[Tensor, " b 1 h w"], cond: Int[Tensor, " b"] | None = None) -> Float[Tensor, " b k h w"]:
        """Logits of all pixels at once; those of a pixel have not seen it, nor any later one.

        Raises:
            ShapeError: x is not (b, 1, height, width).
        """
        return self.across_rows(x, self.rows_above(x, cond), slice(None), cond)

    def rows_above(self, x: Float[Tensor, " b 1 h w"], cond: Int[Tensor, " b"] | None = None) -> list[Tensor]:
        """What the vertical stack tells each layer; row i of it depends on the rows before i alone."""
        if x.shape[1:] != (1, *self.size):
            raise ShapeError(f"x: got {tuple(x.shape)}, expected (b, 1, {self.size[0]}, {self.size[1]})")
        told, h = [], self.enter(x, slice(None))
        for layer, c in zip(self.layers, self.heard(cond, len(x)), strict=True):
            h, news = layer.above(h, c)
            told.append(news)
        return told

    def across_rows(self, x: Tensor, told: list[Tensor], rows: slice, cond: Int[Tensor, " b"] | None = None) -> Tensor:
        """Logits (b, levels, rows, w) by the horizontal stack, of some rows only: sampling needs one row at a time."""
        h = self.enter(x[:, :, rows], rows)
        for layer, news, c in zip(self.layers, told, self.heard(cond, len(x)), strict=True):
            h = layer.left(h, news[:, :, rows], c)
        return self.head(self.readout(h))

    def enter(self, x: Float[Tensor, " b 1 r w"], rows: slice) -> Float[Tensor, " b 5 r w"]:
        """The pixels with four numbers that stand for their place."""
        return torch.cat([x, self.places[:, rows].expand(len(x), -1, -1, -1)], dim=1)

    def heard(self, cond: Int[Tensor, " b"] | None, batch: int) -> list[Float[Tensor, " b d 1 1"]]:
        """What each layer is told of the class."""
        c = F.silu(self.label(cond, batch))
        return [layer.label(c)[:, :, None, None] for layer in self.layers]
