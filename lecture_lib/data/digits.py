"""The 1797 handwritten digits of scikit-learn, 8x8 pixels, with one fixed split that the whole course uses."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.errors import UnknownNameError

Split = Literal["train", "test"]
EVERY = 5  # within each class, one image in five is a test image


@dataclass(frozen=True)
class LabelledImages:
    """Images (n, 1, 8, 8) in [-1, 1], float32, with their labels (n,), int64."""

    images: Float[Tensor, " n 1 8 8"]
    labels: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> LabelledImages:
        """The same images on another device."""
        return LabelledImages(self.images.to(device), self.labels.to(device))

    def of(self, label: int) -> Float[Tensor, " n 1 8 8"]:
        """The images of one class."""
        return self.images[self.labels == label]


def digits(split: Split = "train") -> LabelledImages:
    """The digits of one split: 1442 to train on, 355 to test with, both stratified by class.

    The split is as good as random and yet the same for ever: within each class, images are put in the order of the
    SHA-256 of their pixels, and numbers 4, 9, 14, ... (counted from 0) are test images. The order of the file would
    not do: neighbours there come from the same hand, so that every test image would have a twin in the training
    set (the Frechet distance of the two parts in pixels is then 0.27, where 20 random splits give 0.33 to 0.52).
    Grey levels 0..16 become -1..1.

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
    order = [hashlib.sha256(image.astype("u1").tobytes()).digest() for image in table.images]
    in_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        members = sorted((i for i in range(len(labels)) if labels[i] == label), key=lambda i: order[i])
        in_test[members[EVERY - 1 :: EVERY]] = True
    return images, labels, in_test
