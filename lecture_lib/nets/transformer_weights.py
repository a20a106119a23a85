"""The road for published weights, by diffusers' names, into ``DiT``, ``MMDiT`` and ``Flux``.

Same numbers, differently kept: queries, keys and values are one matrix here; a patch has its features in the order
(row, column, channel), and theirs is a convolution (DiT, SD3) or has the channel first (FLUX); the last modulation of
SD3 and FLUX is (shift, scale) here and (scale, shift) there, that of SD3's text in its last block too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import CourseError, ShapeError
from lecture_lib.nets.dit import DiT
from lecture_lib.nets.flux import Flux
from lecture_lib.nets.mmdit import MMDiT
from lecture_lib.nets.positions import positions_2d
from lecture_lib.nets.stable_diffusion import load_renamed, renamed

# Matrices of theirs that are one of ours, rows below rows: the name of the whole, and those of its parts.
JOINED = (
    (".attn1.to_qkv.", (".attn1.to_q.", ".attn1.to_k.", ".attn1.to_v.")),  # DiT
    (".to_qkv_mlp.", (".attn.to_q.", ".attn.to_k.", ".attn.to_v.", ".proj_mlp.")),  # single-stream blocks
    (".attn.to_qkv.", (".attn.to_q.", ".attn.to_k.", ".attn.to_v.")),
    (".attn.add_qkv_proj.", (".attn.add_q_proj.", ".attn.add_k_proj.", ".attn.add_v_proj.")),
)
# Our names on the left, those of diffusers' models on the right; all rules apply, from top to bottom.
COMMON_NAMES = (
    (r"^condition\.time\.mlp\.", "time_text_embed.timestep_embedder.mlp."),
    (r"^condition\.scale\.mlp\.", "time_text_embed.guidance_embedder.mlp."),
    (r"^condition\.vector\.", "time_text_embed.text_embedder.mlp."),
    (r"\.mlp\.0\.", ".linear_1."),
    (r"\.mlp\.2\.", ".linear_2."),
    (r"^words\.", "context_embedder."),
    (r"^final\.modulation\.", "norm_out.linear."),
    (r"^final\.linear\.", "proj_out."),
    (r"^blocks\.", "transformer_blocks."),
    (r"\.image\.modulation\.", ".norm1.linear."),
    (r"\.text\.modulation\.", ".norm1_context.linear."),
    (r"\.attention\.image\.qkv\.", ".attn.to_qkv."),
    (r"\.attention\.text\.qkv\.", ".attn.add_qkv_proj."),
    (r"\.attention\.image\.out\.", ".attn.to_out.0."),
    (r"\.attention\.text\.out\.", ".attn.to_add_out."),
    (r"\.attention\.image\.qk_norm\.([qk])_gain", r".attn.norm_\1.weight"),
    (r"\.attention\.text\.qk_norm\.([qk])_gain", r".attn.norm_added_\1.weight"),
    (r"\.image\.feed_forward\.inner\.", ".ff.net.0.proj."),
    (r"\.image\.feed_forward\.outer\.", ".ff.net.2."),
    (r"\.text\.feed_forward\.inner\.", ".ff_context.net.0.proj."),
    (r"\.text\.feed_forward\.outer\.", ".ff_context.net.2."),
)
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
SD3_NAMES = (
    (r"^embed\.", "pos_embed.proj."),
    (r"^positions$", "pos_embed.pos_embed"),
    *COMMON_NAMES,
)
FLUX_NAMES = (
    (r"^embed\.", "x_embedder."),
    (r"^single\.(\d+)\.modulation\.", r"single_transformer_blocks.\1.norm.linear."),
    (r"^single\.(\d+)\.inner\.", r"single_transformer_blocks.\1.to_qkv_mlp."),
    (r"^single\.(\d+)\.outer\.", r"single_transformer_blocks.\1.proj_out."),
    (r"^single\.(\d+)\.qk_norm\.([qk])_gain", r"single_transformer_blocks.\1.attn.norm_\2.weight"),
    *COMMON_NAMES,
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
    weights = _with_one_embedding(_joined(state_dict))
    if "pos_embed.proj.weight" in weights:  # both compute the table of positions, neither file contains it
        weights["pos_embed.pos_embed"] = _published_positions(net).to(weights["pos_embed.proj.weight"])
    _change(weights, "pos_embed.proj.weight", _flat_patches)
    return load_renamed(net, weights, lambda name: renamed(name, DIT_NAMES))


def mmdit_from_diffusers(net: MMDiT, state_dict: Mapping[str, Tensor]) -> MMDiT:
    """Load the weights of a ``diffusers.SD3Transformer2DModel`` into ``net``, in place, and return ``net``.

    Args:
        net: a network of the same configuration; one on the meta device takes the tensors over.
        state_dict: the weights by diffusers' names, for instance from a safetensors file.

    Raises:
        UnknownNameError: weights are missing, or there are some that the network has no place for.
        ShapeError: a weight has another shape. In both cases ``net`` stays as it was.
    """
    weights = _joined(state_dict)
    _change(weights, "pos_embed.proj.weight", _flat_patches)
    _change(weights, "pos_embed.pos_embed", lambda table: table.squeeze(0))
    for name in ("norm_out.linear", f"transformer_blocks.{len(net.blocks) - 1}.norm1_context.linear"):
        _swap_halves(weights, name)
    return load_renamed(net, weights, lambda name: renamed(name, SD3_NAMES))


def flux_from_diffusers(net: Flux, state_dict: Mapping[str, Tensor]) -> Flux:
    """Load the weights of a ``diffusers.FluxTransformer2DModel`` into ``net``, in place, and return ``net``.

    Args:
        net: a network of the same configuration; one on the meta device takes the tensors over.
        state_dict: the weights by diffusers' names, for instance from a safetensors file.

    Raises:
        UnknownNameError: weights are missing, or there are some that the network has no place for.
        ShapeError: a weight has another shape. In both cases ``net`` stays as it was.
    """
    weights = _joined(state_dict)
    _change(weights, "x_embedder.weight", lambda w: _channel_last(w.T, net.patch).T)
    for name in ("proj_out.weight", "proj_out.bias"):
        _change(weights, name, lambda w: _channel_last(w, net.patch))
    _swap_halves(weights, "norm_out.linear")
    return load_renamed(net, weights, lambda name: renamed(name, FLUX_NAMES))


def _joined(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    weights = dict(state_dict)
    for whole, parts in JOINED:
        for first in [name for name in weights if parts[0] in name]:
            names = [first.replace(parts[0], part) for part in parts]
            if not all(name in weights for name in names):
                continue  # the names that are left over will be reported
            rows = [weights.pop(name) for name in names]
            if len({row.shape[1:] for row in rows}) > 1:
                raise ShapeError(f"state_dict: {names} differ in width, got {[tuple(row.shape) for row in rows]}")
            weights[first.replace(parts[0], whole)] = torch.cat(rows)
    return weights


def _change(weights: dict[str, Tensor], name: str, change: Callable[[Tensor], Tensor]) -> None:
    if name in weights:
        weights[name] = change(weights[name])


def _swap_halves(weights: dict[str, Tensor], layer: str) -> None:
    for name in (f"{layer}.weight", f"{layer}.bias"):
        _change(weights, name, lambda w: w.roll(len(w) // 2, dims=0))


def _channel_last(rows: Tensor, patch: int) -> Tensor:
    """Rows of (channel, row, column) in the order (row, column, channel); as they are if they fill no patch."""
    if len(rows) % patch**2:
        return rows
    return rows.unflatten(0, (-1, patch**2)).transpose(0, 1).flatten(0, 1)


def _flat_patches(kernel: Tensor) -> Tensor:
    """The kernel of a convolution (d, c, p, q) as a matrix (d, p q c)."""
    return kernel.movedim(1, -1).flatten(1) if kernel.ndim == 4 else kernel


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
