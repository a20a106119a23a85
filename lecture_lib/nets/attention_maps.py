"""Attention maps seen and changed from outside: which pixels read which word, and what if they read another.

Both context managers put a tap around the kernel of every cross-attention layer and take it off again. Taps nest:
one that is put on later sees the maps that the earlier ones return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.errors import RangeError, ShapeError, UnknownNameError
from lecture_lib.nets.attention import AttentionKernel, KeyMask, MultiHeadAttention, attention_weights
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
        before = (self.inner.weights if isinstance(self.inner, Tap) else attention_weights)(q, k, mask)
        after = self.control(self.name, before)
        if not isinstance(after, Tensor) or after.shape != before.shape:
            got = tuple(after.shape) if isinstance(after, Tensor) else type(after).__name__
            raise ShapeError(f"control must return probabilities {tuple(before.shape)} for {self.name}, got {got}")
        return after.to(before)


@contextmanager
def controlled_attention(net: nn.Module, control: Control, *, include_self: bool = False) -> Iterator[None]:
    """Within the block, ``control(layer, probs) -> probs`` may replace the attention maps of ``net``.

    Prompt-to-prompt (Hertz et al. 2022, section 3) is this with the maps of the source prompt handed to the edited
    one: ``lambda layer, probs: source[layer]``. Afterwards, after an error too, the kernels are the old ones.

    Args:
        net: any module that holds cross-attention layers.
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

    ``maps[layer]`` has shape (b, heads, n, m): for every pixel, how much it reads of each word. A later call of the
    network overwrites the maps, so a sampling loop copies the dictionary (``dict(maps)``) at the steps it wants to
    keep. The maps are detached from the graph; the output of the network stays the same up to rounding.

    Raises:
        UnknownNameError: there is no cross-attention layer in the network.
    """
    maps: dict[str, Tensor] = {}

    def record(name: str, probs: Tensor) -> Tensor:
        maps[name] = probs.detach().clone()  # a later control may write into its map
        return probs

    with controlled_attention(net, record, include_self=include_self):
        yield maps


def attention_layers(net: nn.Module, *, include_self: bool = False) -> dict[str, nn.Module]:
    """The cross-attention layers of a network by name, in order; with ``include_self`` all attention layers."""
    return {
        name: module
        for name, module in net.named_modules()
        if (isinstance(module, CrossAttention) and (include_self or module.context_dim is not None))
        or (isinstance(module, MultiHeadAttention) and include_self)
    }


def word_map(maps: Mapping[str, Tensor], word: int, size: tuple[int, int]) -> Float[Tensor, " b h w"]:
    """How much each pixel reads of one word: the mean over heads and layers, coarse layers enlarged.

    Args:
        maps: what ``recorded_attention`` recorded, for one call of the network.
        word: index of the token.
        size: (height, width) of the network's input; each layer's map is a whole fraction of it.

    Raises:
        RangeError: no maps, or no such token.
        ShapeError: a layer's number of pixels does not fit the size.

    Source: Tang et al. 2023 (DAAM), section 3.
    """
    if not maps:
        raise RangeError("maps: got none, expected at least one layer (call the network inside recorded_attention)")
    pictures = [_picture(name, probs, word, size) for name, probs in maps.items()]
    return torch.stack(pictures).mean(dim=0)


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
