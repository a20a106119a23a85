"""Looking inside a transformer: a concept as a direction, steering along it, and maps of concepts in the picture.

A direction is the mean difference that a concept makes to the tokens behind a block. It is a habit of the field and
nobody's method in particular; whether it means anything shows beside a random direction of the same length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.errors import ShapeError, UnknownNameError
from lecture_lib.nets.flux import Flux, SingleStreamBlock
from lecture_lib.nets.mmdit import MMDiT
from lecture_lib.tensors import per_sample, randn_like

BlockOutput = Tensor | tuple[Tensor, Tensor]
"""Image tokens, or (text tokens, image tokens) of a block with two streams."""


@torch.no_grad()
def concept_direction(
    net: nn.Module,
    layer: str,
    x: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    cond: object,
    without: object,
) -> Float[Tensor, " d"]:
    """E[h | with the concept] - E[h | without], h the image tokens that leave the block ``layer``.

    The pairs share noise and time, so that all the rest cancels; the mean runs over samples and tokens.

    Args:
        net: a transformer called as ``net(x, t, cond)``: ``DiT``, ``MMDiT``, ``Flux``.
        layer: name of a block in ``net.named_modules()``, such as "blocks.2".
        x, t: noisy inputs and network times.
        cond, without: conditions of the whole batch with the concept and without it.

    Raises:
        UnknownNameError: the network has no such block, or one in which text and image are one sequence.
    """
    seen = []

    def look(image: Tensor) -> Tensor:
        seen.append(image.mean(dim=(0, 1)))
        return image

    with _changed_image(net, layer, look):
        net(x, t, cond)
        net(x, t, without)
    return seen[0] - seen[1]


@contextmanager
def steered(
    net: nn.Module, layer: str, direction: Float[Tensor, " d"], strength: float | Float[Tensor, " b"]
) -> Iterator[None]:
    """Within the block, every image token that leaves ``layer`` has strength * direction added.

    To steer for a part of the noise levels only, put a denoiser that steers and one that does not into
    ``guidance.interval``.

    Args:
        net, layer: as in ``concept_direction``.
        direction: a direction in the space of the tokens.
        strength: one for all, or one per sample; 0 leaves the network as it is, bit for bit.

    Raises:
        UnknownNameError: as ``concept_direction``.
        ShapeError: at the call of the network, if the direction or the strengths do not fit its tokens.
    """

    def push(image: Tensor) -> Tensor:
        if direction.shape != image.shape[-1:]:
            raise ShapeError(f"direction: got shape {tuple(direction.shape)}, expected ({image.shape[-1]},)")
        if isinstance(strength, Tensor) and strength.shape != image.shape[:1]:
            raise ShapeError(f"strength: got shape {tuple(strength.shape)}, expected ({len(image)},) or a number")
        return image + per_sample(strength, image) * direction.to(image)

    with _changed_image(net, layer, push):
        yield


def random_direction(like: Float[Tensor, " d"], generator: torch.Generator | None = None) -> Float[Tensor, " d"]:
    """A direction drawn uniformly, as long as ``like``: what any push of that size does, whatever its meaning."""
    direction = randn_like(like, generator)
    return direction * (like.norm() / direction.norm())


@contextmanager
def _changed_image(net: nn.Module, layer: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the block, the image tokens that leave ``layer`` are replaced by ``change`` of them."""
    blocks = dict(net.named_modules())
    if layer not in blocks or isinstance(blocks[layer], SingleStreamBlock):
        known = [name for name in blocks if name.startswith("blocks.") and name.count(".") == 1]
        raise UnknownNameError(f"layer: got {layer!r}, expected a block whose image tokens stand alone, one of {known}")

    def hook(_module: nn.Module, _inputs: tuple, output: BlockOutput) -> BlockOutput:
        return (output[0], change(output[1])) if isinstance(output, tuple) else change(output)

    handle = blocks[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def concept_maps(
    net: MMDiT | Flux,
    x: Float[Tensor, " b c h w"],
    t: Float[Tensor, " b"],
    cond: Mapping[str, Tensor],
    concepts: Float[Tensor, " k m"],
) -> Float[Tensor, " layers b k rows columns"]:
    """Where the image speaks of each concept, whether or not the prompt names it.

    Concepts are given their own stream, with the text's weights: it reads concepts and image, and nobody reads it, so
    the picture stays the same. Where o are attention outputs before they are mapped back,

        map[k] = softmax over k of <o_concept_k, o_image>

    Args:
        net: a network with double-stream blocks; each gives a layer.
        x, t, cond: as in its ``forward``.
        concepts: a text token for each concept, as wide as the tokens of the prompt.

    Raises:
        ShapeError: the concepts are not (k, context_dim), and as the network's ``forward``.

    Source: Helbling et al. 2025 (ConceptAttention), section 4.
    """
    if concepts.ndim != 2 or concepts.shape[1] != net.context_dim or not len(concepts):
        raise ShapeError(f"concepts: got shape {tuple(concepts.shape)}, expected (k, {net.context_dim})")
    text, image, c, mask, rotary = net.enter(x, t, cond)
    concept = net.words(concepts).expand(len(x), -1, -1)
    # Concepts stand where all words stand.
    turn = None if rotary is None else torch.cat([rotary[:1].expand(len(concepts), -1), rotary[text.shape[1] :]])
    maps = []
    for block in net.blocks:
        h_image, _ = block.image.before(image, c)
        h_concept, later = block.text.before(concept, c)
        o_concept, _ = block.attention.attend(h_concept, h_image, None, turn)
        _, o_image = block.attention.attend(block.text.before(text, c)[0], h_image, mask, rotary)
        scores = torch.einsum("b h k d, b h n d -> b k n", o_concept, o_image)
        maps.append(scores.softmax(dim=1).unflatten(-1, (x.shape[-2] // net.patch, -1)))
        concept = block.text.after(concept, block.attention.text.write(o_concept), later)
        text, image = block(text, image, c, mask, rotary)
    return torch.stack(maps)
