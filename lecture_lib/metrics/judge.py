"""An independent judge of classes: it shares neither weights, nor features, nor a training method with any model."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lecture_lib.errors import ShapeError
from lecture_lib.tensors import check_batch


class Judge:
    """Support vector machine with a Gaussian kernel on raw pixels.

    Args:
        images: training images (n, ...) in [-1, 1].
        labels: their classes (n,).

    Raises:
        ShapeError: not one label per image, or (when called) images of another size.

    A judge is no oracle: quote its ``accuracy`` on images it has never seen beside every number it gives, since a
    generator cannot be expected to please it more often than real images do, save by drawing only typical ones.
    """

    def __init__(self, images: Float[Tensor, " n *d"], labels: Int[Tensor, " n"]) -> None:
        from sklearn.svm import SVC  # heavy, and only judges need it

        if labels.shape != (len(images),):
            raise ShapeError(f"labels: got shape {tuple(labels.shape)}, expected ({len(images)},)")
        self.machine = SVC(C=10.0, gamma="scale").fit(_pixels(images), labels.cpu().numpy())

    def predict(self, images: Float[Tensor, " n *d"]) -> Int[Tensor, " n"]:
        """The class of every image; pixels are clipped to [-1, 1] first, as they would be for display."""
        pixels = _pixels(images)
        if pixels.shape[1] != self.machine.n_features_in_:
            got, expected = tuple(images.shape), f"{self.machine.n_features_in_} numbers each, as in training"
            raise ShapeError(f"images: got shape {got}, expected {expected}")
        return torch.from_numpy(self.machine.predict(pixels)).to(images.device)

    def accuracy(self, images: Float[Tensor, " n *d"], labels: Int[Tensor, " n"]) -> float:
        """Share of images in which the judge sees the class they were asked to show."""
        if labels.shape != (len(images),):
            raise ShapeError(f"labels: got shape {tuple(labels.shape)}, expected ({len(images)},)")
        return float((self.predict(images) == labels.to(images.device)).double().mean())


def _pixels(images: Float[Tensor, " n *d"]):
    return check_batch("images", images).detach().flatten(1).clamp(-1, 1).double().cpu().numpy()
