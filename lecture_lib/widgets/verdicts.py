"""What the oracle of the shapes world sees in pictures, in words that fit below them."""

from __future__ import annotations

import re

from jaxtyping import Float
from torch import Tensor

from lecture_lib.data.shapes import Seen, Verdict, judge_captions, parse, read, relation
from lecture_lib.data.shapes.reading import ATTRIBUTES, FIT
from lecture_lib.errors import UnknownNameError

RIGHT = "\u2713 all right"


def plain(prompt: str) -> str:
    """A prompt as the tokenizer reads it: small letters, no commas and full stops, single blanks."""
    return " ".join(re.sub(r"[,.]", " ", prompt.lower()).split())


def seen_words(seen: Seen) -> str:
    """ "large green triangle above small blue ring, on black"; what fits no template is called "something"."""
    things = [
        f"{thing.size} {thing.colour} {thing.shape}" if misfit <= FIT else f"something {thing.colour}"
        for thing, misfit in zip(seen.things, seen.misfits, strict=True)
    ]
    if len(things) == 2:
        words = f" {relation(*seen.things)} ".join(things)
    else:
        words = ", ".join(things[:3]) or "nothing"
    words += f" and {len(things) - 3} more" if len(things) > 3 else ""
    return words + ("" if seen.background == "grey" else f", on {seen.background}")


def verdicts(images: Float[Tensor, " n 3 32 32"], prompt: str) -> list[str]:
    """For each image what the oracle reads, and which of the prompt's wishes are fulfilled.

    A prompt that is no caption of the shapes world (``parse`` refuses it) is not judged, only the images are read.

    Raises:
        ShapeError, NonFiniteError: as in ``data.shapes.read``.
    """
    words = [seen_words(seen) for seen in read(images)]
    prompt = plain(prompt)
    try:
        parse(prompt)
    except UnknownNameError:
        return words
    verdict = judge_captions(images, [prompt] * len(images))
    return [f"{text}\n{_judged(verdict, i)}" for i, text in enumerate(words)]


def _judged(verdict: Verdict, i: int) -> str:
    wrong = [name for name in ATTRIBUTES if not getattr(verdict, name)[i]]
    if "count" in wrong:  # with the wrong number of things nothing else can be compared but the background
        wrong = ["number of shapes", *(["background"] if "background" in wrong else [])]
    return f"\u2717 wrong {', '.join(wrong)}" if wrong else RIGHT
