"""Adversarial consistency: a critic sharpens what the consistency loss leaves blurred.

    L = L_consistency + lambda (-D(f(x_t, t)))        lambda = |grad L_consistency| / |grad D| at f's last layer
    L_D = (max(0, 1 - D(x0)) + max(0, 1 + D(f)))/2

For f the data term of the critic is a constant. The critic comes in late, when f makes something worth judging.

Source: Kim et al. 2023 (2310.02279, CTM), section 4 and appendix C.2; Kong et al. 2023 (2311.14097, ACT).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lecture_lib.core import Denoiser
from lecture_lib.distill.distances import Distance, squared
from lecture_lib.distill.maps import ConsistencyFunction
from lecture_lib.distill.semigroup import Leg, semigroup_loss
from lecture_lib.errors import UnknownNameError
from lecture_lib.nets import adaptive_weight, held, hinge_discriminator_loss, hinge_generator_loss
from lecture_lib.tensors import check_count, check_number

Legs = Callable[[Tensor, torch.Generator], Leg]
"""``(x0 (b, ...), generator) -> Leg``: where on its trajectories a batch is compared."""


class Judged(nn.Module):
    """A consistency model and its critic.

    Args:
        student: read as a consistency function.
        critic: samples -> logits (b, ...).
        last_layer: name of the student's weight at which the two pulls are balanced, ``"network.leave.weight"``.

    Raises:
        UnknownNameError: there is no such weight.
    """

    def __init__(self, student: Denoiser, critic: nn.Module, last_layer: str) -> None:
        super().__init__()
        if last_layer not in (names := dict(student.named_parameters())):
            raise UnknownNameError(f"last_layer: got {last_layer!r}, expected one of {', '.join(names)}")
        self.student, self.critic, self.last_layer = student, critic, last_layer


@dataclass(frozen=True)
class AdversarialConsistency:
    """The two losses, and whose turn it is; ``training.ByStep(method.loss_at)`` trains a ``Judged`` with them.

    Attributes:
        legs: the leg of each sample: ``shared_noise`` of consistency training, ``solved`` of distillation.
        end: time that the consistency function maps to.
        distance: of the consistency loss.
        gan_weight: lambda, on top of the balance of the two gradients.
        gan_start: updates before the critic comes in; from then on the critic and the student take turns.

    A batch is (data, ...): what stands after the data is not heard.
    """

    legs: Legs
    end: float = 0.0
    distance: Distance = squared
    gan_weight: float = 1.0
    gan_start: int = 0

    def __post_init__(self):
        check_number("gan_weight", self.gan_weight, 0), check_count("gan_start", self.gan_start, 0)

    def loss_at(self, done: int) -> Callable[[Judged, tuple[Tensor, ...], torch.Generator], Tensor]:
        """The loss of the update after ``done`` others."""
        if done < self.gan_start:
            return self.consistency_loss
        return self.student_loss if (done - self.gan_start) % 2 else self.critic_loss

    def consistency_loss(
        self, pair: Judged, batch: tuple[Tensor, ...], generator: torch.Generator
    ) -> Float[Tensor, " b"]:
        """Without a critic; the target is the student itself, its gradient stopped."""
        f = ConsistencyFunction(pair.student, end=self.end)
        return semigroup_loss(f, f, self.legs(batch[0], generator), distance=self.distance)

    def student_loss(self, pair: Judged, batch: tuple[Tensor, ...], generator: torch.Generator) -> Float[Tensor, " b"]:
        """The same jumps judged twice: against where a shorter jump ends, and by the critic."""
        f, leg = ConsistencyFunction(pair.student, end=self.end), self.legs(batch[0], generator)
        x = f(leg.x_t, leg.t)
        consistency = semigroup_loss(lambda x_t, t: x, f, leg, distance=self.distance)
        with held(pair.critic):
            fooling = hinge_generator_loss(pair.critic(x))
        balance = adaptive_weight(consistency.mean(), fooling.mean(), pair.student.get_parameter(pair.last_layer))
        return consistency + self.gan_weight * balance * fooling

    def critic_loss(self, pair: Judged, batch: tuple[Tensor, ...], generator: torch.Generator) -> Float[Tensor, " b"]:
        """Tell data from jumps."""
        leg = self.legs(batch[0], generator)
        with torch.no_grad():
            x = ConsistencyFunction(pair.student, end=self.end)(leg.x_t, leg.t)
        return hinge_discriminator_loss(pair.critic(batch[0]), pair.critic(x))
