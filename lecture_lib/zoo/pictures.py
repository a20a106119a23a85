"""Sets of labelled 8x8 pictures in 17 grey levels, on which families are trained and by which they are measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lecture_lib.data import LabelledImages, digits
from lecture_lib.data.digits import Split


@dataclass(frozen=True)
class Pictures:
    """Where pictures come from, how many of them measure a family, and where what was trained on them is kept.

    Attributes:
        name: first part of the names of models of these pictures.
        load: split -> pictures.
        drawn: pictures that a family draws per seed, with the labels of as many training pictures.
        scored: test pictures, evenly spread, of which likelihoods are asked and with which as many drawn ones are
            compared neighbour by neighbour.
        shown: training pictures that the judge and probes are fitted on.
        folder: of the weights; None for the package's own.
    """

    name: str
    load: Callable[[Split], LabelledImages]
    drawn: int
    scored: int
    shown: int
    folder: Path | None = None

    def train(self, n: int | None = None) -> LabelledImages:
        """The first ``n`` training pictures; default all."""
        train = self.load("train")
        return LabelledImages(train.images[:n], train.labels[:n])

    def test(self, n: int | None = None) -> LabelledImages:
        """``n`` test pictures at equal distances; default all."""
        test = self.load("test")
        every = 1 if n is None else len(test) // n
        return LabelledImages(test.images[::every][:n], test.labels[::every][:n])


DIGITS = Pictures("digits", digits, drawn=1442, scored=355, shown=1442)
