"""Families that are two networks on an interpolant between two ends: what differs is the way, the pairs, the sampler.

forward_process    x_t = alpha x0 + beta x1 + gamma z
reverse_process    dx = b dt, or with any epsilon: dx = (b - epsilon s) dt + sqrt(2 epsilon) dW, t falling
loss               |v - (alpha' x0 + beta' x1)|^2 + |eta - z|^2
                   b = v + gamma' eta,  s = -eta/gamma
log_prob           the ODE and its divergence, if the other end has a density
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import (
    VELOCITY,
    BrownianNoise,
    Denoiser,
    Interpolant,
    Trigonometric,
    TwoSidedDenoiser,
    UniformTimes,
    as_drawn,
    exact_divergence,
    hutchinson,
    linear_interpolant,
    mirrored,
    transported,
    uniform_grid,
)
from lecture_lib.core.couplings import Pairing, within
from lecture_lib.core.likelihood import standard_normal_log_prob
from lecture_lib.errors import NotTractable
from lecture_lib.families.base import Batch, GenerativeModel, LogProb
from lecture_lib.families.denoising import FEW, DenoisingModel, two_moons
from lecture_lib.nets import TimeMLP
from lecture_lib.samplers import Heun, Sampler, sample
from lecture_lib.tensors import blend, check_count, check_number, check_times, randn_like


@dataclass(frozen=True)
class White:
    """N(0, I) as the other end.

    Args:
        event: shape of one draw.
    """

    event: tuple[int, ...]

    def __call__(self, n: int, generator: torch.Generator) -> Float[Tensor, " n *event"]:
        """``n`` draws, float32."""
        return torch.randn(check_count("n", n), *self.event, generator=generator, device=generator.device)

    def log_prob(self, x: Float[Tensor, " b *event"]) -> Float[Tensor, " b"]:
        """``log N(x; 0, I)`` in float64."""
        return standard_normal_log_prob(x)


@dataclass(frozen=True, eq=False)
class Cloud:
    """A data set as the other end: its points, drawn with replacement.

    Args:
        points: (n, *event).
    """

    points: Float[Tensor, " n *event"]

    def __call__(self, n: int, generator: torch.Generator) -> Float[Tensor, " n *event"]:
        """``n`` of the points."""
        index = torch.randint(len(self.points), (check_count("n", n),), generator=generator, device=generator.device)
        return self.points[index.to(self.points.device)]

    def log_prob(self, x: Float[Tensor, " b *event"]) -> Float[Tensor, " b"]:
        """None.

        Raises:
            NotTractable: points are no density.
        """
        raise NotTractable("log_prob: the other end is a set of points, without a density; expected White as other end")


End = White | Cloud


class TwoSidedModel(GenerativeModel):
    """One two-sided denoiser, and the verbs that follow from its interpolant.

    Args:
        denoiser: two networks on an interpolant; with a ``null`` it is a conditional one.
        event: shape of one sample.
        other: what is at t = 1; default N(0, I).
        p_uncond: how often a condition is dropped in training, if there is one.
        margin: times are trained from here to 1 less it, since z is not in x_t at the ends; sampling starts at the
            other end as if it were 1 - margin, and makes its last step from margin to 0.
    """

    steps = 50
    likelihood_steps = 100

    def __init__(
        self,
        denoiser: TwoSidedDenoiser,
        event: tuple[int, ...],
        *,
        other: End | None = None,
        p_uncond: float = 0.1,
        margin: float = 1e-3,
    ) -> None:
        super().__init__()
        self.denoiser, self.event = denoiser, tuple(event)
        self.other = White(self.event) if other is None else other
        self.p_uncond = 0.0 if denoiser.null is None else p_uncond
        self.margin = check_number("margin", margin, 1e-9, 0.1)

    # What a family decides -----------------------------------------------------------------------------------------

    @abstractmethod
    def sampler(self) -> Sampler:
        """The step of ``reverse_process``; with ``EulerMaruyama(ConstantDiffusion(2 * epsilon))`` it is an SDE."""

    def pairing(self) -> Pairing:
        """Which point of the other end goes with which data."""
        return as_drawn

    def walks_outward(self) -> TwoSidedDenoiser:
        """Whose velocity and score take data to the other end."""
        return self.denoiser

    # What follows --------------------------------------------------------------------------------------------------

    @property
    def path(self) -> Interpolant:
        """The interpolant that the denoiser speaks about."""
        return self.denoiser.path

    def times(self) -> UniformTimes:
        """Which times are trained: all but the margins."""
        t_max = self.path.t_max
        return UniformTimes(self.margin * t_max, (1 - self.margin) * t_max)

    def grid(self, steps: int) -> Float[Tensor, " n+1"]:
        """``steps`` steps: equal ones from 1 - margin to margin, then one to 0."""
        start, end = ((1 - self.margin) * self.path.t_max, self.margin * self.path.t_max)
        inner = [start] if steps == 1 else uniform_grid(self.path, steps - 1, start=start, end=end).tolist()
        return torch.tensor([*inner, 0.0], dtype=torch.float64)

    def prior(self, n, *, generator):
        return self.other(n, generator).to(next(self.parameters()))

    def forward_process(self, x, t, *, generator=None):
        check_times("t", t, len(x), 1.0)
        x1 = self.other(len(x), generator or torch.default_generator).to(x)
        return self.path.interpolate(x, x1, randn_like(x, generator), t * self.path.t_max)

    def loss(self, batch: Batch, phase: str = "all", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        x0, *cond = batch
        pairing = within(*cond, self.pairing()) if cond else self.pairing()
        x1 = pairing(x0, self.other(len(x0), generator).to(x0), generator)
        return self.denoiser.loss(
            x0, x1, *cond, times=self.times(), p_uncond=self.p_uncond, generator=generator
        )  # fmt: skip

    def reverse_process(self, z, cond=None, *, steps=None, generator) -> Iterator[Tensor]:
        grid = self.grid(self.steps if steps is None else check_count("steps", steps))
        frames = sample(self.denoiser.given(cond), self.path, self.sampler(), grid, z, generator=generator)
        return (frame.x for frame in frames)

    def outward(self, x, cond=None, *, steps: int | None = None, generator: torch.Generator) -> Iterator[Tensor]:
        """Frames from data ``x`` to the other end, by the same sampler on the mirrored clock.

        With a diffusion this is the forward SDE, ``dx = (b + epsilon s) dt + sqrt(2 epsilon) dW``.
        """
        grid, path = self.grid(self.steps if steps is None else check_count("steps", steps)), self.path.mirrored()
        denoise = mirrored(self.walks_outward().given(cond), self.path)
        return (frame.x for frame in sample(denoise, path, self.sampler(), grid, x, generator=generator))

    def log_prob(self, x, cond=None, *, generator=None):
        """By the ODE, taking x for x_margin and the other end for x at 1 - margin; Hutchinson's in many dimensions."""
        few = x[0].numel() <= FEW
        divergence = exact_divergence if few else hutchinson(randn_like(x, generator).sign())
        grid = torch.linspace(1 - self.margin, self.margin, self.likelihood_steps + 1, dtype=torch.float64)
        self.other.log_prob(x)  # raises before the work if there is none
        grid = grid * self.path.t_max
        end, gain = transported(self.denoiser.given(cond), self.path, x, grid, divergence=divergence)
        return LogProb(self.other.log_prob(end) + gain, "exact" if few else "estimate")


