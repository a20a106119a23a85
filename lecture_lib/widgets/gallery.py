"""Every family of the zoo on the same digits: one row each, same labels, same seed, with steps and milliseconds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from PIL import Image

from lecture_lib.viz import image_grid, stack
from lecture_lib.widgets.controls import choice, count
from lecture_lib.widgets.exhibits import (
    COLUMNS,
    EVERY,
    NO_SAMPLES,
    NO_WEIGHTS,
    Exhibit,
    Row,
    first,
    labels_of,
    row,
    zoo_exhibits,
)
from lecture_lib.widgets.explorer import Explorer, Scene

ALL = "all families"
SHEET = 5  # rows of the picture of one family
_NEXT_ROW = 1000  # added to the seed for each further row
_PATIENCE = 0.1  # seconds of work after which what is ready is shown
_PENDING = torch.full((COLUMNS, 1, 8, 8), 0.8)  # light grey: not drawn (yet)
_TALL = 12  # families below one another; more stand in two columns


class Gallery:
    """Rows of some families, as they get ready."""

    def __init__(self, exhibits: Sequence[Exhibit]) -> None:
        self.exhibits = {exhibit.name: exhibit for exhibit in exhibits}

    def scenes(self, family: str, label: int | str, seed: int) -> Iterator[Scene]:
        """Row by row; a picture whenever some patience has passed, and the last one when all are there."""
        if family == ALL:
            rows = [(exhibit, seed) for exhibit in self.exhibits.values()]
        else:
            rows = [(self.exhibits[family], seed + _NEXT_ROW * k) for k in range(SHEET)]
        ready, since = [], time.perf_counter()
        for exhibit, its_seed in rows:
            ready.append((exhibit, row(exhibit, label, its_seed)))
            if len(ready) < len(rows) and time.perf_counter() - since > _PATIENCE:
                yield self._scene(ready, family, label, seed)
                since = time.perf_counter()
        yield self._scene(ready, family, label, seed)

    def _scene(self, ready: Sequence[tuple[Exhibit, Row]], family: str, label: int | str, seed: int) -> Scene:
        if family == ALL:
            found = {exhibit.name: (exhibit, its_row) for exhibit, its_row in ready}
            return Scene(self._wall(found, label), self._words(found, seed), progress=len(ready) / len(self.exhibits))
        return _sheet(ready, label, seed)

    def _wall(self, ready: Mapping[str, tuple[Exhibit, Row]], label: int | str) -> Image.Image:
        names = list(self.exhibits)
        half = -(-len(names) // 2) if len(names) > _TALL else len(names)
        parts = [_column(part, ready, label) for part in (names[:half], names[half:]) if part]
        return stack(*parts, gap=16, sideways=True)

    def _words(self, ready: Mapping[str, tuple[Exhibit, Row]], seed: int) -> str:
        shown = [exhibit for exhibit, its_row in ready.values() if its_row.images is not None]
        where = "as recorded with the weights" if any(first(exhibit).recorded for exhibit in shown) else "here"
        told = (
            f"{len(shown)} of {len(self.exhibits)} families, seed {seed}; milliseconds per digit, ten at once, on one "
            f"core, {where}."
        )
        for words in (NO_SAMPLES, NO_WEIGHTS):
            names = [name for name, (exhibit, _) in ready.items() if first(exhibit).price == words]
            told += f" With {words}: {', '.join(names)}." if names else ""
        return told


def _heads(label: int | str) -> list[str]:
    return [str(int(k)) for k in labels_of(label, COLUMNS)]


def _images(found: Row) -> torch.Tensor:
    return _PENDING if found.images is None else found.images.float()


def _price(exhibit: Exhibit | None) -> str:
    if exhibit is None:
        return "..."
    return first(exhibit).price + ("" if exhibit.labelled or first(exhibit).row.images is None else ", any digit")


def _column(names: Sequence[str], ready: Mapping[str, tuple[Exhibit, Row]], label: int | str) -> Image.Image:
    """Families below one another."""
    rows = [ready.get(name, (None, Row(None))) for name in names]
    labels = [f"{name}\n{_price(exhibit)}" for name, (exhibit, _) in zip(names, rows, strict=True)]
    images = torch.cat([_images(found) for _, found in rows])
    return image_grid(images, columns=COLUMNS, scale=4, gap=3, row_labels=labels, column_labels=_heads(label))


def _sheet(ready: Sequence[tuple[Exhibit, Row]], label: int | str, seed: int) -> Scene:
    """Many digits of one family."""
    exhibit, found = ready[0]
    images = torch.cat([_images(its_row) for _, its_row in ready] + [_PENDING] * (SHEET - len(ready)))
    title = f"{exhibit.name}: {first(exhibit).price} per digit"
    picture = image_grid(images, columns=COLUMNS, scale=6, gap=3, title=title, column_labels=_heads(label))
    if found.images is None:
        return Scene(picture, f"{exhibit.name}: {found.why}.", progress=1.0)
    told = "" if exhibit.labelled else " It is not told which digit to draw."
    source = f"{type(exhibit.model()).__name__}: {exhibit.model().source}."
    note = f"{source} The first row is that of seed {seed} among all families.{told}"
    return Scene(picture, note, progress=len(ready) / SHEET)


def family_gallery(exhibits: Sequence[Exhibit] | None = None) -> Explorer:
    """One row of digits per family, or more digits of one family.

    Args:
        exhibits: at least one; default all families of the zoo. ``Exhibit("mine", lambda: model)`` shows another one.
    """
    exhibits = zoo_exhibits() if exhibits is None else tuple(exhibits)
    digits = [(EVERY, EVERY), *((str(k), k) for k in range(10))]
    names = [ALL, *(exhibit.name for exhibit in exhibits)]
    controls = {
        "family": choice("families", ALL, names, "All of them, or more digits of one"),
        "label": choice("digits", EVERY, digits, "Which digits are asked for; families without labels draw any"),
        "seed": count("seed", 0, 0, 99, "The same for every family"),
    }
    return Explorer(
        Gallery(exhibits).scenes,
        controls,
        caption="One sentence for all of them: noise in, a digit out. Compare the steps with the milliseconds: a step "
        "of one family is not a step of another. Flows and diffusions start from the same noise here: do their rows "
        "resemble each other more than they resemble the others? Then ask for one digit only: whose ten are all "
        "alike? (Seed 0 with all ten digits is on record; anything else is drawn now, row by row, and can be stopped.)",
        alt="Rows of ten digits, one row for each generative family, with its name, its number of steps and its "
        "milliseconds per digit on the left.",
    )
