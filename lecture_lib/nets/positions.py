"""Where a token stands. Attention alone cannot tell: permute the tokens, and the outputs are permuted with them.

Two ways in. A table (n, d) is added to the tokens: ``positions_1d``, ``positions_2d``, ``cropped_positions``,
``LearnedPositions``. Or queries and keys are turned by angles that grow with their place: ``AxialRotary`` makes the
angles of ``grid_positions`` or ``joint_positions``, and ``rotate`` turns by them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.tensors import check_count, check_number


def positions_1d(places: Float[Tensor, " n"], dim: int) -> Float[Tensor, " n d"]:
    """Fixed sin-cos vectors [sin(p w) | cos(p w)] of places p, with w_k = 10000^(-k / (dim/2)).

    Raises:
        ShapeError: places is not a vector, or dim is odd.

    Source: Vaswani et al. 2017, section 3.5; sines first, then cosines, as in MAE and DiT.
    """
    phase = rotary_angles(places, dim)
    return torch.cat([phase.sin(), phase.cos()], dim=-1).float()


def positions_2d(height: int, width: int, dim: int, *, spacing: float = 1.0) -> Float[Tensor, " n d"]:
    """Fixed sin-cos table for a grid of height x width tokens, row by row; half of the width for each axis.

    PE(i, j) = [e(i) | e(j)], where e is ``positions_1d`` of width dim/2 and neighbours are ``spacing`` apart.

    Raises:
        RangeError: height or width is not a whole number >= 1, or spacing is not finite.
        ShapeError: dim is not a multiple of 4.

    Source: Peebles & Xie 2023 (DiT), after He et al. 2022 (MAE).
    """
    if dim % 4:
        raise ShapeError(f"dim must be a multiple of 4, got {dim}")
    spacing = check_number("spacing", spacing)
    rows, columns = (spacing * grid_positions(height, width).double()).unbind(-1)  # (n,) each
    return torch.cat([positions_1d(rows, dim // 2), positions_1d(columns, dim // 2)], dim=-1)


def cropped_positions(table: Float[Tensor, " m d"], height: int, width: int) -> Float[Tensor, " n d"]:
    """The middle height x width tokens of the table of a larger square grid.

    One table then serves every resolution and shape, and the middle of all pictures has the same positions.

    Args:
        table: rows of an s x s grid, row by row, so that m = s^2; for SD3 ``positions_2d(192, 192, dim, ...)``.
        height, width: the grid of tokens to serve, at most s x s.

    Raises:
        ShapeError: the table is not that of a square grid.
        RangeError: height or width lies outside 1..s.

    Source: Esser et al. 2024 (SD3), section 5.3.2, "positional encodings for varying aspect ratios".
    """
    side = math.isqrt(table.shape[0])
    if table.ndim != 2 or side**2 != table.shape[0]:
        raise ShapeError(f"table: got shape {tuple(table.shape)}, expected (s * s, d) of a square grid")
    for name, length in (("height", height), ("width", width)):
        if check_count(name, length) > side:
            raise RangeError(f"{name}: got {length}, expected at most {side}, the side of the table's grid")
    top, left = (side - height) // 2, (side - width) // 2
    return table.reshape(side, side, -1)[top : top + height, left : left + width].flatten(0, 1)


class LearnedPositions(nn.Module):
    """A trained vector for each token of a height x width grid; other grids read the table in between.

    Source: Dosovitskiy et al. 2021 (ViT), section 3.1 and, for another resolution, the end of section 3.2.
    """

    def __init__(self, height: int, width: int, dim: int) -> None:
        super().__init__()
        self.height, self.width = check_count("height", height), check_count("width", width)
        self.table = nn.Parameter(torch.empty(height * width, dim))
        nn.init.normal_(self.table, std=0.02)

    def forward(self, height: int, width: int) -> Float[Tensor, " n d"]:
        """The table, row by row, resampled bicubically where another grid is asked for."""
        if (height, width) == (self.height, self.width):
            return self.table
        picture = self.table.T.reshape(1, -1, self.height, self.width)  # (1, d, h, w)
        # antialias makes it Keys' cubic (a = -0.5), which keeps ramps; PyTorch's default (a = -0.75) does not.
        return F.interpolate(picture, size=(height, width), mode="bicubic", antialias=True).flatten(2)[0].T


def grid_positions(height: int, width: int) -> Int[Tensor, " n 2"]:
    """(row, column) of each token of a grid, row by row.

    Raises:
        RangeError: height or width is not a whole number >= 1.
    """
    rows, columns = torch.arange(check_count("height", height)), torch.arange(check_count("width", width))
    return torch.cartesian_prod(rows, columns)


def joint_positions(n_text: int, height: int, width: int) -> Int[Tensor, " m 3"]:
    """Places of ``n_text`` text tokens, then of a grid of image tokens: (0, 0, 0) each, then (0, row, column).

    All text stands at one place, so the words' order reaches the image only through the text encoder; the first
    axis is free for a second picture. Source: FLUX.1 (Black Forest Labs 2024), ``prepare`` in its sampling code.

    Raises:
        RangeError: n_text is not a whole number >= 0, or height or width not one >= 1.
    """
    image = F.pad(grid_positions(height, width), (1, 0))  # (n, 3): a zero in front
    return torch.cat([image.new_zeros(check_count("n_text", n_text, low=0), 3), image])


def rotary_angles(places: Float[Tensor, " n"], dim: int, theta: float = 10_000.0) -> Float[Tensor, " n k"]:
    """Angles p w_k of the k = dim/2 clocks of a token at place p, with w_k = theta^(-2k / dim).

    They are float64: a float32 angle of 100 rad is off by up to 4e-6, and scores would depend on where a pair stands.

    Raises:
        ShapeError: places is not a vector, or dim is odd.

    Source: Su et al. 2021 (RoFormer), eq. 15, with pairs counted from 0.
    """
    if places.ndim != 1 or dim % 2:
        raise ShapeError(f"places must be (n,) and dim even, got places of shape {tuple(places.shape)}, dim={dim}")
    k = torch.arange(dim // 2, device=places.device, dtype=torch.float64)
    return places.double()[:, None] * theta ** (-2 * k / dim)


def rotate(x: Float[Tensor, "*b n d"], angles: Float[Tensor, " n k"]) -> Float[Tensor, "*b n d"]:
    """Turn the pairs (x_2k, x_2k+1) of each token by its angle k; the dtype of x is kept.

    With R(p) the rotation at place p, (R(p) q)·(R(p') k) = q·R(p' - p) k: scores know the signed displacement only.

    Raises:
        ShapeError: there is not one angle for each token and pair of channels.

    Source: Su et al. 2021, eq. 34; computed in float32 at least.
    """
    if x.shape[-1] % 2 or angles.shape != (x.shape[-2], x.shape[-1] // 2):
        expected = f"(n, d/2) for x of shape (..., n, d) = {tuple(x.shape)} with d even"
        raise ShapeError(f"angles: got shape {tuple(angles.shape)}, expected {expected}")
    precise = torch.promote_types(x.dtype, torch.float32)
    cos, sin = angles.cos().to(precise), angles.sin().to(precise)
    even, odd = x.to(precise).unflatten(-1, (-1, 2)).unbind(-1)  # (*b, n, d/2) each
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)


@dataclass(frozen=True)
class AxialRotary:
    """Angles for places with several coordinates: each axis turns pairs of channels of its own.

    Args:
        dims: channels of a head given to each axis, even; together the width of a head. FLUX takes (16, 56, 56).
        theta: sets the slowest clock of each axis.

    Raises:
        ShapeError: a width is odd or not positive.
        RangeError: theta is not finite and above 1.

    Source: Su et al. 2021 for one axis; the direct sum over axes as in FLUX.1 (Black Forest Labs 2024).
    """

    dims: tuple[int, ...] = (16, 56, 56)
    theta: float = 10_000.0

    def __post_init__(self) -> None:
        if not self.dims or any(d % 2 or d < 2 for d in self.dims):
            raise ShapeError(f"dims: got {self.dims}, expected even numbers >= 2, one for each axis")
        if check_number("theta", self.theta) <= 1:
            raise RangeError(f"theta: got {self.theta}, expected a number above 1")

    def __call__(self, places: Int[Tensor, " n a"]) -> Float[Tensor, " n k"]:
        """Angles (n, sum(dims) / 2) of the places, axis after axis, for ``rotate``.

        Raises:
            ShapeError: the places do not have one coordinate for each axis.
        """
        if places.ndim != 2 or places.shape[1] != len(self.dims):
            raise ShapeError(f"places: got shape {tuple(places.shape)}, expected (n, {len(self.dims)}): one per axis")
        axes = zip(places.unbind(-1), self.dims, strict=True)
        return torch.cat([rotary_angles(place, dim, self.theta) for place, dim in axes], dim=-1)
