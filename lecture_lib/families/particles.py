"""Particle gradient flows: every particle runs down the first variation of a functional of their law.

    dx/dt = -grad (dF/drho)(x)

    F = KL(rho | q)         velocity  grad log q - grad log rho
    F = MMD^2(rho, q)       velocity  -2 E[grad_x k(x, X') - grad_x k(x, Y)],   X' of rho, Y of q

Source: for the MMD Arbel et al. 2019 (1906.04370), section 2; for the kernel of distances Hertrich et al. 2024
(2305.11463).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.errors import ShapeError
from lecture_lib.families.base import Batch, GenerativeModel
from lecture_lib.families.denoising import two_moons
from lecture_lib.families.encoding import check_steps
from lecture_lib.metrics import EnergyKernel, Kernel
from lecture_lib.nets import EventMLP
from lecture_lib.tensors import check_batch, check_count, check_number, randn_like

Velocity = Callable[[Tensor, float], Tensor]
"""``(all particles (n, ...), time) -> velocity (n, ...)``; a particle's velocity may depend on all of them."""


@torch.no_grad()
def particle_flow(
    x: Float[Tensor, " n *d"],
    velocity: Velocity,
    *,
    time: float,
    steps: int,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[Float[Tensor, " n *d"]]:
    """Particles after 0, 1, ..., ``steps`` Euler(-Maruyama) steps of ``dx = velocity dt + noise dW``.

    Raises:
        ShapeError: noise without a generator to draw it from.
    """
    h = check_number("time", time, 0) / check_count("steps", steps)
    if check_number("noise", noise, 0) and generator is None:
        raise ShapeError(f"generator: got None with noise = {noise:g}, expected a generator to draw it from")
    yield check_batch("x", x)
    for k in range(steps):
        x = x + h * velocity(x, k * h)
        if noise:
            x = x + noise * math.sqrt(h) * randn_like(x, generator)
        yield x


def witness(x: Tensor, particles: Tensor, data: Tensor, kernel: Kernel) -> Float[Tensor, " b"]:
    """``2 (E k(x, X') - E k(x, Y))``, the first variation of MMD^2: large where there are too many particles."""
    return 2 * (kernel(x, particles).mean(1) - kernel(x, data).mean(1))


def mmd_velocity(x: Float[Tensor, " n *d"], data: Float[Tensor, " m *d"], kernel: Kernel) -> Float[Tensor, " n *d"]:
    """``-grad witness`` at every particle: away from the other particles, towards the data.

    A Gaussian kernel's is zero where nothing is within a few bandwidths, so particles that are far, or that were pushed
    out, stay where they are; the kernel ``-|x - y|`` pulls from any distance.
    """
    with torch.enable_grad():
        at = x.detach().flatten(1).requires_grad_()
        total = witness(at, at.detach(), data.detach().flatten(1), kernel).sum()
        (gradient,) = torch.autograd.grad(total, at)
    return -gradient.reshape(x.shape)


def blob_score(particles: Float[Tensor, " n d"], bandwidth: float) -> Callable[[Tensor], Tensor]:
    """The score of the particles' law, of which only particles are known: that of their kernel density estimate.

    Source: Carrillo, Craig & Patacchini 2019 (1709.09195), the blob method.
    """
    variance = check_number("bandwidth", bandwidth, 1e-6) ** 2

    def score(x: Tensor) -> Tensor:
        closeness = (-torch.cdist(x, particles).square() / (2 * variance)).softmax(1)
        return (closeness @ particles - x) / variance

    return score


def kl_velocity(score: Callable[[Tensor], Tensor], bandwidth: float) -> Velocity:
    """``score of the target - blob score``: Langevin's law without its noise."""
    return lambda x, time: score(x) - blob_score(x, bandwidth)(x)


class MMDFlow(GenerativeModel):
    """The MMD flow, carried by a generator: each update moves its particles one step, and the network after them.

        x = G(z),   loss = |G(z) - sg[x + h velocity(x)]|^2 / 2h,   gradient = that of MMD^2(G_# prior, data)

    One step to sample, no critic. With labels, particles meet only particles and data of their own class: the MMD^2 is
    then the mean over classes, each weighed by its share of the batch, of the MMD^2 within it.

    Args:
        generator: ``(z (b, *event), None, labels) -> (b, *event)``, added to z.
        event: shape of one sample.
        kernel: ``-|x - y|`` by default.
        step: h; it scales nothing but the loss.
    """

    formula = r"\dot x=-2\,\nabla_x\mathbb E[k(x,X')-k(x,Y)],\quad k(x,y)=-\|x-y\|"
    source = "Arbel et al. 2019 (1906.04370); Hertrich et al. 2024 (2305.11463); Li, Swersky & Zemel 2015"

    def __init__(self, generator: EventMLP, event: tuple[int, ...], kernel: Kernel | None = None, *, step: float = 1.0):
        super().__init__()
        self.generator, self.event = generator, tuple(event)
        self.kernel, self.step = kernel or EnergyKernel(), check_number("step", step, 1e-9)

    def loss(self, batch: Batch, phase: str = "all", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        """Its value is ``h |velocity|^2 / 2``: how fast the particles would still move."""
        data, cond = batch[0], batch[1] if len(batch) > 1 else None
        x = self.carry(self.prior(len(data), generator=generator), cond)
        velocity = self.velocity(x.detach(), data, cond)
        target = (x + self.step * velocity).detach()
        return (x - target).square().flatten(1).sum(1) / (2 * self.step)

    def velocity(self, x: Tensor, data: Tensor, cond: Tensor | None) -> Tensor:
        """Of particles ``x`` whose labels, if any, are those of ``data``, row by row."""
        if cond is None:
            return mmd_velocity(x, data, self.kernel)
        velocity = torch.empty_like(x)
        for label in cond.unique():
            mine = cond == label
            velocity[mine] = mmd_velocity(x[mine], data[mine], self.kernel)
        return velocity

    def carry(self, z: Float[Tensor, " b *event"], cond: Tensor | None = None) -> Float[Tensor, " b *event"]:
        """Where the generator has carried the particles that started at ``z``."""
        return z + self.generator(z, None, cond)

    @torch.no_grad()
    def reverse_process(self, z, cond=None, *, steps=None, generator) -> Iterator[Tensor]:
        check_steps(steps, 1, "a map takes noise to data at once")
        yield z
        yield self.carry(z, cond)

    @classmethod
    def small(cls):
        return cls(EventMLP((2,), width=64, depth=3), (2,)), two_moons(), 400
