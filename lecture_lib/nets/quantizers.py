"""Quantisers: from a map of vectors to a map of whole numbers and back.

``VectorQuantizer`` learns a codebook (online k-means), ``FSQ`` rounds each channel to a few levels and learns nothing.
Both take maps (b, c, h, w) and let the gradient pass straight through the rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lecture_lib.errors import RangeError, ShapeError
from lecture_lib.tensors import check_batch, check_count, check_number, randn_like


class Quantised(NamedTuple):
    """What a quantiser returns.

    Attributes:
        quantised: codes (b, c, h, w), with the gradient of what was quantised.
        index: whole numbers (b, h, w), int64.
        loss: what the encoder pays for being far from its codes, (b,); zero for FSQ.
    """

    quantised: Tensor
    index: Tensor
    loss: Tensor


def straight_through(z: Float[Tensor, "*d"], rounded: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
    """The value of ``rounded``, the gradient of ``z``: ``z + sg(rounded - z)`` (Bengio et al. 2013)."""
    return z + (rounded - z).detach()


def perplexity(index: Int[Tensor, "*n"], size: int) -> Float[Tensor, ""]:
    """``exp(entropy)`` of the codes in use: 1 if all entries are one code, ``size`` if all codes are equally frequent.

    Raises:
        ShapeError: no entries at all.
        RangeError: an entry outside 0..size - 1.
    """
    used = torch.bincount(_check_index(index, check_count("size", size)).flatten(), minlength=size)
    p = used / used.sum()
    return torch.special.entr(p).sum().exp()


def channels_last(z: Float[Tensor, " b c h w"]) -> Float[Tensor, " b h w c"]:
    """The vector of each place along the last axis."""
    return z.permute(0, 2, 3, 1)


def channels_first(z: Float[Tensor, " b h w c"]) -> Float[Tensor, " b c h w"]:
    """The inverse of ``channels_last``."""
    return z.permute(0, 3, 1, 2)


def _check_map(z: Tensor, channels: int) -> Tensor:
    check_batch("z", z)
    if z.ndim != 4 or z.shape[1] != channels:
        raise ShapeError(f"z: got shape {tuple(z.shape)}, expected (b, {channels}, h, w)")
    return z


def _check_index(index: Tensor, size: int) -> Tensor:
    if index.is_floating_point() or not index.numel():
        raise ShapeError(f"index: got {index.dtype} {tuple(index.shape)}, expected whole numbers, at least one")
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= size:
        raise RangeError(f"index: got entries in {low}..{high}, expected 0..{size - 1}")
    return index.long()


class VectorQuantizer(nn.Module):
    """The nearest of K learned vectors; the codebook follows the encoder as exponential moving averages.

        N_k <- gamma N_k + (1 - gamma) n_k          n_k: how many vectors of the batch chose code k
        m_k <- gamma m_k + (1 - gamma) sum z_i      the sum is over those vectors
        e_k  = m_k / N~_k,   N~_k = (N_k + epsilon) / (N + K epsilon) N,   N = sum N_k       (Laplace smoothing)

    This is online k-means, and takes the place of the codebook term of the loss. What is left of it is the commitment
    ``beta |z_e - sg(e)|^2`` (mean over the map). The codebook changes in ``update`` and nowhere else: call it once per
    training step, after the optimizer or before, with what was quantised.

    Args:
        size: number of codes K.
        dim: channels of the map.
        beta: weight of the commitment.
        gamma: memory of the averages, in [0, 1).
        epsilon: Laplace smoothing, keeps codes without followers finite.
        dead: a code with less than this share of its fair part N/K is dead and is revived by ``update``.
        generator: draws the first codebook, standard normal.

    Source: van den Oord et al. 2017, eq. 3 and appendix A.1; revival: Dhariwal et al. 2020 (Jukebox), section 3.
    """

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        beta: float = 0.25,
        gamma: float = 0.99,
        epsilon: float = 1e-5,
        dead: float = 0.03,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.size, self.dim = check_count("size", size, 2), check_count("dim", dim)
        self.beta = check_number("beta", beta, low=0)
        self.gamma = check_number("gamma", gamma, low=0, high=1 - 1e-9)
        self.epsilon = check_number("epsilon", epsilon, low=0)
        self.dead = check_number("dead", dead, low=0, high=1)
        codebook = randn_like(torch.empty(size, dim), generator)
        self.register_buffer("codebook", codebook)  # e, (K, c)
        self.register_buffer("count", torch.ones(size))  # N, (K,)
        self.register_buffer("total", codebook.clone())  # m, (K, c)

    def forward(self, z_e: Float[Tensor, " b c h w"]) -> Quantised:
        """Replace each vector of the map by its nearest code.

        Raises:
            ShapeError: z_e is not (b, dim, h, w).
            NonFiniteError: NaN or infinity in z_e.
        """
        index = self.nearest(_check_map(z_e, self.dim))
        e = self.look_up(index).to(z_e.dtype)
        commitment = (z_e - e).square().flatten(1).mean(1)
        return Quantised(straight_through(z_e, e), index, self.beta * commitment)

    @torch.no_grad()
    def nearest(self, z_e: Float[Tensor, " b c h w"]) -> Int[Tensor, " b h w"]:
        """Number of the nearest code at each place."""
        places = channels_last(z_e)
        squared = torch.cdist(places.flatten(0, 2).to(self.codebook.dtype), self.codebook)
        return squared.argmin(1).reshape(places.shape[:-1])

    def look_up(self, index: Int[Tensor, " b h w"]) -> Float[Tensor, " b c h w"]:
        """The codes with these numbers. Raises RangeError for a number that no code has."""
        return channels_first(self.codebook[_check_index(index, self.size)])

    @torch.no_grad()
    def update(
        self, z_e: Float[Tensor, " b c h w"], index: Int[Tensor, " b h w"], generator: torch.Generator | None = None
    ) -> int:
        """Move the codebook towards the vectors that chose it, then revive dead codes; how many were revived.

        Args:
            z_e: what was quantised.
            index: the codes it was given.
            generator: chooses the vectors of this batch from which dead codes start again.
        """
        z = channels_last(_check_map(z_e, self.dim)).flatten(0, 2).to(self.codebook.dtype)
        index = _check_index(index, self.size).flatten()
        if len(index) != len(z):
            raise ShapeError(f"index: got {len(index)} entries, expected one per place of z_e, {len(z)}")
        n = torch.bincount(index, minlength=self.size).to(z.dtype)
        sums = torch.zeros_like(self.total).index_add_(0, index, z)
        self.count.lerp_(n, 1 - self.gamma)
        self.total.lerp_(sums, 1 - self.gamma)
        self.codebook.copy_(self.total / self.smoothed()[:, None])
        return self._revive(z, generator)

    def smoothed(self) -> Float[Tensor, " k"]:
        """``N~``: the counts with Laplace smoothing; they sum to what the counts sum to."""
        N = self.count.sum()
        return (self.count + self.epsilon) / (N + self.size * self.epsilon) * N

    def _revive(self, z: Float[Tensor, " n c"], generator: torch.Generator | None) -> int:
        """Dead codes become vectors of the batch, no vector twice, with a fair count."""
        fair = self.count.mean()
        dead = torch.nonzero(self.count < self.dead * fair).flatten()[: len(z)]
        if not len(dead):
            return 0
        device = z.device if generator is None else generator.device
        chosen = torch.randperm(len(z), generator=generator, device=device)[: len(dead)].to(z.device)
        self.codebook[dead] = z[chosen]
        self.count[dead] = fair
        self.total[dead] = z[chosen] * fair
        return len(dead)


class FSQ(nn.Module):
    """Finite scalar quantisation: channel j is squashed and rounded to one of ``levels[j]`` values, nothing is learned.

        z_hat = round(tanh(z + delta) h - o) / floor(L/2)
        h = (L - 1)(1 + 1e-3)/2      o = 1/2 for even L, 0 for odd L      delta = atanh(o/h)

    The half step o gives an even L its L codes (rounding to whole numbers alone leaves L - 1 of them), and delta keeps
    z = 0 at 0. Codes lie in [-1, 1]; the number of a code is ``sum_j (z_hat_j floor(L_j/2) + floor(L_j/2)) prod_{i<j}
    L_i``, digits in a mixed radix.

    Args:
        levels: how many values each channel takes, 2 to 256; the map has ``len(levels)`` channels.

    Source: Mentzer et al. 2023, section 3.1; delta with atanh, and h a little above (L - 1)/2 so that L = 2 is finite.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or any(check_count("levels", L, 2) > 256 for L in levels):
            raise RangeError(f"levels: got {list(levels)}, expected at least one whole number in 2..256")
        self.levels = tuple(int(L) for L in levels)
        self.size = math.prod(self.levels)
        h = [(L - 1) * (1 + 1e-3) / 2 for L in self.levels]
        o = [0.0 if L % 2 else 0.5 for L in self.levels]
        delta = [math.atanh(o_j / h_j) for o_j, h_j in zip(o, h, strict=True)]
        base = [math.prod(self.levels[:j]) for j in range(len(self.levels))]
        for name, value in {"h": h, "o": o, "delta": delta, "base": base}.items():
            self.register_buffer(name, torch.tensor(value), persistent=False)
        self.register_buffer("floor_half", torch.tensor([L // 2 for L in self.levels]), persistent=False)
        self.register_buffer("radix", torch.tensor(self.levels), persistent=False)

    def forward(self, z: Float[Tensor, " b c h w"]) -> Quantised:
        """Squash and round each channel.

        Raises:
            ShapeError: z is not (b, len(levels), h, w).
            NonFiniteError: NaN or infinity in z.
        """
        squashed = self.squash(channels_last(_check_map(z, len(self.levels))))
        code = channels_first(straight_through(squashed, squashed.round()) / self.floor_half)
        return Quantised(code, self.index(code), z.new_zeros(len(z)))

    def squash(self, z: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """The channel before rounding, within half a step of its L whole numbers."""
        return torch.tanh(z + self.delta) * self.h - self.o

    @torch.no_grad()
    def index(self, code: Float[Tensor, " b c h w"]) -> Int[Tensor, " b h w"]:
        """The number of each code, 0..size - 1."""
        digit = (channels_last(code) * self.floor_half).round().long() + self.floor_half
        return (digit * self.base).sum(-1)

    def look_up(self, index: Int[Tensor, " b h w"]) -> Float[Tensor, " b c h w"]:
        """The codes with these numbers. Raises RangeError for a number that no code has."""
        digit = _check_index(index, self.size)[..., None] // self.base % self.radix
        return channels_first((digit - self.floor_half) / self.floor_half)
