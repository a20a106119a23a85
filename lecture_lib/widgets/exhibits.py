"""What the gallery of families hangs up: ten digits of each, with steps and milliseconds, drawn or on record.

All families together draw for many seconds, so the rows that a reader meets first are kept in a small file with the
checksum of the weights that drew them. Where weights have changed since, the row is drawn anew.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib import zoo
from lecture_lib.errors import CourseError, NotDefined
from lecture_lib.families import GenerativeModel
from lecture_lib.files import write_atomically
from lecture_lib.zoo import store

RECORD = Path(__file__).parent / "gallery.npz"
EVERY = "0 to 9"
COLUMNS = 10  # digits in a row
NO_SAMPLES, NO_WEIGHTS = "no samples", "no weights"
_SHORT = 1.0  # seconds: what took less is measured once more, since the first time also pays for imports and weights


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One family.

    Attributes:
        name: in the picture.
        model: loads it, when it is needed.
        labelled: whether it is told which digit it is.
        weights: its name in the zoo, by which its row is found on record; empty for others.
    """

    name: str
    model: Callable[[], GenerativeModel]
    labelled: bool = True
    weights: str = ""


@dataclass(frozen=True)
class Row:
    """What a family drew, or why it did not; ``images`` (10, 1, 8, 8) or None."""

    images: Float[Tensor, " 10 1 8 8"] | None
    why: str = ""


@dataclass(frozen=True)
class First:
    """The row of seed 0 with all ten digits, and what it cost.

    Attributes:
        steps: of the sampler. milliseconds: per digit, ten at once, one core.
        recorded: whether both come from the file, hence from another machine.
    """

    row: Row
    steps: int = 0
    milliseconds: float = 0.0
    recorded: bool = False

    @property
    def price(self) -> str:
        """Steps and milliseconds in words."""
        if self.row.images is None:
            return NO_SAMPLES if self.row.why.startswith(NO_SAMPLES) else NO_WEIGHTS
        return f"{self.steps} step{'s' * (self.steps != 1)}, {_digits(self.milliseconds)} ms"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.2g}"


@cache
def zoo_exhibits() -> tuple[Exhibit, ...]:
    """The families of the zoo in the order of its table; nothing is loaded yet."""
    from lecture_lib.zoo.families import FAMILIES  # here, because notebooks of other lectures need none of them

    return tuple(
        Exhibit(f.name.removeprefix("family-").replace("-", " "), partial(zoo.load, f.name), f.labelled, f.name)
        for f in FAMILIES
    )


# Drawing -------------------------------------------------------------------------------------------------------------


def labels_of(label: int | str, n: int) -> Int[Tensor, " n"]:
    """``n`` labels: the ten digits again and again, or n times the same."""
    return torch.arange(n) % 10 if label == EVERY else torch.full((n,), int(label))


def draw(exhibit: Exhibit, label: int | str, seed: int) -> Float[Tensor, " 10 1 8 8"]:
    """Ten digits of a family, clipped to [-1, 1].

    Raises:
        NotDefined: it draws none. DamagedFileError: its weights are missing.
    """
    cond = labels_of(label, COLUMNS) if exhibit.labelled else None
    with torch.no_grad():
        return exhibit.model().sample(COLUMNS, cond, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)


@lru_cache(maxsize=4096)
def row(exhibit: Exhibit, label: int | str, seed: int) -> Row:
    """The same, remembered, with the reason in place of an error."""
    return first(exhibit).row if (label, seed) == (EVERY, 0) else _row(exhibit, label, seed)


def _row(exhibit: Exhibit, label: int | str, seed: int) -> Row:
    try:
        return Row(draw(exhibit, label, seed))
    except NotDefined as error:
        return Row(None, f"{NO_SAMPLES} ({error})")
    except CourseError as error:
        return Row(None, f"{NO_WEIGHTS} ({error})")


@cache
def first(exhibit: Exhibit) -> First:
    """From the record, if these are still the weights that drew it; else drawn and measured now, once."""
    return on_record().get((exhibit.weights, _checksum(exhibit.weights))) or measured(exhibit)


def measured(exhibit: Exhibit) -> First:
    """Drawn now, with the seconds of the processor that this took."""
    began = time.process_time()
    found = _row(exhibit, EVERY, 0)
    if found.images is None:
        return First(found)
    took = time.process_time() - began
    if took < _SHORT:
        began = time.process_time()
        draw(exhibit, EVERY, 0)
        took = min(took, time.process_time() - began)
    return First(found, exhibit.model().steps, 1000 * took / COLUMNS)


# The record ----------------------------------------------------------------------------------------------------------


def _checksum(weights: str) -> str:
    return str(store.manifest().get(weights, {}).get("sha256", "none"))


@cache
def on_record(path: Path = RECORD) -> dict[tuple[str, str], First]:
    """(name in the zoo, checksum of its weights) -> first row; empty without a file."""
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as kept:
        images = torch.from_numpy(kept["images"]).float() / 127.5 - 1
        rows = zip(kept["weights"], kept["checksums"], images, kept["steps"], kept["milliseconds"], strict=True)
        return {(str(w), str(c)): First(Row(x), int(n), float(ms), recorded=True) for w, c, x, n, ms in rows}


def record(exhibits: Sequence[Exhibit] | None = None, path: Path = RECORD) -> Path:
    """Draw and measure every family of the zoo anew, on one core, and keep it: the last step after new weights."""
    exhibits = zoo_exhibits() if exhibits is None else exhibits
    found = [(exhibit, measured(exhibit)) for exhibit in exhibits]
    found = [(exhibit, f) for exhibit, f in found if f.row.images is not None]
    pixels = [np.rint((f.row.images.float().numpy() + 1) * 127.5).astype(np.uint8) for _, f in found]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        weights=np.array([exhibit.weights for exhibit, _ in found]),
        checksums=np.array([_checksum(exhibit.weights) for exhibit, _ in found]),
        images=np.stack(pixels),
        steps=np.array([f.steps for _, f in found]),
        milliseconds=np.array([f.milliseconds for _, f in found]),
    )
    write_atomically(path, buffer.getvalue())
    on_record.cache_clear(), first.cache_clear(), row.cache_clear()
    return path
