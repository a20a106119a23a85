"""The text-to-image U-Net of Stable Diffusion and SDXL.

    enter -> down[0] -> ... -> down[-1] -> middle -> up[0] -> ... -> up[-1] -> norm, SiLU, leave
                \\                \\                    /               /
                 `--- skips ------`--------------------`--------------`

A level is a row of stages, a stage is a residual block (which hears the time) and, on some levels, a spatial
transformer (which hears the text). Source: Rombach et al. 2022, section 3.3; Podell et al. 2023 (SDXL), section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

from lecture_lib.errors import ShapeError
from lecture_lib.nets.attention import AttentionKernel, fused_attention
from lecture_lib.nets.embeddings import TimestepEmbedding, timestep_features
from lecture_lib.nets.spatial_transformer import SpatialTransformer
from lecture_lib.nets.text_condition import TextCondition, read_condition


class TimeResBlock(nn.Module):
    """Two convolutions and a residual connection; the time is added between them: h += Linear(SiLU(e)).

    Stable Diffusion adds; scale and shift, as in the course's small ``UNet``, belong to Dhariwal & Nichol 2021.
    The last convolution starts at zero.
    """

    def __init__(self, channels: int, out_channels: int, time_dim: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_dim, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Float[Tensor, " b c h w"], e: Float[Tensor, " b d"]) -> Float[Tensor, " b k h w"]:
        hidden = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(e))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(hidden)))


class Stage(nn.Module):
    """A residual block, then a spatial transformer if there is one."""

    def __init__(self, res: TimeResBlock, transformer: SpatialTransformer | None = None) -> None:
        super().__init__()
        self.res, self.transformer = res, transformer

    def forward(
        self, x: Float[Tensor, " b c h w"], e: Float[Tensor, " b d"], cond: TextCondition
    ) -> Float[Tensor, " b k h w"]:
        x = self.res(x, e)
        return x if self.transformer is None else self.transformer(x, cond.tokens, cond.mask)


class DownLevel(nn.Module):
    """The stages at one resolution on the way down, then half the resolution (not on the last level)."""

    def __init__(self, stages: Sequence[Stage], shrink: nn.Conv2d | None) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.shrink = shrink

    def forward(
        self, x: Float[Tensor, " b c h w"], e: Float[Tensor, " b d"], cond: TextCondition
    ) -> list[Float[Tensor, " b k h2 w2"]]:
        """Every feature map on the way: each of them is skipped to the other side; the last also goes on."""
        maps = []
        for stage in self.stages:
            x = stage(x, e, cond)
            maps.append(x)
        return maps if self.shrink is None else [*maps, self.shrink(x)]


class UpLevel(nn.Module):
    """The stages at one resolution on the way up, each fed with a skip, then twice the resolution (not at the top)."""

    def __init__(self, stages: Sequence[Stage], grow: nn.Conv2d | None) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.grow = grow

    def forward(
        self, x: Float[Tensor, " b c h w"], skips: list[Tensor], e: Float[Tensor, " b d"], cond: TextCondition
    ) -> Float[Tensor, " b k h2 w2"]:
        """``skips`` is a stack: the latest feature map of the way down is taken first, and off the list."""
        for stage in self.stages:
            x = stage(torch.cat([x, skips.pop()], dim=1), e, cond)
        return x if self.grow is None else self.grow(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    """Residual block, spatial transformer, residual block, at the lowest resolution."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(
        self, x: Float[Tensor, " b c h w"], e: Float[Tensor, " b d"], cond: TextCondition
    ) -> Float[Tensor, " b c h w"]:
        for stage in self.stages:
            x = stage(x, e, cond)
        return x


