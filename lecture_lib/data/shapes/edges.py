"""Edges of images: the control signal of a ControlNet, which says where things are and nothing about their colour."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lecture_lib.tensors import check_batch, check_number

SMOOTH, SLOPE = torch.tensor([1.0, 2.0, 1.0]) / 4, torch.tensor([-1.0, 0.0, 1.0]) / 2


def sobel(images: Float[Tensor, " b c h w"]) -> tuple[Float[Tensor, " b c h w"], Float[Tensor, " b c h w"]]:
    """Slopes of every channel along x (to the right) and y (downwards), per pixel: Sobel's filter over 8.

    A central difference along one axis, smoothed along the other; the border is repeated outwards.

    Raises:
        ShapeError: images are not a floating batch.
        NonFiniteError: NaN or infinity in an image.
    """
    b, c, h, w = check_batch("images", images).shape
    padded = F.pad(images.reshape(b * c, 1, h, w), (1, 1, 1, 1), mode="replicate")
    smooth, slope = SMOOTH.to(images), SLOPE.to(images)
    kernels = torch.stack([smooth[:, None] * slope, slope[:, None] * smooth])[:, None]  # (2, 1, 3, 3)
    dx, dy = F.conv2d(padded, kernels).reshape(b, c, 2, h, w).unbind(2)
    return dx, dy


def edges(images: Float[Tensor, " b 3 h w"], threshold: float = 0.25) -> Float[Tensor, " b 1 h w"]:
    """1 where the colour changes by more than ``threshold`` per pixel, 0 elsewhere.

    The change is the length of all slopes together, over channels and both directions. It is cut to two values, for its
    size would tell the colour.

    Raises:
        ShapeError, NonFiniteError: as in ``sobel``.
        RangeError: a negative threshold.
    """
    threshold = check_number("threshold", threshold, low=0)
    dx, dy = sobel(images)
    steepness = (dx.square() + dy.square()).sum(dim=1, keepdim=True).sqrt()
    return (steepness > threshold).to(images.dtype)
