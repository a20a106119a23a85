"""Consistency models in discrete time: distillation (CD), training (CT), improved (iCT) and easy (ECT).

All four are the semigroup loss for jumps to the data end, ``f(x_t, t)`` against ``f(x_u, u)``. They differ in how x_u
is found, which pairs (t, u) are drawn (``distill.curricula``), and in distance and weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import Denoise, Denoiser, Path, independent
from lecture_lib.core.conditions import Cond
from lecture_lib.core.couplings import Coupling
from lecture_lib.distill.curricula import Pair, Pairs
from lecture_lib.distill.distances import Distance, pseudo_huber, squared
from lecture_lib.distill.maps import ConsistencyFunction, Jump
from lecture_lib.distill.semigroup import semigroup_loss, shared_noise, solved
from lecture_lib.samplers import Heun, Sampler

EPSILON = 0.002  # where Song et al.'s trajectories end


def ct_loss(
    student: Denoiser,
    x0: Float[Tensor, " b *d"],
    cond: Cond | None = None,
    *,
    pairs: Pairs,
    target: Denoiser | None = None,
    distance: Distance = squared,
    end: float = EPSILON,
    coupling: Coupling = independent,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " b"]:
    """Consistency training: ``d(f(x0 + t_{n+1} z, t_{n+1}), f^-(x0 + t_n z, t_n))``, one z for both. No teacher.

    Args:
        student: its x0 is read as f.
        x0: data.
        cond: as the student takes it; None is unconditional.
        pairs: ``NeighbourPairs`` of N(k) points.
        target: f^-, a moving average of the student; default the student itself, without gradient.
        distance: per sample; the paper's is LPIPS on pictures.
        end: eps, where f is the identity.
        coupling: which noise goes with which data.
        generator: of times, noise and dropout masks.

    Source: Song et al. 2023 (2303.01469), Alg. 3.
    """
    t, u = pairs.sample(len(x0), generator=generator, device=x0.device)
    leg = shared_noise(student.path, x0, coupling(x0, generator), t, u)
    f, f_target = twins(student, target, cond, end, generator)
    return semigroup_loss(f, f_target, leg, distance=distance)


def cd_loss(
    student: Denoiser,
    teacher: Denoise,
    x0: Float[Tensor, " b *d"],
    cond: Cond | None = None,
    *,
    pairs: Pairs,
    sampler: Sampler = Heun(),  # noqa: B008 - samplers are frozen
    target: Denoiser | None = None,
    distance: Distance = squared,
    end: float = EPSILON,
    coupling: Coupling = independent,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " b"]:
    """Consistency distillation: ``d(f(x_{t_{n+1}}), f^-(x_hat_{t_n}))``, x_hat by one step of the teacher's ODE.

    Not ``d(f, the teacher's x0)``: that f is the teacher, and its one-step samples are means.

    Args:
        teacher: with its condition bound (``teacher.given(cond)``), guided or not.
        sampler: of the step; the error of the learned f has its order.
        student, x0, cond, pairs, target, distance, end, coupling, generator: as in ``ct_loss``.

    Source: Song et al. 2023, Alg. 2.
    """
    t, u = pairs.sample(len(x0), generator=generator, device=x0.device)
    leg = solved(teacher, student.path, sampler, student.path.mix(x0, coupling(x0, generator), t), t, u)
    f, f_target = twins(student, target, cond, end, generator)
    return semigroup_loss(f, f_target, leg, distance=distance)


def ict_loss(
    student: Denoiser,
    x0: Float[Tensor, " b *d"],
    cond: Cond | None = None,
    *,
    pairs: Pairs,
    distance: Distance = pseudo_huber(),  # noqa: B008 - a function
    end: float = EPSILON,
    coupling: Coupling = independent,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " b"]:
    """Improved consistency training: ``(sqrt(|f - sg f|^2 + c^2) - c) / (t_{n+1} - t_n)``; the target has no average.

    Args:
        pairs: ``LogNormalPairs`` of N(k) points.
        distance: default pseudo-Huber with ``c = 0.00054 sqrt(d)``.
        student, x0, cond, end, coupling, generator: as in ``ct_loss``.

    Source: Song & Dhariwal 2023 (iCT, 2310.14189), sections 3.2 to 3.5.
    """
    pair = pairs.sample(len(x0), generator=generator, device=x0.device)
    leg = shared_noise(student.path, x0, coupling(x0, generator), *pair)
    f, f_target = twins(student, None, cond, end, generator)
    weight = inverse_gap(student.path, pair)
    return semigroup_loss(f, f_target, leg, distance=distance, weight=weight)


def ect_loss(
    student: Denoiser,
    x0: Float[Tensor, " b *d"],
    cond: Cond | None = None,
    *,
    pairs: Pairs,
    distance: Distance = pseudo_huber(0.0),  # noqa: B008 - a function
    coupling: Coupling = independent,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " b"]:
    """Easy consistency tuning: iCT's loss for a student that starts as a denoiser, with trajectories that end at 0.

    Where u = 0 the target is x0 itself: the loss of a denoiser, up to its distance. From there u/t goes to 1.

    Args:
        pairs: ``RatioPairs`` of the present stage.
        distance: default the plain norm, c = 0; the paper's is pseudo-Huber with a small c.
        student, x0, cond, coupling, generator: as in ``ct_loss``.

    Source: Geng et al. 2024 (ECT, 2406.14548), section 3.
    """
    return ict_loss(student, x0, cond, pairs=pairs, distance=distance, end=0.0, coupling=coupling, generator=generator)


def inverse_gap(path: Path, pair: Pair) -> Float[Tensor, " b"]:
    """``1/(t - u)`` in noise levels sigma/alpha; on EDM's clock these are the times."""
    level_t, level_u = (torch.exp(-path.lam(time)) for time in pair)
    return 1 / (level_t - level_u)


def twins(
    student: Denoiser,
    target: Denoiser | None = None,
    cond: Cond | None = None,
    end: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Jump, Jump]:
    """f and its target, with the same dropout masks in both.

    Two masks would be two networks: even at t = u their difference is not zero, and its square does not vanish with
    t - u as the signal does. A network in evaluation mode (``Ema.average`` is) has no masks.

    Args:
        target: default the student.
        student, cond, end: as for ``ConsistencyFunction``.
        generator: of the masks.
    """
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device if generator else "cpu"))

    def masked(denoiser: Denoiser) -> Jump:
        f = ConsistencyFunction(denoiser, cond, end)

        def jump(x_t: Tensor, t: Tensor) -> Tensor:
            with seeded_masks(seed, x_t.device):
                return f(x_t, t)

        return jump

    return masked(student), masked(student if target is None else target)


@contextmanager
def seeded_masks(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """What draws from the *global* generator inside, as dropout does, draws the same for the same seed.

    Dropout on a GPU draws from that GPU's generator: it is the one to be seeded. Both are as before afterwards.
    """
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        torch.random.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
