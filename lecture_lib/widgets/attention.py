"""Attention maps of words over the picture, and prompt-to-prompt: the maps of one prompt lent to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

import ipywidgets
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lecture_lib import zoo
from lecture_lib.data.shapes import foreground
from lecture_lib.errors import ShapeError
from lecture_lib.families import TextToImage
from lecture_lib.guidance import linear
from lecture_lib.nets import controlled_attention, recorded_attention, word_map
from lecture_lib.viz import SAMPLED, captioned_grid, stack
from lecture_lib.widgets.controls import choice, count, number, same_seed, switch, text
from lecture_lib.widgets.explorer import Explorer, Scene
from lecture_lib.widgets.verdicts import plain, verdicts

PROMPTS = "a large yellow square on a black background", "a large cyan square on a black background"
STEPS, W = 10, 3.0
ALL = 0  # "all layers"; otherwise the side of the layers' maps
LARGE, SMALL, MOST = 6, 2, 8  # enlargement of the two sizes of pictures; small ones in a row
WIDTH = 200
_INK = torch.tensor([int(SAMPLED[k : k + 2], 16) for k in (1, 3, 5)]).float() / 127.5 - 1

Maps = Mapping[str, Float[Tensor, " 1 heads n m"]]


@dataclass(frozen=True)
class Run:
    """One picture and how it came about.

    Attributes:
        image: ``(1, 3, 32, 32)``. maps: for every step, the cross-attention maps of the conditional branch by layer.
    """

    image: Float[Tensor, " 1 3 h w"]
    maps: tuple[Maps, ...]

    def sides(self) -> list[int]:
        """The sides of the maps that there are, finest first."""
        return sorted({round(maps.shape[-2] ** 0.5) for maps in self.maps[0].values()}, reverse=True)


@torch.inference_mode()
def recorded_run(
    model: TextToImage, prompt: str, *, seed: int = 0, w: float = W, steps: int = STEPS,
    source: Run | None = None, share: float = 1.0,
) -> Run:  # fmt: skip
    """One guided picture with all its attention maps.

    With a ``source``, the conditional branch reads by the maps of the source in the first ``share`` of the steps
    (Hertz et al. 2022, section 3.2; replacement of words). The maps recorded are those that were used.
    """
    generator, now = torch.Generator().manual_seed(seed), 0

    def lend(layer: str, probs: Tensor) -> Tensor:
        if source is None or now > round(share * steps):
            return probs
        return torch.cat([probs[:1], source.maps[now - 1][layer].to(probs)])  # reference first, then the prompt

    noise, kept, net = model.noise(1, generator), [], model.denoiser.network
    frames = model.frames(model.guided(prompt, rule=linear(w)), noise, steps=steps)
    frame = next(frames)
    with controlled_attention(net, lend), recorded_attention(net) as maps:  # what is recorded has been lent
        for now in range(1, steps + 1):  # noqa: B007 (read by ``lend``)
            frame = next(frames)
            kept.append({name: probs[1:] for name, probs in maps.items()})
    return Run(model.space.decode(frame.x).clamp(-1, 1), tuple(kept))


class Runs:
    """Runs of one model, remembered: walking through words and steps only draws."""

    def __init__(self, model: TextToImage) -> None:
        self.model = model
        self.plain = lru_cache(maxsize=32)(self._plain)
        self.swapped = lru_cache(maxsize=64)(self._swapped)

    def _plain(self, prompt: str, seed: int) -> Run:
        return recorded_run(self.model, prompt, seed=seed)

    def _swapped(self, first: str, second: str, seed: int, share: float) -> Run:
        words = [len(plain(prompt).split()) for prompt in (first, second)]
        if words[0] != words[1]:
            raise ShapeError(
                f"second prompt: got {words[1]} words, expected {words[0]}, as many as the first has: each map is lent "
                "to the word at the same place"
            )
        return recorded_run(self.model, second, seed=seed, source=self.plain(first, seed), share=share)


def at_side(maps: Maps, side: int) -> Maps:
    """The maps of the layers with that side; ``ALL`` keeps every layer."""
    return {name: probs for name, probs in maps.items() if side == ALL or probs.shape[-2] == side**2}


def heat(image: Float[Tensor, " 1 3 h w"], attention: Float[Tensor, " 1 k k"]) -> Float[Tensor, " 1 3 h w"]:
    """A pale grey copy of the picture with the map over it: clear where least is read, darkest where most is."""
    pale = 0.45 * image.mean(1, keepdim=True).expand(-1, 3, -1, -1) + 0.5
    above = attention - attention.min()
    share = F.interpolate((above / above.max().clamp(min=1e-9))[:, None], size=image.shape[-2:], mode="nearest")
    return torch.lerp(pale, _INK[:, None, None].expand_as(pale), 0.9 * share)


# The picture ----------------------------------------------------------------------------------------------------------


def attention_scene(
    runs: Runs, prompt: str, word: int, step: int, side: int, second: str, inject: bool, share: float, seed: int
) -> Scene:
    """The picture and the chosen word's map, all words' maps, and the second prompt on its own and with lent maps.

    Raises:
        ShapeError: maps are to be lent, and the prompts differ in their number of words.
        UnknownNameError: a word that the tokenizer does not know.
    """
    run, words = runs.plain(prompt, seed), plain(prompt).split()
    word, layers = min(word, len(words)), at_side(run.maps[step - 1], side)
    size = (side, side) if side != ALL else tuple(runs.model.space.latent_shape(*run.image.shape[-2:])[1:])
    maps = [word_map(layers, k + 1, size) for k in range(len(words))]  # token 0 is <start>
    chosen = maps[word - 1] if words else word_map(layers, 0, size)
    name = words[word - 1] if words else "<start>"
    others = {"on its own": runs.plain(second, seed).image}
    if inject:
        others[f"with the maps of the first, {share:.0%} of the steps"] = runs.swapped(
            prompt, second, seed, share
        ).image
    top = captioned_grid(
        torch.cat([run.image, heat(run.image, chosen), *others.values()]),
        [
            f"{prompt}\n{verdicts(run.image, prompt)[0]}",
            f"step {step}: where \u201c{name}\u201d is read, {span(chosen)}",
            *(f"{second}, {said}\n{verdicts(image, second)[0]}" for said, image in others.items()),
        ],
        scale=LARGE,
        width=WIDTH,
    )
    picture = stack(top, every_word(run.image, words, maps)) if words else top
    return Scene(picture, _note(run, others, layers))


def span(attention: Tensor) -> str:
    """The smallest and the largest weight, as text."""
    return f"{float(attention.min()):.2f}\u2013{float(attention.max()):.2f}"


def every_word(image: Tensor, words: list[str], maps: list[Tensor]) -> object:
    """A small map per word, in the order of the prompt."""
    tiles = torch.cat([heat(image, attention) for attention in maps])
    texts = [f"{word}\n{span(attention)}" for word, attention in zip(words, maps, strict=True)]
    rows = -(-len(words) // MOST)
    return captioned_grid(tiles, texts, columns=-(-len(words) // rows), scale=SMALL, gap=10)


def overlap(a: Float[Tensor, " 1 3 h w"], b: Float[Tensor, " 1 3 h w"]) -> float:
    """Pixels that belong to shapes in both pictures, over those in either: 1 if everything is at the same place."""
    first, second = (foreground(x) for x in (a, b))
    return float((first & second).sum() / (first | second).sum().clamp(min=1))


def _note(run: Run, others: Mapping[str, Tensor], layers: Maps) -> str:
    start = torch.stack([probs[..., 0].mean() for probs in layers.values()]).mean()
    same = ", ".join(f"{overlap(run.image, image):.2f} {said}" for said, image in others.items())
    return (
        f"Each map is the mean over the heads of {len(layers)} layers; clear where least, dark where most is read; "
        f"below it the smallest and the largest share of attention. <start> takes {float(start):.0%} of it at this "
        f"step. Overlap of the second prompt's shapes with those of the first (1: same place and outline): {same}."
    )


def _word_options(prompt: str) -> list[tuple[str, int]]:
    return [(f"{k}: {word}", k) for k, word in enumerate(plain(prompt).split(), start=1)] or [("(no words)", 1)]


def word_picker(field: ipywidgets.Text, start: int) -> ipywidgets.Dropdown:
    """A list of the words in ``field`` that follows it, and stays at its place as far as there is one."""
    picker = choice("word", start, _word_options(field.value), "The word whose map is shown large")

    def follow(change: Mapping) -> None:
        options, place = _word_options(change["new"]), picker.value or 1
        if options != list(picker.options):
            picker.options = options
            picker.value = min(place, len(options))

    field.observe(follow, names="value")
    return picker


def attention_explorer(model: TextToImage | None = None) -> Explorer:
    """Who reads which word, at which step; and what happens to a second prompt that reads like the first.

    Args:
        model: default ``zoo.text_to_image()``.
    """
    runs = Runs(zoo.text_to_image() if model is None else model)
    field = text("prompt", PROMPTS[0], "What to draw; press Enter. Unknown words are answered below the picture")
    sides = [(f"{side} x {side}", side) for side in runs.plain(PROMPTS[0], 0).sides()]
    controls = {
        "prompt": field,
        "second": text("second prompt", PROMPTS[1], "As many words as the first, to lend it the maps of the first"),
        "word": word_picker(field, 4),
        "step": count("step", 5, 1, STEPS, "The step whose maps are shown; nothing is computed anew"),
        "side": choice("layers", ALL, [("all", ALL), *sides], "Maps of which size are averaged"),
        "inject": switch("inject the maps of the first", True, "The second prompt reads by the maps of the first"),
        "share": number("share of steps", 0.8, 0.0, 1.0, 0.1, "The first steps; they settle what is where"),
        "seed": same_seed(),
    }
    return Explorer(
        partial(attention_scene, runs),
        controls,
        keep=True,
        caption="Walk through the words: which of them light up their shape, and from which step on? Then compare the "
        "two pictures of the second prompt, over a few seeds: with the maps of the first one its shapes lie nearer to "
        "the first's (the overlap below says how near), yet not exactly. Maps of words settle much of what is where, "
        "not all. Try it on a shape instead of a colour.",
        alt="A generated picture, the attention map of one word over it, and the pictures of a second prompt on its "
        "own and with the first one's maps; below, one small attention map for every word of the prompt.",
    )
