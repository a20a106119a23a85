"""ControlNet: a frozen network obeys a picture, the hint, through a trainable copy of its first half.

    U-Net       skip_i <- skip_i + Z_i(copy_i),  middle <- middle + Z(copy of the middle)      copy(enter(x) + E(hint))
    DiT         x_{i+1} = block_i(x_i) + Z_j(copy_j),  j = floor(i k / n)                      copy(embed(x) + Z(hint))

Every Z is a 1x1 convolution (a linear layer on tokens) that starts at zero, as does the last layer of E. So at birth
the controlled network is the frozen one, bit for bit, and the copy is heard only once the Z have moved: the first
gradient reaches the Z alone, dL/dZ being proportional to what goes in, dL/d(copy) to Z = 0.

Source: Zhang et al. 2023 (ControlNet), sections 3.1 and 3.2; for transformers Chen et al. 2024 (PixArt-delta).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.errors import RangeError, ShapeError, UnknownNameError
from lecture_lib.nets.dit import DiT, patchify
from lecture_lib.nets.text_condition import TextCondition
from lecture_lib.nets.text_unet import Descent, TextUNet
from lecture_lib.tensors import check_count, check_number


def zeroed(layer: nn.Module) -> nn.Module:
    """``layer`` with all its weights set to zero, in place."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


class HintEncoder(nn.Module):
    """E: the hint, an image of f times the latent's side, as a map like the first one of the U-Net; zero at birth.

    Args:
        channels: of the hint, 1 for edges.
        out_channels: width of the U-Net at full resolution.
        widths: of the layers; between two of them the side is halved, so f = 2^(len(widths) - 1).

    Source: Zhang et al. 2023, section 3.2; widths 16, 32, 96, 256 as in the published weights (the paper says
    16, 32, 64, 128).
    """

    def __init__(self, channels: int, out_channels: int, widths: Sequence[int] = (16, 32, 96, 256)) -> None:
        super().__init__()
        self.channels, self.factor = channels, 2 ** (len(widths) - 1)
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.layers = nn.ModuleList()
        for width, wider in itertools.pairwise(widths):
            self.layers.append(nn.Conv2d(width, width, 3, padding=1))
            self.layers.append(nn.Conv2d(width, wider, 3, padding=1, stride=2))
        for layer in (self.enter, *self.layers):  # Gaussian, of the size that keeps the signal: hints are mostly zero
            nn.init.kaiming_normal_(layer.weight)
        self.leave = zeroed(nn.Conv2d(widths[-1], out_channels, 3, padding=1))

    def forward(self, hint: Float[Tensor, " b c f*h f*w"]) -> Float[Tensor, " b k h w"]:
        h = F.silu(self.enter(hint))
        for layer in self.layers:
            h = F.silu(layer(h))
        return self.leave(h)


class ControlNet(Descent):
    """The trainable branch for a ``TextUNet``: copies of its way down and its middle, each output through a zero Z.

    Args:
        base: the network to be controlled; its weights are copied as they are now. (A branch built before them takes
            them up with ``load_state_dict(base.state_dict(), strict=False)``: equal parts have equal names.)
        hint: encoder of the hint, with ``base.enter.out_channels`` output channels.
    """

    def __init__(self, base: TextUNet, hint: HintEncoder) -> None:
        super().__init__()
        for part in ("time", "vector", "enter", "down", "middle"):
            setattr(self, part, copy.deepcopy(getattr(base, part)))
        self.requires_grad_(True)  # base may be frozen already
        self.hint = hint
        self.zeros = nn.ModuleList(zeroed(nn.Conv2d(width, width, 1)) for width in self.widths())
        width = self.middle.stages[-1].res.conv2.out_channels
        self.zero_middle = zeroed(nn.Conv2d(width, width, 1))

    def widths(self) -> list[int]:
        """Channels of the maps that cross over to the way up, in the order of ``descend``."""
        widths = [self.enter.out_channels]
        for level in self.down:
            stages = [stage.res.conv2.out_channels for stage in level.stages]
            widths += stages if level.shrink is None else [*stages, level.shrink.out_channels]
        return widths

    def forward(
        self, x: Float[Tensor, " b c h w"], t: Float[Tensor, " b"], cond: TextCondition, hint: Tensor
    ) -> tuple[list[Float[Tensor, " b k h2 w2"]], Float[Tensor, " b k h3 w3"]]:
        """What is to be added to every skip of the base, and to the output of its middle."""
        expected = (len(x), self.hint.channels, self.hint.factor * x.shape[2], self.hint.factor * x.shape[3])
        if hint.shape != expected:
            raise ShapeError(f"cond['hint']: got shape {tuple(hint.shape)}, expected {expected}")
        e = self.embed(t, cond)
        skips, middle = self.descend(self.enter(x) + self.hint(hint), e, cond)
        return [zero(skip) for zero, skip in zip(self.zeros, skips, strict=True)], self.zero_middle(middle)


