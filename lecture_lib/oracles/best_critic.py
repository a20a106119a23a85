"""The critic that no training can beat, where both densities are known."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lecture_lib.oracles.mixture import GaussianMixture


@dataclass(frozen=True)
class BestCritic:
    """``logit D*(x) = log p(x) - log q(x)``: a ratio of densities, the energy of neither.

    It is called as the critics of families are: ``families.generator_drift`` tells what a generator would do under it.

    Attributes:
        data, fakes: p and q.

    Source: Goodfellow et al. 2014 (1406.2661), proposition 1.
    """

    data: GaussianMixture
    fakes: GaussianMixture

    def __call__(self, x: Float[Tensor, " b *d"], cond: None = None) -> Float[Tensor, " b 1"]:
        return (self.data.log_prob(x) - self.fakes.log_prob(x))[:, None]
