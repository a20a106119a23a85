"""The case that exposes a wrong likelihood: pictures of independent, equally likely grey levels.

No code spends less than log2 17 = 4.0875 bits on a number that is one of 17 with equal chances, so no right model has
fewer in expectation, however it was trained; one that left out D/2 log 2 pi has 1.3257 fewer, one that forgot the
volume of the cells 3 fewer. A model that was trained on such pictures is close enough to the limit to be caught:

    assert_no_better_than_entropy(MyFamily(...), steps=200)

The pictures fill [-17/16, 17/16] evenly, with a standard deviation of 0.61. A flow that forgot its divergence, the
log 1/0.61 that points gain on their way to N(0, 1), has 0.71 bits too many: so ``within`` is part of the test.
"""

from __future__ import annotations

import math

import torch

from lecture_lib.data import Dequantised
from lecture_lib.families import GenerativeModel, fit
from lecture_lib.metrics import bits_per_dim

LEVELS, STEP = 17, 1 / 8
ENTROPY = math.log2(LEVELS)  # 4.0875 bits per number
GAUSSIAN = math.log2(2 * math.pi) / 2  # 1.3257 bits per number: what D/2 log 2 pi is worth


class NoisePictures:
    """Endless pictures of independent grey levels -1, -7/8, ..., 1; with labels, which say nothing, if asked for."""

    def __init__(self, event=(1, 8, 8), batch_size=64, *, n_classes=0):
        self.event, self.batch_size, self.n_classes = event, batch_size, n_classes

    def draw(self, generator):
        x = torch.randint(LEVELS, (self.batch_size, *self.event), generator=generator) * STEP - 1
        labels = torch.randint(max(1, self.n_classes), (self.batch_size,), generator=generator)
        return (x, labels) if self.n_classes else (x,)


def as_modelled(model: GenerativeModel, pictures: NoisePictures):
    """The pictures as the model wants them: dequantised for a density, as they are for probabilities."""
    found = model.log_prob(*(part[:2] for part in pictures.draw(_seeded(0))), generator=_seeded(0))
    return (Dequantised(pictures, STEP), STEP) if found.of == "density" else (pictures, None)


@torch.no_grad()
def noise_bits(model: GenerativeModel, batches, step, *, n=256) -> tuple[float, float]:
    """Mean bits per dimension of noise pictures, and the standard error of this mean."""
    model.eval()
    bits = []
    while sum(map(len, bits)) < n:
        generator = _seeded(100 + len(bits))
        x, *cond = batches.draw(generator)
        bits.append(bits_per_dim(model.log_prob(x, *cond, generator=generator).nats, x[0].numel(), step))
    bits = torch.cat(bits)
    return bits.mean().item(), bits.std().item() / len(bits) ** 0.5


def trained(model: GenerativeModel, pictures: NoisePictures, *, steps: int, lr: float):
    """The model after so many updates on noise, with the batches and the step of ``as_modelled``."""
    batches, step = as_modelled(model, pictures)
    for _ in fit(model, batches, steps=steps, lr=lr, generator=_seeded(1)):
        pass
    return model, batches, step


def assert_near_entropy(model: GenerativeModel, batches, step, *, n=256, within=GAUSSIAN, tol=0.0) -> float:
    """Mean bits of noise lie in [log2 17, log2 17 + within).

    Below (by more than four standard errors and ``tol``, which is for the steps of an ODE solver only), a normaliser is
    missing; above, the model is so bad that one could be missing without being seen, or its likelihood says too little.

    Returns:
        The mean bits, for curiosity.
    """
    mean, error = noise_bits(model, batches, step, n=n)
    assert mean > ENTROPY - 4 * error - tol, f"{mean:.4f} bits of noise that has {ENTROPY:.4f}: not normalised"
    assert mean < ENTROPY + within, (
        f"{mean:.4f} bits, {ENTROPY:.4f} possible: no test, train more, or a term is missing"
    )
    return mean


def assert_no_better_than_entropy(
    model: GenerativeModel, *, steps=200, lr=2e-3, n=256, n_classes=0, batch_size=64, within=GAUSSIAN, tol=0.0
):
    """Train ``model`` a little on noise; its mean bits must lie in [log2 17, log2 17 + within).

    Args:
        model: fresh; its event is that of ``(c, h, w)`` pictures or vectors.
        n_classes: of the labels it is given; 0 for an unconditional model.
        n: pictures that are measured.

    Returns:
        The mean bits, for curiosity.
    """
    pictures = NoisePictures(model.event, batch_size, n_classes=n_classes)
    return assert_near_entropy(*trained(model, pictures, steps=steps, lr=lr), n=n, within=within, tol=tol)


def _seeded(seed):
    return torch.Generator().manual_seed(seed)
