"""The published diffusion transformers as data, and the road for published weights into them.

SiT uses the same networks (Ma et al. 2024, section 3): only what they are trained to say differs, the velocity instead
of the noise. Its configurations are those of this file, number for number, unused variance outputs included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import CourseError, ShapeError, UnknownNameError
from lecture_lib.nets.attention import AttentionKernel, fused_attention
from lecture_lib.nets.dit import DiT
from lecture_lib.nets.embeddings import LabelEmbedding
from lecture_lib.nets.positions import positions_2d
from lecture_lib.nets.stable_diffusion import load_renamed

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


# Our names on the left, those of diffusers on the right; all rules apply, from top to bottom.
DIT_NAMES = (
    (r"^embed\.", "pos_embed.proj."),
    (r"^positions$", "pos_embed.pos_embed"),
    (r"^time\.mlp\.0\.", "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1."),
    (r"^time\.mlp\.2\.", "transformer_blocks.0.norm1.emb.timestep_embedder.linear_2."),
    (r"^condition\.table\.", "transformer_blocks.0.norm1.emb.class_embedder.embedding_table."),
    (r"^blocks\.(\d+)\.", r"transformer_blocks.\1."),
    (r"(\d+)\.modulation\.", r"\1.norm1.linear."),
    (r"\.attention\.qkv\.", ".attn1.to_qkv."),
    (r"\.attention\.out\.", ".attn1.to_out.0."),
    (r"\.feed_forward\.inner\.", ".ff.net.0.proj."),
    (r"\.feed_forward\.outer\.", ".ff.net.2."),
    (r"^final\.modulation\.", "proj_out_1."),
    (r"^final\.linear\.", "proj_out_2."),
)


def dit_from_diffusers(net: DiT, state_dict: Mapping[str, Tensor]) -> DiT:
    """Load the weights of a ``diffusers.DiTTransformer2DModel`` into ``net``, in place, and return ``net``.

    The table of positions, which the weights do not contain, becomes the published one, with the column first. In two
    constants diffusers' network departs from the paper's code: the frequencies of time are 10000^(-k/127) instead of
    10000^(-k/128), and the second norm adds 1e-5 to the variance instead of 1e-6. Ours keeps to the paper's, with which
    the published weights were trained.

    Args:
        net: a network of the same configuration with a ``LabelEmbedding``; one on the meta device takes over the
            tensors themselves where it can.
        state_dict: the weights by diffusers' names, for instance from a safetensors file.

    Raises:
        UnknownNameError: weights are missing, or there are some that the network has no place for.
        ShapeError: a weight has another shape.
        CourseError: the blocks do not share one embedding of time and label. In all cases ``net`` stays as it was.
    """
    weights = _with_one_embedding(_with_fused_qkv(state_dict))
    patches = weights.get("pos_embed.proj.weight")
    if patches is not None and patches.ndim == 4:  # a convolution there, (d, c, p, q); a linear layer here
        weights["pos_embed.proj.weight"] = patches.permute(0, 2, 3, 1).flatten(1)
        weights["pos_embed.pos_embed"] = _published_positions(net).to(patches)
    return load_renamed(net, weights, _theirs)


def _theirs(name: str) -> str:
    for pattern, theirs in DIT_NAMES:
        name = re.sub(pattern, theirs, name)
    return name


def _with_fused_qkv(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values as one matrix; where one of the three is missing, the others stay as they are."""
    weights = dict(state_dict)
    for name in state_dict:
        if ".attn1.to_q." in name:
            trio = [name.replace("to_q", f"to_{letter}") for letter in "qkv"]
            if all(part in weights for part in trio):
                weights[name.replace("to_q", "to_qkv")] = torch.cat([weights.pop(part) for part in trio])
    return weights


def _with_one_embedding(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The embedding of time and label without the copies that diffusers keeps in every block but the first."""
    kept = {}
    for name, weight in weights.items():
        first = re.sub(r"^transformer_blocks\.\d+\.norm1\.emb\.", "transformer_blocks.0.norm1.emb.", name)
        if first == name or first not in weights:
            kept[name] = weight
        elif not torch.equal(weight, weights[first]):
            raise CourseError(f"state_dict: {name} differs from {first}, expected one embedding shared by all blocks")
    return kept


def _published_positions(net: DiT) -> Float[Tensor, " n d"]:
    """The table for which the published weights were trained: its first half tells the column, ours the row."""
    side = net.size // net.patch
    with torch.device("cpu"):
        rows, columns = positions_2d(side, side, net.embed.out_features).chunk(2, dim=-1)
    return torch.cat([columns, rows], dim=-1)
