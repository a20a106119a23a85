"""Log-likelihoods in bits per dimension: the one unit in which models of the same pictures may be compared."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import ShapeError
from lecture_lib.tensors import check_count, check_number


def bits_per_dim(nats: Float[Tensor, " b"], dims: int, step: float | None = None) -> Float[Tensor, " b"]:
    """``-log P(x) / (D ln 2)``: how many bits a code made for the model spends on each number of each picture.

    A density p of dequantised pictures becomes a probability of grey levels by the volume of their cells,
    ``log P(x) >= E log p(x + u) + D log step``, so that

        bits = -nats / (D ln 2) - log2(step)

    ``- log2(step)`` is +3 for digits in [-1, 1] (17 levels, step 1/8), +7 for 256 levels in [-1, 1] (step 2/256), +8
    for 256 levels in [0, 1]. Forgetting it makes a density that is fit for nothing the best model of the table.

    Args:
        nats: log-probability of each sample, never of a batch.
        dims: numbers per sample D, c h w.
        step: distance of two grey levels where ``nats`` are of a density; None where they are of probabilities.

    Raises:
        ShapeError: nats are not (b,).
        RangeError: dims < 1, or step is not positive.

    Source: Theis, van den Oord & Bethge 2016 (1511.01844), section 3.1.
    """
    if nats.ndim != 1:
        raise ShapeError(f"nats: got shape {tuple(nats.shape)}, expected (b,), one log-probability per sample")
    bits = -nats.to(torch.float64) / (check_count("dims", dims) * math.log(2))
    return bits if step is None else bits - math.log2(check_number("step", step, 1e-12))
