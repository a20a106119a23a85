"""The published diffusion transformers as data: four sizes, three patches, and what the paper reports of each.

SiT uses the same networks (Ma et al. 2024, section 3): only what they are trained to say differs, the velocity instead
of the noise. Its configurations are those of this file, number for number, unused variance outputs included.
"""

from __future__ import annotations

from typing import NamedTuple

from lecture_lib.errors import UnknownNameError
from lecture_lib.nets.attention import AttentionKernel, fused_attention
from lecture_lib.nets.dit import DiT
from lecture_lib.nets.embeddings import LabelEmbedding


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
    if name not in DIT_REPORTS:
        raise UnknownNameError(f"name: got {name!r}, expected one of {', '.join(DIT_REPORTS)}")
    letters, patch = name.split("/")
    dim, depth, heads = DIT_SIZES[letters]
    return DiT(
        size,
        channels,
        patch=int(patch),
        dim=dim,
        depth=depth,
        heads=heads,
        condition=LabelEmbedding(classes, dim),
        out_channels=2 * channels if out_channels is None else out_channels,
        kernel=kernel,
    )