class ControlledUNet(nn.Module):
    """A frozen ``TextUNet`` with its ``ControlNet``; called as the U-Net is, with "hint" as one more condition.

    Args:
        base: frozen here, in place.
        control: the branch, trained.
        strength: factor on all that the branch adds; 0 is the base alone.
    """

    def __init__(self, base: TextUNet, control: ControlNet, *, strength: float = 1.0) -> None:
        super().__init__()
        self.base, self.control = base.requires_grad_(False), control
        self.strength = check_number("strength", strength)

    def forward(
        self, x: Float[Tensor, " b c h w"], t: Float[Tensor, " b"], cond: Mapping[str, Tensor]
    ) -> Float[Tensor, " b k h w"]:
        """The controlled network at time t in 0..1000.

        Args:
            x, t: as in ``TextUNet``.
            cond: what ``TextUNet`` is told, and ``"hint": (b, channels, f h, f w)``.

        Raises:
            ShapeError, UnknownNameError: as in ``TextUNet``; no hint, or one of another shape.
        """
        hint, rest = split_hint(cond)
        self.base.check(x, t)
        heard = self.base.read(rest, len(x))
        e = self.base.embed(t, heard)
        skips, middle = self.base.descend(self.base.enter(x), e, heard)
        added, added_middle = self.control(x, t, heard, hint)
        skips = [skip + self.strength * more for skip, more in zip(skips, added, strict=True)]
        return self.base.ascend(middle + self.strength * added_middle, skips, e, heard)


class DiTControlNet(nn.Module):
    """The trainable branch for a ``DiT``: copies of its first blocks, each output through a zero linear layer.

    Embeddings of patches, time and class are the base's own.

    Args:
        base: the network to be controlled; the weights of its blocks are copied as they are now.
        copies: number k of blocks that are copied, 1 to ``len(base.blocks)``.
        hint_channels, hint_size: the hints are (b, hint_channels, hint_size, hint_size) and are cut into as many
            patches as the base's images, so hint_size must be a multiple of ``base.size / base.patch``.

    Raises:
        RangeError: copies out of range.
        ShapeError: hint_size does not fit.
    """

    def __init__(self, base: DiT, *, copies: int, hint_channels: int, hint_size: int) -> None:
        super().__init__()
        if not 1 <= check_count("copies", copies) <= len(base.blocks):
            raise RangeError(f"copies: got {copies}, expected 1..{len(base.blocks)}, the number of blocks")
        grid, dim = base.size // base.patch, base.embed.out_features
        if hint_size % grid:
            raise ShapeError(f"hint_size: got {hint_size}, expected a multiple of {grid}, the patches per side")
        self.shape, self.patch = (hint_channels, hint_size, hint_size), hint_size // grid
        self.hint = zeroed(nn.Linear(self.patch**2 * hint_channels, dim))
        self.blocks = copy.deepcopy(base.blocks[:copies]).requires_grad_(True)
        self.zeros = nn.ModuleList(zeroed(nn.Linear(dim, dim)) for _ in self.blocks)

    def forward(
        self, tokens: Float[Tensor, " b n d"], c: Float[Tensor, " b d"], hint: Float[Tensor, " b k s s"]
    ) -> list[Float[Tensor, " b n d"]]:
        """What each copy adds, given the base's embedded tokens and its condition."""
        if hint.shape != (len(tokens), *self.shape):
            raise ShapeError(f"cond['hint']: got shape {tuple(hint.shape)}, expected {(len(tokens), *self.shape)}")
        tokens = tokens + self.hint(patchify(hint, self.patch))
        added = []
        for block, zero in zip(self.blocks, self.zeros, strict=True):
            tokens = block(tokens, c)
            added.append(zero(tokens))
        return added


class ControlledDiT(nn.Module):
    """A frozen ``DiT`` with its ``DiTControlNet``: k copies serve n blocks, block i the copy floor(i k / n).

    With k = n each block has its own copy, with k < n neighbours share one, as in the ControlNets of SD3. (PixArt-delta
    lets the first k blocks have one each, and the others none.)

    Args:
        base: frozen here, in place.
        control: the branch, trained.
        strength: factor on all that the branch adds; 0 is the base alone.
    """

    def __init__(self, base: DiT, control: DiTControlNet, *, strength: float = 1.0) -> None:
        super().__init__()
        self.base, self.control = base.requires_grad_(False), control
        self.strength = check_number("strength", strength)

    def forward(
        self, x: Float[Tensor, " b c h w"], t: Float[Tensor, " b"], cond: Mapping[str, Tensor]
    ) -> Float[Tensor, " b k h w"]:
        """The controlled network at time t in 0..1000; ``cond`` is {"hint": (b, c, s, s)} and "label" for the base.

        Raises:
            ShapeError, UnknownNameError: as in ``DiT``; no hint, one of another shape, or an entry of another name.
        """
        hint, rest = split_hint(cond)
        if unknown := set(rest) - {"label"}:
            raise UnknownNameError(f"cond: got {sorted(unknown)}, expected 'hint' and 'label'")
        tokens, c = self.base.enter(x, t, rest.get("label"))
        added, n = self.control(tokens, c, hint), len(self.base.blocks)
        for i, block in enumerate(self.base.blocks):
            tokens = block(tokens, c) + self.strength * added[i * len(added) // n]
        return self.base.leave(tokens, c)


def split_hint(cond: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The hint, and everything else that was said.

    Raises:
        ShapeError: ``cond`` is no dictionary with a hint.
    """
    if not isinstance(cond, Mapping) or not isinstance(cond.get("hint"), Tensor):
        got = sorted(cond) if isinstance(cond, Mapping) else type(cond).__name__
        raise ShapeError(f"cond: got {got}, expected a dictionary with a tensor 'hint'")
    return cond["hint"], {name: value for name, value in cond.items() if name != "hint"}
