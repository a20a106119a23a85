"""Pixels back to scenes: the oracle that says what a picture shows, and whether that is what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lecture_lib.data.shapes.captions import Wish, parse, place
from lecture_lib.data.shapes.drawing import coverage
from lecture_lib.data.shapes.scenes import BACKGROUNDS, COLOURS, SHAPES, SIDE, SIZES, Thing, relation
from lecture_lib.errors import ShapeError
from lecture_lib.tensors import check_finite

THRESHOLD = 0.45  # a pixel belongs to a thing if its colour is further than this from the background
LEAST = 9  # pixels of a thing; less is a speck
WINDOW = 19  # pixels of the window in which a thing is compared with the templates
FIT = 0.25  # largest mean square misfit of the coverage, over that of nothing at all, for a thing to count as one
PLACE_SLACK = 1.0  # pixels by which "on the left" may be missed
SOFT = torch.tensor([[[[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]]]) / 16  # the blur of the soft templates
ATTRIBUTES = ("count", "background", "shape", "colour", "size", "place", "relation")


@dataclass(frozen=True)
class Seen:
    """What the oracle sees in one image: any number of things, each with how badly its template fits (0 is exact)."""

    things: tuple[Thing, ...]
    misfits: tuple[float, ...]
    background: str


def read(images: Float[Tensor, " n 3 32 32"]) -> list[Seen]:
    """What each image shows.

    The background is the colour of the border. What differs from it falls into connected parts; each is explained by
    the template (shape, radius, centre to half a pixel, sharp or soft) nearest to its coverage, its colour by the
    nearest of eight.

    Args:
        images: in [-1, 1]; values outside are cut off.

    Raises:
        ShapeError: images are not (n, 3, 32, 32).
        NonFiniteError: NaN or infinity in an image.
    """
    if images.ndim != 4 or images.shape[1:] != (3, SIDE, SIDE):
        raise ShapeError(f"images: got {tuple(images.shape)}, expected (n, 3, {SIDE}, {SIDE})")
    images = check_finite("images", images.detach().float().cpu()).clamp(-1, 1)
    ground, levels = _background(images)
    parts = _parts(images, levels)
    owners, things, misfits = _explain(images, levels, parts)
    seen: list[tuple[list, list]] = [([], []) for _ in images]
    for owner, thing, misfit in zip(owners, things, misfits, strict=True):
        seen[owner][0].append(thing)
        seen[owner][1].append(misfit)
    return [Seen(tuple(a), tuple(b), tuple(BACKGROUNDS)[g]) for (a, b), g in zip(seen, ground.tolist(), strict=True)]


def _background(images: Tensor) -> tuple[Int[Tensor, " n"], Float[Tensor, " n 3"]]:
    """The nearest of the three backgrounds, and the median colour of the border itself."""
    border = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1)  # (n, 3, 4 side)
    levels = border.median(-1).values
    known = torch.tensor(tuple(BACKGROUNDS.values()))
    return (levels[:, None] - known[None, :, None]).square().sum(-1).argmin(1), levels


def foreground(images: Float[Tensor, " n 3 h w"]) -> Bool[Tensor, " n h w"]:
    """Which pixels belong to things: those that differ from the colour of the border."""
    return _differs(images, _background(images)[1])


def _differs(images: Tensor, levels: Tensor) -> Bool[Tensor, " n h w"]:
    return (images - levels[:, :, None, None]).norm(dim=1) > THRESHOLD


def _parts(images: Tensor, levels: Tensor) -> list[tuple[int, Bool[Tensor, " h w"]]]:
    """(image, mask) of every connected part that is no speck."""
    from scipy.ndimage import label

    parts = []
    for i, mask in enumerate(_differs(images, levels).numpy()):
        labels, count = label(mask)
        labels = torch.from_numpy(labels)
        found = [labels == k for k in range(1, count + 1)]
        parts += [(i, part) for part in found if part.sum() >= LEAST]
    return parts


@cache
def _templates() -> tuple[Tensor, list[tuple[int, float, float, float]]]:
    """Coverages (k, window^2) of every shape at every radius and offset, sharp and soft, and what each of them is.

    A small cross with its corners filled in by a blur is nearer to a sharp diamond than to a sharp cross.
    """
    offsets = torch.arange(-2, 3) * 0.5
    radii = torch.arange(3.5, 8.01, 0.25)
    grid = torch.cartesian_prod(radii, offsets, offsets)
    centre = WINDOW / 2 + grid[:, 1:]
    covers = torch.cat([coverage(name, centre, grid[:, 0], WINDOW) for name in SHAPES])
    meaning = [(s, *row) for s in range(len(SHAPES)) for row in grid.tolist()]
    soft = F.conv2d(F.pad(covers[:, None], (1, 1, 1, 1)), SOFT)[:, 0]
    return torch.cat([covers, soft]).flatten(1), 2 * meaning


def _explain(images: Tensor, levels: Tensor, parts: list) -> tuple[list[int], list[Thing], list[float]]:
    """Owner, thing and misfit of every part."""
    if not parts:
        return [], [], []
    owners = [i for i, _ in parts]
    masks = torch.stack([mask for _, mask in parts])
    colours, shares = _colours(images[owners] - levels[owners][:, :, None, None], levels[owners], masks)
    corners = _corners(masks)
    windows = torch.stack([_window(share, x, y) for share, (x, y) in zip(shares, corners.tolist(), strict=True)])
    table, meaning = _templates()
    distances = torch.cdist(windows.flatten(1), table).square() / windows.flatten(1).square().sum(1, keepdim=True)
    misfits, best = distances.min(1)
    things = [
        _thing(meaning[k], colour, corner)
        for k, colour, corner in zip(best.tolist(), colours.tolist(), corners.tolist(), strict=True)
    ]
    return owners, things, misfits.tolist()


def _colours(differences: Tensor, levels: Tensor, masks: Tensor) -> tuple[Int[Tensor, " p"], Float[Tensor, " p h w"]]:
    """Nearest palette colour of each part, and how much of each pixel the part covers.

    The colour of a part is the median over the half of its pixels that differ most from the background (the others may
    lie on an edge); coverage is a pixel's difference from the background, projected on that of this colour. A rim of
    one pixel belongs to the part, since thresholds cut half-covered pixels off.
    """
    flat, inside = differences.flatten(2), masks.flatten(1)  # (p, 3, h w), (p, h w)
    contrast = torch.where(inside, flat.norm(dim=1), torch.nan)
    clear = contrast >= contrast.nanmedian(1, keepdim=True).values
    median = torch.where(clear[:, None], flat, torch.nan).nanmedian(-1).values  # (p, 3)
    palette = torch.tensor(tuple(COLOURS.values()))
    nearest = torch.cdist(median + levels, palette).argmin(1)
    share = (differences * median[:, :, None, None]).sum(1) / median.square().sum(1)[:, None, None]
    rim = F.max_pool2d(masks[:, None].float(), 3, 1, 1)[:, 0]
    return nearest, share.clamp(0, 1) * rim


def _corners(masks: Bool[Tensor, " p h w"]) -> Int[Tensor, " p 2"]:
    """Upper left corner (x, y) of the window around the middle of each part's bounding box."""

    def middle(line: Tensor) -> Tensor:  # line (p, side), True where the part is
        first = line.float().argmax(1)
        last = SIDE - 1 - line.flip(1).float().argmax(1)
        return (first + last + 1) // 2

    return torch.stack([middle(masks.any(1)), middle(masks.any(2))], 1) - WINDOW // 2


