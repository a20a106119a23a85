"""Students on the ring of eight modes: one recipe class per method, all with the same world, network and measure.

Their teacher is not a network but the ring's exact denoiser, so that what a student gets wrong is its own.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.distill import Jump
from lecture_lib.oracles import GaussianMixture, ring_of_modes
from lecture_lib.zoo.recipe import Recipe

STD = 0.1  # of each mode
SIGMA_DATA = (0.5 + STD**2) ** 0.5  # standard deviation of each coordinate of the ring


@functools.cache
@torch.inference_mode(False)  # kept, and differentiated through by others
def ring() -> GaussianMixture:
    """The world of the plane's students: eight round modes of standard deviation 0.1 on the unit circle, float32."""
    exact = ring_of_modes(std=STD)
    means, variances = exact.means.float(), exact.variances[:, 0].float()
    return GaussianMixture(exact.weights.float(), means, variances)


@dataclass(frozen=True)
class FreshPoints:
    """Endless new points of a mixture; its only state is the generator."""

    world: GaussianMixture
    batch_size: int

    def draw(self, generator: torch.Generator) -> tuple[Float[Tensor, " b 2"]]:
        """One batch of points."""
        return (self.world.sample(self.batch_size, generator=generator),)


@dataclass(frozen=True, kw_only=True)
class PlaneRecipe(Recipe):
    """A student on the ring; a subclass says what it is, how it learns and how it draws."""

    kind: ClassVar[str] = "student on the ring"
    few: ClassVar[tuple[int, ...]] = (1, 2, 4)  # numbers of steps for which it is measured

    def batches(self) -> FreshPoints:
        return FreshPoints(ring(), self.batch_size)

    def jump(self, model: nn.Module) -> Jump | None:
        """The model as ``(x_t, t) -> x0``, for students that know from anywhere where a trajectory ends; else None."""
        return None

    @abstractmethod
    def draw(self, model: nn.Module, n: int, *, steps: int, generator: torch.Generator) -> Float[Tensor, " n 2"]:
        """``n`` points in ``steps`` evaluations of the network, by the method's own sampling rule."""
