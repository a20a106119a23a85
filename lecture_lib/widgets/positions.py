"""Positions: how alike two places look to attention under several encodings, and what another resolution does."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lecture_lib.data.shapes import captioned
from lecture_lib.nets import (
    AxialRotary,
    LearnedPositions,
    cropped_positions,
    grid_positions,
    patchify,
    positions_2d,
    rotary_angles,
    rotate,
)
from lecture_lib.viz import captioned_grid, coloured, stack
from lecture_lib.widgets.controls import choice, count, ladder
from lecture_lib.widgets.explorer import Explorer, Scene

TRAINED = 8  # side of the grid that a network would have seen in training
SIDES = (4, 6, 8, 12, 16)
DIM = 64
ALIKE = "q = k = 1: places alone"
CONTENTS = (ALIKE, "q, k drawn, seed 1", "q, k drawn, seed 2", "q, k drawn, seed 3")
SCREEN, WIDTH = 130, 172  # pixels of a map (about) and of its caption
_MARK = np.array([0.66, -0.26, -1.0])[:, None, None]  # vermilion, in [-1, 1]


# Encodings ------------------------------------------------------------------------------------------------------------


@cache
@torch.enable_grad()  # notebooks switch gradients off
def learned(updates: int = 200) -> LearnedPositions:
    """A table trained for half a second: an attention layer that sees places only fills in a patch from the others.

        x_p = sum over p' != p of softmax(e_p . e_p' / sqrt(d)) x_p'

    On scenes of the shapes world in 8 x 8 patches, their mean subtracted.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):  # PyTorch fills new layers from its global generator: ours fills it again
        positions = LearnedPositions(TRAINED, TRAINED, DIM)
    torch.nn.init.normal_(positions.table, std=0.02, generator=generator)
    x = patchify(captioned(512, generator).images, 32 // TRAINED)  # (b, 64, 48)
    x, itself = x - x.mean(0), torch.eye(TRAINED**2, dtype=torch.bool)
    optimizer = torch.optim.Adam(positions.parameters(), lr=0.05)
    for _ in range(updates):
        batch = x[torch.randint(len(x), (64,), generator=generator)]
        e = positions(TRAINED, TRAINED)
        weights = (e @ e.T / DIM**0.5).masked_fill(itself, -torch.inf).softmax(-1)
        loss = (weights @ batch - batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return positions.requires_grad_(False)


TABLES: dict[str, Callable[[int], Float[Tensor, " n d"]]] = {
    "sin-cos": lambda side: positions_2d(side, side, DIM),
    "sin-cos, squeezed": lambda side: positions_2d(side, side, DIM, spacing=TRAINED / side),
    "cropped from 16 x 16": lambda side: cropped_positions(positions_2d(16, 16, DIM), side, side),
    "learned, resampled": lambda side: learned()(side, side),
}
ROTARY = "RoPE, one axis each"


def likeness(table: Float[Tensor, " n d"], token: int) -> Float[Tensor, " n"]:
    """Cosine of one token's vector with those of all."""
    return F.cosine_similarity(table, table[token], dim=-1)


def rotary_scores(side: int, token: int, content: str, theta: float) -> Float[Tensor, " n"]:
    """Scores (R q)·(R k) / (|q| |k|) of one token's query with the keys of all; all have the same q, the same k."""
    rotary = AxialRotary((DIM // 2, DIM // 2), theta)
    generator = torch.Generator().manual_seed(CONTENTS.index(content))
    q, k = torch.ones(2, DIM) if content == ALIKE else torch.randn(2, DIM, generator=generator)
    angles = rotary(grid_positions(side, side))
    queries, keys = (rotate(x.expand(len(angles), -1), angles) for x in (q, k))
    return F.cosine_similarity(keys, queries[token], dim=-1)


def familiar(table: Float[Tensor, " n d"], trained: Float[Tensor, " m d"]) -> Float[Tensor, " n"]:
    """For each vector, the cosine of the most similar one among those seen in training; 1 is an old acquaintance."""
    return (F.normalize(table, dim=-1) @ F.normalize(trained, dim=-1).T).amax(dim=-1)


def displacements_seen(side: int) -> float:
    """Share of the pairs of tokens on a side x side grid that are at most as far apart as some pair in training."""
    along = torch.arange(side)
    near = (along[:, None] - along).abs() < TRAINED  # (side, side), for one axis
    return float(near.double().mean() ** 2)


# The picture ----------------------------------------------------------------------------------------------------------


def _drawn(maps: Float[Tensor, " k n"], scales: Float[Tensor, " k 2"], side: int, token: int) -> np.ndarray:
    """The maps as squares of whole pixels, each on its scale, with a frame around the token."""
    size = SCREEN // side
    shares = (maps - scales[:, :1]) / (scales[:, 1:] - scales[:, :1])
    tiles = coloured(shares.reshape(-1, side, side), 0.0, 1.0).repeat(size, axis=2).repeat(size, axis=3)
    top, left = size * (token // side), size * (token % side)
    frame = np.ones((size, size), bool)
    frame[2:-2, 2:-2] = False
    square = tiles[:, :, top : top + size, left : left + size]
    square[:] = np.where(frame, _MARK, square)
    return tiles


def _news(side: int) -> list[str]:
    """Below each map of the new grid: how much of it the network would have met before."""
    words = []
    for table in TABLES.values():
        known = familiar(table(side), table(TRAINED))
        old = int((known > 1 - 1e-5).sum())
        words.append(f"{old} of {side**2} vectors known; least familiar: cosine {float(known.min()):.2f}")
    return [*words, f"{displacements_seen(side):.0%} of all pairs stand as some pair did in training"]


def position_scene(row: int, column: int, side: int, content: str, theta: float) -> Scene:
    """Maps of all encodings for one token on the grid of training, and for the same place on another grid."""
    tokens = {grid: (row * grid // TRAINED) * grid + column * grid // TRAINED for grid in (TRAINED, side)}
    maps = {grid: _maps(grid, token, content, theta) for grid, token in tokens.items()}
    both = torch.cat(list(maps.values()), dim=1)
    scales = torch.stack([both.amin(1), both.amax(1)], dim=1)  # one for each encoding, so that the grids compare
    rows = []
    for title, grid, news in (("in training", TRAINED, [""] * len(scales)), ("in use", side, _news(side))):
        ends = [f"cosines {float(m.min()):.2f} to {float(m.max()):.2f}" for m in maps[grid]]
        words = ["\n".join(filter(None, lines)) for lines in zip((*TABLES, ROTARY), ends, news, strict=True)]
        tiles = _drawn(maps[grid], scales, grid, tokens[grid])
        title = f"{title}: {grid} x {grid} tokens"
        rows.append(captioned_grid(tiles, words, columns=len(words), scale=1, width=WIDTH, title=title))
    return Scene(stack(*rows, gap=12), _note(side, theta))


def _maps(side: int, token: int, content: str, theta: float) -> Float[Tensor, " k n"]:
    """The token's likeness to all under each encoding, RoPE last."""
    tables = [likeness(table(side), token) for table in TABLES.values()]
    return torch.stack([*tables, rotary_scores(side, token, content, theta)])


def _note(side: int, theta: float) -> str:
    slowest = float(rotary_angles(torch.tensor([TRAINED - 1.0]), DIM // 2, theta)[0, -1])
    words = (
        "Within a column dark is the smallest, light the largest cosine with the framed token (RoPE: of its query with "
        f"the keys). RoPE's slowest clock turns by {slowest:.3g} rad across the grid of training. "
    )
    if side == TRAINED:
        return words + "The grid in use is that of training, so everything is known."
    return words + (
        f"From {TRAINED} x {TRAINED} to {side} x {side} tokens: added vectors are judged by how many are new, RoPE by "
        "displacements, which is all that its scores know."
    )


def position_explorer() -> Explorer:
    """Similarity of places under five encodings, on the grid of training and on another; needs no model."""
    controls = {
        "row": count("row", 3, 0, TRAINED - 1, "Row of the token on the grid of training, from the top"),
        "column": count("column", 2, 0, TRAINED - 1, "Column of the token, from the left"),
        "side": ladder("grid in use", 12, SIDES, "Tokens along a side when the network is used"),
        "content": choice("RoPE's content", ALIKE, CONTENTS, "What query and key are, before they are turned"),
        "theta": ladder("RoPE's theta", 10_000.0, (10.0, 100.0, 10_000.0), "Sets the slowest clock"),
    }
    return Explorer(
        position_scene,
        controls,
        caption="Move the token: the maps of sin-cos and of RoPE move with it, unchanged, the learned one knows where "
        "the border is. With q = k = 1 RoPE gives the same map as sin-cos: the difference is that content is turned "
        "instead of added to, so draw q and k. Then change the grid: who meets places never seen, and what do "
        "squeezing, resampling and cropping pay for avoiding them?",
        alt="Two rows of five similarity maps over the grid of tokens: sin-cos, sin-cos squeezed, cropped, learned and "
        "RoPE; above on the grid of training, below on another grid, with how much of it is new.",
    )