class StochasticInterpolant(TwoSidedModel):
    """Between two ends drawn independently, with noise that comes and goes: one training, an ODE and all its SDEs.

    Args:
        denoiser, event, other, p_uncond, margin: as in ``TwoSidedModel``.
        how: the sampler; default ``Heun()``, the ODE.
    """

    formula = (
        r"x_t=\alpha x_0+\beta x_1+\gamma z,\quad b=\mathbb E[\dot\alpha x_0+\dot\beta x_1|x_t]+\dot\gamma\,\eta,"
        r"\quad\nabla\log p_t=-\eta/\gamma,\quad\eta=\mathbb E[z|x_t]"
    )
    source = "Albergo, Boffi & Vanden-Eijnden 2023 (2303.08797), sections 2 and 4"

    def __init__(self, denoiser: TwoSidedDenoiser, event: tuple[int, ...], *, how: Sampler | None = None, **ends):
        super().__init__(denoiser, event, **ends)
        self.how = Heun() if how is None else how

    def sampler(self):
        return self.how

    @classmethod
    def small(cls):
        path = linear_interpolant(BrownianNoise(1.0))
        return cls(TwoSidedDenoiser(*two_mlps(), path), (2,)), two_moons(), 500


class OneSidedInterpolant(DenoisingModel):
    """x1 is the noise itself and gamma = 0: any path, any parameterization, the ODE or an SDE with any diffusion.

    Flow matching, DDPM and the score SDEs are rows of it (``special_cases``); this is also SiT.

    Args:
        denoiser, event, w, p_uncond: as in ``DenoisingModel``.
        how: the sampler; default ``Heun()``.
    """

    formula = (
        r"x_t=\alpha x_0+\sigma\epsilon,\quad b=\dot\alpha\,\hat x_0+\dot\sigma\,\hat\epsilon,"
        r"\quad\nabla\log p_t=-\hat\epsilon/\sigma"
    )
    source = "Albergo et al. 2023 (2303.08797), section 3.2; Ma et al. 2024 (2401.08740), SiT"

    def __init__(self, denoiser: Denoiser, event: tuple[int, ...], *, how: Sampler | None = None, **options):
        super().__init__(denoiser, event, **options)
        self.how = Heun() if how is None else how

    def times(self):
        return UniformTimes(1e-3 * self.denoiser.path.t_max, self.denoiser.path.t_max)

    def sampler(self):
        return self.how

    @classmethod
    def small(cls):
        denoiser = Denoiser(TimeMLP(2, width=64, depth=2), Trigonometric(), VELOCITY)
        return cls(denoiser, (2,)), two_moons(), 600