def _window(share: Float[Tensor, " h w"], x: int, y: int) -> Float[Tensor, " k k"]:
    padded = F.pad(share, (WINDOW,) * 4)
    return padded[y + WINDOW : y + 2 * WINDOW, x + WINDOW : x + 2 * WINDOW]


def _thing(meaning: tuple[int, float, float, float], colour: int, corner: tuple[int, int]) -> Thing:
    shape, radius, dx, dy = meaning
    size = min(SIZES, key=lambda name: abs(SIZES[name] - radius))
    centre = (corner[0] + WINDOW / 2 + dx, corner[1] + WINDOW / 2 + dy)
    return Thing(SHAPES[shape], tuple(COLOURS)[colour], size, centre)


@dataclass(frozen=True)
class Verdict:
    """Which wishes of the captions the images fulfil; every attribute is (n,), True where nothing was asked.

    Where the count is wrong, nothing but the background is compared: all other attributes are False.
    ``all`` is their conjunction. With two things, shape, colour and size must be right for both of them.
    """

    count: Bool[Tensor, " n"]
    background: Bool[Tensor, " n"]
    shape: Bool[Tensor, " n"]
    colour: Bool[Tensor, " n"]
    size: Bool[Tensor, " n"]
    place: Bool[Tensor, " n"]
    relation: Bool[Tensor, " n"]

    @property
    def all(self) -> Bool[Tensor, " n"]:
        """Everything right."""
        return torch.stack([getattr(self, name) for name in ATTRIBUTES]).all(0)

    def rates(self) -> dict[str, float]:
        """Share of images that are right, attribute by attribute, and in all of them."""
        return {name: getattr(self, name).double().mean().item() for name in (*ATTRIBUTES, "all")}


def judge_captions(images: Float[Tensor, " n 3 32 32"], captions: list[str] | tuple[str, ...]) -> Verdict:
    """Whether each image shows what its caption asks for.

    Raises:
        ShapeError: as in ``read``, or not one caption per image.
        UnknownNameError: a caption that ``parse`` cannot read.
    """
    if len(images) != len(captions):
        raise ShapeError(f"captions: got {len(captions)} for {len(images)} images, expected one each")
    rows = [_fulfilled(seen, parse(text)) for seen, text in zip(read(images), captions, strict=True)]
    return Verdict(*(torch.tensor([row[name] for row in rows], dtype=torch.bool) for name in ATTRIBUTES))


def _fulfilled(seen: Seen, wish: Wish) -> dict[str, bool]:
    things = [thing for thing, misfit in zip(seen.things, seen.misfits, strict=True) if misfit <= FIT]
    counted = len(things) == len(seen.things) == len(wish.things)
    right = dict.fromkeys(ATTRIBUTES, False) | {"count": counted, "background": seen.background == wish.background}
    if not counted:
        return right
    orders = [things, things[::-1]] if len(things) == 2 else [things]
    return right | max((_matched(order, wish) for order in orders), key=lambda found: sum(found.values()))


def _matched(things: list[Thing], wish: Wish) -> dict[str, bool]:
    """The wishes about things, if they are meant in this order."""
    shapes, colours, sizes = zip(*wish.things, strict=True)
    return {
        "shape": tuple(t.shape for t in things) == shapes,
        "colour": tuple(t.colour for t in things) == colours,
        "size": tuple(t.size for t in things) == sizes,
        "place": wish.place is None or wish.place in place(things[0], PLACE_SLACK),
        "relation": wish.relation is None or wish.relation == relation(*things),
    }
