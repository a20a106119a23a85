"""What the families measure up to that digits of the same labels cannot tell: features, and words with pictures."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lecture_lib.data import moving_digits
from lecture_lib.data.shapes import COLOURS, SHAPES, SIZES, judge_captions
from lecture_lib.families import VJEPA, CaptionedThings, JointEmbedding, enlarged, thing_words
from lecture_lib.metrics import effective_rank, feature_std, linear_probe
from lecture_lib.zoo.library import load
from lecture_lib.zoo.pictures import DIGITS, Pictures
from lecture_lib.zoo.row import Row

READ = 0.90  # share of test digits that a line must read off the features
CAPTIONED, PAINTED = 0.95, 0.85  # share of captions without a wrong word, and of pictures without a wrong attribute
PICTURES = 500
CLIPS = (4000, 1000)  # to fit the probe on, and to test it


def representation_rows(name: str, model: JointEmbedding, data: Pictures = DIGITS) -> Iterator[Row]:
    """What a straight line reads off frozen features, and whether they have collapsed.

    Clips are of test digits that the model has not seen fly; the probe is fitted on clips of training digits.
    """
    if isinstance(model, VJEPA):
        train, test = moving_digits(CLIPS[0], seed=1), moving_digits(CLIPS[1], seed=2, split="test")
        here, there = model.features(train.clips), model.features(test.clips)
        moved = linear_probe(here, train.directions, there, test.directions)
        yield Row(name, "linear probe of the direction, test digits", (moved,))
    else:
        train, test = data.train(data.shown), data.test()
        here, there = model.features(train.images), model.features(test.images)
    read = linear_probe(here, train.labels, there, test.labels)
    yield Row(name, "linear probe of the digit, test digits", (read,), None if isinstance(model, VJEPA) else READ)
    yield Row(name, "spread of a feature over test data", (feature_std(there),))
    yield Row(name, "effective rank of the features", (effective_rank(there),))


def transfusion_rows(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    """Captions of pictures that it has not seen, and pictures of their captions, both judged by the oracle of shapes.

    Captions take the likeliest word each time.
    """
    model, told, painted = load(name), [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(1000 + seed)
        x, captions = CaptionedThings(PICTURES).draw(generator)
        written = thing_words().decode(model.caption(x, generator=generator, temperature=0.0))
        told.append(written_right(x, written))
        drawn = model.sample(PICTURES, captions, generator=generator)
        painted.append(judge_captions(enlarged(drawn), thing_words().decode(captions)).rates())
    yield Row(name, "captions of new pictures, all right", tuple(told), CAPTIONED)
    for attribute in ("count", "shape", "colour", "size"):
        yield Row(name, f"pictures of captions, {attribute} right", tuple(rates[attribute] for rates in painted))
    yield Row(name, "pictures of captions, all right", tuple(rates["all"] for rates in painted), PAINTED)


def written_right(x: torch.Tensor, texts: list[str]) -> float:
    """Share of texts that are true of their picture; one that is no caption at all is wrong."""
    whole = [i for i, text in enumerate(texts) if _is_caption(text.split())]
    if not whole:
        return 0.0
    return float(judge_captions(enlarged(x[whole]), [texts[i] for i in whole]).all.double().sum() / len(texts))


def _is_caption(words: list[str]) -> bool:
    """Whether it reads "a SIZE COLOUR SHAPE"."""
    return len(words) == 4 and words[0] == "a" and words[1] in SIZES and words[2] in COLOURS and words[3] in SHAPES
