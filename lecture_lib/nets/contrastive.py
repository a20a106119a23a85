"""Images and texts in one space: an image encoder, and the pair of encoders that CLIP trains."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.text import TextEncoder

FIRST_SCALE, LARGEST_SCALE = 1 / 0.07, 100.0


class ImageEncoder(nn.Module):
    """Convolutions from 32x32 images to vectors: three halvings, then a linear layer that sees where things are.

    A mean over positions would forget what stands left of what, so the 4x4 map is flattened instead.

    Raises:
        ShapeError: images are not (b, 3, 32, 32).
    """

    def __init__(self, dim: int, *, width: int = 24) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.Sequential(
            *_halving(3, width, 5),
            *_halving(width, 2 * width, 3),
            *_halving(2 * width, 3 * width, 3),
            nn.Flatten(),
            nn.Linear(16 * 3 * width, dim),
        )

    def forward(self, images: Float[Tensor, " b 3 32 32"]) -> Float[Tensor, " b d"]:
        if images.ndim != 4 or images.shape[1:] != (3, 32, 32):
            raise ShapeError(f"images: got {tuple(images.shape)}, expected (b, 3, 32, 32)")
        return self.layers(images)


def _halving(channels: int, width: int, kernel: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, width, kernel, 2, kernel // 2), nn.GroupNorm(4, width), nn.SiLU()


class ContrastivePair(nn.Module):
    """A text encoder and an image encoder that agree on which image belongs to which text (CLIP).

    Features are projected without bias and L2-normalised, so similarities are cosines; e^s is learned, starts at 1/0.07
    and never exceeds 100.

    Args:
        text, image: the encoders; their widths are ``text.dim`` and ``image.dim``.
        dim: width of the common space.

    Source: Radford et al. 2021, sections 2.3 and 2.5, figure 3.
    """

    def __init__(self, text: TextEncoder, image: ImageEncoder, dim: int) -> None:
        super().__init__()
        self.text, self.image = text, image
        self.text_projection = nn.Linear(text.dim, dim, bias=False)
        self.image_projection = nn.Linear(image.dim, dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    def embed_images(self, images: Float[Tensor, " b 3 32 32"]) -> Float[Tensor, " b d"]:
        """Images as unit vectors."""
        return F.normalize(self.image_projection(self.image(images)), dim=-1)

    def embed_texts(self, tokens: Int[Tensor, " b n"]) -> Float[Tensor, " b d"]:
        """Texts as unit vectors."""
        return F.normalize(self.text_projection(self.text(tokens).pooled), dim=-1)

    def similarity(self, images: Float[Tensor, " b 3 32 32"], tokens: Int[Tensor, " a n"]) -> Float[Tensor, " b a"]:
        """e^s cos(image i, text j), within +-100: the logits of "image i belongs to text j"."""
        with torch.no_grad():  # as CLIP does between two updates; a clamp that gradients see could never come back
            self.log_scale.clamp_(max=math.log(LARGEST_SCALE))
        return self.log_scale.exp() * self.embed_images(images) @ self.embed_texts(tokens).T
