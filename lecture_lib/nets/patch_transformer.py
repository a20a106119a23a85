"""Transformers on the patches of a picture of which only some may be seen, and on what stands in for the others.

    PatchEncoder      patches that may be seen  -> one vector each              (MAE's encoder, JEPA's)
    PlacePredictor    those vectors, and places -> one vector for each place    (MAE's decoder, JEPA's predictor)

Who may not be seen takes part in the arithmetic and in nothing else: no token attends to it. That costs what leaving
it out would save, and allows another number of visible patches for every picture of a batch.

Source: He et al. 2022 (MAE), section 3; Assran et al. 2023 (I-JEPA), section 3.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.positions import grid_positions, positions_1d, positions_2d
from lecture_lib.nets.text import TextBlock


def patches_3d(x: Float[Tensor, " b f c h w"], tube: tuple[int, int, int]) -> Float[Tensor, " b n k"]:
    """Cut clips into tubes of (frames, rows, columns): frame by frame, row by row."""
    f, p, q = tube
    return rearrange(x, "b (s f) c (i p) (j q) -> b (s i j) (f p q c)", f=f, p=p, q=q)


def positions_3d(frames: int, height: int, width: int, dim: int) -> Float[Tensor, " n d"]:
    """Fixed sin-cos table of a grid in time and space: half of the width for the time, half for ``positions_2d``.

    Raises:
        ShapeError: dim is not a multiple of 8.
    """
    if dim % 8:
        raise ShapeError(f"dim: got {dim}, expected a multiple of 8")
    time, place = grid_positions(frames, height * width).unbind(-1)  # (n,) each
    table = positions_2d(height, width, dim // 2)
    return torch.cat([positions_1d(time.double(), dim // 2), table[place]], dim=-1)


class PatchEncoder(nn.Module):
    """A vision transformer that reads the patches it is allowed to see.

    Args:
        features: length k of a patch.
        positions: fixed table (n, d) of the places; d is the width.
        depth, heads: of the transformer.

    Raises:
        ShapeError: patches are not (b, n, features), or visible is not (b, n).
    """

    def __init__(self, features: int, positions: Float[Tensor, " n d"], *, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.n, self.dim = positions.shape
        self.embed = nn.Linear(features, self.dim)
        self.register_buffer("positions", positions.clone(), persistent=False)
        self.blocks = nn.ModuleList(TextBlock(self.dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(self.dim)

    def forward(
        self,
        patches: Float[Tensor, " b n k"],
        visible: Bool[Tensor, " b n"],
        extra: Float[Tensor, " b m d"] | None = None,
    ) -> Float[Tensor, " b m+n d"]:
        """One vector per extra token and per place; those of places that are not visible mean nothing.

        Args:
            patches: of all places; what is not visible may hold anything finite.
            visible: which places may be seen.
            extra: tokens that are always seen, such as the class; they come first.
        """
        if patches.shape[1:] != (self.n, self.embed.in_features) or visible.shape != patches.shape[:2]:
            got = f"{tuple(patches.shape)} and {tuple(visible.shape)}"
            expected = f"(b, {self.n}, {self.embed.in_features}) and (b, {self.n})"
            raise ShapeError(f"patches, visible: got shapes {got}, expected {expected}")
        h = self.embed(patches) + self.positions
        if extra is not None:
            h = torch.cat([extra, h], dim=1)
        sees = _keys(visible, h.shape[1] - self.n)
        for block in self.blocks:
            h = block(h, sees)
        return self.norm(h)


class PlacePredictor(nn.Module):
    """What may stand at places that were not seen: a mask token goes to each of them, and says where it stands.

    Without its position a mask token could not know what it is asked for, and would answer with an average of all.

    Args:
        context: width of what an encoder says.
        positions: fixed table (n, d) of the places; d is the width inside.
        depth, heads: of the transformer.
        out: width of the answers; default: ``context``.
    """

    def __init__(
        self, context: int, positions: Float[Tensor, " n d"], *, depth: int = 1, heads: int = 4, out: int | None = None
    ) -> None:
        super().__init__()
        self.n, self.dim = positions.shape
        self.enter = nn.Linear(context, self.dim)
        self.mask = nn.Parameter(0.02 * torch.randn(self.dim))
        self.register_buffer("positions", positions.clone(), persistent=False)
        self.blocks = nn.ModuleList(TextBlock(self.dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(self.dim)
        self.leave = nn.Linear(self.dim, out or context)

    def forward(
        self, encoded: Float[Tensor, " b m+n d"], visible: Bool[Tensor, " b n"], asked: Bool[Tensor, " b n"]
    ) -> Float[Tensor, " b n k"]:
        """One answer per place; only those of places that are asked for mean something.

        Args:
            encoded: from ``PatchEncoder``, m extra tokens first.
            visible: which places the encoder saw.
            asked: which places are to be predicted, none of them visible.
        """
        m = encoded.shape[1] - self.n
        extra, h = self.enter(encoded).split([m, self.n], dim=1)
        h = torch.where(visible[..., None], h, self.mask) + self.positions
        h = torch.cat([extra, h], dim=1)
        sees = _keys(visible | asked, m)
        for block in self.blocks:
            h = block(h, sees)
        return self.leave(self.norm(h[:, m:]))


def _keys(visible: Bool[Tensor, " b n"], extra: int) -> Bool[Tensor, " b 1 m+n"]:
    """Which keys every query may attend to: extra tokens, and visible places."""
    return nn.functional.pad(visible, (extra, 0), value=True)[:, None]
