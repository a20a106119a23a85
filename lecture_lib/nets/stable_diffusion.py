"""Published configurations of the text U-Net and the autoencoder, and the road for published weights into them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lecture_lib.errors import ShapeError, UnknownNameError
from lecture_lib.nets.autoencoder import KLAutoencoder
from lecture_lib.nets.controlnet import ControlNet
from lecture_lib.nets.text_unet import Stage, TextUNet
from lecture_lib.nets.tools import parameter_count


def stable_diffusion_unet(in_channels: int = 4) -> TextUNet:
    """The U-Net of Stable Diffusion 1.1 to 1.5: 859,520,964 parameters, 3.4 GB in float32.

    Args:
        in_channels: 4; 9 for the inpainting model, which also sees the mask and the masked latent.

    ``with torch.device("meta"): net = stable_diffusion_unet()`` builds it without memory, to be looked at.
    Source: Rombach et al. 2022; configuration ``v1-inference.yaml`` of CompVis/stable-diffusion.
    """
    return TextUNet(in_channels)


def sdxl_unet() -> TextUNet:
    """The U-Net of SDXL base: 2,567,463,684 parameters, 5.1 GB in half precision.

    Its tokens are 2048 wide (both text encoders side by side), its vector is [pooled text 1280 | size_features 1536].
    Source: Podell et al. 2023, table 1; configuration ``sd_xl_base.yaml`` of Stability-AI/generative-models.
    """
    widths = {"multipliers": (1, 2, 4), "depths": (0, 2, 10), "middle_depth": 10}
    return TextUNet(**widths, head_dim=64, context_dim=2048, vector_dim=2816)


def stable_diffusion_autoencoder() -> KLAutoencoder:
    """The autoencoder of Stable Diffusion 1 and 2 and of SDXL: 83,653,863 parameters, f = 8, four latent channels.

    SDXL's has other weights. The U-Nets see latents times a factor: 0.18215 (SD 1, 2), 0.13025 (SDXL).
    Source: Rombach et al. 2022, appendix G; configuration ``autoencoder_kl_32x32x4.yaml`` of CompVis/stable-diffusion.
    """
    return KLAutoencoder()


# Our names on the left, those of diffusers' models on the right; all rules apply, from top to bottom.
UNET_NAMES = (
    (r"^time\.mlp\.0\.", "time_embedding.linear_1."),
    (r"^time\.mlp\.2\.", "time_embedding.linear_2."),
    (r"^vector\.0\.", "add_embedding.linear_1."),
    (r"^vector\.2\.", "add_embedding.linear_2."),
    (r"^enter\.", "conv_in."),
    (r"^norm\.", "conv_norm_out."),
    (r"^leave\.", "conv_out."),
    (r"^(down|up)\.(\d+)\.", r"\1_blocks.\2."),
    (r"^middle\.", "mid_block."),
    (r"\.shrink\.", ".downsamplers.0.conv."),
    (r"\.grow\.", ".upsamplers.0.conv."),
    (r"\.stages\.(\d+)\.res\.", r".resnets.\1."),
    (r"\.stages\.(\d+)\.transformer\.", r".attentions.\1."),
    (r"(resnets\.\d+)\.time\.", r"\1.time_emb_proj."),
    (r"(resnets\.\d+)\.skip\.", r"\1.conv_shortcut."),
    (r"\.blocks\.(\d+)\.", r".transformer_blocks.\1."),
    (r"\.self_attention\.", ".attn1."),
    (r"\.cross_attention\.", ".attn2."),
    (r"(attn\d)\.([qkv])\.", r"\1.to_\2."),
    (r"(attn\d)\.out\.", r"\1.to_out.0."),
    (r"\.feed_forward\.inner\.", ".ff.net.0.proj."),
    (r"\.feed_forward\.outer\.", ".ff.net.2."),
)
# The branch of a ControlNet has these names beside those of the half of the U-Net that it copies.
CONTROLNET_NAMES = (
    *UNET_NAMES,
    (r"^hint\.enter\.", "controlnet_cond_embedding.conv_in."),
    (r"^hint\.layers\.", "controlnet_cond_embedding.blocks."),
    (r"^hint\.leave\.", "controlnet_cond_embedding.conv_out."),
    (r"^zeros\.", "controlnet_down_blocks."),
    (r"^zero_middle\.", "controlnet_mid_block."),
)

AUTOENCODER_NAMES = (
    (r"^moments\.", "quant_conv."),
    (r"^unmix\.", "post_quant_conv."),
    (r"coder\.enter\.", "coder.conv_in."),
    (r"coder\.norm\.", "coder.conv_norm_out."),
    (r"coder\.leave\.", "coder.conv_out."),
    (r"encoder\.levels\.(\d+)\.\d+\.conv\.", r"encoder.down_blocks.\1.downsamplers.0.conv."),
    (r"decoder\.levels\.(\d+)\.\d+\.conv\.", r"decoder.up_blocks.\1.upsamplers.0.conv."),
    (r"encoder\.levels\.(\d+)\.(\d+)\.", r"encoder.down_blocks.\1.resnets.\2."),
    (r"decoder\.levels\.(\d+)\.(\d+)\.", r"decoder.up_blocks.\1.resnets.\2."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.middle\.1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.middle\.1\.out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.skip\.", ".conv_shortcut."),
)
# diffusers renamed the attention of the autoencoder in 2023; files on the hub still have the names on the left.
OLD_AUTOENCODER_NAMES = (
    (r"(attentions\.0)\.query\.", r"\1.to_q."),
    (r"(attentions\.0)\.key\.", r"\1.to_k."),
    (r"(attentions\.0)\.value\.", r"\1.to_v."),
    (r"(attentions\.0)\.proj_attn\.", r"\1.to_out.0."),
)


def unet_from_diffusers(net: TextUNet, state_dict: Mapping[str, Tensor]) -> TextUNet:
    """Load the weights of a ``diffusers.UNet2DConditionModel`` into ``net``, in place, and return ``net``.

    Args:
        net: a network of the same configuration; one on the meta device takes over the tensors themselves.
        state_dict: the weights by diffusers' names, for instance from a safetensors file.

    Raises:
        UnknownNameError: weights are missing, or there are some that the network has no place for.
        ShapeError: a weight has another shape. In both cases ``net`` stays as it was.
    """
    return load_renamed(net, state_dict, lambda name: renamed(name, UNET_NAMES))


def controlnet_from_diffusers(net: ControlNet, state_dict: Mapping[str, Tensor]) -> ControlNet:
    """Load the weights of a ``diffusers.ControlNetModel`` into ``net``, in place, and return ``net``.

    Args:
        net: a branch of the same configuration; one on the meta device takes over the tensors themselves.
        state_dict: the weights by diffusers' names.

    Raises:
        UnknownNameError: weights are missing, or there are some that the network has no place for.
        ShapeError: a weight has another shape. In both cases ``net`` stays as it was.
    """
    return load_renamed(net, state_dict, lambda name: renamed(name, CONTROLNET_NAMES))


def autoencoder_from_diffusers(net: KLAutoencoder, state_dict: Mapping[str, Tensor]) -> KLAutoencoder:
    """Load the weights of a ``diffusers.AutoencoderKL`` into ``net``, in place, and return ``net``.

    Args:
        net: an autoencoder of the same configuration; one on the meta device takes over the tensors themselves.
        state_dict: the weights by diffusers' names, those of before 2023 too.

    Raises:
        UnknownNameError: weights are missing, or there are some that the network has no place for.
        ShapeError: a weight has another shape. In both cases ``net`` stays as it was.
    """
    state_dict = {renamed(name, OLD_AUTOENCODER_NAMES): weight for name, weight in state_dict.items()}
    return load_renamed(net, state_dict, lambda name: renamed(name, AUTOENCODER_NAMES))


def load_renamed(net: nn.Module, state_dict: Mapping[str, Tensor], rename: Callable[[str], str]) -> nn.Module:
    """Load ``state_dict``, whose names are ``rename(our name)``, all or nothing.

    A 1x1 convolution of theirs may be a linear layer of ours.

    Raises:
        UnknownNameError: names are missing or left over.
        ShapeError: a weight has another shape.
    """
    names = {rename(name): name for name in net.state_dict()}
    missing, unexpected = sorted(set(names) - set(state_dict)), sorted(set(state_dict) - set(names))
    if missing or unexpected:
        raise UnknownNameError(
            f"state_dict: {len(missing)} weights are missing{_some(missing)}, "
            f"{len(unexpected)} have no place in the network{_some(unexpected)}"
        )
    expected = {theirs: net.state_dict()[ours].shape for theirs, ours in names.items()}
    weights = {theirs: _without_pixels(state_dict[theirs], expected[theirs]) for theirs in names}
    wrong = [
        f"{name} {tuple(weight.shape)}, expected {tuple(expected[name])}"
        for name, weight in weights.items()
        if weight.shape != expected[name]
    ]
    if wrong:
        raise ShapeError(f"state_dict: {len(wrong)} weights have another shape{_some(wrong)}")
    on_meta = any(p.is_meta for p in net.parameters())
    net.load_state_dict({names[theirs]: weight for theirs, weight in weights.items()}, assign=on_meta)
    return net


class BlockRow(NamedTuple):
    """A row of the table of blocks; ``size`` is the resolution of its output, None where there is no picture."""

    block: str
    kind: str
    size: int | None
    channels: int
    parameters: int


def block_table(net: TextUNet, size: int = 64) -> list[BlockRow]:
    """The network block by block, in the order in which the data pass, for latents of size x size.

    The parameters of the rows add up to those of the network. ``BlockRow._fields`` are the headings.

    Raises:
        ShapeError: size is not a multiple of 2^(levels - 1).
    """
    if size < 1 or size % 2 ** (len(net.down) - 1):
        raise ShapeError(f"size must be a multiple of {2 ** (len(net.down) - 1)}, got {size}")
    rows = [BlockRow("time", "MLP", None, net.time.mlp[-1].out_features, parameter_count(net.time))]
    if net.vector is not None:
        rows.append(BlockRow("vector", "MLP", None, net.vector[-1].out_features, parameter_count(net.vector)))
    rows.append(BlockRow("enter", "conv", size, net.enter.out_channels, parameter_count(net.enter)))
    for i, level in enumerate(net.down):
        rows += _stage_rows(f"down[{i}]", level, size)
        if level.shrink is not None:
            size //= 2
            rows.append(_conv_row(f"down[{i}].shrink", level.shrink, size))
    rows += _stage_rows("middle", net.middle, size)
    for i, level in enumerate(net.up):
        rows += _stage_rows(f"up[{i}]", level, size)
        if level.grow is not None:
            size *= 2
            rows.append(_conv_row(f"up[{i}].grow", level.grow, size))
    leave = parameter_count(net.norm) + parameter_count(net.leave)
    rows.append(BlockRow("leave", "norm + conv", size, net.leave.out_channels, leave))
    return rows


def _stage_rows(place: str, level: nn.Module, size: int) -> list[BlockRow]:
    return [
        BlockRow(f"{place}.stages[{k}]", _kind(stage), size, stage.res.conv2.out_channels, parameter_count(stage))
        for k, stage in enumerate(level.stages)
    ]


def _conv_row(name: str, conv: nn.Conv2d, size: int) -> BlockRow:
    return BlockRow(name, "conv", size, conv.out_channels, parameter_count(conv))


def _kind(stage: Stage) -> str:
    return "res" if stage.transformer is None else f"res + transformer x {len(stage.transformer.blocks)}"


def renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    """``name`` after all rules (pattern, replacement), one after the other."""
    for pattern, theirs in rules:
        name = re.sub(pattern, theirs, name)
    return name


def _without_pixels(weight: Tensor, shape: torch.Size) -> Tensor:
    return weight[..., 0, 0] if weight.shape == (*shape, 1, 1) else weight


def _some(names: list[str], most: int = 5) -> str:
    return f" ({', '.join(names[:most])}{', ...' if len(names) > most else ''})" if names else ""