def two_mlps(features: int = 2, width: int = 64, depth: int = 2) -> tuple[TimeMLP, TimeMLP]:
    """The two networks of a small bridge in the plane."""
    return TimeMLP(features, width=width, depth=depth), TimeMLP(features, width=width, depth=depth)


# The velocity by one network -----------------------------------------------------------------------------------------


def velocity_loss(
    velocity: Callable[[Tensor, Tensor], Tensor],
    path: Interpolant,
    x0: Float[Tensor, " b *d"],
    x1: Float[Tensor, " b *d"],
    z: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """``|b|^2 - 2 b (alpha' x0 + beta' x1 + gamma' z)``, summed: the regression of the whole velocity, less a constant.

    Where gamma' is infinite its variance is, too: with ``gamma = sqrt(t (1 - t))`` it grows as 1/t.
    """
    dalpha, dbeta, dgamma = path.derivatives(t)
    b = velocity(path.interpolate(x0, x1, z, t), t)
    target = blend((dalpha, x0), (dbeta, x1), (dgamma, z))
    return (b * (b - 2 * target)).flatten(1).sum(1)


def antithetic_loss(
    velocity: Callable[[Tensor, Tensor], Tensor],
    path: Interpolant,
    x0: Float[Tensor, " b *d"],
    x1: Float[Tensor, " b *d"],
    z: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """``velocity_loss`` as the mean over z and -z: of gamma' z remains ``gamma' (b(x+) - b(x-))``, which is finite.

    Source: Albergo et al. 2023 (2303.08797), section 6.1 (antithetic sampling).
    """
    return (velocity_loss(velocity, path, x0, x1, z, t) + velocity_loss(velocity, path, x0, x1, -z, t)) / 2
