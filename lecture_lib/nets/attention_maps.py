"""Attention maps seen and changed from outside: which pixels read which word, and what if they read another.

Both context managers put a tap around the kernel of every layer that reads text, by cross-attention or by joint
attention, and take it off again. Taps nest: one that is put on later sees the maps that the earlier ones return.

A joint attention map has four quadrants, since text and image are one sequence, [text; image]: ``quadrants`` cuts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lecture_lib.errors import RangeError, ShapeError, UnknownNameError
from lecture_lib.nets.attention import (
    AttentionKernel,
    KeyMask,
    MultiHeadAttention,
    attention_weights,
    explicit_attention,
    fused_attention,
)
from lecture_lib.nets.flux import SingleStreamBlock
from lecture_lib.nets.joint_attention import JointAttention
from lecture_lib.nets.spatial_transformer import CrossAttention

Control = Callable[[str, Tensor], Tensor]
"""(name of the layer, probabilities (b, heads, n, m)) -> probabilities of the same shape."""


@dataclass(frozen=True)
class Tap:
    """An attention kernel that shows its probabilities to ``control`` and goes on with what comes back."""

    name: str
    inner: AttentionKernel
    control: Control

    def __call__(
        self,
        q: Float[Tensor, " b h n d"],
        k: Float[Tensor, " b h m d"],
        v: Float[Tensor, " b h m d"],
        mask: KeyMask | None = None,
    ) -> Float[Tensor, " b h n d"]:
        return self.weights(q, k, mask) @ v

    def weights(
        self, q: Float[Tensor, " b h n d"], k: Float[Tensor, " b h m d"], mask: KeyMask | None
    ) -> Float[Tensor, " b h n m"]:
        """The probabilities after all controls so far.

        Raises:
            ShapeError: the control returned something of another shape.
        """
        before = _probabilities(self.inner, q, k, mask)
        after = self.control(self.name, before)
        if not isinstance(after, Tensor) or after.shape != before.shape:
            got = tuple(after.shape) if isinstance(after, Tensor) else type(after).__name__
            raise ShapeError(f"control must return probabilities {tuple(before.shape)} for {self.name}, got {got}")
        return after.to(before)


def _probabilities(kernel: AttentionKernel, q: Tensor, k: Tensor, mask: KeyMask | None) -> Float[Tensor, " b h n m"]:
    """What a kernel multiplies the values with."""
    if isinstance(kernel, Tap):
        return kernel.weights(q, k, mask)
    if kernel in (fused_attention, explicit_attention):
        return attention_weights(q, k, mask)
    # Another kernel, such as that of μP, has other probabilities: with the unit matrix for values they are its output.
    unit = torch.eye(k.shape[-2], dtype=q.dtype, device=q.device).expand(*k.shape[:-1], -1)
    return kernel(q, k, unit, *(() if mask is None else (mask,)))


@contextmanager
def controlled_attention(net: nn.Module, control: Control, *, include_self: bool = False) -> Iterator[None]:
    """Within the block, ``control(layer, probs) -> probs`` may replace the attention maps of ``net``.

    Prompt-to-prompt (Hertz et al. 2022, section 3) is this with the maps of the source prompt handed to the edited
    one: ``lambda layer, probs: source[layer]``. Afterwards, after an error too, the kernels are the old ones.

    Args:
        net: any module that holds cross-attention, joint-attention or single-stream layers.
        control: is given the layer's name in ``net.named_modules()`` and its probabilities (b, heads, n, m).
        include_self: let ``control`` see the self-attention layers too.

    Raises:
        UnknownNameError: there is no such layer in the network.
    """
    layers = attention_layers(net, include_self=include_self)
    if not layers:
        raise UnknownNameError(f"net: got a {type(net).__name__} without cross-attention layers, expected at least one")
    kernels = {name: layer.kernel for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.kernel = Tap(name, layer.kernel, control)
        yield
    finally:
        for name, layer in layers.items():
            layer.kernel = kernels[name]


@contextmanager
def recorded_attention(net: nn.Module, *, include_self: bool = False) -> Iterator[dict[str, Tensor]]:
    """Within the block, every call of ``net`` leaves its attention maps in the dictionary that is yielded.

    ``maps[layer]`` has shape (b, heads, n, m): for every pixel, how much it reads of each word; of a joint attention
    (b, heads, m + n, m + n), words first, see ``quadrants``. A later call of the network overwrites the maps, so a
    sampling loop copies the dictionary (``dict(maps)``) at the steps it wants to keep. The maps are detached
    from the graph; the output of the network stays the same up to rounding.

    Raises:
        UnknownNameError: there is no layer that reads text in the network.
    """
    maps: dict[str, Tensor] = {}

    def record(name: str, probs: Tensor) -> Tensor:
        maps[name] = probs.detach().clone()  # a later control may write into its map
        return probs

    with controlled_attention(net, record, include_self=include_self):
        yield maps


def attention_layers(net: nn.Module, *, include_self: bool = False) -> dict[str, nn.Module]:
    """The layers of a network that read text, by name, in order; with ``include_self`` all attention layers."""
    return {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, JointAttention | SingleStreamBlock)
        or (isinstance(module, CrossAttention) and (include_self or module.context_dim is not None))
        or (isinstance(module, MultiHeadAttention) and include_self)
    }


class Quadrants(NamedTuple):
    """The four parts of a joint attention map, reader first: how much words and pixels read of words and pixels.

    One softmax: each row of ``text_text`` and the same row of ``text_image`` add up to 1 together, and so below.
    """

    text_text: Float[Tensor, " b heads m m"]
    text_image: Float[Tensor, " b heads m n"]
    image_text: Float[Tensor, " b heads n m"]
    image_image: Float[Tensor, " b heads n n"]


def quadrants(probs: Float[Tensor, " b heads k k"], words: int) -> Quadrants:
    """The four quadrants of a map of joint attention or a single-stream block, whose first ``words`` tokens are text.

    ``image_text`` is to a joint attention what the whole map is to a cross-attention: ``word_map`` takes it.

    Raises:
        ShapeError: the map is not square.
        RangeError: there are not that many tokens.
    """
    if probs.ndim != 4 or probs.shape[-1] != probs.shape[-2]:
        raise ShapeError(f"probs: got {tuple(probs.shape)}, expected (b, heads, k, k), the map of a joint attention")
    if not 0 < words < probs.shape[-1]:
        raise RangeError(f"words: got {words}, expected 1..{probs.shape[-1] - 1}, fewer than the tokens of the map")
    text, image = probs.split([words, probs.shape[-1] - words], dim=-2)
    return Quadrants(text[..., :words], text[..., words:], image[..., :words], image[..., words:])


def quadrant_shares(maps: Mapping[str, Tensor], mask: Bool[Tensor, " b m"]) -> Float[Tensor, " layers b 2 2"]:
    """How much attention flows in each quadrant: [..., reader, read] with 0 for text and 1 for image.

    The mean over heads and readers, words that are padding left out, of a row's sum; so [..., 0] + [..., 1] = 1.

    Args:
        maps: what ``recorded_attention`` recorded of joint-attention layers, for one call of the network.
        mask: True for words, False for padding.

    Raises:
        ShapeError, RangeError: as ``quadrants``; no maps.
    """
    shares = []
    for probs in _some(maps).values():
        parts = [part.sum(-1).mean(1) for part in quadrants(probs, mask.shape[1])]  # (b, readers) each
        text = [(part * mask).sum(1) / mask.sum(1) for part in parts[:2]]
        shares.append(torch.stack([*text, *(part.mean(1) for part in parts[2:])], dim=-1).unflatten(-1, (2, 2)))
    return torch.stack(shares)


def word_shares(maps: Mapping[str, Tensor], words: int) -> Float[Tensor, " layers b m"]:
    """How much the image reads of each word, layer by layer: the mean over heads and image tokens.

    The sum over words is the image's share for text in ``quadrant_shares``. Raises as ``quadrants``.
    """
    return torch.stack([quadrants(probs, words).image_text.mean(dim=(1, 2)) for probs in _some(maps).values()])


def word_map(maps: Mapping[str, Tensor], word: int, size: tuple[int, int]) -> Float[Tensor, " b h w"]:
    """How much each pixel reads of one word: the mean over heads and layers, coarse layers enlarged.

    Args:
        maps: what ``recorded_attention`` recorded, for one call of the network; of joint-attention layers the quadrant
            ``image_text``.
        word: index of the token.
        size: (height, width) of the network's input; each layer's map is a whole fraction of it.

    Raises:
        RangeError: no maps, or no such token.
        ShapeError: a layer's number of pixels does not fit the size.

    Source: Tang et al. 2023 (DAAM), section 3.
    """
    pictures = [_picture(name, probs, word, size) for name, probs in _some(maps).items()]
    return torch.stack(pictures).mean(dim=0)


def _some(maps: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if not maps:
        raise RangeError("maps: got none, expected at least one layer (call the network inside recorded_attention)")
    return maps


def _picture(
    name: str, probs: Float[Tensor, " b heads n m"], word: int, size: tuple[int, int]
) -> Float[Tensor, " b h w"]:
    n, m = probs.shape[-2:]
    if not -m <= word < m:
        raise RangeError(f"word: got {word}, expected an index into {m} tokens")
    shrink = round((size[0] * size[1] / n) ** 0.5) or 1
    height, width = size[0] // shrink, size[1] // shrink
    if height * width != n:
        raise ShapeError(f"size: got {size}, expected one of which the {n} pixels of layer {name} are a fraction")
    coarse = probs[..., word].mean(dim=1).reshape(-1, 1, height, width)
    return F.interpolate(coarse, size=size, mode="bilinear")[:, 0]
