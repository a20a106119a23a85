"""MNIST as the course's digits are: 8x8 pixels, 17 grey levels, the same tensors. The first call needs a network."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.data.digits import LabelledImages, Split
from lecture_lib.errors import DamagedFileError, UnknownNameError, UnreachableError

# How often each class occurs; the files hold the training set first (LeCun et al.).
COUNTS = {
    "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
}


def mnist(split: Split = "train") -> LabelledImages:
    """The digits of one official split, 60000 to train on and 10000 to test with, in the order of the files.

    scikit-learn fetches them from OpenML (15 MB) and keeps them in ``sklearn.datasets.get_data_home()``. To read them
    there takes a minute or so, once per process. (The course was made without a network: this has run on stand-ins
    for OpenML only.)

    Raises:
        UnknownNameError: the split is neither "train" nor "test".
        UnreachableError: they are not in that folder yet, and OpenML does not answer.
        DamagedFileError: what came is not MNIST.

    Source: LeCun, Bottou, Bengio & Haffner 1998; OpenML data set 554 (mnist_784, version 1).
    """
    if split not in COUNTS:
        raise UnknownNameError(f"split: got {split!r}, expected 'train' or 'test'")
    images, labels = _mnist()
    border = sum(COUNTS["train"])
    part = slice(None, border) if split == "train" else slice(border, None)
    return LabelledImages(images[part].clone(), labels[part].clone())  # the cached table stays untouched


def as_digits(pixels: Float[Tensor, " n 784"]) -> Float[Tensor, " n 1 8 8"]:
    """28x28 pixels in 0..255 as 8x8 levels -1, -7/8, ..., 1: a margin of 2 pixels, means of 4x4, rounded."""
    wide = F.pad(pixels.reshape(-1, 1, 28, 28), (2, 2, 2, 2))
    return F.avg_pool2d(wide, 4).mul(16 / 255).round().div(8).sub(1)


@cache
def _mnist() -> tuple[Float[Tensor, " n 1 8 8"], Int[Tensor, " n"]]:
    """All images, all labels."""
    pixels, labels = _fetched()
    found = tuple(tuple(part.bincount(minlength=10).tolist()) for part in _parts(labels))
    if pixels.shape != (len(labels), 784) or found != tuple(COUNTS.values()):
        raise DamagedFileError(
            f"mnist: got pixels {tuple(pixels.shape)} with classes {found}, expected those of MNIST: remove "
            "openml/ from sklearn.datasets.get_data_home() and call again"
        )
    return as_digits(pixels), labels


def _parts(labels: Int[Tensor, " n"]) -> tuple[Int[Tensor, " a"], Int[Tensor, " b"]]:
    border = sum(COUNTS["train"])
    return labels[:border], labels[border:]


def _fetched() -> tuple[Float[Tensor, " n 784"], Int[Tensor, " n"]]:
    """As OpenML has them; scikit-learn moves a download to its place only when it is complete."""
    from sklearn import datasets  # a second of imports, paid only by who needs MNIST

    try:
        # Of the two parsers, the one that does not need pandas.
        pixels, labels = datasets.fetch_openml(
            "mnist_784", version=1, return_X_y=True, as_frame=False, parser="liac-arff"
        )
    except OSError as error:  # URLError, timeouts, refused connections
        raise UnreachableError(
            f"mnist: got no answer from openml.org ({error}), expected 15 MB of MNIST: connect to a network and call "
            f"again, or copy the folder openml/ of a machine that has fetched it into {datasets.get_data_home()}; "
            "lecture_lib.data.digits needs no network"
        ) from error
    return torch.from_numpy(pixels).float(), torch.from_numpy(labels.astype("int64"))
