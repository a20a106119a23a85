"""Conditions: a tensor with one row per sample (labels), or a dict of such tensors (label and guidance scale)."""

from __future__ import annotations

import torch
from torch import Tensor

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.tensors import check_number

Cond = Tensor | dict[str, Tensor]


def map_cond(f, *conds: Cond) -> Cond:
    """``f`` applied tensor by tensor: once for a tensor, once per key for dicts."""
    if isinstance(conds[0], dict):
        return {key: f(*(c[key] for c in conds)) for key in conds[0]}
    return f(*conds)


def tell(cond: Cond | None, **more: Tensor) -> dict[str, Tensor]:
    """A condition and something more to hear: ``{"label": cond, **more}`` for labels, ``{**cond, **more}`` for a dict.

    None, no condition at all, becomes ``more`` alone.
    """
    if cond is None:
        return more
    return {**(cond if isinstance(cond, dict) else {"label": cond}), **more}


def expand_cond(cond: Cond | None, b: int, device=None) -> Cond | None:
    """The condition for a batch of b: one sample's worth is repeated, a full batch passes through."""

    def expand(c: Tensor) -> Tensor:
        c = c.to(device)
        if c.ndim == 0 or (c.shape[0] == 1 and b != 1):
            return c.expand(b, *c.shape[1:])
        if c.shape[0] != b:
            raise ShapeError(f"cond: got {c.shape[0]} conditions for a batch of {b}, expected {b} (or 1)")
        return c

    return None if cond is None else map_cond(expand, cond)


def check_cond(cond: Cond | int | None, null: Cond | None) -> Cond | None:
    """``cond`` as tensors with one row per sample (or one row for all), if it fits ``null``, one sample's worth.

    Labels are whole numbers in ``[0, null]``; ``cond = None`` is one row of ``null``.
    """
    if cond is None:
        return None if null is None else map_cond(lambda n: n[None], null)
    if null is None:
        raise ShapeError(f"cond: got {cond!r}, but this network has no condition")
    if isinstance(null, dict):
        if not isinstance(cond, dict) or cond.keys() != null.keys():
            got = sorted(cond) if isinstance(cond, dict) else type(cond).__name__
            raise ShapeError(f"cond: got {got}, expected a dict with the keys {sorted(null)}")
        return {key: check_cond(cond[key], null[key]) for key in null}
    try:
        cond = torch.as_tensor(cond)
    except (TypeError, ValueError, RuntimeError):
        raise ShapeError(f"cond: got {cond!r}, expected a class number or a tensor of them") from None
    return _check_labels(cond, null)


def _check_labels(cond: Tensor, null: Tensor) -> Tensor:
    if null.is_floating_point() != cond.is_floating_point() or (cond.dtype == torch.bool) != (null.dtype == torch.bool):
        raise ShapeError(f"cond: got {cond.dtype}, expected {null.dtype}")
    cond = cond[None] if cond.ndim == null.ndim else cond
    if cond.shape[1:] != null.shape:
        raise ShapeError(f"cond: got shape {tuple(cond.shape)}, expected (b, *{tuple(null.shape)})")
    if cond.is_floating_point() or null.ndim > 0:
        return cond
    if ((cond < 0) | (cond > null)).any():
        bad = cond[(cond < 0) | (cond > null)][0]
        raise RangeError(f"cond: got class {int(bad)}, expected 0..{int(null) - 1}, or {int(null)} for 'no class'")
    return cond.long()


def drop_condition(cond: Cond, null: Cond, p: float, generator: torch.Generator | None = None) -> Cond:
    """Each *sample's* condition replaced by ``null`` with probability ``p`` (Ho & Salimans 2022, Alg. 1).

    All tensors of one sample are dropped together, each sample by its own coin: a coin per batch would leave whole
    updates unconditional.
    """
    p = check_number("p_uncond", p, 0, 1)
    first = next(iter(cond.values())) if isinstance(cond, dict) else cond
    device = first.device if generator is None else generator.device
    drop = (torch.rand(first.shape[0], generator=generator, device=device) < p).to(first.device)

    def replace(c: Tensor, n: Tensor) -> Tensor:
        return torch.where(drop.reshape(-1, *(1,) * (c.ndim - 1)), n.to(c), c)

    return map_cond(replace, cond, null)
