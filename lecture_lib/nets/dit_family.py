"""The published diffusion transformers as data: four sizes, three patches, and what the paper reports of each.

SiT uses the same networks (Ma et al. 2024, section 3): only what they are trained to say differs, the velocity instead
of the noise. Its configurations are those of this file, number for number, unused variance outputs included.
"""

from __future__ import annotations

from typing import NamedTuple

from lecture_lib.errors import ShapeError, UnknownNameError
from lecture_lib.nets.attention import AttentionKernel, fused_attention
from lecture_lib.nets.dit import DiT
from lecture_lib.nets.embeddings import LabelEmbedding

TIME_FEATURES = 256  # sinusoids of the time, before its MLP


class DiTSize(NamedTuple):
    """Width of the tokens, number of blocks, attention heads."""

    dim: int
    depth: int
    heads: int


# Peebles & Xie 2023, table 1; S, B and L are those of the vision transformers (Dosovitskiy et al. 2021).
DIT_SIZES = {
    "S": DiTSize(384, 12, 6),
    "B": DiTSize(768, 12, 12),
    "L": DiTSize(1024, 24, 16),
    "XL": DiTSize(1152, 28, 16),
}


class DiTReport(NamedTuple):
    """What the paper says of a model on ImageNet at 256x256 pixels.

    Attributes:
        gflops: cost of one evaluation; the paper's "Gflops" are 10^9 multiply-adds, two operations each.
        fid: Frechet distance of 50,000 samples after 400,000 updates, without guidance.
    """

    gflops: float
    fid: float


# Peebles & Xie 2023, table 4; the name is size/patch.
DIT_REPORTS = {
    "S/8": DiTReport(0.36, 153.60),
    "S/4": DiTReport(1.41, 100.41),
    "S/2": DiTReport(6.06, 68.40),
    "B/8": DiTReport(1.42, 122.74),
    "B/4": DiTReport(5.56, 68.38),
    "B/2": DiTReport(23.01, 43.47),
    "L/8": DiTReport(5.01, 118.87),
    "L/4": DiTReport(19.70, 45.64),
    "L/2": DiTReport(80.71, 23.33),
    "XL/8": DiTReport(7.39, 106.41),
    "XL/4": DiTReport(29.05, 43.01),
    "XL/2": DiTReport(118.64, 19.47),
}


def dit_network(
    name: str,
    *,
    size: int = 32,
    channels: int = 4,
    classes: int = 1000,
    out_channels: int | None = None,
    kernel: AttentionKernel = fused_attention,
) -> DiT:
    """A network of the paper, untrained: ``dit_network("XL/2")`` has 675,129,632 parameters, 2.7 GB in float32.

    ``with torch.device("meta"): net = dit_network("XL/2")`` builds it without memory, to be looked at.

    Args:
        name: size/patch, one of ``DIT_REPORTS``.
        size, channels: of the latents; 32 and 4 for pictures of 256 x 256 pixels, 64 and 4 for 512 x 512.
        classes: number of labels; ``classes`` itself is the null class.
        out_channels: default 2 * channels, for noise and variance (Nichol & Dhariwal 2021, eq. 15).
        kernel: the attention kernel.

    Raises:
        UnknownNameError: no such network.
        ShapeError: size is not a multiple of the patch.

    Source: Peebles & Xie 2023, tables 1 and 4.
    """
    (dim, depth, heads), patch = _size_and_patch(name)
    return DiT(
        size,
        channels,
        patch=patch,
        dim=dim,
        depth=depth,
        heads=heads,
        condition=LabelEmbedding(classes, dim),
        out_channels=2 * channels if out_channels is None else out_channels,
        kernel=kernel,
    )


class DiTCost(NamedTuple):
    """Multiply-adds of one evaluation on one picture, by what they are paid for.

    Attributes:
        once: for the picture as a whole: the embedding of time and the modulations.
        tokens: for each token: linear layers. Linear in the number of tokens.
        pairs: for each pair of tokens: QK^T and AV in the attention. Quadratic in it.
    """

    once: int
    tokens: int
    pairs: int

    @property
    def total(self) -> int:
        return self.once + self.tokens + self.pairs


def dit_cost(name: str, *, size: int = 32, channels: int = 4, out_channels: int | None = None) -> DiTCost:
    """What one evaluation of ``dit_network(name, ...)`` costs, with n tokens of width d and L blocks:

        L n (3 d^2 + d^2 + 4 d^2 + 4 d^2)     queries, keys, values; output of the attention; feed-forward in and out
        L 2 n^2 d                             attention scores, and values weighted by them
        L 6 d^2                               shift, scale and gate, twice

    and the layers at both ends. The same as ``multiply_adds`` counts, without building the network.

    Raises:
        UnknownNameError, ShapeError: as ``dit_network``.
    """
    (dim, depth, _), patch = _size_and_patch(name)
    if size % patch:
        raise ShapeError(f"size must be a multiple of patch, got size={size}, patch={patch}")
    n = (size // patch) ** 2
    features = patch**2 * (channels + (2 * channels if out_channels is None else out_channels))
    once = TIME_FEATURES * dim + dim**2 + depth * 6 * dim**2 + 2 * dim**2
    return DiTCost(once, n * (depth * 12 * dim**2 + features * dim), depth * 2 * n**2 * dim)


def _size_and_patch(name: str) -> tuple[DiTSize, int]:
    if name not in DIT_REPORTS:
        raise UnknownNameError(f"name: got {name!r}, expected one of {', '.join(DIT_REPORTS)}")
    letters, patch = name.split("/")
    return DIT_SIZES[letters], int(patch)
