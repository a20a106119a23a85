"""What a text-to-image network hears besides the time, and the check that it is what the network expects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lecture_lib.errors import ShapeError, UnknownNameError


class TextCondition(NamedTuple):
    """What a network hears besides the time; None where it has no ear for it, or where nothing was said."""

    tokens: Float[Tensor, " b m d"] | None = None
    mask: Bool[Tensor, " b m"] | None = None
    vector: Float[Tensor, " b v"] | None = None
    w: Float[Tensor, " b"] | None = None


def read_condition(
    cond: Mapping[str, Tensor] | None,
    batch: int,
    *,
    context_dim: int | None = None,
    vector_dim: int | None = None,
    guidance: bool = False,
) -> TextCondition:
    """``cond`` checked, as a named tuple.

    Args:
        cond: a dictionary, in which ``mask`` and ``w`` may be missing; None where the network has no input for text.
        batch: number of samples.
        context_dim, vector_dim: width of ``tokens`` and ``vector``; None or 0 for a network without.
        guidance: whether the network takes a guidance scale ``w``.

    Raises:
        ShapeError: ``cond`` is no dictionary, or an entry is missing or has the wrong shape or dtype.
        UnknownNameError: ``cond`` has an entry of another name.
    """
    if cond is not None and not isinstance(cond, Mapping):
        raise ShapeError(f"cond must be a dictionary with 'tokens', 'mask', 'vector', got {type(cond).__name__}")
    cond = {} if cond is None else cond
    wanted = {"tokens": context_dim, "vector": vector_dim}
    known = {name for name, dim in wanted.items() if dim}
    known |= ({"mask"} if context_dim else set()) | ({"w"} if guidance else set())
    if unknown := set(cond) - known:
        raise UnknownNameError(f"cond: got {sorted(unknown)}, this network knows {sorted(known)}")
    for name, dim in wanted.items():
        shape = tuple(cond[name].shape) if name in cond else None
        fits = shape is not None and len(shape) == (3 if name == "tokens" else 2) and 0 not in shape
        if dim and not (fits and shape[0] == batch and shape[-1] == dim):
            expected = f"({batch}, m, {dim})" if name == "tokens" else f"({batch}, {dim})"
            raise ShapeError(f"cond[{name!r}] must have shape {expected}, got {shape or 'none'}")
    mask, w = cond.get("mask"), cond.get("w")
    if mask is not None and (mask.shape != cond["tokens"].shape[:2] or mask.dtype != torch.bool):
        expected = tuple(cond["tokens"].shape[:2])
        raise ShapeError(f"cond['mask'] must be bool of shape {expected}, got {mask.dtype} {tuple(mask.shape)}")
    if w is not None and (w.shape != (batch,) or not w.is_floating_point()):
        raise ShapeError(f"cond['w'] must be floating of shape ({batch},), got {w.dtype} {tuple(w.shape)}")
    return TextCondition(cond.get("tokens"), mask, cond.get("vector"), w)
