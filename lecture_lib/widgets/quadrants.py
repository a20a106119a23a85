"""The four quadrants of a joint attention: words and image read words and image, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from lecture_lib import zoo
from lecture_lib.families import TextToImage
from lecture_lib.nets import quadrant_shares, quadrants, word_map, word_shares
from lecture_lib.viz import captioned_grid, colour_bar, coloured, stack
from lecture_lib.widgets.attention import ALL, STEPS, Run, Runs, every_word, heat, span, word_picker
from lecture_lib.widgets.controls import choice, count, same_seed, text
from lecture_lib.widgets.explorer import Explorer, Scene
from lecture_lib.widgets.verdicts import plain, verdicts

FIRST = "a large yellow ring above a small blue square"
LARGE, WIDTH = 6, 230
SCREEN = 200  # pixels of a joint map, about
TITLE = "who reads: downwards; what is read: across"
LOUD = 0.15  # shares of attention from here on have the last colour


def layers_of(run: Run, step: int, layer: int) -> Mapping[str, Tensor]:
    """The joint maps of one step: of one layer, counted from 1, or of ``ALL``."""
    maps = run.maps[step - 1]
    return maps if layer == ALL else dict([list(maps.items())[layer - 1]])


def word_reads(maps: Mapping[str, Tensor], words: int, token: int, side: int) -> Float[Tensor, " 1 h w"]:
    """How much one word reads of each image token: the mean over heads and layers of ``text_image``."""
    rows = [quadrants(probs, words).text_image[:, :, token].mean(1) for probs in maps.values()]
    return torch.stack(rows).mean(0).unflatten(-1, (side, side))


def joint_map(probs: Float[Tensor, " 1 heads k k"], mask: Bool[Tensor, " 1 m"]) -> Float[Tensor, " q q"]:
    """The mean over heads without the padding, and a white cross between the quadrants."""
    m = mask.shape[1]
    kept = torch.cat([mask[0], mask.new_ones(probs.shape[-1] - m)])
    table, n = probs[0].mean(0)[kept][:, kept], int(mask.sum())
    rows = torch.cat([table[:n], table.new_full((1, len(table)), torch.nan), table[n:]])
    return torch.cat([rows[:, :n], rows.new_full((len(rows), 1), torch.nan), rows[:, n:]], dim=1)


# The picture ----------------------------------------------------------------------------------------------------------


def _tables(maps: Mapping[str, Tensor], mask: Bool[Tensor, " 1 m"]) -> Image.Image:
    """The joint map of every layer, and how much flows in each quadrant."""
    tables = torch.stack([joint_map(probs, mask) for probs in maps.values()])
    tiles = coloured(tables.nan_to_num(0.0), 0.0, LOUD)
    tiles[tables.isnan()[:, None].expand(-1, 3, -1, -1).numpy()] = 1.0
    words = [
        f"layer {k}\nwords read {shares[0][0]:.0%} words\nthe image reads {shares[1][0]:.0%} words"
        for k, shares in enumerate(quadrant_shares(maps, mask)[:, 0].tolist(), start=1)
    ]
    scale = max(1, SCREEN // tables.shape[-1])
    grid = captioned_grid(tiles, words, columns=4, scale=scale, width=WIDTH, title=TITLE)
    return stack(grid, colour_bar(0, LOUD, "share of the reader's attention; words first, then the image"))


def quadrant_scene(runs: Runs, prompt: str, word: int, step: int, layer: int, seed: int) -> Scene:
    """The picture, one word's two maps, the joint map of every layer, and where every word is read.

    Raises:
        UnknownNameError: a word that the tokenizer does not know.
    """
    run, words = runs.plain(prompt, seed), plain(prompt).split()
    mask = runs.model.condition(prompt)["mask"].cpu()  # (1, m)
    m, chosen = mask.shape[1], layers_of(run, step, layer)
    parts = {name: quadrants(probs, m) for name, probs in chosen.items()}
    side = round(next(iter(parts.values())).image_text.shape[-2] ** 0.5)
    token = min(word, len(words))  # token 0 is <start>
    name = words[token - 1] if words else "<start>"
    to_text = {layer_name: part.image_text for layer_name, part in parts.items()}
    maps = [word_map(to_text, k, (side, side)) for k in range(len(words) + 1)]
    back = word_reads(chosen, m, token, side)
    top = captioned_grid(
        torch.cat([run.image, heat(run.image, maps[token]), heat(run.image, back)]),
        [
            f"{prompt}\n{verdicts(run.image, prompt)[0]}",
            f"where the image reads \u201c{name}\u201d, {span(maps[token])}",
            f"what \u201c{name}\u201d reads of the image, {span(back)}",
        ],
        scale=LARGE,
        width=WIDTH,
    )
    rows = [top, _tables(run.maps[step - 1], mask)]
    if words:
        rows.append(every_word(run.image, words, maps[1:]))
    return Scene(stack(*rows, gap=12), _note(chosen, mask, step, layer))


def _note(maps: Mapping[str, Tensor], mask: Bool[Tensor, " 1 m"], step: int, layer: int) -> str:
    """The shares of the layers looked at."""
    shares = quadrant_shares(maps, mask)[:, 0].mean(0)
    start = float(word_shares(maps, mask.shape[1])[:, 0, 0].mean())
    where = "all layers" if layer == ALL else f"layer {layer}"
    return (
        f"Step {step}, {where}: of what the image reads, {float(shares[1, 0]):.0%} is words ({start:.0%} the token "
        f"<start>), the rest the image itself, out of one softmax; in a cross-attention it would be all words. "
        f"Of what words read, {float(shares[0, 1]):.0%} is the image: a cross-attention has no such quadrant."
    )


def quadrant_explorer(model: TextToImage | None = None) -> Explorer:
    """Joint attention, seen per layer and per word.

    Args:
        model: its network one with joint attention; default ``zoo.transformer_text_to_image()``.
    """
    runs = Runs(zoo.transformer_text_to_image() if model is None else model)
    field = text("prompt", FIRST, "What to draw; press Enter. Unknown words are answered below the picture")
    layers = [("all", ALL), *((str(k), k) for k, _ in enumerate(runs.plain(FIRST, 0).maps[0], start=1))]
    controls = {
        "prompt": field,
        "word": word_picker(field, 3),
        "step": count("step", 5, 1, STEPS, "The step whose maps are shown; nothing is computed anew"),
        "layer": choice("layer", ALL, layers, "Whose maps of words are shown"),
        "seed": same_seed(),
    }
    return Explorer(
        partial(quadrant_scene, runs),
        controls,
        keep=True,
        caption="Find the layer and the step in which a word lights up its shape, and look at the other direction as "
        "well: the word reads the picture, which no cross-attention lets it do. How do the shares of the four "
        "quadrants move from the first layer to the last, and from the first step to the last?",
        alt="A generated picture; where the image reads one word, and what that word reads of the image. Below, the "
        "joint attention map of every layer cut into four quadrants, with the share of attention in each, and one "
        "small map for every word of the prompt.",
    )
