"""Patches: how a picture becomes tokens, and what the tokens cost a transformer of the published family."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lecture_lib.data import digits
from lecture_lib.data.shapes import captioned
from lecture_lib.nets import DIT_REPORTS, DIT_SIZES, dit_cost, patchify, unpatchify
from lecture_lib.viz import NOISE, OTHERS, Line, as_picture, bars, image_grid, other, panels, stack, styled, sweep
from lecture_lib.widgets.controls import choice, ladder
from lecture_lib.widgets.explorer import Explorer, Scene

PATCHES = (2, 4, 8)
WIDE = 320  # pixels of the picture on the screen, gaps apart
SHOWN, LARGE = 8, 80  # tokens shown large, and their pixels on the screen
SIDES = (("256 x 256", 32), ("512 x 512", 64), ("1024 x 1024", 128))  # pictures, and the side of their latents
GIGA, BILL = 1e9, "multiply-adds of one evaluation (billions)"
_TOKENS = 2 ** np.arange(4, 15)


@cache
def pictures() -> dict[str, Float[Tensor, " 1 c h w"]]:
    """A digit and three scenes."""
    scenes = captioned(3, torch.Generator().manual_seed(0), split="test")
    images = {text: image[None] for text, image in zip(scenes.captions, scenes.images, strict=True)}
    return {"a digit, 8 x 8": digits("test").of(3)[:1]} | images


def tokens_as_pictures(x: Float[Tensor, " 1 c h w"], patch: int) -> Float[Tensor, " n c p p"]:
    """The tokens of a picture, each put back into the shape of its patch."""
    tokens = patchify(x, patch)[0]  # (n, p p c)
    return unpatchify(tokens[:, None], patch, patch)


def _cut(x: Float[Tensor, " 1 c h w"], patch: int) -> Image.Image:
    """The whole picture with gaps where it is cut, and the first tokens in their order."""
    tokens, side = tokens_as_pictures(x, patch), x.shape[-1]
    title = f"{len(tokens)} {'token' if len(tokens) == 1 else 'tokens'} of {tokens[0].numel()} numbers"
    cut = image_grid(tokens, columns=side // patch, scale=WIDE // side, gap=3, title=title)
    first = max(0, (len(tokens) - SHOWN) // 2)  # the very first ones are often all background
    some = tokens[first:][:SHOWN]
    title = f"tokens {first} to {first + len(some) - 1}, in their order" if len(some) > 1 else "the only token"
    return stack(cut, image_grid(some, columns=4, scale=LARGE // patch, gap=8, title=title), sideways=True, gap=30)


@lru_cache
@styled
def _bill(letters: str, patch: int, side: int) -> Image.Image:
    """Cost against tokens for one width, and the four widths at this patch."""
    figure, (left, right) = panels(1, 2, size=(10.0, 3.9), width_ratios=(1.25, 1.0))
    name, n = f"{letters}/{patch}", (side // patch) ** 2
    now, ratio = dit_cost(name, size=side), _TOKENS / n
    lines = [
        Line("each token: linear layers", now.tokens * ratio / GIGA, look=other(0) | {"marker": ""}),
        Line("each pair: attention", now.pairs * ratio**2 / GIGA, look=other(2) | {"marker": ""}),
    ]
    ax = left
    title = f"DiT-{letters}; the band: patch {patch}"
    sweep(_TOKENS, lines, xlabel="tokens per picture", ylabel=BILL, title=title, log_x=True, log_y=True, ax=ax)
    ax.axvline(n, color=NOISE, linewidth=6, alpha=0.4, zorder=0)
    costs = {f"{size}/{patch}": dit_cost(f"{size}/{patch}", size=side) for size in DIT_SIZES}
    labels = [f"{label}, {cost.pairs / cost.total:.1%} pairs" for label, cost in costs.items()]
    colours = [OTHERS[3 if label == name else 5][0] for label in costs]
    totals = [cost.total / GIGA for cost in costs.values()]
    bars(labels, totals, xlabel=BILL, title="The family", colours=colours, form="{:.4g}", ax=right)
    return as_picture(figure)


def patch_scene(picture: str, patch: int, network: str, side: int) -> Scene:
    """The picture cut into tokens, and the bill of a network of the family for latents cut alike."""
    name = f"{network}/{patch}"
    return Scene(stack(_cut(pictures()[picture], patch), _bill(network, patch, side)), _note(name, side))


def _note(name: str, side: int) -> str:
    cost, n = dit_cost(name, size=side), (side // int(name.split("/")[1])) ** 2
    words = (
        f"DiT-{name} on latents of {side} x {side}: {n} tokens, {cost.total / GIGA:.4g} billion multiply-adds per "
        f"evaluation, {cost.pairs / cost.total:.1%} of them for pairs of tokens; the two parts are equal at "
        f"{n * cost.tokens / cost.pairs:.0f} tokens."
    )
    if side == SIDES[0][1]:  # what the paper's table is about
        words += f" The paper's table says {DIT_REPORTS[name].gflops:g} \u201cGflops\u201d, which are multiply-adds."
    return words


def patch_explorer() -> Explorer:
    """What a patch is, how many there are, and who pays for them; needs no model."""
    scenes = [(name if len(name) < 50 else f"{name[:48]}...", name) for name in pictures()]
    controls = {
        "picture": choice("picture", scenes[1][1], scenes, "What is cut into tokens"),
        "patch": ladder("patch size", 4, PATCHES, "Side of a patch: pixels here, latents in the published networks"),
        "network": choice("network", "XL", list(DIT_SIZES), "Width and depth, Peebles & Xie 2023, table 1"),
        "side": ladder(
            "network's pictures", SIDES[0][1], SIDES, "In pixels; the network sees latents an eighth as wide"
        ),
    }
    return Explorer(
        patch_scene,
        controls,
        caption="Halve the patch: four times the tokens, and how many times the bill? The parameters hardly change. "
        "At 256 x 256 pixels the famous quadratic cost of attention is at most a tenth; find a setting in which it is "
        "the larger part. And on the digit: from which patch on is there nothing left to attend to?",
        alt="A picture cut into patches with gaps between them, and some of the patches enlarged in the order of the "
        "sequence. Below, multiply-adds against tokens for linear layers and for attention, both axes logarithmic, "
        "and a bar for each network of the family.",
    )
