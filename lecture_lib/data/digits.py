"""The 1797 handwritten digits of scikit-learn, 8x8 pixels, with one fixed split that the whole course uses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.errors import UnknownNameError

Split = Literal["train", "test"]
EVERY = 5  # within each class, every fifth image is a test image


@dataclass(frozen=True)
class LabelledImages:
    """Images (n, 1, 8, 8) in [-1, 1], float32, with their labels (n,), int64."""

    images: Float[Tensor, "n 1 8 8"]
    labels: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> LabelledImages:
        """The same images on another device."""
        return LabelledImages(self.images.to(device), self.labels.to(device))

    def of(self, label: int) -> Float[Tensor, "n 1 8 8"]:
        """The images of one class."""
        return self.images[self.labels == label]


def digits(split: Split = "train") -> LabelledImages:
    """The digits of one split: 1442 to train on, 355 to test with, both stratified by class.

    The split involves no randomness: within each class, in the order of the data set, images number
    4, 9, 14, ... (counted from 0) are test images. Neighbours in the file come from the same writer, so both
    halves hold every hand. Grey levels 0..16 become -1..1.

    Raises:
        UnknownNameError: the split is neither "train" nor "test".

    Source: Alpaydin & Kaynak 1998, UCI "Optical Recognition of Handwritten Digits", test part; bundled with
    scikit-learn.
    """
    if split not in ("train", "test"):
        raise UnknownNameError(f"split: got {split!r}, expected 'train' or 'test'")
    images, labels, in_test = _digits()
    chosen = in_test if split == "test" else ~in_test
    return LabelledImages(images[chosen], labels[chosen])  # indexing copies: the cached table stays untouched


@cache
def _digits() -> tuple[Tensor, Tensor, Tensor]:
    """All images, all labels, and which of them are test images."""
    from sklearn.datasets import load_digits  # a second of imports, paid only by who needs digits

    table = load_digits()
    images = torch.from_numpy(table.images).float().div(8.0).sub(1.0)[:, None]
    labels = torch.from_numpy(table.target).long()
    rank = (labels[:, None] == labels[None]).tril().sum(dim=1) - 1  # position within its class
    return images, labels, rank % EVERY == EVERY - 1