class Descent(nn.Module):
    """The way down of a text U-Net: what it shares with its ``ControlNet``, which is a copy of just this half.

    Has the parts ``time``, ``vector`` (or None), ``enter``, ``down`` and ``middle``.
    """

    def embed(self, t: Float[Tensor, " b"], cond: TextCondition) -> Float[Tensor, " b d"]:
        """The vector that every block hears: the time, and SDXL's vector if there is one."""
        e = self.time(t)
        return e if self.vector is None else e + self.vector(cond.vector)

    def descend(
        self, entered: Float[Tensor, " b c h w"], e: Float[Tensor, " b d"], cond: TextCondition
    ) -> tuple[list[Float[Tensor, " b k h2 w2"]], Float[Tensor, " b k h3 w3"]]:
        """All maps that cross over to the way up, ``entered`` being the first, and the output of the middle."""
        skips = [entered]
        for level in self.down:
            skips += level(skips[-1], e, cond)
        return skips, self.middle(skips[-1], e, cond)


class TextUNet(Descent):
    """U-Net on latents with time, text and (SDXL) a pooled vector; the defaults are those of Stable Diffusion 1.

    Args:
        in_channels, out_channels: of the latents, (b, in_channels, h, w) -> (b, out_channels, h, w).
        channels: width at full resolution, a multiple of ``groups``; the time vector has width 4 * channels.
        multipliers: width of each level over ``channels``; each level but the first has half the resolution.
        blocks: residual blocks per level on the way down, one more on the way up.
        depths: transformer blocks in each spatial transformer, per level; 0 for a level without attention.
        middle_depth: the same in the middle.
        heads: attention heads on every level (SD 1); not used when ``head_dim`` is given.
        head_dim: width of a head (SD 2, SDXL: 64): then a level of width c has c / head_dim heads.
        context_dim: width of the text tokens; 0 or None for a U-Net without text.
        vector_dim: width of SDXL's vector, pooled text and ``size_features`` side by side; None: no such input.
        groups: groups of every normalisation.
        kernel: the attention kernel.

    Raises:
        ShapeError: depths do not fit the levels, or a width is no multiple of groups or of the heads.
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        *,
        channels: int = 320,
        multipliers: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 2,
        depths: Sequence[int] = (1, 1, 1, 0),
        middle_depth: int = 1,
        heads: int = 8,
        head_dim: int | None = None,
        context_dim: int | None = 768,
        vector_dim: int | None = None,
        groups: int = 32,
        kernel: AttentionKernel = fused_attention,
    ) -> None:
        super().__init__()
        widths = [channels * m for m in multipliers]
        _check_plan(widths, depths, groups, heads, head_dim)
        self.in_channels, self.context_dim, self.vector_dim = in_channels, context_dim, vector_dim
        time_dim, last = 4 * channels, len(widths) - 1

        def stage(width_in: int, width: int, depth: int) -> Stage:
            res = TimeResBlock(width_in, width, time_dim, groups)
            if not depth:
                return Stage(res)
            n_heads = heads if head_dim is None else width // head_dim
            options = {"depth": depth, "context_dim": context_dim, "groups": groups, "kernel": kernel}
            return Stage(res, SpatialTransformer(width, n_heads, **options))

        self.time = TimestepEmbedding(time_dim, features=channels)
        self.vector = _mlp(vector_dim, time_dim) if vector_dim else None
        self.enter = nn.Conv2d(in_channels, channels, 3, padding=1)
        skips, width, down, up = [channels], channels, [], []  # skips: widths of the maps that cross over
        for level, (wide, depth) in enumerate(zip(widths, depths, strict=True)):
            stages = [stage(width if k == 0 else wide, wide, depth) for k in range(blocks)]
            shrink = nn.Conv2d(wide, wide, 3, stride=2, padding=1) if level < last else None
            down.append(DownLevel(stages, shrink))
            skips += [wide] * (blocks + (level < last))
            width = wide
        self.down = nn.ModuleList(down)
        self.middle = Middle([stage(width, width, middle_depth), stage(width, width, 0)])
        for level, (wide, depth) in reversed(list(enumerate(zip(widths, depths, strict=True)))):
            stages = [stage((width if k == 0 else wide) + skips.pop(), wide, depth) for k in range(blocks + 1)]
            up.append(UpLevel(stages, nn.Conv2d(wide, wide, 3, padding=1) if level > 0 else None))
            width = wide
        self.up = nn.ModuleList(up)
        self.norm = nn.GroupNorm(groups, channels * multipliers[0])
        self.leave = nn.Conv2d(channels * multipliers[0], out_channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, x: Float[Tensor, " b c h w"], t: Float[Tensor, " b"], cond: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, " b k h w"]:
        """The network at time t in 0..1000, given the text.

        Args:
            x: latents whose height and width are multiples of 2^(levels - 1).
            t: one network time per sample.
            cond: ``{"tokens": (b, m, context_dim)}``, with ``"mask": (b, m)`` bool if some tokens are padding (True
                marks the words), and ``"vector": (b, vector_dim)`` if the network has one. None only without text.

        Raises:
            ShapeError: something has the wrong shape or dtype, or is missing.
            UnknownNameError: ``cond`` has an entry of another name.
        """
        self.check(x, t)
        heard = self.read(cond, len(x))
        e = self.embed(t, heard)
        skips, h = self.descend(self.enter(x), e, heard)
        return self.ascend(h, skips, e, heard)

    def ascend(
        self, h: Float[Tensor, " b k h3 w3"], skips: list[Tensor], e: Float[Tensor, " b d"], cond: TextCondition
    ) -> Float[Tensor, " b k h w"]:
        """The way up, from the output of the middle; ``skips`` is used up."""
        for level in self.up:
            h = level(h, skips, e, cond)
        return self.leave(F.silu(self.norm(h)))

    def read(self, cond: Mapping[str, Tensor] | None, batch: int) -> TextCondition:
        """``cond`` checked against this network's inputs."""
        return read_condition(cond, batch, context_dim=self.context_dim, vector_dim=self.vector_dim)

    def check(self, x: Tensor, t: Tensor) -> None:
        """Raise a named error unless x and t fit the network."""
        step = 2 ** (len(self.down) - 1)
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.shape[2] % step or x.shape[3] % step:
            raise ShapeError(
                f"x must have shape (b, {self.in_channels}, h, w), h and w multiples of {step}, got {tuple(x.shape)}"
            )
        if t.shape != (len(x),):
            raise ShapeError(f"t must have shape ({len(x)},), one time per sample, got {tuple(t.shape)}")


def size_features(
    original: Num[Tensor, " b 2"], crop: Num[Tensor, " b 2"], target: Num[Tensor, " b 2"]
) -> Float[Tensor, " b 1536"]:
    """SDXL's micro-conditioning: six numbers, each with 256 features of the ordinary timestep embedding.

    Args:
        original: (height, width) of the training picture before it was resized, in pixels.
        crop: (top, left) corner of the crop; (0, 0) asks for a picture with the object in the middle.
        target: (height, width) of the picture that is made.

    Raises:
        ShapeError: one of them is not (b, 2), or the batches differ.

    Source: Podell et al. 2023, section 2.2. Next to the pooled text (1280) they fill the 2816 of ``vector_dim``.
    """
    for name, pair in (("original", original), ("crop", crop), ("target", target)):
        if pair.shape != (len(original), 2):
            raise ShapeError(f"{name} must have shape (b, 2), the same b as original, got {tuple(pair.shape)}")
    numbers = torch.cat([original, crop, target], dim=1)  # (b, 6)
    return timestep_features(numbers.flatten(), 256).reshape(len(numbers), 6 * 256)


def _mlp(features: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, dim), nn.SiLU(), nn.Linear(dim, dim))


def _check_plan(widths: Sequence[int], depths: Sequence[int], groups: int, heads: int, head_dim: int | None) -> None:
    if len(widths) != len(depths) or not widths:
        raise ShapeError(f"depths must have one entry per level, got {len(depths)} for {len(widths)} levels")
    if any(width % groups for width in widths):
        raise ShapeError(f"groups must divide the width of every level, got groups={groups}, widths {list(widths)}")
    if head_dim is not None and any(width % head_dim for width in widths):
        raise ShapeError(f"head_dim must divide every width, got head_dim={head_dim}, widths {list(widths)}")
    if head_dim is None and any(width % heads for width in widths):
        raise ShapeError(f"heads must divide every width, got heads={heads}, widths {list(widths)}")
